"""Settings of world models, of actors that learn in them, and of planning in them. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

from policies.checks import require_positive
from robo.core.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """The recurrent part; the defaults are those of RoboHorizon."""

    core: Literal["gru", "mamba"] = "gru"
    """``gru``: Dreamer's; ``mamba``: selective state spaces (Drama, arXiv 2410.08893), parallel in training."""
    deter: int = 1024
    """Deterministic numbers of a state."""
    hidden: int = 1024
    """Units of the layers around the core."""
    groups: int = 32
    """Categorical variables of a state ..."""
    classes: int = 32
    """... of so many classes each."""
    unimix: float = 0.01
    """Share of the uniform distribution in every categorical one (DreamerV3)."""
    layers: int = 2
    """Of ``mamba``."""
    heads: int = 8
    """Of ``mamba``: groups of channels that forget at one pace; must divide `deter`."""
    memory: int = 16
    """Of ``mamba``: numbers that every channel remembers."""

    def __post_init__(self) -> None:
        require_positive(self, "dynamics", "deter", "hidden", "groups", "layers", "heads", "memory")
        if self.core not in ("gru", "mamba"):
            raise UnknownNameError("dynamics.core", self.core, ("gru", "mamba"))
        if self.classes < 2 or not 0.0 < self.unimix < 1.0:
            raise ConfigError(
                f"dynamics.classes must be at least 2 and dynamics.unimix lie in (0, 1), "
                f"not {self.classes} and {self.unimix}"
            )
        if self.deter % self.heads:
            raise ConfigError(f"dynamics.deter ({self.deter}) must be a multiple of dynamics.heads ({self.heads})")


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The world model."""

    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    units: int = 512
    """Of hidden layers of encoder and heads."""
    layers: int = 2
    """Hidden layers of each."""
    objective: Literal["features", "target", "bottleneck"] = "features"
    """What makes states informative, beside rewards, ends and signals. ``features``: they give the features back
    (Dreamer). ``target``: memory predicts the encoder's next output (SPR, TD-MPC2), no decoder. ``bottleneck``:
    nothing else, and no more than `bottleneck_nats` may be taken from features (RePo, arXiv 2309.00082),
    against distractors."""
    features_weight: float = 1.0
    """Of half the squared error of symlogs of standardised features and proprioception, summed over numbers."""
    target_loss: Literal["cosine", "mse"] = "cosine"
    """Distance of ``target``; the encoder's output is then simplices of 8 numbers (SimNorm)."""
    target_weight: float = 10.0
    """Of that distance, at most 1 for ``cosine``; ``mse`` is summed over numbers."""
    bottleneck_nats: float = 3.0
    """See `objective`; kept by a multiplier that is learned."""
    kl_weight: float = 1.0
    """Of the divergence of what is seen from what was expected."""
    kl_balance: float = 0.8
    """Share of it that moves what was expected; the rest moves what is seen."""
    kl_free: float = 0.1
    """Mean divergence below which it costs nothing [nats]."""
    reward_weight: float = 1.0
    continue_weight: float = 1.0
    signals_weight: float = 1.0
    """Of half the squared error of symlogs of standardised signals, summed."""
    plain_weight: float = 1.0
    """Of half the squared error of how plain numbers change in a step, in units of such changes, summed."""
    bins: int = 255
    """Of distributions over rewards and values, between symlogs of -20 and 20."""
    ensemble: int = 5
    """One-step predictors whose disagreement says where the model does not know; 0: none."""
    ensemble_units: int = 256
    """Of their hidden layer."""

    def __post_init__(self) -> None:
        require_positive(self, "model", "units", "layers", "bottleneck_nats", "kl_weight", "bins", "ensemble_units")
        if self.objective not in ("features", "target", "bottleneck"):
            raise UnknownNameError("model.objective", self.objective, ("features", "target", "bottleneck"))
        if self.target_loss not in ("cosine", "mse"):
            raise UnknownNameError("model.target_loss", self.target_loss, ("cosine", "mse"))
        if not 0.0 <= self.kl_balance <= 1.0 or self.kl_free < 0:
            raise ConfigError(
                f"model.kl_balance must lie in [0, 1] and model.kl_free not be negative, "
                f"not {self.kl_balance} and {self.kl_free}"
            )
        if self.ensemble < 0 or self.ensemble == 1:
            raise ConfigError(f"model.ensemble must be 0 or at least 2, not {self.ensemble}")
        if self.objective == "target" and self.units % 8:
            raise ConfigError(f"model.units must be a multiple of 8 for objective target, not {self.units}")


