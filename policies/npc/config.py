"""Settings of STL neural predictive control of systems."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.checks import require_pool, require_positive
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the network."""

    steps: int = 4000
    """Optimisation steps."""
    batch: int = 512
    """States per step."""
    pool: int = 8192
    """Episodes under way with the network's own plans."""
    learning_rate: float = 2e-3
    """Adam; falls to a twentieth along a half cosine."""
    width: int = 128
    """Units per hidden layer."""
    depth: int = 3
    """Hidden layers."""
    smooth: float = 30.0
    """Temperature of the smooth robustness."""
    margin: float = 0.2
    """Robustness up to which training pushes every part."""
    restart: float = 0.5
    """Share of visited states that go back to the start of a fresh episode."""

    def __post_init__(self) -> None:
        require_positive(self, "train", "steps", "batch", "pool", "learning_rate", "width", "depth", "smooth", "margin")
        require_pool(self)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Planning at run time."""

    network: bool = True
    """Ask the trained network; off: a random one (for comparison)."""
    search: bool = True
    """Repair plans whose robustness is below `margin`; off: the network alone."""
    certify: bool = True
    """Go on with a stored plan that is safe to the end of the episode rather than take one that is not."""
    margin: float = 1e-3
    """Robustness below which a plan is repaired."""
    conformal: float = 0.0
    """What the world may take of a plan's robustness; subtracted from every prediction. See robo-calibrate."""
    samples: int = 512
    """Plans tried at random about the network's."""
    refits: int = 15
    """How often new ones are drawn about the best of them (cross-entropy method)."""
    starts: int = 16
    """The best of them; in the end improved by gradient steps at once."""
    iterations: int = 40
    """Gradient steps at the most; fewer where one succeeds."""
    rounds: int = 8
    """How often at most all this is repeated at the first step of an episode; once at later ones."""
    smooth: float = 50.0
    """Temperature of the smooth robustness that the steps climb."""
    aim: float = 0.02
    """Robustness that the steps try to reach in every part."""
    learning_rate: float = 0.1
    """Adam's, on controls before they are squashed into their bounds."""
    spread: float = 0.7
    """Scatter of the random plans, before squashing."""

    def __post_init__(self) -> None:
        require_positive(
            self, "plan", "samples", "refits", "starts", "iterations", "rounds", "smooth", "learning_rate", "spread"
        )
        if self.conformal < 0:
            raise ConfigError(f"plan.conformal must not be negative, not {self.conformal}")
        if 4 * self.starts > self.samples:
            raise ConfigError(f"plan.samples ({self.samples}) must be at least 4 times plan.starts ({self.starts})")


@dataclass(frozen=True, kw_only=True)
class NpcConfig:
    """Everything that configures the policy kind ``npc``."""

    train: TrainConfig = field(default_factory=TrainConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
