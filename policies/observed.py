"""What a policy on a tabletop sees, as the vectors that datasets keep and networks take. numpy only."""

from __future__ import annotations

import numpy as np

from robo.core.protocols import Obs
from tasks.tabletop.base import TabletopTask

_OF_THE_ARM = ("gripper_width_m", "ee_pos", "ee_quat_wxyz")


def proprioception(obs: Obs) -> np.ndarray:
    """``observation.state`` of datasets: joint angles [rad], width [m], position [m] and wxyz of the tool."""
    return np.concatenate([obs["joint_pos"], *(obs[name] for name in _OF_THE_ARM)])


def around(task: TabletopTask) -> dict[str, int]:
    """What ``observation.environment_state`` of datasets holds, in order: observation key → how many numbers."""
    return {name: int(np.prod(shape)) for name, shape in task.observation.items() if name not in _OF_THE_ARM}


def surroundings(task: TabletopTask, obs: Obs) -> np.ndarray:
    """``observation.environment_state``: poses of things and fixtures, joints, variation; the simulator's truth."""
    return np.concatenate([np.ravel(obs[name]) for name in around(task)]) if around(task) else np.zeros(0)


def told(task: TabletopTask) -> np.ndarray:
    """Which elements of `surroundings` a policy is told even where it has to see the rest: those of the variation."""
    names = np.repeat(list(around(task)), list(around(task).values()))
    return np.flatnonzero(np.isin(names, list(task.variation)))
