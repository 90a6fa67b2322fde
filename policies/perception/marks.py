"""Where things are, told from pictures by who was told it in training. torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch import nn

from policies.perception.layers import Standard, mlp
from policies.perception.trunks import Pictures, single, where

Tensor = torch.Tensor
BEYOND = 5.0
"""Deviations: what fell off the table is far away, however far."""


class Trunk(nn.Module):
    """What convolutions find in each view: places, and what it looks like where they look, which says how a thing is
    turned. Half the work of `policies.perception.trunks.Conv`: but for the last, a block is a single convolution.

    Args:
        views: Names of cameras, all of which are needed.
        channels: Of the maps at a half, a quarter ... of a picture; multiples of 8.
        points: Places of each view (spatial softmax, Finn et al., arXiv 1509.06113).
        looks: Of the last maps but one, so many averages of each view, of attention of their own; may be 0.
    """

    def __init__(self, views: Sequence[str], channels: Sequence[int], points: int, looks: int) -> None:
        super().__init__()
        self.views = tuple(views)
        eyes = [_Eye(channels, points, looks) for _ in self.views]
        self.feature_size, self.eyes = sum(eye.size for eye in eyes), nn.ModuleList(eyes)

    def forward(self, pictures: Pictures) -> Tensor:
        """Of one frame of each view: (B, feature_size), places in -1..1 before the rest of each view.

        Raises:
            UnknownNameError, ConfigError: Not the views there are, or pictures of another type.
        """
        return torch.cat([eye(x) for eye, x in zip(self.eyes, single(pictures, self.views), strict=True)], dim=1)


class _Eye(nn.Module):
    """Of one view, (B, 3, H, W) → (B, size)."""

    def __init__(self, channels: Sequence[int], points: int, looks: int) -> None:
        super().__init__()
        sizes, last = [3, *channels], channels[-1]
        self._near = max(len(channels) - 2, 0)  # of the maps, the last but one
        self.size = 2 * points + looks * channels[self._near]
        self.halvings = nn.ModuleList(
            nn.Sequential(nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.GroupNorm(8, n_out), nn.ReLU())
            for n_in, n_out in itertools.pairwise(sizes)
        )
        self.block = nn.Sequential(
            nn.Conv2d(last, last, 3, padding=1),
            nn.GroupNorm(8, last),
            nn.ReLU(),
            nn.Conv2d(last, last, 3, padding=1),
            nn.GroupNorm(8, last),
        )
        self.points = nn.Conv2d(last, points, 1)
        self.looks = nn.Conv2d(channels[self._near], looks, 1) if looks else None

    def forward(self, x: Tensor) -> Tensor:
        maps = []
        for halving in self.halvings:
            x = halving(x)
            maps.append(x)
        found = [where(self.points(nn.functional.relu(x + self.block(x))))]
        if self.looks is not None:
            near = maps[self._near]
            shares = self.looks(near).flatten(2).softmax(dim=-1)
            found.append((shares @ near.flatten(2).transpose(1, 2)).flatten(1))
        return torch.cat(found, dim=1)


class Marks(nn.Module):
    """What convolutions find in each view, and what follows from it about the scene, such as poses of things.

    What is small in pictures is learned last, or not at all, by who is to draw them (`policies.perception.mae`); where
    a simulator knows the truth, it can be asked for.

    Args:
        views, channels, points, looks: See `Trunk`.
        units: Of the two hidden layers.
        numbers: That are told.

    Attributes:
        size: Numbers of `forward`.
        scale: Of what is told; to be fitted to it before the first step.
    """

    def __init__(
        self, views: Sequence[str], channels: Sequence[int], points: int, units: int, numbers: int, looks: int = 0
    ) -> None:
        super().__init__()
        self.trunk = Trunk(views, channels, points, looks)
        self.told, self.scale = mlp(self.trunk.feature_size, units, 2, numbers), Standard(numbers)
        self.numbers, self.size = numbers, numbers + self.trunk.feature_size

    def forward(self, pictures: Pictures) -> Tensor:
        """Of one frame of each view: what is found, and what is told, in deviations from its mean, (B, size)."""
        found = self.trunk(pictures)
        return torch.cat([found, self.told(found)], dim=1)

    def scene(self, seen: Tensor) -> Tensor:
        """What `forward` (B, size) told, (B, numbers), in its own units."""
        return self.scale.back(seen[:, -self.numbers :])

    def loss(self, pictures: Pictures, values: Tensor) -> Tensor:
        """Mean absolute error of values (B, numbers), in deviations, of which `BEYOND` count at most, ()."""
        return (self(pictures)[:, -self.numbers :] - self.scale(values).clamp(-BEYOND, BEYOND)).abs().mean()
