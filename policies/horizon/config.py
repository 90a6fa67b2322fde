"""Settings of ``horizon``. No torch at import."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Literal

from policies.checks import require_positive
from policies.perception.keyframes import KeyframeConfig
from policies.perception.mae_config import PRESETS as MAES
from policies.perception.mae_config import MaeConfig
from policies.perception.marks_config import MarksConfig
from policies.precision import Compiled, Precision
from policies.world.config import PRESETS as WORLDS
from policies.world.config import WorldConfig
from robo.core.errors import ConfigError, UnknownNameError


@dataclass(frozen=True, kw_only=True)
class SenseConfig:
    """How what sees is trained, before all else."""

    ready: str = ""
    """Folder ``sight`` of another run, which is taken as it is, without training; empty: none."""
    steps: int = 20_000
    """Gradient steps."""
    batch: int = 64
    """Windows of frames per step."""
    learning_rate: float = 3e-4
    """AdamW's, reached after `warm_up` steps, then falling along a half cosine."""
    warm_up: int = 100
    """Steps."""
    precision: Precision = "auto"
    """Of the autoencoder's products; see `policies.precision`. What marks say is to be exact to millimetres."""
    compiled: Compiled = "auto"
    """Whether the autoencoder is compiled (`torch.compile`); see there, too."""
    of_demos: float = 0.25
    """Share of those that demonstrations are, of which there are few; the rest is random motion, and what is lived."""
    refresh: int = 4
    """Marks learn on, a step at every so many of the world model's, for a policy gets to see what neither random motion
    nor demonstrations show; 0: they do not. The autoencoder stays as it is ..."""
    refresh_rate: float = 5e-4
    """... at this rate ..."""
    keep: int = 3072
    """... from demonstrations, so many frames of random motion and as many of later episodes, drawn as often ..."""
    of_episode: int = 20
    """... each of which gives so many, or counts as if it had no more."""

    def __post_init__(self) -> None:
        names = ("steps", "batch", "learning_rate", "warm_up", "refresh_rate", "keep", "of_episode")
        require_positive(self, "sense", *names)
        if self.refresh < 0:
            raise ConfigError(f"sense.refresh must not be negative, not {self.refresh}")
        if not 0.0 < self.of_demos < 1.0:
            raise ConfigError(f"sense.of_demos must lie above 0 and below 1, not {self.of_demos}")


@dataclass(frozen=True, kw_only=True)
class KeysConfig:
    """What keyframes are for."""

    on: bool = True
    """Whether imagination lasts to the next keyframe, else always `world.actor.horizon` steps; and whether what is
    cloned is the way to the next keyframe of a demonstration, else the step that was taken. A way is right from
    wherever it begins, while a step says nothing of what to do beside the demonstrated line."""
    find: KeyframeConfig = field(default_factory=KeyframeConfig)
    """What keyframes are."""
    near_s: float = 0.15
    """Of the way to a keyframe, so much is gone at the speed at which all would take that long, at most `speed`."""
    speed: float = 0.8
    """Of the largest motion, see `hardware.robots.commands`."""
    before_s: float = 0.7
    """A keyframe at which the gripper does nothing is left so long before it is reached: nobody has to come to rest."""
    grip_s: float = 0.2
    """The gripper does what it does at a keyframe so long before."""

    def __post_init__(self) -> None:
        require_positive(self, "keys", "near_s", "speed")
        if min(self.before_s, self.grip_s) < 0 or self.speed > 1:
            raise ConfigError(
                f"keys.before_s and keys.grip_s must not be negative, keys.speed not exceed 1; they are "
                f"{self.before_s}, {self.grip_s}, {self.speed}"
            )


