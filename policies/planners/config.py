"""Settings of the planners without a network: what stands under ``plan`` in their configs."""

from __future__ import annotations

from dataclasses import dataclass

from policies.checks import require_positive
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class PlannerConfig:
    """What all have."""

    aim: float = 1e-3
    """Robustness at which a planner is content."""


@dataclass(frozen=True, kw_only=True)
class SearchConfig(PlannerConfig):
    """What those have that search."""

    compiled: bool = False
    """Predict by compiled tapes, as ours does, instead of torch."""


@dataclass(frozen=True, kw_only=True)
class GradConfig(SearchConfig):
    """Gradient search."""

    starts: int = 64
    """Plans improved at once."""
    iterations: int = 200
    """Most steps."""
    learning_rate: float = 0.1
    """Adam's, on controls before squashing."""
    smooth: float = 10.0
    """Temperature of the smooth robustness."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "starts", "iterations", "learning_rate", "smooth")


@dataclass(frozen=True, kw_only=True)
class SamplingConfig(SearchConfig):
    """What those have that draw plans at random, again and again."""

    samples: int = 512
    """Plans per round."""
    iterations: int = 60
    """Most rounds."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "samples", "iterations")


@dataclass(frozen=True, kw_only=True)
class CemConfig(SamplingConfig):
    """Cross-entropy method."""

    elites: int = 16
    """How many of the best shape the next round."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 2 <= self.elites <= self.samples:
            raise ConfigError(f"plan.elites must lie between 2 and plan.samples ({self.samples}), not {self.elites}")


@dataclass(frozen=True, kw_only=True)
class MppiConfig(SamplingConfig):
    """Model predictive path integral."""

    temperature: float = 0.02
    """Robustness over which a weight falls to 1/e."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require_positive(self, "plan", "temperature")


@dataclass(frozen=True, kw_only=True)
class MpcConfig(PlannerConfig):
    """Nonlinear programming by IPOPT."""

    starts: int = 5
    """How often at most it begins anew, from other controls, while the plan does not satisfy."""
    iterations: int = 300
    """Most iterations of IPOPT, each time."""
    smooth: float = 10.0
    """Temperature of the smooth robustness."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "starts", "iterations", "smooth")


@dataclass(frozen=True, kw_only=True)
class MilpConfig(PlannerConfig):
    """Mixed-integer linear programming by HiGHS; `aim` is the least robustness of a plan."""

    time_limit_s: float = 60.0
    """Most time for a plan."""

    def __post_init__(self) -> None:
        require_positive(self, "plan", "time_limit_s", "aim")
