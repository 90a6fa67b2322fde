"""What planners without a network share: one plan of the whole episode, at its first step."""

from __future__ import annotations

import time
from abc import abstractmethod

import numpy as np
import torch

from policies.system import ControlPlan, SystemPolicy
from policies.system_model import SystemModel
from robo.core.protocols import Obs
from tasks.system import SystemTask

Tensor = torch.Tensor


class PlanOnce(SystemPolicy):
    """Plans the whole episode at its first step and executes that plan.

    Args:
        task: The task.
        aim: Robustness at which a planner is content.
    """

    def __init__(self, task: SystemTask, aim: float) -> None:
        self.task, self.task_name, self.aim = task, task.name, aim
        self.model = SystemModel(task)

    @abstractmethod
    def solve(self, state: Tensor) -> Tensor:
        """Controls (T, m) within their bounds, from a start (1, n)."""

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
            control = self.solve(state)
            states = self.task.roll_out(state, control[None])
            self._plan = control, states[0], float(self.parts(states).amin())
        control, states, rho = self._plan
        return ControlPlan(
            control=control[tick:].numpy(),
            state=states[tick:].numpy(),
            controller="policy",
            info={"plan_ms": 1e3 * (time.perf_counter() - began), "plan_rho": rho},
        )

    def rho(self, state: Tensor, control: Tensor) -> float:
        """Exact robustness of controls (T, m) from one start (1, n)."""
        states = self.task.roll_out(state, control[None])
        return float(self.parts(states).amin())

    def parts(self, states: Tensor, smooth: float | None = None) -> Tensor:
        """Robustness of every part of whole episodes (B, T + 1, n): (B, parts)."""
        return self.model.part_rhos(self.task.measure(states), smooth)

    def noise(self, n: int) -> Tensor:
        """Standard normal raw controls (n, T, m)."""
        shape = (n, self.task.steps, self.task.control_size)
        return torch.randn(shape, generator=self._random, dtype=torch.float64)
