"""From what is seen to features, and from actions to numbers around zero and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from policies.imitation.config import SeeConfig
from policies.perception.sight import open_trunk
from policies.perception.trunks import Conv

CLIP = 5.0
"""Standard deviations beyond which a number tells no more."""


def shifted(pictures: torch.Tensor, most_px: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, H, W, 3), each moved by up to so many pixels, edges repeated; drawn on the CPU."""
    if most_px == 0:
        return pictures
    b, h, w, _ = pictures.shape
    offset = torch.randint(-most_px, most_px + 1, (b, 2), generator=generator)
    rows = (offset[:, :1] + torch.arange(h)).clamp(0, h - 1).to(pictures.device)
    columns = (offset[:, 1:] + torch.arange(w)).clamp(0, w - 1).to(pictures.device)
    batch = torch.arange(b, device=pictures.device)[:, None, None]
    return pictures[batch, rows[:, :, None], columns[:, None, :]]


class Eyes(nn.Module):
    """What is seen, as one vector, or as tokens.

    Args:
        see: Settings.
        mean, std: Of the numbers, (N,) each.

    Attributes:
        size: Of the vector.
        cells: How many tokens pictures become, and how long each is; (0, 0) without pictures.

    Raises:
        RoboError: The trunk cannot be loaded.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, see: SeeConfig, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.see = see
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.size, self.cells = len(mean), (0, 0)
        if see.views:
            self.trunk = open_trunk(see.trunk, see.views, see.tune) if see.trunk else Conv(see.views, see.channels)
            self.size += self.trunk.feature_size
            blank = {view: torch.zeros(1, see.size, see.size, 3, dtype=torch.uint8) for view in see.views}
            with torch.no_grad():
                self.cells: tuple[int, int] = tuple(self.trunk.tokens(blank).shape[1:])  # type: ignore[assignment]

    def numbers(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B, N), about standard normal."""
        return ((numbers - self.mean) / self.std).clamp(-CLIP, CLIP)

    def tokens(
        self, pictures: Mapping[str, torch.Tensor], generator: torch.Generator | None = None
    ) -> torch.Tensor | None:
        """(B, *cells) of pictures (B, H, W, 3) uint8, shifted with a generator; None without pictures."""
        return self.trunk.tokens(self._moved(pictures, generator)) if self.see.views else None

    def forward(
        self,
        numbers: torch.Tensor,
        pictures: Mapping[str, torch.Tensor],
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """(B, size)."""
        seen = [self.numbers(numbers)]
        if self.see.views:
            seen.append(self.trunk.features(self._moved(pictures, generator)))
        return torch.cat(seen, dim=1)

    def _moved(
        self, pictures: Mapping[str, torch.Tensor], generator: torch.Generator | None
    ) -> Mapping[str, torch.Tensor]:
        if generator is None:
            return pictures
        return {view: shifted(picture, self.see.shift_px, generator) for view, picture in pictures.items()}


class Hands(nn.Module):
    """Actions to and from numbers between -1 and 1.

    Args:
        low, high: Least and greatest of the demonstrations, (A,) each; what never changed stays as it was.
    """

    middle: torch.Tensor
    span: torch.Tensor

    def __init__(self, low: torch.Tensor, high: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("middle", (low + high) / 2)
        self.register_buffer("span", ((high - low) / 2).clamp_min(1e-3))

    def inward(self, actions: torch.Tensor) -> torch.Tensor:
        """Of actions (..., A)."""
        return ((actions - self.middle) / self.span).clamp(-1.0, 1.0)

    def outward(self, values: torch.Tensor) -> torch.Tensor:
        """Back again."""
        return self.middle + self.span * values.clamp(-1.0, 1.0)
