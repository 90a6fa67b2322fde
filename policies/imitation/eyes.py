"""From what is seen to features, and from actions to numbers around zero and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn
from torch.nn import functional

from policies.imitation.config import SeeConfig

CLIP = 5.0
"""Standard deviations beyond which a number tells no more."""


def shifted(pictures: torch.Tensor, most_px: int, generator: torch.Generator) -> torch.Tensor:
    """Pictures (B, C, H, W), each moved by up to so many pixels, edges repeated; drawn on the CPU."""
    if most_px == 0:
        return pictures
    b, _, h, w = pictures.shape
    padded = functional.pad(pictures, (most_px,) * 4, mode="replicate")
    offset = torch.randint(0, 2 * most_px + 1, (b, 2), generator=generator).to(pictures.device)
    rows = offset[:, :1] + torch.arange(h, device=pictures.device)
    columns = offset[:, 1:] + torch.arange(w, device=pictures.device)
    batch = torch.arange(b, device=pictures.device)[:, None, None]
    return padded.permute(0, 2, 3, 1)[batch, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


class Trunk(nn.Module):
    """Convolutions of one camera, to a map an eighth as large.

    Args:
        width: Channels of the first; the map has four times as many.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        sizes = [(3, width, 5), (width, 2 * width, 3), (2 * width, 4 * width, 3)]
        self.layers = nn.Sequential(
            *(
                nn.Sequential(nn.Conv2d(i, o, k, stride=2, padding=k // 2), nn.GroupNorm(4, o), nn.SiLU())
                for i, o, k in sizes
            ),
            nn.Conv2d(4 * width, 4 * width, 3, padding=1),
        )

    @staticmethod
    def maps(width: int) -> int:
        """How many maps come out."""
        return 4 * width

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) in -1..1 → (B, maps, H / 8, W / 8)."""
        return self.layers(pictures)


def where(maps: torch.Tensor) -> torch.Tensor:
    """Spatial softmax (Finn et al., arXiv 1509.06113): (B, C, h, w) → (B, 2 C), where each channel is, in -1..1."""
    b, c, h, w = maps.shape
    share = maps.flatten(2).softmax(-1).view(b, c, h, w)
    y = torch.linspace(-1, 1, h, device=maps.device)
    x = torch.linspace(-1, 1, w, device=maps.device)
    return torch.cat([(share.sum(3) * y).sum(2), (share.sum(2) * x).sum(2)], dim=1)


class Eyes(nn.Module):
    """What is seen, as one vector, or as tokens.

    Args:
        see: Settings.
        mean, std: Of the numbers, (N,) each.
    """

    mean: torch.Tensor
    std: torch.Tensor

    def __init__(self, see: SeeConfig, mean: torch.Tensor, std: torch.Tensor) -> None:
        super().__init__()
        self.see = see
        self.trunks = nn.ModuleDict({view: Trunk(see.width) for view in see.views})
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.size: int = len(mean) + 2 * Trunk.maps(see.width) * len(see.views)

    def numbers(self, numbers: torch.Tensor) -> torch.Tensor:
        """(B, N), about standard normal."""
        return ((numbers - self.mean) / self.std).clamp(-CLIP, CLIP)

    def maps(
        self, pictures: Mapping[str, torch.Tensor], generator: torch.Generator | None = None
    ) -> dict[str, torch.Tensor]:
        """Camera → (B, C, h, w); with a generator the pictures (B, H, W, 3) are shifted."""
        found = {}
        for view, trunk in self.trunks.items():
            picture = pictures[view].permute(0, 3, 1, 2).float() / 127.5 - 1.0
            found[view] = trunk(picture if generator is None else shifted(picture, self.see.shift_px, generator))
        return found

    def forward(
        self,
        numbers: torch.Tensor,
        pictures: Mapping[str, torch.Tensor],
        generator: torch.Generator | None = None,
    ) -> torch.Tensor:
        """(B, size)."""
        return torch.cat([self.numbers(numbers), *map(where, self.maps(pictures, generator).values())], dim=1)


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
