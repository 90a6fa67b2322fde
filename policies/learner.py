"""What `robo-train` drives: a learner, and the registry of kinds of policies. No torch at import."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from policies.policy import Policy
from policies.system import SystemPolicy
from robo.core.errors import RunError
from tasks.task import Task

if TYPE_CHECKING:
    import torch

Tensors = dict[str, "torch.Tensor"]
AnyPolicy = Policy | SystemPolicy
"""A policy of any kind of task."""


Episode = dict[str, np.ndarray]
"""An episode of T control steps as it was played: see `Explorer`."""


class Explorer(Protocol):
    """Plays episodes of the task, in processes of its own, while a training goes on."""

    def begin(self, weights: Tensors, seeds: Sequence[int], steps: int | Sequence[int] = 0) -> None:
        """Start an episode of every seed, of world and policy, with a policy of these weights that explores.

        Args:
            weights: As `PolicyKind.load` takes them.
            seeds: 0 or more; neither those of evaluation nor those of demonstrations are drawn from.
            steps: Control steps after which episodes end, all or each; 0: when they are over.
        """
        ...

    def finish(self) -> list[Episode]:
        """Wait for them; in order of their seeds.

        Returns:
            Of each the columns of a dataset, see `policies.observed.frame`, and what `Policy.keeps` says of the moments
            before its actions, (T, ...); ``success`` () bool.

        Raises:
            RoboError: One could not be played, or its process died.
        """
        ...

    def close(self) -> None:
        """End the processes; safe to call twice."""
        ...


class Learner(ABC):
    """Trains one policy on one task, one step at a time, exactly resumable.

    Two learners with equal state that run the same steps end in equal state, bit for
    bit (same machine, same thread count): everything random comes from generators that
    are part of `state`.
    """

    @property
    @abstractmethod
    def total_steps(self) -> int:
        """Steps of a whole training."""

    @abstractmethod
    def step(self) -> dict[str, float]:
        """One optimisation step; returns finite metrics by name (``loss``, ``satisfied``, ...).

        Raises:
            NonFiniteError: The loss or a gradient is NaN or infinite; the state before the step is intact.
        """

    def enter(self, explorer: Callable[[int], Explorer]) -> None:  # noqa: B027 (an override is optional)
        """Called once before the first step, with what opens an explorer of so many processes; most need none."""

    def leave(self) -> None:  # noqa: B027
        """Called once after the last step: free what `enter` took."""

    @abstractmethod
    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Everything a resume needs: tensors by name, and a JSON object (steps done, generator states ...)."""

    @abstractmethod
    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """Continue from what `state` returned.

        Raises:
            RunError: Names or shapes do not fit.
        """

    @abstractmethod
    def weights(self) -> Tensors:
        """What the policy needs to act: the network's tensors alone."""

    def batch(self) -> Tensors:
        """What the latest step learned from, by name, for who wants to see why it failed; may be nothing."""
        return {}

    def exports(self) -> Mapping[str, Callable[[Path], None]]:
        """What is of use by itself once training is done: name of a folder in the run → what writes it there."""
        return {}

    def films(self) -> Mapping[str, np.ndarray]:
        """What can be watched of what is learned so far: name → pictures (T, H, W, 3) uint8, H and W even."""
        return {}


class NothingToLearn(Learner):
    """Of policies that only plan: a training of no steps, so that they live in run folders like any other."""

    @property
    def total_steps(self) -> int:
        """None."""
        return 0

    def step(self) -> dict[str, float]:
        """There is none.

        Raises:
            RunError: Always.
        """
        raise RunError("this kind of policy learns nothing, so there is no step to take")

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        return {}, {}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""

    def weights(self) -> Tensors:
        """See `Learner`."""
        return {}


@dataclass(frozen=True, kw_only=True)
class PolicyKind:
    """A kind of policy: what it is configured by, how it is trained, how it is loaded.

    Attributes:
        name: Registered name, as in ``robo-train TASK --policy NAME``.
        config: Frozen dataclass of frozen dataclasses with defaults, for example with
            fields ``train`` and ``plan``; becomes config keys such as ``train.steps``.
        learner: ``(task, config, seed, device) -> Learner``.
        load: ``(task, config, weights, device) -> Policy``; checks names, shapes and finiteness.
        presets: Name → a whole config to begin with; the first is taken where none is named. Empty: there is only
            ``config()``.
        rewarded: Whether it learns from what the stages of a task pay, which are verified first.
    """

    name: str
    config: type
    learner: Callable[[Task, Any, int, str], Learner]
    load: Callable[[Task, Any, Mapping[str, torch.Tensor], str], AnyPolicy]
    presets: Mapping[str, Any] = field(default_factory=dict)
    rewarded: bool = False
