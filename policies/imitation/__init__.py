"""Policies that imitate demonstrations: ``bc``, ``act`` and ``diffusion``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from policies.checks import require_package
from policies.imitation.config import ActConfig, BcConfig, DiffusionConfig
from policies.learner import Learner, PolicyKind
from tasks.tabletop.base import tabletop_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch

    from policies.imitation.learner import Make
    from policies.imitation.policy import ImitationPolicy


def _kind(name: str, config: type, make: Callable[[], Make]) -> PolicyKind:
    """A kind of policy that differs from the others by its network, which `make` imports."""

    def learner(task: Task, settings: Any, seed: int, device: str) -> Learner:
        from policies.imitation.learner import ImitationLearner  # lazily: torch

        return ImitationLearner(tabletop_task(task), settings, make(), seed, device)

    def load(task: Task, settings: Any, weights: Mapping[str, torch.Tensor], device: str) -> ImitationPolicy:
        from policies.imitation.policy import load  # lazily: torch

        return load(tabletop_task(task), settings, make(), weights, device)

    return PolicyKind(name=name, config=config, learner=learner, load=load)


def _cloner() -> Make:
    from policies.imitation.network import Cloner

    return Cloner


def _chunker() -> Make:
    from policies.imitation.act import Chunker

    return Chunker


def _diffuser() -> Make:
    require_package("diffusers", "diffusion", "imitation")
    from policies.imitation.diffusion import Diffuser

    return Diffuser


def bc_kind() -> PolicyKind:
    """The kind ``bc``: behaviour cloning."""
    return _kind("bc", BcConfig, _cloner)


def act_kind() -> PolicyKind:
    """The kind ``act``: action chunking with a transformer."""
    return _kind("act", ActConfig, _chunker)


def diffusion_kind() -> PolicyKind:
    """The kind ``diffusion``: Diffusion Policy."""
    return _kind("diffusion", DiffusionConfig, _diffuser)
