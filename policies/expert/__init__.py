"""Scripted experts of tabletop tasks: waypoints of the task's script, inverse kinematics by mink."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.checks import require_positive
from policies.learner import NothingToLearn, PolicyKind
from robo.core.errors import ConfigError
from tasks.tabletop.base import tabletop_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

    from policies.expert.policy import Expert


MOST_SWAY = 0.5
"""Beyond it, ways lead out of the workspace."""


@dataclass(frozen=True, kw_only=True)
class MoveConfig:
    """How waypoints are followed.

    Attributes:
        haste: Factor on the speeds of the script.
        patience_s: A waypoint that is not reached so long after it should have been is given up.
        sway: Where nothing is near, no two ways are alike: so far they bend, as a share of their length (one standard
            deviation). Who learns from demonstrations sees more than one line then.
    """

    haste: float = 1.0
    patience_s: float = 1.0
    sway: float = 0.0

    def __post_init__(self) -> None:
        require_positive(self, "move", "haste", "patience_s")
        if not 0 <= self.sway <= MOST_SWAY:
            raise ConfigError(f"move.sway must lie in [0, {MOST_SWAY}], not {self.sway}")


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
