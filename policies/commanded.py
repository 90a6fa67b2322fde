"""Policies on a tabletop that decide step by step, in one of the ways to command an arm."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from hardware.robots.commands import command
from policies.policy import Policy, PolicyInfo
from robo.core.errors import RoboError
from robo.core.protocols import ActionChunk, Obs
from tasks.tabletop.base import TabletopTask


class Commanded(Policy):
    """Turns actions into the joint reference of the next step, which stays within the arm's limits.

    Args:
        task: The task.
        control: What an action is; see `hardware.robots.commands`.
        info: What it sees; by default all that the task offers, without pictures.

    Raises:
        UnknownNameError: There is no such way to command an arm.
    """

    def __init__(self, task: TabletopTask, control: str, info: PolicyInfo | None = None) -> None:
        self.task, self.info = task, info or PolicyInfo.of(task)
        self.command = command(control, task.robot, task.ctrl_dt_s)
        self._joint_pos: np.ndarray | None = None

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `Policy`."""
        self._joint_pos, self._width = np.array(obs["joint_pos"]), np.array(obs["gripper_width_m"][0])
        self._begin(obs, seed)

    @abstractmethod
    def _begin(self, obs: Obs, seed: int) -> None:
        """Start an episode."""

    @abstractmethod
    def _action(self, obs: Obs) -> np.ndarray:
        """The action (A,) of a moment; within the command's bounds, or it is brought there."""

    @property
    def due(self) -> np.ndarray:
        """The reference that the next action goes on from: joint angles [rad] and width [m], (J + 1,).

        Raises:
            RoboError: There is no episode.
        """
        if self._joint_pos is None:
            raise RoboError("act() before reset(); call reset() first")
        return np.append(self._joint_pos, self._width)

    def act(self, obs: Obs) -> ActionChunk:
        """See `Policy`."""
        time_s, dt, before = float(obs["time_s"][0]), self.task.ctrl_dt_s, self.due[:-1]
        self._joint_pos, self._width = self.command.reference(self._action(obs), before, self._width)
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
