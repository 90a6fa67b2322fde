"""Settings of the multi-view masked autoencoder. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from policies.checks import require_positive
from robo.core.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class MaeConfig:
    """Sizes and masks; the defaults are those of RoboHorizon (arXiv 2501.06605)."""

    views: tuple[str, ...] = ("front", "left", "right", "wrist")
    """Names of all cameras there may be; a picture of some may be missing."""
    size: int = 96
    """Height and width of a picture [px]."""
    patch: int = 16
    """Height and width of a cell [px], a power of two: what is shown or hidden, and becomes a token."""
    frames: int = 4
    """Frames at once, the newest one last; fewer may be given."""
    width: int = 256
    """Numbers per token."""
    heads: int = 4
    """Of attention."""
    encoder_layers: int = 8
    """Transformer layers that see what is shown."""
    decoder_layers: int = 6
    """Transformer layers that fill in what is hidden."""
    decoder_width: int = 256
    """Numbers per token there."""
    numbers: int = 16
    """Of each cell that leave the encoder: all that the decoder, and policies, get of it."""
    summary: int = 512
    """Numbers of a summary of all that is shown, which the decoder gets beside cells."""
    masked_views: int = 3
    """So many views are hidden whole, drawn uniformly; at least one of those that are given remains."""
    mask: float = 0.95
    """Share of the cells of the others that is hidden, the same in all frames; at least one cell of each remains."""
    asked: float = 1.0
    """Share of all cells that the decoder is asked for in training, drawn for every sample; fewer are faster."""
    normalised: bool = False
    """Each cell's pixels are predicted in units of its own mean and deviation (He et al., arXiv 2111.06377)."""
    reward_weight: float = 0.1
    """Of the cross entropy of rewards, where they are given, beside the error of pixels, which begins at 1."""
    reward_bins: int = 255
    """Of the distribution over rewards, between symlogs of -20 and 20."""

    def __post_init__(self) -> None:
        sizes = ("size", "patch", "frames", "width", "heads", "encoder_layers", "decoder_layers", "decoder_width")
        require_positive(self, "mae", *sizes, "numbers", "summary")
        if not self.views or len(set(self.views)) < len(self.views):
            raise ConfigError(f"mae.views must be one name or more, each once, not {self.views}")
        if self.patch < 4 or self.patch & (self.patch - 1) or self.size % self.patch:
            raise ConfigError(f"mae.patch must be 4, 8, 16 ... and divide mae.size ({self.size}), not {self.patch}")
        for name in ("width", "decoder_width"):
            if getattr(self, name) % (4 * self.heads):
                raise ConfigError(f"mae.{name} must be a multiple of 4 mae.heads ({4 * self.heads})")
        if not 0.0 < self.asked <= 1.0:
            raise ConfigError(f"mae.asked must lie above 0 and not above 1, not {self.asked}")
        if not 0 <= self.masked_views < len(self.views) or not 0.0 <= self.mask < 1.0 or self.reward_weight < 0:
            raise ConfigError(
                f"mae.masked_views must leave one of {len(self.views)} views, mae.mask lie in [0, 1) and "
                f"mae.reward_weight not be negative, not {self.masked_views}, {self.mask} and {self.reward_weight}"
            )

    @property
    def cells(self) -> int:
        """Of one picture."""
        return (self.size // self.patch) ** 2

    @property
    def shown(self) -> int:
        """Cells of a view that is not hidden whole which remain."""
        return max(1, round((1.0 - self.mask) * self.cells))


PRESETS = {
    "paper": MaeConfig(),
    "mv_mwm": MaeConfig(masked_views=1, mask=0.9),
    "mwm": MaeConfig(views=("front",), frames=1, masked_views=0, mask=0.75),
    "small": MaeConfig(
        size=64,
        frames=1,
        width=96,
        decoder_width=96,
        encoder_layers=2,
        decoder_layers=2,
        numbers=8,
        summary=256,
        mask=0.25,
        asked=0.5,
        reward_bins=63,
    ),
}
"""``paper``: RoboHorizon; ``mv_mwm``: Multi-View Masked World Models (ICML 2023); ``mwm``: Masked World Models (arXiv
2206.14244), one view; ``small``: fast enough on a processor to be called at every control step."""


def preset(name: str, **changes: Any) -> MaeConfig:
    """A preset, with some fields changed.

    Raises:
        UnknownNameError: No preset of that name.
        ConfigError: A changed field is out of range.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset of the masked autoencoder", name, PRESETS)
    return replace(PRESETS[name], **changes)
