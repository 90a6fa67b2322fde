"""The policy interface: observation in, timed joint reference out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from robo.core.protocols import ActionChunk, Obs
from tasks.arm import SceneTask


@dataclass(frozen=True, kw_only=True)
class PolicyInfo:
    """What a policy was trained with; checked against the env or robot before it acts.

    Attributes:
        task: Name of the task.
        observation: Observation keys → shapes.
        joints: Number of joints J of the action.
        ctrl_dt_s: Distance between calls of `act` [s].
        views, size: Cameras whose pictures it sees as ``rgb_<camera>``, (size, size, 3) uint8 each.
    """

    task: str
    observation: dict[str, tuple[int, ...]]
    joints: int
    ctrl_dt_s: float
    views: tuple[str, ...] = ()
    size: int = 96

    @classmethod
    def of(cls, task: SceneTask) -> PolicyInfo:
        """What a policy of a task sees and moves when it uses all that the task offers, without pictures."""
        j = task.robot.dof
        return cls(
            task=task.name,
            observation={"joint_pos": (j,), "joint_vel": (j,), "time_s": (1,), **task.observation},
            joints=j,
            ctrl_dt_s=task.ctrl_dt_s,
        )


class Policy(ABC):
    """Maps observations to action chunks, one call every `info.ctrl_dt_s`.

    A call at tick k (time ``t_k``) returns a chunk whose sample 0 lies at
    ``t_{k+1}``: a policy always plans one tick ahead of the reference that is being
    executed, so that planning may take up to one tick. Until the first chunk applies
    the robot holds.
    """

    info: PolicyInfo
    exploring: bool = False
    """Whether it tries things out, for its own learning; most know no other way to act."""

    @abstractmethod
    def reset(self, obs: Obs, seed: int = 0) -> None:
        """Start an episode from its first observation (the arm is at rest)."""

    def begins_at(self, seed: int) -> Mapping[str, Any]:
        """Where an episode of a seed is to start, for its own learning: options of the world's reset; by default where
        the task says."""
        return {}

    @abstractmethod
    def act(self, obs: Obs) -> ActionChunk:
        """The reference from the next tick on."""

    def keeps(self, obs: Obs) -> Mapping[str, np.ndarray]:
        """What learning keeps of the moment it last acted on, beside numbers: its pictures, or what it made of them."""
        return {f"rgb_{view}": obs[f"rgb_{view}"] for view in self.info.views}
