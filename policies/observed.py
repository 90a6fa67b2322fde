"""What a policy on a tabletop sees, as the vectors that datasets keep and networks take. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hardware.robots.commands import REACH_M_S, TURN_RAD_S, angle
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


def frame(
    task: TabletopTask, obs: Obs, before: np.ndarray, info: Mapping[str, Any], reward: float
) -> dict[str, np.ndarray]:
    """What datasets keep of a control step, pictures apart.

    Args:
        task: The task.
        obs: What was seen before it.
        before: The reference (2 J + 1,) that was due then.
        info, reward: What the environment told after it.
    """
    after, j = info["reference"], task.robot.dof
    values = {
        "observation.state": proprioception(obs),
        "action": np.append(after[:j], after[-1]),
        "action.ee_delta": tool_motion(task, before, after),
        "reward": np.array([reward]),
        "stage": np.array([info["stage"]]),
        "signals": np.array(list(info["signals"].values())),
    }
    return values | ({"observation.environment_state": surroundings(task, obs)} if around(task) else {})


def tool_motion(task: TabletopTask, before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """The action (7,) of ``control="ee_delta"`` that leads from one reference to the next."""
    j, dt = task.robot.dof, task.ctrl_dt_s
    pos, rot, _ = task.kinematics.pose_and_jacobian(np.stack([before[:j], after[:j]]))
    moved, turned = (pos[1] - pos[0]) / (REACH_M_S * dt), angle(rot[1] @ rot[0].T) / (TURN_RAD_S * dt)
    assert task.robot.gripper is not None
    return np.concatenate([moved, turned, [2 * after[-1] / task.robot.gripper.open_m - 1]])
