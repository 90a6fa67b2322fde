"""Layers of numbers that perception and world models share."""

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


class Standard(nn.Module):
    """Numbers in units of their own mean and deviation, which are part of the weights; at first as they are."""

    mean: Tensor
    std: Tensor

    def __init__(self, size: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("std", torch.ones(size))

    def fit(self, values: Tensor, least: float | Tensor = LEAST_STD) -> None:
        """Take mean and deviation, at least so large, of values (M, size)."""
        self.mean.copy_(values.float().mean(0))
        self.std.copy_(values.float().std(0).clamp_min(least))

    def forward(self, values: Tensor) -> Tensor:
        """Values (..., size), about standard normal."""
        return (values.float() - self.mean) / self.std

    def back(self, standard: Tensor) -> Tensor:
        """The other way."""
        return self.mean + self.std * standard
