"""Where things are, told from pictures by who was told it in training. torch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from policies.perception.layers import Standard, mlp
from policies.perception.trunks import Conv, Pictures

Tensor = torch.Tensor
BEYOND = 5.0
"""Deviations: what fell off the table is far away, however far."""


class Marks(nn.Module):
    """Places that convolutions find in each view, and what follows from them about the scene, such as poses of things.

    What is small in pictures is learned last, or not at all, by who is to draw them (`policies.perception.mae`); where
    a simulator knows the truth, it can be asked for.

    Args:
        views: Names of cameras, all of which are needed.
        channels: Of the maps at a half, a quarter ... of a picture; multiples of 8.
        points: Places of each view.
        units: Of the two hidden layers.
        numbers: That are told.

    Attributes:
        size: Numbers of `forward`.
        scale: Of what is told; to be fitted to it before the first step.
    """

    def __init__(self, views: Sequence[str], channels: Sequence[int], points: int, units: int, numbers: int) -> None:
        super().__init__()
        self.trunk = Conv(views, channels, points)
        self.told, self.scale = mlp(self.trunk.feature_size, units, 2, numbers), Standard(numbers)
        self.numbers, self.size = numbers, numbers + self.trunk.feature_size

    def forward(self, pictures: Pictures) -> Tensor:
        """Of one frame of each view: places in -1..1, and what is told, in deviations from its mean, (B, size)."""
        places = self.trunk.features(pictures)
        return torch.cat([places, self.told(places)], dim=1)

    def scene(self, seen: Tensor) -> Tensor:
        """What `forward` (B, size) told, (B, numbers), in its own units."""
        return self.scale.back(seen[:, -self.numbers :])

    def loss(self, pictures: Pictures, values: Tensor) -> Tensor:
        """Mean absolute error of values (B, numbers), in deviations, of which `BEYOND` count at most, ()."""
        return (self(pictures)[:, -self.numbers :] - self.scale(values).clamp(-BEYOND, BEYOND)).abs().mean()
