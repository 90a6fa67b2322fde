"""Settings of marks. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass

from policies.checks import require_channels, require_positive
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class MarksConfig:
    """Where things are, learned from what the simulator knows, beside the autoencoder: `policies.perception.marks`."""

    on: bool = False
    """Whether that is learned, and given to the world model beside what the autoencoder makes of pictures."""
    channels: tuple[int, ...] = (16, 32, 64)
    """Of convolutions, at a half, a quarter ... of a picture."""
    points: int = 32
    """Places of each view."""
    looks: int = 4
    """Averages of each view's maps, where in pictures they look; 0: places alone."""
    units: int = 256
    """Of hidden layers."""

    def __post_init__(self) -> None:
        require_positive(self, "marks", "points", "units")
        require_channels(self, "marks")
        if self.looks < 0:
            raise ConfigError(f"marks.looks must not be negative, not {self.looks}")
