"""Numbers of any size as weights of bins (DreamerV3, arXiv 2301.04104, "Robust predictions"). torch."""

from __future__ import annotations

import torch
from torch import nn

from robo.core.errors import ConfigError

Tensor = torch.Tensor


def symlog(x: Tensor) -> Tensor:
    """``sign(x) ln(1 + |x|)``."""
    return torch.sign(x) * torch.log1p(x.abs())


def symexp(x: Tensor) -> Tensor:
    """Inverse of `symlog`."""
    return torch.sign(x) * torch.expm1(x.abs())


class TwoHot(nn.Module):
    """A number as weights of the two bins around its symlog.

    Args:
        low, high: Symlogs of the outermost bins; numbers beyond them count as those.
        bins: How many bins, evenly spaced, at least two.

    Raises:
        ConfigError: The bins have no extent.
    """

    def __init__(self, low: float = -20.0, high: float = 20.0, bins: int = 255) -> None:
        super().__init__()
        if bins < 2 or not low < high:
            raise ConfigError(f"two-hot needs at least 2 bins and low < high, not {bins} bins from {low} to {high}")
        self.low, self.high, self.bins = low, high, bins
        self.centres: Tensor
        self.register_buffer("centres", _evenly(low, high, bins), persistent=False)

    def encode(self, value: Tensor) -> Tensor:
        """Numbers (...) → weights (..., bins): two neighbours at most are not zero, all add up to 1."""
        place = (symlog(value.float()).clamp(self.low, self.high) - self.low) * (
            (self.bins - 1) / (self.high - self.low)
        )
        below = place.floor().clamp(0, self.bins - 2)
        upper = (place - below).unsqueeze(-1)
        index = below.long().unsqueeze(-1)
        weights = torch.zeros(*value.shape, self.bins, device=value.device)
        return weights.scatter(-1, index, 1 - upper).scatter(-1, index + 1, upper)

    def loss(self, logits: Tensor, value: Tensor) -> Tensor:
        """Cross entropy of logits (..., bins) with numbers (...), (...)."""
        return -(self.encode(value) * torch.log_softmax(logits.float(), -1)).sum(-1)

    def mean(self, logits: Tensor) -> Tensor:
        """The number that logits (..., bins) mean, (...): `symexp` of the mean symlog."""
        products = torch.softmax(logits.float(), -1) * self.centres
        # Added from both ends at once, equal weights of bins around 0 mean 0 exactly.
        return symexp((products + products.flip(-1)).sum(-1) / 2)


def _evenly(low: float, high: float, bins: int) -> Tensor:
    """Numbers from low to high, mirrored exactly about their middle."""
    half = torch.linspace(0.0, (high - low) / 2, bins)
    return (low + high) / 2 + (half - half.flip(0))
