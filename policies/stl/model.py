"""Prediction for STL planning: velocity knots → reference → worst-case signals → robustness. torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from hardware.robots.kinematics_torch import TorchKinematics
from policies.spec_model import SpecModel, Trace
from tasks.arm import ArmTask
from tasks.dynamics.arm import ArmMotion

Tensor = torch.Tensor


class PlanModel(SpecModel):
    """Differentiable, batched prediction of one task on one arm.

    Args:
        task: The task.
        reserve: Robustness kept back from every safety signal, so that what is planned can also be
            certified (the certificate pays for servo errors and for the time between samples).
        device: Where tensors live.
        conformal: Subtracted from the robustness of every part.
    """

    def __init__(self, task: ArmTask, reserve: float, device: str = "cpu", conformal: float = 0.0) -> None:
        super().__init__(task, device, conformal)
        self.task = task
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
