"""Layers that all parts of a world model are made of."""

from __future__ import annotations

import torch
from torch import nn

Tensor = torch.Tensor


class SimNorm(nn.Module):
    """Numbers as simplices of 8, by softmax (TD-MPC2, arXiv 2310.16828)."""

    def forward(self, x: Tensor) -> Tensor:
        """(..., 8 n) → (..., 8 n)."""
        return torch.softmax(x.unflatten(-1, (-1, 8)), -1).flatten(-2)


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


def picked(chances: Tensor, noise: Tensor) -> Tensor:
    """One of K by chances (..., K), which add up to 1, and uniform numbers in [0, 1), (...): its index, (...)."""
    return (torch.cumsum(chances, -1) <= noise.unsqueeze(-1)).sum(-1).clamp_max(chances.shape[-1] - 1)


def mean_of(values: Tensor, where: Tensor) -> Tensor:
    """Mean of values where a mask of the same shape (0, 1 or weights) is; 0 where it is nowhere."""
    return (values * where).sum() / where.sum().clamp_min(1.0)