@dataclass(frozen=True, kw_only=True)
class ActorConfig:
    """Actor and critic, which learn in imagination."""

    units: int = 512
    """Of hidden layers."""
    layers: int = 4
    """Hidden layers."""
    modes: int = 5
    """Of one that aims: so many things to aim at."""
    horizon: int = 15
    """Steps of imagination at most; a start's own horizon may be shorter, and then counts."""
    starts: int = 0
    """Moments of a batch to imagine from, drawn among those with a horizon; 0: all."""
    gradient: Literal["dynamics", "reinforce"] = "dynamics"
    """How returns teach the actor: through the model, or by the likelihood of what it did."""
    gamma: float = 0.99
    lam: float = 0.95
    """Of λ-returns."""
    entropy: float = 3e-4
    """Weight of the entropy of actions, beside normalised returns."""
    min_std: float = 0.1
    max_std: float = 1.0
    """Of actions, before tanh."""
    target_rate: float = 0.02
    """By which the slow critic follows the critic at a step."""
    return_rate: float = 0.01
    """By which the range of returns follows a batch's; returns are divided by it where it exceeds 1 (DreamerV3)."""
    cloning: float = 1.0
    """Weight of the distance from demonstrations, RoboHorizon's BC loss; see `policies.world.actor`."""
    doubt: float = 0.0
    """Of the ensemble's disagreement, subtracted from rewards; negative: sought, to explore (COPlanner)."""
    robustness: float = 0.0
    """Of the specification's robustness over imagined signals."""

    def __post_init__(self) -> None:
        require_positive(self, "actor", "units", "layers", "modes", "horizon", "min_std")
        if self.gradient not in ("dynamics", "reinforce"):
            raise UnknownNameError("actor.gradient", self.gradient, ("dynamics", "reinforce"))
        for name in ("gamma", "lam", "target_rate", "return_rate"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"actor.{name} must lie in [0, 1], not {getattr(self, name)}")
        if self.max_std <= self.min_std or min(self.starts, self.entropy, self.cloning) < 0:
            raise ConfigError(
                "actor.max_std must exceed actor.min_std; actor.starts, actor.entropy and actor.cloning must not be "
                f"negative; they are {self.max_std}, {self.min_std}, {self.starts}, {self.entropy}, {self.cloning}"
            )


@dataclass(frozen=True, kw_only=True)
class PlanConfig:
    """Planning in the model at every control step (MPPI as in TD-MPC2, arXiv 2310.16828)."""

    horizon: int = 5
    """Steps; beyond them the critic speaks."""
    samples: int = 256
    """Plans that are judged at an iteration ..."""
    from_actor: int = 16
    """... beside so many of the actor's."""
    elites: int = 32
    """Best plans, of which the next ones are drawn."""
    iterations: int = 4
    temperature: float = 0.5
    """Of the weights of elites: the smaller, the more the best one counts, in units of the elites' spread."""
    min_std: float = 0.05
    max_std: float = 1.0
    """Of actions, which lie in [-1, 1]."""
    doubt: float = 0.0
    """As `ActorConfig.doubt`."""
    robustness: float = 0.0
    """As `ActorConfig.robustness`."""

    def __post_init__(self) -> None:
        names = ("horizon", "samples", "elites", "iterations", "temperature", "min_std")
        require_positive(self, "plan", *names)
        if self.from_actor < 0 or self.elites > self.samples + self.from_actor or self.max_std < self.min_std:
            raise ConfigError(
                f"plan.elites ({self.elites}) must not exceed plan.samples + plan.from_actor, plan.from_actor not be "
                f"negative and plan.max_std not lie below plan.min_std"
            )


@dataclass(frozen=True, kw_only=True)
class RateConfig:
    """Adam's steps."""

    model: float = 3e-4
    actor: float = 1e-4
    critic: float = 1e-4
    clip: float = 100.0
    """Longest gradient of each."""

    def __post_init__(self) -> None:
        require_positive(self, "rate", "model", "actor", "critic", "clip")


@dataclass(frozen=True, kw_only=True)
class WorldConfig:
    """Everything that learns; the defaults are those of RoboHorizon and MV-MWM."""

    model: ModelConfig = field(default_factory=ModelConfig)
    actor: ActorConfig = field(default_factory=ActorConfig)
    plan: PlanConfig = field(default_factory=PlanConfig)
    rate: RateConfig = field(default_factory=RateConfig)
    batch: int = 36
    """Sequences of a step ..."""
    demos: int = 12
    """... and of demonstrations ..."""
    length: int = 50
    """... of so many moments each."""

    def __post_init__(self) -> None:
        require_positive(self, "world", "batch")
        if self.length < 2 or self.demos < 0:
            raise ConfigError(
                f"world.length must be at least 2 and world.demos not be negative, not {self.length} and {self.demos}"
            )


PRESETS = {
    "paper": WorldConfig(),
    "small": WorldConfig(
        model=ModelConfig(
            dynamics=DynamicsConfig(deter=128, hidden=128, groups=16, classes=15, memory=8),
            units=128,
            features_weight=0.1,
            signals_weight=3.0,
            kl_weight=0.3,
            bins=63,
            ensemble=3,
            ensemble_units=64,
        ),
        actor=ActorConfig(units=256, layers=3, horizon=12, starts=48, cloning=5.0),
        plan=PlanConfig(horizon=5, samples=40, from_actor=8, elites=8, iterations=3),
        rate=RateConfig(model=6e-4, actor=1e-3, critic=3e-4),
        batch=8,
        demos=8,
        length=24,
    ),
}
"""``paper``: RoboHorizon; ``small``: a training step and a plan are fast enough on one processor core."""


def preset(name: str, **changes: Any) -> WorldConfig:
    """A preset, with some fields changed.

    Raises:
        UnknownNameError: No preset of that name.
        ConfigError: A changed field is out of range.
    """
    if name not in PRESETS:
        raise UnknownNameError("preset of world models", name, PRESETS)
    return replace(PRESETS[name], **changes)
