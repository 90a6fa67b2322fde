"""Policies that know nothing: random motion, and none. For tabletop tasks, to compare with and to collect data."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.learner import NothingToLearn, PolicyKind
from policies.policy import Policy
from tasks.tabletop.base import TabletopTask, tabletop_task
from tasks.task import Task

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class NoConfig:
    """There is nothing to set."""


def _random(task: TabletopTask) -> Policy:
    from policies.simple.policy import RandomMotion

    return RandomMotion(task)


def _zero(task: TabletopTask) -> Policy:
    from policies.simple.policy import Still

    return Still(task)


def _kind(name: str, make: Callable[[TabletopTask], Policy]) -> Callable[[], PolicyKind]:
    def load(task: Task, settings: NoConfig, weights: Mapping[str, torch.Tensor], device: str) -> Policy:
        return make(tabletop_task(task))

    def learner(task: Task, settings: NoConfig, seed: int, device: str) -> NothingToLearn:
        load(task, settings, {}, device)  # what does not fit is said now
        return NothingToLearn()

    return lambda: PolicyKind(name=name, config=NoConfig, learner=learner, load=load)


random_kind, zero_kind = _kind("random", _random), _kind("zero", _zero)
