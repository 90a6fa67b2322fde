"""Planners without a network, for comparison: gradient, cross-entropy, MPPI, nonlinear and mixed-integer programs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Any

from policies.checks import require_package
from policies.learner import NothingToLearn, PolicyKind
from policies.planners.config import CemConfig, GradConfig, MilpConfig, MpcConfig, MppiConfig
from policies.system import SystemPolicy
from tasks.system import SystemTask, system_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch


def _grad(task: SystemTask, plan: Any) -> SystemPolicy:
    from policies.planners.search import GradientSearch  # lazily: torch

    return GradientSearch(task, plan)


def _cem(task: SystemTask, plan: Any) -> SystemPolicy:
    from policies.planners.search import CrossEntropy  # lazily: torch

    return CrossEntropy(task, plan)


def _mppi(task: SystemTask, plan: Any) -> SystemPolicy:
    from policies.planners.search import Mppi  # lazily: torch

    return Mppi(task, plan)


def _mpc(task: SystemTask, plan: Any) -> SystemPolicy:
    require_package("casadi", "mpc", "planners")
    from policies.planners.mpc import Mpc  # lazily: torch, casadi

    return Mpc(task, plan)


def _milp(task: SystemTask, plan: Any) -> SystemPolicy:
    require_package("scipy", "milp", "planners")
    from policies.planners.milp import Milp  # lazily: torch, scipy

    return Milp(task, plan)


def _kind(name: str, config: type, make: Callable[[SystemTask, Any], SystemPolicy]) -> Callable[[], PolicyKind]:
    def load(task: Task, settings: Any, weights: Mapping[str, torch.Tensor], device: str) -> SystemPolicy:
        return make(system_task(task), settings.plan)

    def learner(task: Task, settings: Any, seed: int, device: str) -> NothingToLearn:
        load(task, settings, {}, device)  # what does not fit is said now
        return NothingToLearn()

    settings = make_dataclass(
        f"{config.__name__}s", [("plan", config, field(default_factory=config))], frozen=True, kw_only=True
    )
    return lambda: PolicyKind(name=name, config=settings, learner=learner, load=load)


grad_kind = _kind("grad", GradConfig, _grad)
cem_kind = _kind("cem", CemConfig, _cem)
mppi_kind = _kind("mppi", MppiConfig, _mppi)
mpc_kind = _kind("mpc", MpcConfig, _mpc)
milp_kind = _kind("milp", MilpConfig, _milp)
