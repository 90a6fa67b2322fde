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
    pointing: float = 0.2
    """Weight of pointing at things in pictures, beside telling where they are; 0: nobody says where in a picture."""
    units: int = 256
    """Of hidden layers."""

    def __post_init__(self) -> None:
        require_positive(self, "marks", "points", "units")
        require_channels(self, "marks")
        for name in ("looks", "pointing"):
            if getattr(self, name) < 0:
                raise ConfigError(f"marks.{name} must not be negative, not {getattr(self, name)}")