@dataclass(frozen=True, kw_only=True)
class AimConfig:
    """An actor that decides for a key-horizon: where the tool is to be at the next keyframe, which it then keeps to."""

    on: bool = False
    """Whether it does, where `keys.on` and `marks.on`, else it decides at every step. It sees what marks tell and the
    arm itself, nothing else."""
    batch: int = 256
    """Moments of demonstrations from which it learns ..."""
    lessons: int = 1
    """... so often at a step of the world model."""
    taught_m: float = 0.03
    taught_rad: float = 0.3
    """Of the way to a keyframe these last ends teach nothing, or it would be content with where it is."""
    begins: float = 0.5
    """Such a share of moments follow a keyframe, for what comes next is decided there ..."""
    arrives: float = 0.5
    """... so far aside (standard deviation), of how near counts as there."""
    aside: float = 0.09
    """Demonstrations are learned from beside them: so much of the distance to the keyframe (standard deviation of each
    direction) ..."""
    aside_m: float = 0.035
    """... at most so much ..."""
    aside_rad: float = 0.04
    """... and turned by so much there."""
    error_m: float = 0.006
    error_rad: float = 0.05
    """Errors of what is told of things while it learns (standard deviation about each direction) ..."""
    error_joint: float = 0.01
    """... and of joints of fixtures [m, rad]."""
    error_width_m: float = 0.004
    """What is held is by so much wider (half a normal distribution), for it is not always held as demonstrated."""
    near_m: float = 0.008
    near_rad: float = 0.08
    """From here on an aim is reached ..."""
    still_m_s: float = 0.02
    """... unless the jaws move faster ..."""
    least_s: float = 0.2
    """... or it was taken up so shortly before."""
    patience_s: float = 3.0
    """After that it is given up."""
    same_m: float = 0.03
    """On the way, what is so near to it is the same, and better known ..."""
    follow: float = 0.25
    """... and the aim moves there by this share at every step ..."""
    fixed_m: float = 0.02
    """... until it is so near."""
    other: float = 1.5
    other_jaws: float = 0.15
    """What comes next differs from where one is by so many times `near_m` or `near_rad`, or by so much of the gripper's
    range, if anything does that is not ..."""
    unlikely: float = 0.05
    """... less likely than this."""

    def __post_init__(self) -> None:
        names = ("batch", "lessons", "taught_m", "taught_rad", "aside_m", "near_m", "near_rad", "patience_s", "other")
        require_positive(self, "aims", *names)
        zeros = (
            "arrives",
            "aside",
            "aside_rad",
            "error_m",
            "error_rad",
            "error_joint",
            "error_width_m",
            "still_m_s",
            "least_s",
            "same_m",
            "fixed_m",
            "other_jaws",
        )
        for name in zeros:
            if getattr(self, name) < 0:
                raise ConfigError(f"aims.{name} must not be negative, not {getattr(self, name)}")
        for name in ("begins", "follow", "unlikely"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ConfigError(f"aims.{name} must lie in [0, 1], not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class ExploreConfig:
    """Episodes that are played while it learns."""

    processes: int = 1
    """That play."""
    babble: int = 400
    """Episodes of random motion, before all else ..."""
    babble_steps: int = 60
    """... that end after so many control steps."""
    glances: int = 0
    """So many more end after one: what is where differs between episodes, hardly within. All of these begin anywhere,
    often above a thing."""
    episodes: int = 4
    """Of a round ..."""
    every: int = 128
    """... which begins every so many steps, with the weights of then, and is over when the next begins."""
    rest: int = 0
    """Steps of the world model before the first round; 0: as many as between two."""
    capacity: int = 200_000
    """Moments that are remembered, beside demonstrations."""
    imitate: bool = True
    """Whether episodes that succeed are cloned as demonstrations are, by an actor that decides at every step."""

    def __post_init__(self) -> None:
        require_positive(self, "explore", "processes", "babble", "babble_steps", "episodes", "every", "capacity")
        for name in ("rest", "glances"):
            if getattr(self, name) < 0:
                raise ConfigError(f"explore.{name} must not be negative, not {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """The world model, and who learns in it."""

    steps: int = 100_000
    """After those of the autoencoder."""
    reward: Literal["staged", "success"] = "staged"
    """``staged``: what the stages of the task say; ``success``: 1 while the goal holds and all were reached."""
    truth: bool = True
    """Whether the world model learns to tell the poses of things, which the simulator knows, beside signals; marks
    need it."""
    episodes: int = 0
    """Demonstrations to learn from, the first of the dataset; 0: all."""
    after_s: float = 0.75
    """A demonstration ends so long after its last stage was reached: who has done all rests where others still have
    something to do."""

    def __post_init__(self) -> None:
        require_positive(self, "train", "steps", "after_s")
        if self.reward not in ("staged", "success"):
            raise UnknownNameError("train.reward", self.reward, ("staged", "success"))
        if self.episodes < 0:
            raise ConfigError(f"train.episodes must not be negative, not {self.episodes}")


@dataclass(frozen=True, kw_only=True)
class HorizonConfig:
    """Everything; the defaults are those of RoboHorizon."""

    demos: str = ""
    """Folder of the demonstrations; `robo-collect` records them."""
    act: Literal["actor", "drawn", "mpc"] = "actor"
    """Who acts: the actor's middle action, or its likeliest aim; one drawn from what the actor says; or a plan made in
    the world model at every step."""
    mae: MaeConfig = field(default_factory=MaeConfig)
    marks: MarksConfig = field(default_factory=MarksConfig)
    sense: SenseConfig = field(default_factory=SenseConfig)
    keys: KeysConfig = field(default_factory=KeysConfig)
    aims: AimConfig = field(default_factory=AimConfig)
    world: WorldConfig = field(default_factory=WorldConfig)
    explore: ExploreConfig = field(default_factory=ExploreConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        if self.marks.on and not self.train.truth:
            raise ConfigError("marks.on needs train.truth, for marks are learned from it; set both or neither")
        if self.act not in ("actor", "drawn", "mpc"):
            raise UnknownNameError("act", self.act, ("actor", "drawn", "mpc"))

    @property
    def aiming(self) -> bool:
        """Whether the actor aims: at keyframes, seen from what marks tell."""
        return self.aims.on and self.keys.on and self.marks.on


def _without_keys(config: HorizonConfig, mae: MaeConfig) -> HorizonConfig:
    """What was there before RoboHorizon: other masks, imagination of one length, no stages."""
    train = replace(config.train, reward="success")
    return replace(config, mae=mae, keys=replace(config.keys, on=False), train=train)


_SMALL = HorizonConfig(
    mae=MAES["small"],
    marks=MarksConfig(on=True),
    sense=SenseConfig(steps=1500, batch=32, learning_rate=1e-3, warm_up=50),
    aims=AimConfig(on=True, lessons=4),
    world=WORLDS["small"],
    explore=ExploreConfig(babble=200, glances=8000, rest=1000),
    train=TrainConfig(steps=2500),
)
_PAPER = HorizonConfig()
PRESETS = {
    "small": _SMALL,
    "small_mv_mwm": _without_keys(_SMALL, replace(_SMALL.mae, masked_views=1)),
    "small_mwm": _without_keys(_SMALL, replace(_SMALL.mae, views=("front",), masked_views=0)),
    "paper": _PAPER,
    "mv_mwm": _without_keys(_PAPER, MAES["mv_mwm"]),
    "mwm": _without_keys(_PAPER, MAES["mwm"]),
}
"""``small``: for a processor, within an hour; ``paper``: for a GPU. ``mv_mwm`` and ``mwm`` are the predecessors,
Multi-View Masked World Models (ICML 2023) and Masked World Models (arXiv 2206.14244), in this code and both sizes."""
