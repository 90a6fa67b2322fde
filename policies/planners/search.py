"""Planners that search, without a network: gradient, cross-entropy method, MPPI."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np
import torch

from policies.planners.config import CemConfig, GradConfig, MppiConfig, SamplingConfig
from policies.planners.plan_once import PlanOnce
from policies.prediction import Course, Prediction
from tasks.system import SystemTask

Tensor = torch.Tensor
ENOUGH = 0.03
"""Gradient search climbs up to this robustness of every part."""
LEAST_STD = 0.01
"""The cross-entropy method's spread does not fall below this."""


class GradientSearch(PlanOnce):
    """Adam on smooth robustness from random starts (the STL-gradient baseline of Meng & Fan, arXiv 2309.05131).

    Args:
        task: The task.
        config: Settings.
    """

    def __init__(self, task: SystemTask, config: GradConfig) -> None:
        super().__init__(task, config.aim)
        self.config = config
        self._ahead = Prediction(task, self.model, Course(task, 0), config.smooth) if config.compiled else None

    def solve(self, state: Tensor) -> Tensor:
        """See `PlanOnce`."""
        cfg = self.config
        raw = (0.5 * self.noise(cfg.starts)).requires_grad_(True)
        optimiser = torch.optim.Adam([raw], lr=cfg.learning_rate)
        best, best_rho = raw[0].detach().clone(), -np.inf
        for _ in range(cfg.iterations):
            rho, raw.grad = self._slope(state, raw)
            i = int(rho.argmax())
            if rho[i] > best_rho:
                best, best_rho = raw[i].detach().clone(), float(rho[i])
            if best_rho >= self.aim:
                break
            raw.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            optimiser.step()
        return self.task.squash(best)

    def _slope(self, state: Tensor, raw: Tensor) -> tuple[Tensor, Tensor]:
        """Exact robustness (B,) of raw controls (B, T, m), and the gradient of what the smooth one lacks."""
        if self._ahead is not None:
            parts, gradient = self._ahead.slopes(state[0].numpy(), raw.detach().numpy(), ENOUGH)
            return torch.from_numpy(parts.min(-1)), torch.from_numpy(gradient)
        with torch.enable_grad():
            states = self.task.roll_out(state.expand(len(raw), -1), self.task.squash(raw))
            lack = torch.relu(ENOUGH - self.parts(states, self.config.smooth)).sum()
            (gradient,) = torch.autograd.grad(lack, [raw])
        return self.parts(states.detach()).amin(-1), gradient


class Sampling(PlanOnce):
    """Draws plans about a mean, again and again, and moves the mean towards the good ones.

    Args:
        task: The task.
        config: Settings.
    """

    def __init__(self, task: SystemTask, config: SamplingConfig) -> None:
        super().__init__(task, config.aim)
        self.samples, self.iterations = config.samples, config.iterations
        self._ahead = Prediction(task, self.model, Course(task, 0), smooth=1.0) if config.compiled else None

    @abstractmethod
    def refit(self, raw: Tensor, rho: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """New mean and spread (T, m) from plans (B, T, m), their robustness (B,), and how far the search is, 0..1."""

    def solve(self, state: Tensor) -> Tensor:
        """See `PlanOnce`."""
        mean = torch.zeros(self.task.steps, self.task.control_size, dtype=torch.float64)
        std = torch.ones_like(mean)
        best, best_rho = mean, -np.inf
        for k in range(self.iterations):
            raw = mean + std * self.noise(self.samples)
            rho = self._judge(state, raw)
            i = int(rho.argmax())
            if rho[i] > best_rho:
                best, best_rho = raw[i], float(rho[i])
            if best_rho >= self.aim:
                break
            mean, std = self.refit(raw, rho, (k + 1) / self.iterations)
        return self.task.squash(best)

    def _judge(self, state: Tensor, raw: Tensor) -> Tensor:
        """Exact robustness (B,) of raw controls (B, T, m)."""
        if self._ahead is not None:
            return torch.from_numpy(self._ahead.rhos(state[0].numpy(), raw.numpy()).min(-1))
        states = self.task.roll_out(state.expand(len(raw), -1), self.task.squash(raw))
        return self.parts(states).amin(-1)


class CrossEntropy(Sampling):
    """Cross-entropy method: a Gaussian over raw controls, refitted to the best samples.

    Args:
        task: The task.
        config: Settings.
    """

    def __init__(self, task: SystemTask, config: CemConfig) -> None:
        super().__init__(task, config)
        self.elites = config.elites

    def refit(self, raw: Tensor, rho: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """See `Sampling`."""
        elite = raw[rho.topk(self.elites).indices]
        return elite.mean(0), elite.std(0).clamp_min(LEAST_STD)


class Mppi(Sampling):
    """Model predictive path integral: the mean moves to the samples, weighted by their robustness.

    Args:
        task: The task.
        config: Settings.
    """

    def __init__(self, task: SystemTask, config: MppiConfig) -> None:
        super().__init__(task, config)
        self.temperature = config.temperature

    def refit(self, raw: Tensor, rho: Tensor, progress: float) -> tuple[Tensor, Tensor]:
        """See `Sampling`."""
        weight = torch.softmax(rho / self.temperature, dim=0)
        mean = (weight[:, None, None] * raw).sum(0)
        return mean, torch.full_like(mean, 1.0 - 0.8 * progress)
