"""The planning network: state and task parameters → velocity knots of the whole remaining episode."""

from __future__ import annotations

import itertools

import torch
from torch import nn

from policies.stl.model import PlanModel


class PlanNetwork(nn.Module):
    """MLP after Meng & Fan (arXiv 2309.05131): an open-loop control sequence, tanh-scaled to the limits.

    Args:
        model: Gives sizes and velocity limits.
        width, depth: Hidden layers.
    """

    def __init__(self, model: PlanModel, width: int, depth: int) -> None:
        super().__init__()
        self.knots, self.joints = model.motion.knots, model.task.robot.dof
        sizes = [model.feature_size] + [width] * depth
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, self.knots * self.joints))
        self.velocity_rad_s: torch.Tensor
        self.register_buffer("velocity_rad_s", model.velocity_rad_s.clone(), persistent=False)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(B, F) → velocity knots (B, K, J) [rad/s]."""
        raw = self.body(features).reshape(-1, self.knots, self.joints)
        return torch.tanh(raw) * self.velocity_rad_s

    @torch.no_grad()
    def scramble(self, seed: int) -> None:
        """Redraw all weights so that the plans of this untrained network cover the whole velocity range.

        A freshly initialised network hardly moves the arm, which would make any safety test toothless.
        """
        generator = torch.Generator().manual_seed(seed)
        linear = [layer for layer in self.body if isinstance(layer, nn.Linear)]
        for i, layer in enumerate(linear):
            gain = 2.0 if i == len(linear) - 1 else 2.0**0.5
            nn.init.normal_(layer.weight, std=gain * layer.in_features**-0.5, generator=generator)
            nn.init.zeros_(layer.bias)
