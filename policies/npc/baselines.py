"""Planners without a network, for comparison: gradient, cross-entropy method, MPPI; each plans once per episode."""

from __future__ import annotations

import time
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import torch

from policies.npc.model import SystemModel
from policies.system import ControlPlan, SystemPolicy
from robo.core.errors import ConfigError
from robo.core.protocols import Obs
from tasks.system import SystemTask

Tensor = torch.Tensor


class PlanOnce(SystemPolicy):
    """Plans the whole episode at its first step and executes that plan.

    Args:
        task: The task.
        aim: Robustness at which a search is content.
    """

    def __init__(self, task: SystemTask, aim: float = 1e-3) -> None:
        self.task, self.task_name, self.aim = task, task.name, aim
        self.model = SystemModel(task)

    @abstractmethod
    def solve(self, state: Tensor) -> Tensor:
        """Raw controls (T, m) from a start (1, n)."""

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `SystemPolicy`."""
        self._plan: tuple[Tensor, Tensor, float] | None = None
        self._random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def act(self, obs: Obs) -> ControlPlan:
        """See `SystemPolicy`; only the first call of an episode takes time."""
        began = time.perf_counter()
        tick = round(float(obs["time_s"][0]) / self.task.ctrl_dt_s)
        if self._plan is None:
            state = torch.as_tensor(np.asarray(obs["state"], float))[None]
            raw = self.solve(state)
            states = self.task.roll_out(state[0], self.task.squash(raw))
            self._plan = raw, states, float(self.parts(states[None]).amin())
        raw, states, rho = self._plan
        return ControlPlan(
            control=self.task.squash(raw[tick:]).numpy(),
            state=states[tick:].numpy(),
            controller="policy",
            info={"plan_ms": 1e3 * (time.perf_counter() - began), "plan_rho": rho},
        )

    def parts(self, states: Tensor, smooth: float | None = None) -> Tensor:
        """Robustness of every part of whole episodes (B, T + 1, n): (B, parts)."""
        return self.model.part_rhos(self.task.measure(states), smooth)

    def roll_out(self, state: Tensor, raw: Tensor) -> Tensor:
        """States (B, T + 1, n) of raw controls (B, T, m) from one start (1, n)."""
        return self.task.roll_out(state.expand(len(raw), -1), self.task.squash(raw))

    def noise(self, n: int) -> Tensor:
        """Standard normal raw controls (n, T, m)."""
        shape = (n, self.task.steps, self.task.control_size)
        return torch.randn(shape, generator=self._random, dtype=torch.float64)


class GradientSearch(PlanOnce):
    """Adam on smooth robustness from random starts (the STL-gradient baseline of the paper).

    Args:
        task: The task.
        starts: Plans improved at once.
        iterations: Most steps.
        learning_rate: Adam's, on raw controls.
        smooth: Temperature of the smooth robustness.
    """

    def __init__(
        self,
        task: SystemTask,
        starts: int = 16,
        iterations: int = 200,
        learning_rate: float = 0.1,
        smooth: float = 50.0,
    ) -> None:
        super().__init__(task)
        self.starts, self.iterations, self.learning_rate, self.smooth = starts, iterations, learning_rate, smooth

    def solve(self, state: Tensor) -> Tensor:
        """See `PlanOnce`."""
        raw = (0.5 * self.noise(self.starts)).requires_grad_(True)
        optimiser = torch.optim.Adam([raw], lr=self.learning_rate)
        best, best_rho = raw[0].detach().clone(), -np.inf
        for _ in range(self.iterations):
            with torch.enable_grad():
                states = self.roll_out(state, raw)
                loss = torch.relu(0.03 - self.parts(states, self.smooth)).sum()
                optimiser.zero_grad()
                loss.backward()
            rho = self.parts(states.detach()).amin(-1)
            i = int(rho.argmax())
            if rho[i] > best_rho:
                best, best_rho = raw[i].detach().clone(), float(rho[i])
            if best_rho >= self.aim:
                break
            if raw.grad is not None:
                raw.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            optimiser.step()
        return best


@dataclass(frozen=True, kw_only=True)
class SamplingConfig:
    """Settings of the sampling planners."""

    samples: int = 512
    iterations: int = 60
    elites: int = 32
    """CEM: how many of the best shape the next round."""
    temperature: float = 0.05
    """MPPI: robustness over which a weight falls to 1/e."""

    def __post_init__(self) -> None:
        if min(self.samples, self.iterations, self.elites) < 1 or not self.temperature > 0:
            raise ConfigError("sampling: samples, iterations, elites and temperature must be positive")


class Sampling(PlanOnce):
    """Draws plans about a mean, again and again, and moves the mean towards the good ones."""

    def __init__(self, task: SystemTask, config: SamplingConfig | None = None) -> None:
        super().__init__(task)
        self.config = config or SamplingConfig()

    @abstractmethod
    def refit(self, raw: Tensor, rho: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """New mean and spread (T, m) from plans (B, T, m), their robustness (B,), and how far the search is, 0..1."""

    def solve(self, state: Tensor) -> Tensor:
        """See `PlanOnce`."""
        mean = torch.zeros(self.task.steps, self.task.control_size, dtype=torch.float64)
        std = torch.ones_like(mean)
        best, best_rho = mean, -np.inf
        for k in range(self.config.iterations):
            raw = mean + std * self.noise(self.config.samples)
            rho = self.parts(self.roll_out(state, raw)).amin(-1)
            i = int(rho.argmax())
            if rho[i] > best_rho:
                best, best_rho = raw[i], float(rho[i])
            if best_rho >= self.aim:
                break
            mean, std = self.refit(raw, rho, (k + 1) / self.config.iterations)
        return best


class CrossEntropy(Sampling):
    """Cross-entropy method: a Gaussian over raw controls, refitted to the best samples."""

    def refit(self, raw: Tensor, rho: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """See `Sampling`."""
        elite = raw[rho.topk(self.config.elites).indices]
        return elite.mean(0), elite.std(0).clamp_min(0.01)


class Mppi(Sampling):
    """Model predictive path integral: the mean moves to the samples, weighted by their robustness."""

    def refit(self, raw: Tensor, rho: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """See `Sampling`."""
        weight = torch.softmax(rho / self.config.temperature, dim=0)
        mean = (weight[:, None, None] * raw).sum(0)
        return mean, torch.full_like(mean, 1.0 - 0.8 * progress)
