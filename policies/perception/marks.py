"""Where things are, told from pictures by who was told it in training. torch."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import torch
from torch import nn

from policies.perception.layers import Standard, mlp
from policies.perception.trunks import Pictures, single, where

Tensor = torch.Tensor
BEYOND = 5.0
"""Deviations: what fell off the table is far away, however far."""
DOUBTS = 64
"""Hidden units of how far it is off."""
NEAR = 5.0
"""Weight of distances in pictures beside cross-entropies."""
NOWHERE = 1.0
"""Half the height of a picture: pointing at what is in no picture is that far off."""
LOG_SCALES = (-5.0, 1.0)
"""Of errors, in halves of a picture or in deviations: what is not believed beyond."""


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
        self._things, self._sizes = things, [eye.size for eye in eyes]
        self.feature_size, self.eyes = sum(self._sizes), nn.ModuleList(eyes)

    def forward(self, pictures: Pictures) -> tuple[Tensor, Tensor]:
        """Of one frame of each view, (B, feature_size), places in -1..1 before the rest of each view; and how much each
        cell of the last maps but one is where each thing is, logits (B, views, things, h, w).

        Raises:
            UnknownNameError, ConfigError: Not the views there are, or pictures of another type.
        """
        seen = [eye(x) for eye, x in zip(self.eyes, single(pictures, self.views), strict=True)]
        found, maps = zip(*seen, strict=True)
        return torch.cat(found, dim=1), torch.stack(maps, dim=1)

    def places(self, found: Tensor) -> Tensor:
        """Mean places of things in what was found (B, feature_size): right and down, (B, views, things, 2)."""
        views = [part[:, : 2 * self._things].unflatten(1, (2, -1)) for part in found.split(self._sizes, dim=1)]
        return torch.stack(views, dim=1).flip(2).transpose(2, 3)


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
        self.fine = nn.Conv2d(channels[self._near], things, 3, padding=1) if things else None

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = []
        for halving in self.halvings:
            x = halving(x)
            maps.append(x)
        points, near = self.points(nn.functional.relu(x + self.block(x))), maps[self._near]
        things, points = points.tensor_split([self.things], dim=1)
        looks = [] if self.looks is None else [self.looks(near)]
        if self.fine is not None:  # where it is about, and where exactly
            things = nn.functional.interpolate(things, near.shape[2:], mode="bilinear") + self.fine(near)
            looks.append(things)
        found = [_places(things), _places(points)]
        if looks:
            shares = torch.cat(looks, dim=1).flatten(2).softmax(dim=-1)
            found.append((shares @ near.flatten(2).transpose(1, 2)).flatten(1))
        return torch.cat(found, dim=1), things


def _places(maps: Tensor) -> Tensor:
    """Mean places of maps (B, C, h, w), from edge to edge of the picture, (B, 2 C): rows, then columns."""
    # `where` tells them from the middle of the first cell to that of the last.
    edges = torch.tensor([1 - 1 / n for n in maps.shape[2:]], device=maps.device).repeat_interleave(maps.shape[1])
    return where(maps) * edges


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
        things: That are pointed at in each view; may be 0.
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
        found = self.trunk.feature_size
        self.told, self.scale = mlp(found, units, 2, numbers), Standard(numbers)
        self.numbers, self.size, self.things = numbers, numbers + found, things
        self.doubt = mlp(found, DOUBTS, 1, numbers + len(self.trunk.views) * things)

    def forward(self, pictures: Pictures) -> Tensor:
        """Of one frame of each view: what is found, and what is told, in deviations from its mean, (B, size)."""
        found, _ = self.trunk(pictures)
        return torch.cat([found, self.told(found)], dim=1)

    def scene(self, seen: Tensor) -> Tensor:
        """What `forward` (B, size) told, (B, numbers), in its own units."""
        return self.scale.back(seen[:, -self.numbers :])

    def pointed(self, seen: Tensor) -> Tensor:
        """Where things are in pictures, by `forward` (B, size): right and down, in -1..1 from edge to edge,
        (B, views, things, 2)."""
        return self.trunk.places(self._found(seen))

    def off(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """How far what `forward` (B, size) says usually is off: medians of errors where things look alike.

        Returns:
            Of `scene`, in its own units, (B, numbers); of `pointed`, in its unit, (B, views, things).
        """
        told, places = (logs.clamp(*LOG_SCALES).exp() for logs in self._doubts(self._found(seen)))
        return told * self.scale.std, places

    def _found(self, seen: Tensor) -> Tensor:
        return seen[:, -self.size : -self.numbers]

    def _doubts(self, found: Tensor) -> tuple[Tensor, Tensor]:
        """Logarithms, of what is told (B, numbers), and of places in pictures (B, views, things)."""
        told, places = self.doubt(found).tensor_split([self.numbers], dim=1)
        return told, places.reshape(len(found), len(self.trunk.views), self.things)

    def loss(self, pictures: Pictures, values: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """How far off it is, () each: what is told, where things are in pictures, and how far each is said to be off.

        The last teaches nothing but how far the others usually are off.

        Args:
            pictures: One frame of each view.
            values: (B, numbers); errors are absolute ones in deviations, of which `BEYOND` count at most.
            pixels: Of things, (B, views, things, 2): right and down, in -1..1 from edge to edge; others are in no
                picture and do not count, nor does any where it points at none. Errors are cross-entropies with the
                cells about them, in nats, and distances from their mean places.
        """
        found, maps = self.trunk(pictures)
        errors = (self.told(found) - self.scale(values).clamp(-BEYOND, BEYOND)).abs()
        logs, places = self._doubts(found.detach())
        pointing, unsure = found.new_zeros(()), _misjudged(errors.detach(), logs)
        if not self.things:
            return errors.mean(), pointing, unsure
        inside, far = (pixels.abs() < 1).all(dim=-1), found.new_full(pixels.shape[:-1], NOWHERE)
        if inside.any():
            share = cells(pixels[inside], *maps.shape[-2:])
            off = (self.trunk.places(found)[inside] - pixels[inside]).norm(dim=-1)
            pointing = -(share * maps[inside].flatten(1).log_softmax(-1)).sum(1).mean() + NEAR * off.mean()
            far[inside] = off.detach()
        return errors.mean(), pointing, unsure + _misjudged(far, places)


def _misjudged(errors: Tensor, logs: Tensor) -> Tensor:
    """How many times too far or too near errors were said to be, (), as a logarithm: least at their medians."""
    return (logs - errors.clamp_min(math.exp(LOG_SCALES[0])).log()).abs().mean()


def cells(pixels: Tensor, rows: int, columns: int) -> Tensor:
    """Shares of the cells of a map about places (N, 2), see `Marks.loss`: bilinear, (N, rows · columns)."""
    shares = []
    for place, count in zip(pixels.unbind(-1), (columns, rows), strict=True):
        at = ((place + 1) * count / 2 - 0.5).clamp(0, count - 1)
        shares.append((1 - (at[:, None] - torch.arange(count, device=at.device)).abs()).clamp_min(0))
    return (shares[1][:, :, None] * shares[0][:, None, :]).flatten(1)
