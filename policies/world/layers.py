"""Layers that all parts of a world model are made of."""

from __future__ import annotations

import torch
from torch import nn

Tensor = torch.Tensor
LEAST_STD = 1e-2
"""Numbers that hardly ever change are not blown up."""


def layer(inputs: int, units: int) -> nn.Sequential:
    """Linear, normalised, SiLU."""
    return nn.Sequential(nn.Linear(inputs, units, bias=False), nn.LayerNorm(units, eps=1e-3), nn.SiLU())


def mlp(inputs: int, units: int, layers: int, outputs: int, scale: float = 1.0) -> nn.Sequential:
    """Some layers and a linear one, whose initial weights are scaled; 0: it first says 0 of everything."""
    last = nn.Linear(units, outputs)
    with torch.no_grad():
        last.weight.mul_(scale)
        last.bias.zero_()
    return nn.Sequential(*(layer(inputs if i == 0 else units, units) for i in range(layers)), last)


class SimNorm(nn.Module):
    """Numbers as simplices of 8, by softmax (TD-MPC2, arXiv 2310.16828)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 8 n) → (..., 8 n)."""
        return torch.softmax(x.unflatten(-1, (-1, 8)), -1).flatten(-2)


class Standard(nn.Module):
    """Numbers in units of their own mean and deviation, which are part of the weights; at first as they are."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor, least: float = LEAST_STD) -> None:
        """Take mean and deviation, at least so large, of values (M, size)."""
        self.mean.copy_(values.float().mean(0))
        self.std.copy_(values.float().std(0).clamp_min(least))

    def forward(self, values: Tensor) -> Tensor:
        """Values (..., size), about standard normal."""
        return (values.float() - self.mean) / self.std

    def back(self, standard: Tensor) -> Tensor:
        """The other way."""
        return self.mean + self.std * standard


class Ensemble(nn.Module):
    """Networks of one hidden layer that predict the same and differ by their first weights.

    Args:
        members: How many, at least two.
        inputs, units, outputs: Sizes of each.
    """

    def __init__(self, members: int, inputs: int, units: int, outputs: int) -> None:
        super().__init__()
        self.first = nn.Parameter(torch.randn(members, inputs, units) / inputs**0.5)
        self.bias = nn.Parameter(torch.zeros(members, 1, units))
        self.last = nn.Parameter(torch.randn(members, units, outputs) / units**0.5)

    def forward(self, x: Tensor) -> Tensor:
        """(M, inputs) → what each says, (members, M, outputs)."""
        return torch.nn.functional.silu(x @ self.first + self.bias) @ self.last


def uniform(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Numbers in [0, 1), drawn where the generator is, put where `like` is."""
    return torch.rand(shape, generator=generator, device=generator.device).to(like.device)


def normal(shape: tuple[int, ...], generator: torch.Generator, like: Tensor) -> Tensor:
    """Standard normal numbers, drawn where the generator is, put where `like` is."""
    return torch.randn(shape, generator=generator, device=generator.device).to(like.device)


def mean_of(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values where a mask of the same shape (0, 1 or weights) is; 0 where it is nowhere."""
    return (values * where).sum() / where.sum().clamp_min(1.0)
