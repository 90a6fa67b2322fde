"""From what is seen to features, and from actions to numbers around zero and back."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from policies.imitation.config import SeeConfig
from policies.perception.layers import Standard
from policies.perception.sight import CHUNK, Sight, blank_trunk
from policies.perception.trunks import Conv, Pretrained
from robo.core.errors import RunError
from robo.core.progress import progress

CLIP = 5.0
"""Standard deviations beyond which a number tells no more."""
DESCRIBED = "eyes.described"
"""`Eyes.described` among the weights of an `Imitator`."""
LEAST_SHARE, LEAST_STD = 0.1, 1e-6
"""Of the usual deviation of what a trunk says, and at all: what hardly ever changes is not blown up."""


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
        trunk: What `see.trunk` names; None: convolutions of its own.

    Attributes:
        size: Of the vector.
        learns: Whether what sees is trained; else what it says of pictures is taken in units of its deviation there,
            see `fit`.
        cells: How many tokens pictures become, and how long each is; (0, 0) without pictures.
        described: What the trunk is, as UTF-8 of its JSON: who has the weights needs no folder of it.
    """

    mean: torch.Tensor
    std: torch.Tensor
    described: torch.Tensor

    def __init__(
        self, see: SeeConfig, mean: torch.Tensor, std: torch.Tensor, trunk: Sight | Pretrained | None = None
    ) -> None:
        super().__init__()
        self.see, self.learns = see, trunk is None or see.tune
        self.register_buffer("mean", mean)
        self.register_buffer("std", std)
        self.size, self.cells = len(mean), (0, 0)
        if see.views:
            self.trunk = Conv(see.views, see.channels) if trunk is None else trunk
            if trunk is not None:
                said = json.dumps(trunk.described()).encode()
                self.register_buffer("described", torch.tensor(list(said), dtype=torch.uint8))
            self.size += self.trunk.feature_size
            self.standard = None if self.learns else Standard(self.trunk.feature_size)
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
        seen: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """(B, size) of numbers (B, N) and pictures; or of what `features` said of those, instead of them."""
        found = [self.numbers(numbers)]
        if self.see.views:
            found.append(self.features(self._moved(pictures, generator)) if seen is None else seen)
        return torch.cat(found, dim=1)

    def features(self, pictures: Mapping[str, torch.Tensor]) -> torch.Tensor:
        """What the trunk says of pictures (B, H, W, 3) uint8, (B, trunk.feature_size)."""
        return self._in_units(self.trunk.features(pictures))

    @torch.no_grad()
    def fit(self, pictures: Mapping[str, np.ndarray], device: str) -> torch.Tensor:
        """Look at all of a dataset with a trunk that is not trained, and take the units of what it says from that.

        Args:
            pictures: View → (F, H, W, 3) uint8.
            device: Where it is.

        Returns:
            `features` of all, (F, trunk.feature_size), on the device.
        """
        assert self.standard is not None
        count, found = len(next(iter(pictures.values()))), []
        with progress("batches of pictures seen", -(-count // CHUNK)) as looked:
            for i in range(0, count, CHUNK):
                some = {view: torch.from_numpy(x[i : i + CHUNK]).to(device) for view, x in pictures.items()}
                found.append(self.trunk.features(some))
                looked("")
        seen = torch.cat(found)
        self.standard.fit(seen, (LEAST_SHARE * seen.std(0).median()).clamp_min(LEAST_STD))
        return self._in_units(seen)

    def _in_units(self, seen: torch.Tensor) -> torch.Tensor:
        return seen if self.standard is None else self.standard(seen).clamp(-CLIP, CLIP)

    def _moved(
        self, pictures: Mapping[str, torch.Tensor], generator: torch.Generator | None
    ) -> Mapping[str, torch.Tensor]:
        if generator is None:
            return pictures
        return {view: shifted(picture, self.see.shift_px, generator) for view, picture in pictures.items()}


def described_trunk(see: SeeConfig, weights: Mapping[str, torch.Tensor]) -> Sight | Pretrained | None:
    """The trunk that weights are of, without its own; None: none.

    Args:
        see: Settings.
        weights: Of an `Imitator`.

    Raises:
        RoboError: They do not say what it is, or it is none.
    """
    if not see.trunk:
        return None
    if DESCRIBED not in weights:
        raise RunError(f"weights lack {DESCRIBED}, which says what see.trunk was; train again")
    try:
        said = json.loads(weights[DESCRIBED].cpu().numpy().tobytes())
    except ValueError as error:
        raise RunError(f"weights {DESCRIBED} are no JSON: {error}; train again") from error
    if not isinstance(said, dict):
        raise RunError(f"weights {DESCRIBED} must be a JSON object; train again")
    return blank_trunk(said, see.views, see.tune)


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
