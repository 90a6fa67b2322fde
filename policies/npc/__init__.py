"""STL neural predictive control of systems with known dynamics, with search and a certificate for the whole episode."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from policies.learner import Learner, PolicyKind
from policies.npc.config import NpcConfig
from policies.system import SystemPolicy
from tasks.system import system_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

__all__ = ["NpcConfig", "npc_kind"]


def _learner(task: Task, config: NpcConfig, seed: int, device: str) -> Learner:
    from policies.npc.learner import NpcLearner  # lazily: torch

    return NpcLearner(system_task(task), config, seed, device)


def _load(task: Task, config: NpcConfig, weights: Mapping[str, torch.Tensor], device: str) -> SystemPolicy:
    from policies.npc.planner import load  # lazily: torch

    return load(system_task(task), config, weights, device)


def npc_kind() -> PolicyKind:
    """The policy kind ``npc``."""
    return PolicyKind(name="npc", config=NpcConfig, learner=_learner, load=_load)
