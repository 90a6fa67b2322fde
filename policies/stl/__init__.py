"""STL neural predictive control with refinement and a certified backup."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from policies.learner import Learner, PolicyKind
from policies.policy import Policy
from policies.stl.config import StlConfig
from tasks.arm import arm_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

__all__ = ["StlConfig", "stl_kind"]


def _learner(task: Task, config: StlConfig, seed: int, device: str) -> Learner:
    from policies.stl.learner import StlLearner  # lazily: torch

    return StlLearner(arm_task(task), config, seed, device)


def _load(task: Task, config: StlConfig, weights: Mapping[str, torch.Tensor], device: str) -> Policy:
    from policies.stl.planner import load  # lazily: torch

    return load(arm_task(task), config, weights, device)


def stl_kind() -> PolicyKind:
    """The policy kind ``stl``."""
    return PolicyKind(name="stl", config=StlConfig, learner=_learner, load=_load)
