"""Settings of the STL neural predictive controller."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.checks import require_pool, require_positive
from policies.stl.certificate import CertificateConfig
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training of the network."""

    steps: int = 1200
    """Optimisation steps."""
    batch: int = 256
    """States per step."""
    pool: int = 2048
    """Instances, each an episode under way with the network's own plans."""
    learning_rate: float = 1e-3
    """Adam; falls to a twentieth along a half cosine."""
    width: int = 256
    """Units per hidden layer."""
    depth: int = 3
    """Hidden layers."""
    smooth: float = 150.0
    """Temperature of the smooth robustness [1/m]: error at most log(samples) / smooth."""
    margin: float = 0.05
    """Robustness up to which training pushes every part."""
    restart: float = 0.15
    """Share of visited states that go back to the start of a fresh episode."""

    def __post_init__(self) -> None:
        require_positive(self, "train", "steps", "batch", "pool", "learning_rate", "width", "depth", "smooth")
        require_pool(self)


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Planning at run time."""

    network: bool = True
    """Ask the trained network; off: a random one that moves at random (for comparison)."""
    refine: bool = True
    """Keep the plan of before and repair plans whose robustness is below `margin`; off: the network alone."""
    certify: bool = True
    """Commit only certified plans; off: whatever is best (for comparison in simulation)."""
    margin: float = 0.02
    """Robustness below which a plan is refined [unit of the signals]."""
    conformal: float = 0.0
    """What the world may take of a plan's robustness; planner and certificate subtract it. See robo-calibrate."""
    reserve: float = 0.02
    """Safety robustness planned beyond the stated bounds, so that plans can be certified."""
    starts: int = 4
    """Plans refined at once."""
    iterations: int = 2
    """Gradient steps per control period; refinement goes on from period to period."""
    smooth: float = 300.0
    """Temperature of the smooth robustness that refinement climbs."""
    aim: float = 0.04
    """Robustness that refinement tries to reach in every part."""
    step_rad_s: float = 0.3
    """Largest change of a knot's velocity per step."""
    spread_rad_s: float = 0.25
    """Scatter of the starts in a knot's velocity."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "starts", "iterations", "step_rad_s")
        if self.conformal < 0:
            raise ConfigError(f"plan.conformal must not be negative, not {self.conformal}")


@dataclass(frozen=True, kw_only=True)
class StlConfig:
    """Everything that configures the policy kind ``stl``."""

    train: TrainConfig = field(default_factory=TrainConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    certificate: CertificateConfig = field(default_factory=CertificateConfig)
