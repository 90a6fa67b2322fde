"""Settings of the policy for specifications unknown at training."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.checks import require_positive
from policies.npc.config import PlanConfig
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the network."""

    steps: int = 6000
    """Optimisation steps."""
    pool: int = 512
    """Shapes of formulas."""
    batch: int = 32
    """Shapes per step."""
    problems: int = 64
    """Problems of every shape that are at hand: constants and a start."""
    rows: int = 8
    """Problems of a shape per step."""
    fresh: int = 1
    """Of these, how many are replaced by new ones after the step."""
    ways: int = 4096
    """Random ways of the system along which problems are laid."""
    new_ways: int = 4
    """Of these, how many are replaced by new ones every step: a network would learn a fixed lot by heart."""
    learning_rate: float = 1e-3
    """Adam; falls to a twentieth along a half cosine."""
    width: int = 256
    """Units per hidden layer of the planning part."""
    depth: int = 3
    """Its hidden layers."""
    code: int = 96
    """Numbers that stand for a formula."""
    plans: int = 4
    """Plans proposed for a problem; the best is trained, the others a little."""
    others: float = 0.1
    """How much the others are trained."""
    smooth: float = 30.0
    """Temperature of the smooth robustness."""
    margin: float = 0.1
    """Robustness up to which training pushes every part."""

    def __post_init__(self) -> None:
        names = (
            "steps",
            "pool",
            "batch",
            "problems",
            "rows",
            "ways",
            "learning_rate",
            "width",
            "depth",
            "code",
            "plans",
        )
        require_positive(self, "train", *names, "smooth", "margin")
        if self.batch > self.pool:
            raise ConfigError(f"train.batch ({self.batch}) must not exceed train.pool ({self.pool})")
        if not 0 <= self.fresh <= self.rows <= self.problems:
            raise ConfigError(
                f"train.fresh ({self.fresh}) must not exceed train.rows ({self.rows}), nor these train.problems "
                f"({self.problems})"
            )
        if not 0 <= self.new_ways <= self.ways:
            raise ConfigError(f"train.new_ways ({self.new_ways}) must not exceed train.ways ({self.ways})")
        if not 0.0 <= self.others <= 1.0:
            raise ConfigError(f"train.others must lie in [0, 1], not {self.others}")


@dataclass(frozen=True, kw_only=True)
class SpecConfig:
    """Everything that configures the policy kind ``spec``."""

    train: TrainConfig = field(default_factory=TrainConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
