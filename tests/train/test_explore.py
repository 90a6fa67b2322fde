"""Episodes that are played beside a training."""

from __future__ import annotations

import os
import signal

import numpy as np
import pytest

from policies.observed import frame
from robo.core.errors import ConfigError, RoboError
from robo.train.config import build
from robo.train.explore import FIRST_SEED, Processes, play
from sim.tabletop import TabletopEnv
from tasks.registry import load_task

CONFIG = {"task": "reach", "policy": "random"}


def test_episodes_are_those_of_their_seeds_whatever_the_processes() -> None:
    config, task = build(CONFIG), load_task("reach")
    played = []
    for processes in (1, 2):
        explorer = Processes(config, processes)
        explorer.begin({}, [5, 3, 9])
        played.append(explorer.finish())
        explorer.begin({}, [3])  # the same processes, again
        assert np.array_equal(explorer.finish()[0]["action"], played[-1][1]["action"])
        explorer.close()
        explorer.close()
    for one, two in zip(*played, strict=True):
        assert set(one) == set(two) and all(np.array_equal(one[name], two[name]) for name in one)
    env = TabletopEnv(task)
    alone = play(env, config.kind.load(task, config.settings, {}, "cpu"), 9)
    assert all(np.array_equal(alone[name], played[0][2][name]) for name in alone)
    explorer = Processes(config, 1)
    explorer.begin({}, [9], 4)  # no longer than that
    short = explorer.finish()[0]
    explorer.begin({}, [9, 3, 5], [4, 1, 2])
    assert [len(each["action"]) for each in explorer.finish()] == [4, 1, 2]
    explorer.close()
    assert len(short["action"]) == 4 and np.array_equal(short["action"], alone["action"][:4])
    assert len(alone["action"]) == task.steps and alone["success"].shape == ()
    obs, info = env.reset(seed=FIRST_SEED + 9)
    first = frame(env.task, obs, info["reference"], info, 0.0)
    assert np.array_equal(first["observation.state"], alone["observation.state"][0])
    assert "observation.environment_state" in alone and not np.array_equal(alone["action"][0], alone["action"][20])
    env.close()


def test_a_process_that_dies_is_said_so() -> None:
    explorer = Processes(build(CONFIG), 1)
    with pytest.raises(RoboError, match="before begin"):
        explorer.finish()
    explorer.begin({}, [1])
    with pytest.raises(RoboError, match="before finish"):
        explorer.begin({}, [2])
    os.kill(explorer._processes[0].pid, signal.SIGKILL)
    with pytest.raises(RoboError, match="died"):
        explorer.finish()
    explorer.close()
    with pytest.raises(ConfigError, match="at least 1 process"):
        Processes(build(CONFIG), 0)


def test_what_does_not_fit_is_said_by_the_process() -> None:
    import torch

    explorer = Processes(build({"task": "reach", "policy": "bc"}), 1)
    explorer.begin({"nothing": torch.zeros(1)}, [0])
    with pytest.raises(RoboError, match="do not fit"):
        explorer.finish()
    explorer.close()
