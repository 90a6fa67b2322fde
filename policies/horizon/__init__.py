"""The kind of policy ``horizon``: RoboHorizon (arXiv 2501.06605), Sense, Plan and Act."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from policies.horizon.config import PRESETS, HorizonConfig
from policies.learner import Learner, PolicyKind
from tasks.tabletop.base import tabletop_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

    from policies.horizon.policy import HorizonPolicy


def _learner(task: Task, settings: HorizonConfig, seed: int, device: str) -> Learner:
    from policies.horizon.learner import HorizonLearner  # lazily: torch

    return HorizonLearner(tabletop_task(task), settings, seed, device)


def _load(task: Task, settings: HorizonConfig, weights: Mapping[str, torch.Tensor], device: str) -> HorizonPolicy:
    from policies.horizon.policy import load  # lazily: torch

    return load(tabletop_task(task), settings, weights, device)


def horizon_kind() -> PolicyKind:
    """The kind ``horizon``."""
    return PolicyKind(
        name="horizon", config=HorizonConfig, learner=_learner, load=_load, presets=PRESETS, rewarded=True
    )
