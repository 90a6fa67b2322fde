"""Settings of policies that imitate demonstrations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from policies.checks import require_channels, require_positive
from policies.precision import Precision
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class SeeConfig:
    """What is seen, and by what."""

    views: tuple[str, ...] = ("front", "wrist")
    """Cameras, by name."""
    size: int = 96
    """Height and width of pictures [pixels]; demonstrations must have been recorded so."""
    around: bool = False
    """Whether poses of things are seen too, as the simulator knows them; without views a policy needs them."""
    trunk: str = ""
    """Folder of a pretrained vision model, as `transformers` saves them, or ``sight`` of a run of ``horizon``; empty:
    convolutions from scratch."""
    tune: bool = False
    """Whether a pretrained one learns on; else it stays as it is."""
    channels: tuple[int, ...] = (32, 64, 128)
    """Of convolutions, at a half, a quarter ... of a picture."""
    shift_px: int = 3
    """Pictures are shifted by up to so much in training (Kostrikov et al., arXiv 2004.13649)."""

    def __post_init__(self) -> None:
        require_channels(self, "see")
        if self.size < 16 or self.size % 2:
            raise ConfigError(f"see.size must be an even number of pixels, at least 16, not {self.size}")
        if not 0 <= self.shift_px < self.size // 4:
            raise ConfigError(f"see.shift_px must lie in [0, {self.size // 4}), not {self.shift_px}")
        if len(set(self.views)) != len(self.views):
            raise ConfigError(f"see.views names a camera twice: {', '.join(self.views)}")
        if not self.views and not self.around:
            raise ConfigError(
                "a policy with no see.views sees nothing of the task; name cameras or set see.around true"
            )


@dataclass(frozen=True, kw_only=True)
class DoConfig:
    """What is done."""

    action: Literal["joint_pos", "ee_delta"] = "joint_pos"
    """What an action is; see `hardware.robots.commands`."""
    chunk: int = 16
    """Control steps that are predicted at once."""
    execute: int = 8
    """Of these, so many are executed before the next prediction; 0: predict at every step and average what
    predictions say of it, older ones weighing more (temporal ensembling of ACT, arXiv 2304.13705)."""

    def __post_init__(self) -> None:
        require_positive(self, "do", "chunk")
        if not 0 <= self.execute <= self.chunk:
            raise ConfigError(f"do.execute must lie in [0, do.chunk] = [0, {self.chunk}], not {self.execute}")


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """Training."""

    steps: int = 4000
    """Gradient steps."""
    batch: int = 64
    """Windows of demonstrations per step."""
    learning_rate: float = 5e-4
    """AdamW's, reached after `warm_up` steps, then falling along a half cosine."""
    warm_up: int = 100
    """Steps."""
    weight_decay: float = 1e-4
    """AdamW's."""
    precision: Precision = "auto"
    """Of products; see `policies.precision`."""
    average: float = 0.999
    """Decay of the exponential average of the weights, which is what acts."""
    episodes: int = 0
    """Demonstrations to learn from, the first of the dataset; 0: all."""

    def __post_init__(self) -> None:
        require_positive(self, "train", "steps", "batch", "learning_rate", "warm_up")
        if not 0.0 <= self.average < 1.0:
            raise ConfigError(f"train.average must lie in [0, 1), not {self.average}")
        if self.episodes < 0 or self.weight_decay < 0:
            raise ConfigError("train.episodes and train.weight_decay must not be negative")


@dataclass(frozen=True, kw_only=True)
class BcConfig:
    """Behaviour cloning: one prediction, mean absolute error."""

    width: int = 512
    """Units per hidden layer."""
    layers: int = 3
    """Hidden layers."""
    demos: str = ""
    """Folder of the demonstrations; `robo-collect` records them."""
    see: SeeConfig = field(default_factory=SeeConfig)
    do: DoConfig = field(default_factory=lambda: DoConfig(action="ee_delta", execute=0))
    train: TrainConfig = field(default_factory=TrainConfig)


@dataclass(frozen=True, kw_only=True)
class ActNetConfig:
    """The transformer of ACT."""

    width: int = 192
    """Of tokens."""
    heads: int = 4
    """Of attention."""
    encoder: int = 3
    """Layers."""
    decoder: int = 2
    """Layers."""
    style: int = 16
    """Of the variable that tells one demonstration from another; zero at run time."""
    kl: float = 10.0
    """Weight of its divergence from a normal distribution."""

    def __post_init__(self) -> None:
        require_positive(self, "net", "width", "heads", "encoder", "decoder", "style")
        if self.width % self.heads:
            raise ConfigError(f"net.width ({self.width}) must be a multiple of net.heads ({self.heads})")
        if self.kl < 0:
            raise ConfigError(f"net.kl must not be negative, not {self.kl}")


@dataclass(frozen=True, kw_only=True)
class ActConfig:
    """Action chunking with a transformer (Zhao et al., arXiv 2304.13705)."""

    demos: str = ""
    """Folder of the demonstrations; `robo-collect` records them."""
    see: SeeConfig = field(default_factory=lambda: SeeConfig(channels=(16, 32, 64, 128)))
    do: DoConfig = field(default_factory=lambda: DoConfig(chunk=32, execute=0))
    net: ActNetConfig = field(default_factory=ActNetConfig)
    train: TrainConfig = field(default_factory=lambda: TrainConfig(batch=32))


@dataclass(frozen=True, kw_only=True)
class NoiseConfig:
    """The diffusion of Diffusion Policy."""

    channels: tuple[int, ...] = (96, 192)
    """Of the network over time, from the full rate down."""
    steps: int = 50
    """Of noise in training."""
    samples: int = 10
    """Steps that remove it again when acting (DDIM, arXiv 2010.02502)."""

    def __post_init__(self) -> None:
        require_positive(self, "noise", "steps", "samples")
        require_channels(self, "noise")
        if self.samples > self.steps:
            raise ConfigError(f"noise.samples ({self.samples}) must not exceed noise.steps ({self.steps})")


@dataclass(frozen=True, kw_only=True)
class DiffusionConfig:
    """Diffusion Policy (Chi et al., arXiv 2303.04137)."""

    demos: str = ""
    """Folder of the demonstrations; `robo-collect` records them."""
    see: SeeConfig = field(default_factory=SeeConfig)
    do: DoConfig = field(default_factory=DoConfig)
    noise: NoiseConfig = field(default_factory=NoiseConfig)
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self) -> None:
        least = 2 ** (len(self.noise.channels) - 1)
        if self.do.chunk % least:
            raise ConfigError(f"do.chunk ({self.do.chunk}) must be a multiple of {least}, for noise.channels halve it")
