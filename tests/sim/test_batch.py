"""Many worlds at once: bit for bit the environments they stand for, also in other processes."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import numpy as np
import pytest

from robo.core.errors import ConfigError, NonFiniteError, RoboError, UnknownNameError
from sim.batch import TabletopBatch
from sim.open import make_vector
from sim.randomise import Randomisation
from sim.tabletop import TabletopEnv
from sim.vector import SharedVector
from tasks.registry import load_task

WORLDS = 3


def actions(shape: tuple[int, ...], steps: int, seed: int = 0) -> np.ndarray:
    """Random actions (steps, *shape) that change now and then."""
    drawn = np.random.default_rng(seed).uniform(-1, 1, (-(-steps // 8), *shape))
    return np.repeat(drawn, 8, axis=0)[:steps]


@pytest.mark.parametrize("control", ["joint_delta", "ee_delta"])
def test_every_world_is_its_environment_to_the_bit(control: str) -> None:
    options = dict(control=control, randomise=Randomisation.mismatch(0.1, 0.01))
    batch = TabletopBatch("pick_and_place", WORLDS, threads=2, **options)
    alone = [TabletopEnv("pick_and_place", **options) for _ in range(WORLDS)]
    seen, told = batch.reset(seed=5)
    mine = [env.reset(seed=5 + i) for i, env in enumerate(alone)]
    steps = batch.task.steps
    for k, action in enumerate(actions(batch.action_space.shape, steps + 10)):
        for i, (obs, info) in enumerate(mine):
            for name, value in obs.items():
                assert np.array_equal(value, seen[name][i]), (k, name)
            assert info["stage"] == told["stage"][i] and info["success"] == told["success"][i]
            assert info["violations"]["velocity"] == told["violations"]["velocity"][i]
            assert all(value == told["signals"][name][i] for name, value in info["signals"].items())
        seen, rewards, terminated, truncated, told = batch.step(action)
        assert not terminated.any() and truncated.all() == (k == steps - 1)
        for i, env in enumerate(alone):
            if k == steps:  # the step after the last one begins anew
                mine[i] = env.reset()
                assert rewards[i] == 0.0
            else:
                obs, reward, _, _, info = env.step(action[i])
                mine[i] = (obs, info)
                assert reward == rewards[i]
    batch.close()


_RUN = """
import hashlib, sys
from tests.sim.test_batch import digest
print(digest(sys.argv[1]))
"""


def digest(how: str) -> str:
    """Hash of what is observed over 1,000 steps in two worlds: alone, in a batch, or from states saved on the way."""
    task, found = load_task("pick_and_place"), hashlib.sha256()
    task.horizon_s = 50.0
    options = dict(control="joint_delta")
    drawn = actions((2, 8), 1000)
    if how == "batch":
        made = TabletopBatch(task, 2, **options)
        seen, _ = made.reset(seed=3)
        rows = [seen] + [made.step(action)[0] for action in drawn]
        made.close()
        for name in sorted(seen):
            found.update(np.stack([row[name] for row in rows]).tobytes())
        return found.hexdigest()
    worlds = []
    for i in range(2):
        env = TabletopEnv(task, **options)
        rows = [env.reset(seed=3 + i)[0]]
        for k, action in enumerate(drawn[:, i]):
            if how == "saved" and k in (100, 700):
                state = env.state()
                env = TabletopEnv(task, **options)
                env.set_state(state)
            rows.append(env.step(action)[0])
        worlds.append(rows)
    for name in sorted(worlds[0][0]):
        found.update(np.stack([np.stack([w[k][name] for w in worlds]) for k in range(1001)]).tobytes())
    return found.hexdigest()


def test_a_thousand_steps_are_equal_to_the_bit_in_fresh_processes() -> None:
    """One environment, a batch and a state that was saved and loaded; each in a process of its own."""
    commands = [[sys.executable, "-c", _RUN, how] for how in ("alone", "batch", "saved")]
    found = [subprocess.run(c, capture_output=True, text=True, check=True).stdout.strip() for c in commands]
    assert len(found[0]) == 64 and len(set(found)) == 1


def test_environments_in_processes_are_the_same_too() -> None:
    batch = TabletopBatch("pick_and_place", WORLDS, control="joint_delta")
    vector = make_vector("pick_and_place", WORLDS, control="joint_delta", processes=2, cameras=("front",), size=16)
    assert isinstance(vector, SharedVector)
    (ours, told), (theirs, heard) = batch.reset(seed=3), vector.reset(seed=3)
    rewards = equal = np.zeros(WORLDS)
    for action in actions(batch.action_space.shape, batch.task.steps + 5):
        for name, value in ours.items():
            assert np.array_equal(value, theirs[name]), name
        assert np.array_equal(rewards, equal) and np.array_equal(told["stage"], heard["stage"])
        for name, value in told["signals"].items():
            assert np.array_equal(value, heard["signals"][name]), name
        ours, rewards, _, ended, told = batch.step(action)
        theirs, equal, _, over, heard = vector.step(action)
        assert np.array_equal(ended, over)
    assert theirs["rgb_front"].shape == (WORLDS, 16, 16, 3) and np.ptp(theirs["rgb_front"]) > 0
    alone = TabletopEnv("pick_and_place", control="joint_delta", cameras=("front",), size=16)
    picture = alone.reset(seed=4)[0]["rgb_front"]
    assert np.array_equal(vector.reset(seed=3)[0]["rgb_front"][1], picture)
    vector.close()
    batch.close()
    alone.close()


def test_one_renderer_takes_the_pictures_of_every_world() -> None:
    """Worlds that differ in colours, texture, light and cameras, before and after they begin anew."""
    looks = dict(randomise=Randomisation.looks(), cameras=("front", "wrist"), images=("rgb", "seg"), size=24)
    batch = TabletopBatch("reach", WORLDS, control="joint_delta", **looks)
    alone = [TabletopEnv("reach", control="joint_delta", **looks) for _ in range(WORLDS)]
    assert batch.single_observation_space == alone[0].observation_space
    seen, _ = batch.reset(seed=7)
    mine = [env.reset(seed=7 + i)[0] for i, env in enumerate(alone)]
    assert len({mine[i]["rgb_front"].tobytes() for i in range(WORLDS)}) == WORLDS
    steps = batch.task.steps
    for k, action in enumerate(actions(batch.action_space.shape, steps + 3)):
        if k % 10 == 0 or k >= steps:
            for i, obs in enumerate(mine):
                assert all(np.array_equal(seen[name][i], value) for name, value in obs.items())
        seen, *_ = batch.step(action)
        mine = [env.reset()[0] if k == steps else env.step(action[i])[0] for i, env in enumerate(alone)]
    batch.close()
    for env in alone:
        env.close()


def test_processes_that_fail_or_die_are_told_in_one_line() -> None:
    vector = make_vector("pick_and_place", 2, control="joint_delta", processes=2)
    with pytest.raises(RoboError, match="reset"):
        vector.step(np.zeros((2, 8)))
    vector.reset(seed=0)
    with pytest.raises(RoboError, match="NaN"):
        vector.step(np.full((2, 8), np.nan))
    vector.step(np.zeros((2, 8)))
    with pytest.raises(RoboError, match=r"shape \(3, 8\)"):
        vector.step(np.zeros((3, 8)))
    assert isinstance(vector, SharedVector)
    vector._processes[1].kill()
    with pytest.raises(RoboError, match="a process of the environments died"):
        for _ in range(3):
            vector.step(np.zeros((2, 8)))
    vector.close()


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="at least 1 world"):
        TabletopBatch("pick_and_place", 0)
    batch = TabletopBatch("pick_and_place", 2, control="joint_delta")
    with pytest.raises(RoboError, match="reset"):
        batch.step(np.zeros((2, 8)))
    with pytest.raises(UnknownNameError, match="reset option"):
        batch.reset(options={"pose": {}})
    batch.reset(seed=0)
    with pytest.raises(NonFiniteError, match="NaN"):
        batch.step(np.full((2, 8), np.nan))
    with pytest.raises(RoboError, match=r"shape \(2, 8\)"):
        batch.step(np.zeros((2, 7)))
    batch.close()
