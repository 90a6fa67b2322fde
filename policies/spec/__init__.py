"""Predictive control for specifications that nobody knew at training: one network conditioned on the formula."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from policies.learner import Learner, PolicyKind
from policies.spec.config import SpecConfig
from policies.system import SystemPolicy
from robo.core.errors import TaskError
from tasks.specs.task import SpecTask
from tasks.task import Task

if TYPE_CHECKING:
    import torch

__all__ = ["SpecConfig", "spec_kind", "spec_task"]


def spec_task(task: Task) -> SpecTask:
    """The task, if its specification can be given later.

    Raises:
        TaskError: It cannot.
    """
    if not isinstance(task, SpecTask):
        raise TaskError(f"task {task.name} has one specification only; tasks for any: spec/point, spec/panda")
    return task


def _learner(task: Task, config: SpecConfig, seed: int, device: str) -> Learner:
    from policies.spec.learner import SpecLearner  # lazily: torch

    return SpecLearner(spec_task(task), config, seed, device)


def _load(task: Task, config: SpecConfig, weights: Mapping[str, torch.Tensor], device: str) -> SystemPolicy:
    from policies.spec.planner import load  # lazily: torch

    return load(spec_task(task), config, weights)


def spec_kind() -> PolicyKind:
    """The policy kind ``spec``."""
    return PolicyKind(name="spec", config=SpecConfig, learner=_learner, load=_load)
