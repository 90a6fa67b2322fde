"""What is made of pictures: numbers for a world model, and pictures of such numbers."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from policies.horizon.config import MarksConfig
from policies.perception.mae import MultiViewMae
from policies.perception.mae_config import MaeConfig
from policies.perception.marks import Marks

Tensor = torch.Tensor
CHUNK = 256
"""Windows that are encoded at once."""


class Sight(nn.Module):
    """The autoencoder, and beside it, where that is learned, where things are.

    Args:
        mae, marks: Settings of both.
        known: Numbers about the scene that training knows; 0: none, and there are no marks.

    Attributes:
        size: Numbers of a moment.
    """

    def __init__(self, mae: MaeConfig, marks: MarksConfig, known: int) -> None:
        super().__init__()
        self.mae = MultiViewMae(mae)
        self.marks = Marks(mae.views, marks.channels, marks.points, marks.units, known) if marks.on and known else None
        self.size = self.mae.feature_size + (self.marks.size if self.marks else 0)

    @torch.no_grad()
    def features(self, pictures: Mapping[str, Tensor]) -> Tensor:
        """Of windows of all views, view → (B, T, H, W, 3) uint8, the newest frame last: (B, size)."""
        drawn = self.mae.features(pictures)
        if self.marks is None:
            return drawn
        return torch.cat([drawn, self.marks({view: x[:, -1] for view, x in pictures.items()})], dim=1)

    @torch.no_grad()
    def drawn(self, features: Tensor) -> dict[str, Tensor]:
        """What features (B, size) say that the newest pictures look like, view → (B, H, W, 3) in [0, 1]."""
        found = self.mae.drawn(features[:, : self.mae.feature_size])
        return {view: picture.clamp(0.0, 1.0) for view, picture in found.items()}

    def along(self, pictures: Mapping[str, Tensor], device: str) -> Tensor:
        """`features` at every frame of an episode, view → (T, H, W, 3) uint8: (T, size), on the CPU."""
        count = len(next(iter(pictures.values())))
        found = []
        for i in range(0, count, CHUNK):
            last = torch.arange(i, min(i + CHUNK, count))
            seen = windows(pictures, last, torch.zeros_like(last), self.mae.config.frames)
            found.append(self.features({view: x.to(device) for view, x in seen.items()}).cpu())
        return torch.cat(found)


def windows(pictures: Mapping[str, Tensor], last: Tensor, first: Tensor, frames: int) -> dict[str, Tensor]:
    """The frames up to some, as the autoencoder sees them; before the first of an episode, that was always there.

    Args:
        pictures: View → (F, H, W, 3), of one episode after the other.
        last: Rows (B,).
        first: Where the episode of each begins, (B,).
        frames: T.

    Returns:
        View → (B, T, H, W, 3).
    """
    rows = torch.maximum(last[:, None] + torch.arange(1 - frames, 1), first[:, None])
    return {view: x[rows] for view, x in pictures.items()}
