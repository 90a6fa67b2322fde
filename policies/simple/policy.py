"""Random motion of the tool, and standing still."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from hardware.robots.commands import EeDelta
from policies.policy import Policy, PolicyInfo
from robo.core.protocols import ActionChunk, Obs
from tasks.tabletop.base import TabletopTask

CHANGE_S = 0.5
"""Random motion takes another direction so often."""


class _Commanded(Policy):
    """Executes actions of the command ``ee_delta``, see `hardware.robots.commands.EeDelta`."""

    def __init__(self, task: TabletopTask) -> None:
        self.task, self.info = task, PolicyInfo.of(task)
        self.command = EeDelta(task.robot, task.ctrl_dt_s)

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `Policy`."""
        self._random = np.random.default_rng(seed)
        self._joint_pos, self._width = np.array(obs["joint_pos"]), np.array(obs["gripper_width_m"][0])

    @abstractmethod
    def _action(self, time_s: float) -> np.ndarray:
        """The action (7,) of a moment."""

    def act(self, obs: Obs) -> ActionChunk:
        """See `Policy`."""
        time_s, dt, before = float(obs["time_s"][0]), self.task.ctrl_dt_s, self._joint_pos
        self._joint_pos, self._width = self.command.reference(self._action(time_s), before, self._width)
        velocity = (self._joint_pos - before) / dt
        limits = self.task.robot.limits
        rest = np.clip(self._joint_pos + velocity * dt / 2, limits.lower_rad, limits.upper_rad)
        return ActionChunk(
            start_s=time_s + dt,
            dt_s=dt,
            joint_pos=np.stack([self._joint_pos, rest]),
            joint_vel=np.stack([velocity, np.zeros_like(velocity)]),
            gripper_width_m=np.full(2, self._width),
            tail=1,
            controller="policy",
        )


class RandomMotion(_Commanded):
    """The tool moves at random, in another direction now and then; so does the gripper."""

    def _action(self, time_s: float) -> np.ndarray:
        if round(time_s / self.task.ctrl_dt_s) % round(CHANGE_S / self.task.ctrl_dt_s) == 0:
            self._drawn = self._random.uniform(self.command.low, self.command.high)
        return self._drawn


class Still(_Commanded):
    """Stays where it is, with open jaws."""

    def _action(self, time_s: float) -> np.ndarray:
        return np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
