import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from policies.perception.keyframes import KeyframeConfig, cut, key_horizons, keyframes, pad
from robo.bench.keyframes import Count, Motion, judge, pairs
from robo.core.errors import ConfigError
from robo.data.collect import FIRST_SEED
from sim.tabletop import TabletopEnv

DT_S = 0.05


def move(frames: int) -> np.ndarray:
    """Speed of a smooth motion from rest to rest [rad/s]."""
    return np.sin(np.pi * np.arange(1, frames + 1) / (frames + 1))


def test_a_hand_made_pick_has_its_four_keyframes():
    # 20 frames there, close for 8 at rest, 20 frames on, open for 8 while it already leaves after 4, come to rest.
    speed = np.concatenate([[0], move(20), np.zeros(9), move(20), np.zeros(5), move(20), np.zeros(15)])
    width = np.full(len(speed), 0.08)
    width[21:30] = np.linspace(0.08, 0.04, 9)  # begins to close after frame 21
    width[30:50] = 0.04
    width[50:59] = np.linspace(0.04, 0.08, 9)  # begins to open after frame 50
    noise = np.random.default_rng(0).normal(0, 0.003, (len(speed), 6))
    vel = speed[:, None] * np.array([1, -0.5, 0.2, 0, 0.1, -0.9]) + noise
    assert keyframes(vel, width, DT_S) == pytest.approx([21, 29, 50, 54, 75, len(speed) - 1], abs=1)


def test_a_slow_gripper_or_a_fast_arm_alone_makes_no_keyframe():
    vel, still = np.ones((50, 2)), np.full(50, 0.04)
    assert keyframes(vel, still, DT_S).tolist() == [49]
    drift = still + 0.0004 * np.arange(50)  # 8 mm/s
    twitch = still + 0.0015 * (np.arange(50) > 25)
    assert keyframes(vel, drift, DT_S).tolist() == keyframes(vel, twitch, DT_S).tolist() == [49]
    change = still - 0.03 * (np.arange(50) > 25)
    assert keyframes(vel, change, DT_S).tolist() == [25, 49]


def test_what_a_tool_does_in_passing_while_joints_turn_is_a_keyframe() -> None:
    vel, still = np.ones((60, 2)), np.full(60, 0.04)
    tool = 0.3 * np.concatenate([move(20), 0.01 * np.ones(4), move(20), np.linspace(0.3, 0.1, 16)])
    assert keyframes(vel, still, DT_S, tool_m_s=tool).tolist() == [23, 59]  # the last frame there
    assert keyframes(vel, still, DT_S, KeyframeConfig(dip=0.0), tool).tolist() == [59]
    assert keyframes(vel, still, DT_S).tolist() == [59]
    slower = 0.3 * np.concatenate([move(20)[:12], 0.6 * np.ones(8), move(20)[8:], np.zeros(28)])
    assert keyframes(vel, still, DT_S, tool_m_s=slower).tolist() == [59]  # hardly slower than before and after
    creeping = 0.015 * np.abs(np.sin(np.arange(60) / 3))
    assert keyframes(vel, still, DT_S, tool_m_s=creeping).tolist() == [59]  # stands still all the time


@pytest.mark.parametrize("task", ["pick_and_place", "put_shoes_in_box", "assemble_lamp"])
def test_keyframes_are_where_experts_turn_to_something_else(task):
    env, count = TabletopEnv(task), Count()
    for seed in range(3):
        count += judge(Motion.of(env, FIRST_SEED + seed), tolerance_s=0.2, strict_s=0.1)
    assert count.true > 15 and count.f1 >= 0.95


def test_pairs_use_every_frame_once():
    assert pairs(np.array([10, 11, 12]), np.array([11]), 4) == 1
    assert pairs(np.array([10, 20]), np.array([6, 14, 25]), 4) == 1
    assert pairs(np.array([10, 14]), np.array([12, 17]), 3) == 2


episodes = st.lists(
    st.integers(1, 40).flatmap(
        lambda frames: st.sets(st.integers(0, frames - 1)).map(lambda keys: np.array(sorted({*keys, frames - 1})))
    ),
    min_size=1,
    max_size=5,
)


@given(episodes, st.none() | st.integers(1, 10))
def test_key_horizons_hold_every_step_once_and_stay_within_episodes(keys, longest):
    rows = cut(keys, longest)
    data = [np.stack([np.full(k[-1] + 1, e), np.arange(k[-1] + 1)], axis=1) for e, k in enumerate(keys)]
    steps = {(int(e), int(t)) for e, first, last in rows for t in range(first, last)}
    assert len(steps) == sum(last - first for _, first, last in rows)
    assert steps == {(e, t) for e, k in enumerate(keys) for t in range(k[-1])}
    assert longest is None or all(last - first <= longest for _, first, last in rows)
    if not len(rows):
        return
    values, mask = pad(data, rows)
    for value, real, (episode, first, last) in zip(values, mask, rows, strict=True):
        assert real.sum() == last - first + 1 and real[: last - first + 1].all()
        assert (value[real, 0] == episode).all() and value[real, 1].tolist() == list(range(first, last + 1))
        assert not value[~real].any()


@given(episodes)
def test_steps_to_the_next_keyframe_lead_to_one(keys):
    for k in keys:
        steps = key_horizons(k, k[-1] + 1)
        frames = np.arange(k[-1] + 1)
        assert steps[-1] == 0 and (steps[:-1] > 0).all()
        assert np.isin(frames + steps, k).all()
        assert all(not np.isin(range(t + 1, t + steps[t]), k).any() for t in frames)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ConfigError, match=r"\(T, J\)"):
        keyframes(np.zeros((5, 2)), np.zeros(4), DT_S)
    with pytest.raises(ConfigError, match="last frame"):
        key_horizons(np.array([3]), 10)
    with pytest.raises(ConfigError, match=r"tool_m_s .*\(4,\)"):
        keyframes(np.zeros((5, 2)), np.zeros(5), DT_S, tool_m_s=np.zeros(4))
    with pytest.raises(ConfigError, match=r"keys\.find\.still_rad_s must not exceed keys\.find\.rest_rad_s \(0\.01\)"):
        KeyframeConfig(rest_rad_s=0.01)
    with pytest.raises(ConfigError, match=r"keys\.find\.dip must lie in \[0, 1\), not 1"):
        KeyframeConfig(dip=1.0)
