"""Soft actor-critic with the specification as reward, for comparison; learned by stable-baselines3."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from policies.checks import require_package
from policies.learner import Learner, PolicyKind
from policies.sac.config import SacConfig
from policies.system import SystemPolicy
from tasks.system import system_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

__all__ = ["SacConfig", "sac_kind"]


def _learner(task: Task, config: SacConfig, seed: int, device: str) -> Learner:
    require_package("stable_baselines3", "sac", "rl")
    from policies.sac.learner import SacLearner  # lazily: torch, stable-baselines3

    return SacLearner(system_task(task), config, seed, device)


def _load(task: Task, config: SacConfig, weights: Mapping[str, torch.Tensor], device: str) -> SystemPolicy:
    require_package("stable_baselines3", "sac", "rl")
    from policies.sac.policy import load  # lazily: torch, stable-baselines3

    return load(system_task(task), config, weights)


def sac_kind() -> PolicyKind:
    """The policy kind ``sac``."""
    return PolicyKind(name="sac", config=SacConfig, learner=_learner, load=_load)
