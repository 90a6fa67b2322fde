"""Trajectory optimisation by gradient alone, from scratch, once per episode: the baseline without a network.

After the STL-gradient baseline of Meng & Fan (arXiv 2309.05131): several random starts, Adam on the
smooth robustness until the exact robustness reaches the aim, then executed as planned.
"""

from __future__ import annotations

import time

import numpy as np
import torch

from policies.policy import Policy, PolicyInfo
from policies.stl.config import PlanConfig
from policies.stl.model import PlanModel
from robo.core.protocols import ActionChunk, Obs
from tasks.arm import ArmTask


class GradientPolicy(Policy):
    """Plans the whole episode at its first tick by gradient descent and executes that plan.

    Args:
        task: The task.
        config: `smooth`, `aim` and `reserve` are used.
        starts: Random plans optimised at once.
        iterations: Most gradient steps.
        learning_rate: Of Adam on the knots [rad/s].
    """

    def __init__(
        self, task: ArmTask, config: PlanConfig, starts: int = 8, iterations: int = 300, learning_rate: float = 0.05
    ) -> None:
        self.task, self.config = task, config
        self.starts, self.iterations, self.learning_rate = starts, iterations, learning_rate
        self.model = PlanModel(task, config.reserve)
        self.info = PolicyInfo.of(task)

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `Policy`."""
        self._plan: tuple[np.ndarray, np.ndarray, float] | None = None
        self._generator = torch.Generator().manual_seed(seed)

    def act(self, obs: Obs) -> ActionChunk:
        """See `Policy`."""
        began = time.perf_counter()
        dt = self.task.ctrl_dt_s
        tick = round(float(obs["time_s"][0]) / dt) + 1
        if self._plan is None:
            self._plan = self._solve(obs)
        q, v, rho = self._plan
        skip = min(tick - 1, len(q) - 1)
        return ActionChunk(
            start_s=tick * dt,
            dt_s=dt,
            joint_pos=q[skip:],
            joint_vel=v[skip:],
            tail=len(q) - skip,
            controller="policy",
            info={"plan_ms": 1e3 * (time.perf_counter() - began), "plan_rho": rho},
        )

    def _solve(self, obs: Obs) -> tuple[np.ndarray, np.ndarray, float]:
        """Best plan found: positions, velocities at ticks 1.. to rest, and its robustness."""
        model, motion = self.model, self.model.motion
        seen = {
            k: torch.as_tensor(np.asarray(obs[k]), dtype=torch.float32).expand(self.starts, *np.shape(obs[k]))
            for k in self.task.observation
        }
        q0 = torch.as_tensor(obs["joint_pos"], dtype=torch.float32).expand(self.starts, -1)
        v0 = torch.zeros_like(q0)
        raw = 0.5 * torch.randn(self.starts, motion.knots, q0.shape[-1], generator=self._generator)
        raw.requires_grad_(True)
        optimiser = torch.optim.Adam([raw], lr=self.learning_rate)
        best = (-np.inf, q0[:1], v0[:1])
        for _ in range(self.iterations):
            q, v = motion.rollout(q0, v0, torch.tanh(raw) * model.velocity_rad_s)
            q, v = q[:, : self.task.steps], v[:, : self.task.steps]  # the plan applies from tick 1 on
            predicted = model.predict(q, v, seen, lead_s=self.task.ctrl_dt_s)
            trace = {k: torch.cat([x[:, :1], x], dim=1) for k, x in predicted.items()}
            with torch.no_grad():
                rho = model.rho({k: x.detach() for k, x in trace.items()})
            i = int(rho.argmax())
            if rho[i] > best[0]:
                best = (float(rho[i]), q[i].detach(), v[i].detach())
            if best[0] >= self.config.aim:
                break
            loss = torch.relu(self.config.aim + 0.01 - model.part_rhos(trace, smooth=self.config.smooth)).sum()
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        rho, q, v = best
        brake_q, brake_v = motion.brake(q[-1], v[-1])
        return (
            torch.cat([q, brake_q[1:]]).double().numpy(),
            torch.cat([v, brake_v[1:]]).double().numpy(),
            rho,
        )
