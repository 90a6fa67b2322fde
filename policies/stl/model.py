"""Prediction for STL planning: velocity knots → reference → worst-case signals → robustness. torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hardware.robots.kinematics_torch import TorchKinematics
from tasks.arm import ArmTask
from tasks.dynamics.arm import ArmMotion
from tasks.stl import Formula, parse

Tensor = torch.Tensor
Trace = dict[str, Tensor]
"""Signals by name, (B, T + 1) each, at all control ticks of an episode."""


class PlanModel:
    """Differentiable, batched prediction of one task on one arm.

    Args:
        task: The task.
        reserve: Robustness kept back from every safety signal, so that what is planned can also be
            certified (the certificate pays for servo errors and for the time between samples).
        device: Where tensors live.
    """

    def __init__(self, task: ArmTask, reserve: float, device: str = "cpu") -> None:
        self.task, self.device = task, torch.device(device)
        self.motion = ArmMotion(task.robot, task.ctrl_dt_s, task.steps)
        self.kinematics = TorchKinematics(task.robot)
        limits = task.robot.limits
        self._middle = self._tensor((limits.upper_rad + limits.lower_rad) / 2)
        self._half = self._tensor((limits.upper_rad - limits.lower_rad) / 2)
        self.velocity_rad_s = self._tensor(self.motion.velocity_rad_s)
        self._subtract = {
            name: signal.error_bound + (reserve if name in task.safety_formula.signals else 0.0)
            for name, signal in task.signals.items()
        }
        # The specification as a list of parts that must all hold: gradients reach every part at once.
        self.mission = task.mission_formula.conjuncts
        always = [f"always[0,{task.horizon_s:g}]({part})" for part in task.safety_formula.conjuncts]
        self.parts: tuple[Formula, ...] = (*self.mission, *(parse(text, signals=task.signals) for text in always))

    def _tensor(self, value) -> Tensor:
        return torch.as_tensor(value, dtype=torch.float32, device=self.device)

    def predict(self, q: Tensor, v: Tensor, obs: Mapping[str, Tensor], lead_s: float) -> Trace:
        """Signals at the ticks of a plan, at their worst under the movers' bounds, with bounds and reserve subtracted.

        Args:
            q, v: Plan, (B, N + 1, J); sample 0 lies `lead_s` after the observation.
            obs: Observations, (B, ...).

        Returns:
            Signals (B, N + 1).
        """
        tau = lead_s + torch.arange(q.shape[1], dtype=q.dtype, device=q.device) * self.task.ctrl_dt_s
        state = {"joint_pos": q, "joint_vel": v, "points": self.kinematics.points(q)}
        state |= self.task.forecast(obs, tau)
        signals = self.task.measure(state, {name: value[:, None] for name, value in obs.items()})
        return {name: value - self._subtract[name] for name, value in signals.items()}

    def trace(self, prefix: Mapping[str, Tensor], tick: Tensor, predicted: Mapping[str, Tensor]) -> Trace:
        """Whole-episode trace: what was executed before `tick` (B,), then the prediction, whose sample 0 lies at it."""
        times = torch.arange(self.task.steps + 1, device=self.device)
        ahead = times[None, :] - tick[:, None]
        index = ahead.clamp(0, next(iter(predicted.values())).shape[1] - 1)
        past = ahead < 0
        return {
            name: torch.where(past, prefix[name], torch.gather(value, 1, index)) for name, value in predicted.items()
        }

    def rho(self, trace: Trace) -> Tensor:
        """Exact robustness of the whole specification at the start of the episode: (B,)."""
        return self.part_rhos(trace).amin(-1)

    def part_rhos(self, trace: Trace, smooth: float | None = None) -> Tensor:
        """Robustness of every part, (B, parts); smooth with a temperature, else exact."""
        dt = self.task.ctrl_dt_s
        return torch.stack([part.robustness_at_start(trace, dt, smooth=smooth) for part in self.parts], dim=-1)

    def progress(self, prefix: Mapping[str, Tensor], tick: Tensor) -> Tensor:
        """What is already certain of every part of the mission, (B, parts): its robustness' lower bound, in [-1, 1]."""
        dt = self.task.ctrl_dt_s
        low = [part.bounds_at_start(prefix, dt, known=tick)[0] for part in self.mission]
        return torch.stack(low, dim=-1).clamp(-0.1, 0.1) * 10.0

    def features(self, q: Tensor, v: Tensor, tick: Tensor, obs: Mapping[str, Tensor], progress: Tensor) -> Tensor:
        """Input of the network, (B, F): arm, time, progress, and all observed points, also relative to the tool."""
        tool = self.kinematics.points(q)[..., -1, :]
        parts = [(q - self._middle) / self._half, v / self.velocity_rad_s, tool, progress]
        parts.append(tick[:, None].to(q.dtype) / self.task.steps)
        for name, shape in self.task.observation.items():
            value = obs[name]
            parts.append(value.flatten(1))
            if shape[-1] == 3:
                parts.append((value - tool.reshape(-1, *(1,) * (len(shape) - 1), 3)).flatten(1))
        return torch.cat(parts, dim=-1)

    @property
    def feature_size(self) -> int:
        """F."""
        j = self.task.robot.dof
        size = 2 * j + 3 + len(self.mission) + 1
        for shape in self.task.observation.values():
            n = int(torch.tensor(shape).prod())
            size += 2 * n if shape[-1] == 3 else n
        return size
