"""Settings of soft actor-critic."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.checks import require_positive
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training."""

    steps: int = 2000
    """Rounds of collecting and learning."""
    episodes: int = 32
    """Episodes under way at once."""
    collect: int = 8
    """Control steps of each of them per round."""
    updates: int = 32
    """Gradient steps per round."""
    batch: int = 256
    """Transitions per gradient step."""
    buffer: int = 200_000
    """Transitions remembered."""
    warm_up: int = 5_000
    """Transitions at random before learning begins."""
    learning_rate: float = 1e-3
    """Adam's, of actor, critics and temperature."""
    discount: float = 0.99
    """Of rewards one control step later."""
    width: int = 256
    """Units per hidden layer; there are two."""
    margin: float = 0.2
    """Robustness of a part beyond which there is no more reward for it."""

    def __post_init__(self) -> None:
        names = ("steps", "episodes", "collect", "updates", "batch", "buffer", "warm_up", "learning_rate", "width")
        require_positive(self, "train", *names, "margin", "discount")
        if self.discount > 1.0:
            raise ConfigError(f"train.discount must not exceed 1, not {self.discount}")
        if self.buffer < self.episodes:
            raise ConfigError(f"train.buffer ({self.buffer}) must hold a step of every episode ({self.episodes})")


@dataclass(frozen=True, kw_only=True)
class SacConfig:
    """Everything that configures the policy kind ``sac``."""

    train: TrainConfig = field(default_factory=TrainConfig)
