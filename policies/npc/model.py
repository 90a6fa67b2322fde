"""Prediction for systems: raw controls → states → signals → robustness of every part; and the network. torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from policies.spec_model import SpecModel
from tasks.system import SystemTask

Tensor = torch.Tensor


class SystemModel(SpecModel):
    """Differentiable, batched prediction of one task.

    Args:
        task: The task.
        device: Where tensors live.
        conformal: Subtracted from the robustness of every part.
    """

    def __init__(self, task: SystemTask, device: str = "cpu", conformal: float = 0.0) -> None:
        super().__init__(task, device, conformal)
        self.task = task

    def features(self, state: Tensor, tick: Tensor, prefix: Mapping[str, Tensor]) -> Tensor:
        """Input of the network, (B, F): the task's features, time, progress."""
        time = tick[:, None].to(state.dtype) / self.task.steps
        return torch.cat([self.task.features(state), time, self.progress(prefix, tick)], dim=-1)

    @property
    def feature_size(self) -> int:
        """F."""
        return int(self.task.features(torch.zeros(1, self.task.state_size)).shape[-1]) + 1 + len(self.mission)


class ControlNetwork(nn.Module):
    """MLP after Meng & Fan (arXiv 2309.05131): state → raw controls of a whole episode, (B, T, m), unbounded."""

    def __init__(self, model: SystemModel, width: int, depth: int) -> None:
        super().__init__()
        self.steps, self.controls = model.task.steps, model.task.control_size
        sizes = [model.feature_size] + [width] * depth
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, self.steps * self.controls))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) → (B, T, m); row k is for k steps from now, whatever the time."""
        return self.body(features).reshape(-1, self.steps, self.controls)
