"""What learners share that train a network on a pool of episodes under way: Adam, its schedule, exact state."""

from __future__ import annotations

import copy
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np
import torch
from torch import nn

from policies.learner import Learner, Tensors
from policies.steps import clipped
from policies.tensors import load_slots, slots_of, stored, under
from robo.core.errors import NonFiniteError, RunError


class PoolTraining(Protocol):
    """Settings that every such learner has."""

    @property
    def steps(self) -> int:
        """Optimisation steps."""
        ...

    @property
    def batch(self) -> int:
        """Episodes per step."""
        ...

    @property
    def pool(self) -> int:
        """Episodes under way."""
        ...

    @property
    def learning_rate(self) -> float:
        """Adam's, at the start."""
        ...


class PoolLearner(Learner):
    """Adam on the loss of a batch of episodes from a pool; then these episodes go on.

    Args:
        network: What is trained.
        config: Settings.
        rng: Source of everything random in `step`; part of the state.
    """

    def __init__(self, network: nn.Module, config: PoolTraining, rng: np.random.Generator) -> None:
        self.network, self.config, self.rng = network, config, rng
        self.optimiser = torch.optim.Adam(network.parameters(), lr=config.learning_rate, eps=1e-6)
        self.steps_done = 0

    @abstractmethod
    def _batch(self, index: np.ndarray) -> tuple[torch.Tensor, Callable[[], dict[str, float]]]:
        """Loss of the episodes with these indices, and what lets them go on after the step and returns metrics."""

    @abstractmethod
    def _pool(self) -> Tensors:
        """State of the pool, by name."""

    @abstractmethod
    def _load_pool(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """The inverse; raises KeyError, RuntimeError or ValueError when they do not fit."""

    # ---- Learner -------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """See `Learner`."""
        return self.config.steps

    def step(self) -> dict[str, float]:
        """See `Learner`."""
        before = self.rng.bit_generator.state
        index = self.rng.choice(self.config.pool, self.config.batch, replace=False)
        loss, go_on = self._batch(index)
        # Falls to a twentieth along a half cosine.
        progress = self.steps_done / self.config.steps
        rate = self.config.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        try:
            size = clipped(
                self.network.parameters(), loss, 1.0, "lower train.learning_rate", f" at step {self.steps_done}"
            )
        except NonFiniteError:
            self.rng.bit_generator.state = before
            raise
        self.optimiser.step()
        self.steps_done += 1
        with torch.no_grad():
            metrics = go_on()
        return {"loss": loss.item(), **metrics, "gradient": size, "learning_rate": rate}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= slots_of(self.optimiser, "adam.") | {f"pool.{k}": v for k, v in self._pool().items()}
        return stored(tensors), {"steps_done": self.steps_done, "rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""
        try:
            self.network.load_state_dict(under(tensors, "network."))
            load_slots(self.optimiser, tensors, "adam.")
            self._load_pool(under(tensors, "pool."))
            self.steps_done = int(meta["steps_done"])
            self.rng.bit_generator.state = meta["rng"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this task and configuration: {reason}") from error

    def weights(self) -> Tensors:
        """See `Learner`."""
        return stored(self.network.state_dict())


class KnownLoss(torch.autograd.Function):
    """A loss whose gradient by the plans is known already."""

    @staticmethod
    def forward(ctx: Any, raw: torch.Tensor, loss: float, gradient: torch.Tensor) -> torch.Tensor:
        """The loss."""
        ctx.save_for_backward(gradient.to(raw))
        return raw.new_tensor(loss)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """The gradient."""
        (gradient,) = ctx.saved_tensors
        return grad * gradient, None, None


def satisfaction(rho: torch.Tensor, fresh: torch.Tensor) -> dict[str, float]:
    """Metrics of plans (B,): of all, and of those made at the start of an episode."""
    at_start = rho[fresh] if fresh.any() else rho
    return {
        "rho": rho.mean().item(),
        "satisfied": (rho > 0).float().mean().item(),
        "satisfied_at_start": (at_start > 0).float().mean().item(),
    }
