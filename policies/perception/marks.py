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
        things: So many places more, which are to be those of things, and what it looks like there.
    """

    def __init__(self, views: Sequence[str], channels: Sequence[int], points: int, looks: int, things: int = 0) -> None:
        super().__init__()
        self.views = tuple(views)
        eyes = [_Eye(channels, points, looks, things) for _ in self.views]
        self.feature_size, self.eyes = sum(eye.size for eye in eyes), nn.ModuleList(eyes)

    def forward(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Of one frame of each view, (B, feature_size), places in -1..1 before the rest of each view; and how much each
        cell of the last maps is where each thing is, logits (B, views, things, h, w).

        Raises:
            UnknownNameError, ConfigError: Not the views there are, or pictures of another type.
        """
        seen = [eye(x) for eye, x in zip(self.eyes, single(pictures, self.views), strict=True)]
        found, maps = zip(*seen, strict=True)
        return torch.cat(found, dim=1), torch.stack(maps, dim=1)


class _Eye(nn.Module):
    """Of one view, (B, 3, H, W) → (B, size) and (B, things, h, w)."""

    def __init__(self, channels: Sequence[int], points: int, looks: int, things: int) -> None:
        super().__init__()
        sizes, last = [3, *channels], channels[-1]
        self._near = max(len(channels) - 2, 0)  # of the maps, the last but one
        self.things = things
        self.size = 2 * (things + points) + (things + looks) * channels[self._near]
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
        self.points = nn.Conv2d(last, things + points, 1)
        self.looks = nn.Conv2d(channels[self._near], looks, 1) if looks else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for halving in self.halvings:
            x = halving(x)
            maps.append(x)
        points, near = self.points(nn.functional.relu(x + self.block(x))), maps[self._near]
        found, things = [where(points)], points[:, : self.things]
        looks = [] if self.looks is None else [self.looks(near)]
        if self.things:
            size = near.shape[2:]
            looks.append(nn.functional.interpolate(things, size, mode="bilinear", align_corners=False))
        if looks:
            shares = torch.cat(looks, dim=1).flatten(2).softmax(dim=-1)
            found.append((shares @ near.flatten(2).transpose(1, 2)).flatten(1))
        return torch.cat(found, dim=1), things


class Marks(nn.Module):
    """What convolutions find in each view, and what follows from it about the scene, such as poses of things.

    What is small in pictures is learned last, or not at all, by who is to draw them (`policies.perception.mae`); where
    a simulator knows the truth, it can be asked for. What is small is found sooner by who is told where in each picture
    it is, cell by cell, than by who is told where it is in the world alone.

    Args:
        views, channels, points, looks, things: See `Trunk`.
        units: Of the two hidden layers.
        numbers: That are told.

    Attributes:
        size: Numbers of `forward`.
        scale: Of what is told; to be fitted to it before the first step.
    """

    def __init__(
        self,
        views: Sequence[str],
        channels: Sequence[int],
        points: int,
        units: int,
        numbers: int,
        looks: int = 0,
        things: int = 0,
    ) -> None:
        super().__init__()
        self.trunk = Trunk(views, channels, points, looks, things)
        self.told, self.scale = mlp(self.trunk.feature_size, units, 2, numbers), Standard(numbers)
        self.numbers, self.size = numbers, numbers + self.trunk.feature_size

    def forward(self, pictures: Pictures) -> Tensor:
        """Of one frame of each view: what is found, and what is told, in deviations from its mean, (B, size)."""
        found, _ = self.trunk(pictures)
        return torch.cat([found, self.told(found)], dim=1)

    def scene(self, seen: Tensor) -> Tensor:
        """What `forward` (B, size) told, (B, numbers), in its own units."""
        return self.scale.back(seen[:, -self.numbers :])

    def loss(self, pictures: Pictures, values: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """How far off it is, () each: what is told, and where things are in pictures.

        Args:
            pictures: One frame of each view.
            values: (B, numbers); errors are absolute ones in deviations, of which `BEYOND` count at most.
            pixels: Of things, (B, views, things, 2): right and down, in -1..1 from edge to edge; others are in no
                picture and do not count, nor does any where it points at none. Errors are cross-entropies with the
                cells about them, in nats.
        """
        found, maps = self.trunk(pictures)
        told = (self.told(found) - self.scale(values).clamp(-BEYOND, BEYOND)).abs().mean()
        inside = (pixels.abs() < 1).all(dim=-1)
        if not maps.shape[2] or not inside.any():
            return told, told.new_zeros(())
        return told, -(cells(pixels[inside], *maps.shape[-2:]) * maps[inside].flatten(1).log_softmax(-1)).sum(1).mean()


def cells(pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Shares of the cells of a map about places (N, 2), see `Marks.loss`: bilinear, (N, rows · columns)."""
    shares = []
    for place, count in zip(pixels.unbind(-1), (columns, rows), strict=True):
        at = ((place + 1) * count / 2 - 0.5).clamp(0, count - 1)
        shares.append((1 - (at[:, None] - torch.arange(count, device=at.device)).abs()).clamp_min(0))
    return (shares[1][:, :, None] * shares[0][:, None, :]).flatten(1)
