"""Replay: what is drawn was lived through, in that order, within one episode; demonstrations stay."""

from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from policies.world.model import Batch
from policies.world.replay import Replay, moments
from robo.core.errors import ConfigError, RunError

lengths = st.lists(st.integers(1, 12), min_size=1, max_size=12)


def episode(number: int, length: int) -> dict[str, np.ndarray]:
    """Its features say which episode and which moment they are of."""
    features = np.stack([np.full(length, number), np.arange(length)], 1).astype(np.float32)
    pictures = np.full((length, 2, 2, 3), number, np.uint8)
    return {"features": features, "rgb_front": pictures, "rewards": np.arange(length, dtype=np.float32)}


def filled(lived: list[int], demos: list[int] = [], capacity: int = 10**6) -> Replay:  # noqa: B006
    replay = Replay(capacity, seed=0)
    for number, length in enumerate(lived):
        replay.add(episode(number, length))
    for number, length in enumerate(demos, start=100):
        replay.add(episode(number, length), demo=True)
    return replay


@settings(deadline=None, max_examples=50)
@given(lengths, lengths, st.integers(1, 15), st.booleans())
def test_sequences_lie_within_one_episode_of_the_kind_that_was_asked_for(lived, demos, length, demo):
    drawn = filled(lived, demos).sample(20, length, demo)
    assert drawn["mask"].shape == (20, length) and drawn["rgb_front"].shape == (20, length, 2, 2, 3)
    sizes = dict(enumerate(demos, start=100)) if demo else dict(enumerate(lived))
    for features, pictures, mask in zip(drawn["features"], drawn["rgb_front"], drawn["mask"], strict=True):
        count = int(mask.sum())
        number, first = int(features[0, 0]), int(features[0, 1])
        assert count == min(length, sizes[number]) and mask[:count].all()
        assert (features[:count, 0] == number).all() and (pictures[:count] == number).all()
        assert features[:count, 1].tolist() == list(range(first, first + count)) and first + count <= sizes[number]
        assert not features[count:].any() and not pictures[count:].any()


@settings(deadline=None, max_examples=50)
@given(lengths, lengths, st.integers(1, 40))
def test_the_oldest_go_and_demonstrations_stay(lived, demos, capacity):
    replay = filled(lived, demos, capacity)
    kept, total = [], 0
    for number in reversed(range(len(lived))):
        total += lived[number]
        if kept and total > capacity:
            break
        kept.append(number)
    assert replay.steps() == sum(lived[n] for n in kept) and replay.steps(demo=True) == sum(demos)
    assert set(replay.sample(300, 1)["features"][:, 0, 0]) <= set(kept)


def test_every_place_where_a_sequence_may_begin_is_as_likely():
    features = filled([3, 9, 5]).sample(22000, 4)["features"][:, 0]
    counts = Counter(map(tuple, features.tolist()))
    assert set(counts) == {(0, 0), *((1, t) for t in range(6)), (2, 0), (2, 1)}
    assert min(counts.values()) > 0.9 * 22000 / 9 and max(counts.values()) < 1.1 * 22000 / 9


def test_a_replay_goes_on_as_if_never_interrupted():
    whole, again = filled([4, 7, 2], [5]), Replay(10**6, seed=5)
    whole.sample(3, 4)
    tensors, meta = whole.state()
    again.add(episode(9, 9))
    again.load_state(load(save(tensors)), json.loads(json.dumps(meta)))
    for replay in (whole, again):
        replay.add(episode(7, 3))
    for demo in (False, True):
        one, two = whole.sample(50, 5, demo), again.sample(50, 5, demo)
        assert set(one) == set(two)
        for name in one:
            assert np.array_equal(one[name], two[name]) and one[name].dtype == two[name].dtype
    with pytest.raises(RunError, match="replay does not fit"):
        again.load_state({}, {})


def test_what_does_not_fit_is_refused():
    replay = Replay(10, seed=0)
    with pytest.raises(ConfigError, match="no demonstrations to draw from"):
        filled([3]).sample(1, 1, demo=True)
    with pytest.raises(ConfigError, match="one length"):
        replay.add({"features": np.zeros((3, 2)), "rewards": np.zeros(2)})
    with pytest.raises(ConfigError, match="float16"):
        replay.add({"features": np.full((3, 2), 1e6)})
    replay.add(episode(0, 3))
    with pytest.raises(ConfigError, match="does not fit those of"):
        replay.add(episode(1, 3) | {"rewards": np.zeros((3, 2), np.float32)})


def test_moments_come_after_their_actions():
    actions, rewards = np.array([[1.0], [2.0]]), np.array([5.0, 6.0])
    columns = moments({"features": np.arange(6.0).reshape(3, 2)}, actions, rewards, over=True)
    assert columns["actions"].tolist() == [[0.0], [1.0], [2.0]] and columns["rewards"].tolist() == [0.0, 5.0, 6.0]
    assert columns["continues"].tolist() == [1, 1, 0] and columns["is_first"].tolist() == [True, False, False]
    replay = Replay(100, seed=0)
    replay.add(columns)
    batch = Batch.of(replay.sample(2, 5), demo=True).join(Batch.of(replay.sample(1, 5)))
    assert batch.mask.tolist() == [[True] * 3 + [False] * 2] * 3 and batch.demo.tolist() == [True, True, False]
    assert batch.proprio.shape == batch.signals.shape == (3, 5, 0)
