"""What steps of gradient descent have in common, whoever learns."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch

from robo.core.errors import NonFiniteError


def warmed_cosine(step: int, steps: int, warm_up: int) -> float:
    """Share of the learning rate at a step, from 0 on: up along a line, then down along a half cosine."""
    progress = max(step - warm_up, 0) / max(steps - warm_up, 1)
    return min((step + 1) / warm_up, 0.5 * (1 + math.cos(math.pi * progress)))


def clipped(
    parameters: Iterable[torch.nn.Parameter], loss: torch.Tensor, longest: float, advice: str, of: str = ""
) -> float:
    """Shorten gradients to a length, together; how long they were.

    Args:
        parameters: Whose gradients are there.
        loss: That they are of, ().
        longest: Length that they have at most.
        advice: What to do where something is not finite.
        of: Of whom or when, for the message.

    Raises:
        NonFiniteError: The gradient or the loss is NaN or infinite.
    """
    length = torch.nn.utils.clip_grad_norm_(parameters, longest)
    for what, value in (("gradient", length), ("loss", loss)):
        if not torch.isfinite(value):
            raise NonFiniteError(f"{what}{of} is {value.item()}; {advice}")
    return length.item()
