"""The network of predictive control of systems: state and time → raw controls of a whole episode. torch."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from policies.system_model import SystemModel

Tensor = torch.Tensor


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
