"""Scripted experts of tabletop tasks: waypoints of the task's script, inverse kinematics by mink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.checks import require_positive
from policies.learner import NothingToLearn, PolicyKind
from tasks.tabletop.base import tabletop_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

    from policies.expert.policy import Expert


@dataclass(frozen=True, kw_only=True)
class MoveConfig:
    """How waypoints are followed.

    Attributes:
        haste: Factor on the speeds of the script.
        patience_s: A waypoint that is not reached so long after it should have been is given up.
    """

    haste: float = 1.0
    patience_s: float = 1.0

    def __post_init__(self) -> None:
        require_positive(self, "move", "haste", "patience_s")


@dataclass(frozen=True, kw_only=True)
class ExpertConfig:
    """Settings of a scripted expert."""

    move: MoveConfig = field(default_factory=MoveConfig)


def load(task: Task, settings: ExpertConfig, weights: Mapping[str, torch.Tensor], device: str) -> Expert:
    """See `policies.learner.PolicyKind`."""
    from policies.expert.policy import Expert  # lazily: mujoco, mink

    return Expert(tabletop_task(task), settings.move)


def _learner(task: Task, settings: ExpertConfig, seed: int, device: str) -> NothingToLearn:
    load(task, settings, {}, device)  # what does not fit is said now
    return NothingToLearn()


def expert_kind() -> PolicyKind:
    """The kind ``expert``."""
    return PolicyKind(name="expert", config=ExpertConfig, learner=_learner, load=load)
