"""Settings of the planners without a network."""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.checks import require_positive
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class GradConfig:
    """Gradient search."""

    starts: int = 64
    """Plans improved at once."""
    iterations: int = 200
    """Most steps."""
    learning_rate: float = 0.1
    """Adam's, on controls before squashing."""
    smooth: float = 10.0
    """Temperature of the smooth robustness."""
    aim: float = 1e-3
    """Robustness at which it is content."""
    compiled: bool = False
    """Predict by compiled tapes, as ours does, instead of torch."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "starts", "iterations", "learning_rate", "smooth")


@dataclass(frozen=True, kw_only=True)
class CemConfig:
    """Cross-entropy method."""

    samples: int = 512
    """Plans per round."""
    iterations: int = 60
    """Most rounds."""
    elites: int = 16
    """How many of the best shape the next round."""
    aim: float = 1e-3
    """Robustness at which it is content."""
    compiled: bool = False
    """Predict by compiled tapes, as ours does, instead of torch."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "samples", "iterations")
        if not 2 <= self.elites <= self.samples:
            raise ConfigError(f"plan.elites must lie between 2 and plan.samples ({self.samples}), not {self.elites}")


@dataclass(frozen=True, kw_only=True)
class MppiConfig:
    """Model predictive path integral."""

    samples: int = 512
    """Plans per round."""
    iterations: int = 60
    """Most rounds."""
    temperature: float = 0.02
    """Robustness over which a weight falls to 1/e."""
    aim: float = 1e-3
    """Robustness at which it is content."""
    compiled: bool = False
    """Predict by compiled tapes, as ours does, instead of torch."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "samples", "iterations", "temperature")


@dataclass(frozen=True, kw_only=True)
class MpcConfig:
    """Nonlinear programming by IPOPT."""

    starts: int = 5
    """How often at most it begins anew, from other controls, while the plan does not satisfy."""
    iterations: int = 300
    """Most iterations of IPOPT, each time."""
    smooth: float = 10.0
    """Temperature of the smooth robustness."""
    aim: float = 1e-3
    """Robustness at which it is content."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "starts", "iterations", "smooth")


@dataclass(frozen=True, kw_only=True)
class MilpConfig:
    """Mixed-integer linear programming by HiGHS."""

    time_limit_s: float = 60.0
    """Most time for a plan."""
    aim: float = 1e-3
    """Least robustness of a plan."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "time_limit_s", "aim")


@dataclass(frozen=True, kw_only=True)
class GradSettings:
    """Everything that configures the policy kind ``grad``."""

    plan: GradConfig = field(default_factory=GradConfig)


@dataclass(frozen=True, kw_only=True)
class CemSettings:
    """Everything that configures the policy kind ``cem``."""

    plan: CemConfig = field(default_factory=CemConfig)


@dataclass(frozen=True, kw_only=True)
class MppiSettings:
    """Everything that configures the policy kind ``mppi``."""

    plan: MppiConfig = field(default_factory=MppiConfig)


@dataclass(frozen=True, kw_only=True)
class MpcSettings:
    """Everything that configures the policy kind ``mpc``."""

    plan: MpcConfig = field(default_factory=MpcConfig)


@dataclass(frozen=True, kw_only=True)
class MilpSettings:
    """Everything that configures the policy kind ``milp``."""

    plan: MilpConfig = field(default_factory=MilpConfig)
