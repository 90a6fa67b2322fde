"""What is made of pictures: numbers for a world model or another policy, and pictures of such numbers. torch."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from pydantic import TypeAdapter, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from policies.perception.mae import MultiViewMae
from policies.perception.mae_config import MaeConfig
from policies.perception.marks import Marks
from policies.perception.marks_config import MarksConfig
from policies.perception.trunks import Pictures, Pretrained
from robo.core.errors import ConfigError
from robo.core.files import read_json, write_json

Tensor = torch.Tensor
KIND = "robo_sight"
"""``model_type`` in the ``config.json`` of a folder."""
CONFIG, WEIGHTS = "config.json", "model.safetensors"
CHUNK = 256
"""Windows that are encoded at once."""


class Sight(nn.Module):
    """The autoencoder, and beside it, where that is learned, where things are.

    Args:
        mae, marks: Settings of both.
        known: Numbers about the scene that training knows; 0: none, and there are no marks.
        things: Of which training knows where in pictures they are.

    Attributes:
        feature_size: Numbers of a moment.
        learn: Whether gradients reach it.
    """

    learn: bool = False

    def __init__(self, mae: MaeConfig, marks: MarksConfig, known: int, things: int = 0) -> None:
        super().__init__()
        self.config = {"mae": mae, "marks": marks}
        self.known, self.things = known, things
        self.mae = MultiViewMae(mae)
        self.marks = None
        if marks.on and known:
            sizes = marks.channels, marks.points, marks.units
            self.marks = Marks(mae.views, *sizes, known, marks.looks, things if marks.pointing else 0)
        self.feature_size = self.mae.feature_size + (self.marks.size if self.marks else 0)

    def save(self, folder: Path) -> None:
        """Write settings and weights into a folder, made where it is not there."""
        folder.mkdir(parents=True, exist_ok=True)
        save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, folder / WEIGHTS)
        write_json(folder / CONFIG, self.described())

    def described(self) -> dict[str, Any]:
        """All but the weights, as JSON has it; see `blank`."""
        said = {name: dataclasses.asdict(config) for name, config in self.config.items()}
        return {"model_type": KIND, "known": self.known, "things": self.things, **said}

    @classmethod
    def blank(cls, said: Mapping[str, Any]) -> Self:
        """One as `described`, for weights to come.

        Raises:
            ConfigError: Something is missing or does not fit.
        """
        try:
            mae = TypeAdapter(MaeConfig).validate_python(said["mae"])
            marks = TypeAdapter(MarksConfig).validate_python(said["marks"])
            known, things = (TypeAdapter(int).validate_python(said[name]) for name in ("known", "things"))
        except KeyError as error:
            raise ConfigError(f"this describes no sight: {error} is missing") from error
        except ValidationError as error:
            raise ConfigError(f"this describes no sight: {str(error).splitlines()[0]}") from error
        return cls(mae, marks, known, things)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """What `save` wrote.

        Raises:
            ConfigError: Something is missing or does not fit.
        """
        said = read_json(folder / CONFIG, {"model_type": str})
        try:
            found = cls.blank(said)
            weights = load_file(folder / WEIGHTS)
            found.load_state_dict(weights)
        except (ConfigError, OSError, SafetensorError, RuntimeError) as error:
            raise ConfigError(f"{folder} holds no sight that can be read: {str(error).splitlines()[0]}") from error
        for name, value in weights.items():
            if not torch.isfinite(value).all():
                raise ConfigError(f"{folder}: weights {name} hold NaN or infinity; train it again")
        return found

    def tokens(self, pictures: Pictures) -> Tensor:
        """See `policies.perception.trunks.Trunk`: the autoencoder's."""
        with torch.set_grad_enabled(self.learn and torch.is_grad_enabled()):
            return self.mae.tokens(pictures)

    def features(self, pictures: Pictures) -> Tensor:
        """Of windows of all views, view → (B, [T,] H, W, 3) uint8, the newest frame last: (B, feature_size)."""
        with torch.set_grad_enabled(self.learn and torch.is_grad_enabled()):
            drawn = self.mae.features(pictures)
            if self.marks is None:
                return drawn
            newest = {view: x[:, -1] if x.ndim == 5 else x for view, x in pictures.items()}
            return torch.cat([drawn, self.marks(newest)], dim=1)

    @torch.no_grad()
    def drawn(self, features: Tensor) -> dict[str, Tensor]:
        """What features (B, feature_size) say that the newest pictures look like, view → (B, H, W, 3) in [0, 1]."""
        found = self.mae.drawn(features[:, : self.mae.feature_size])
        return {view: picture.clamp(0.0, 1.0) for view, picture in found.items()}

    def along(self, pictures: Pictures, device: str) -> Tensor:
        """`features` at every frame of an episode, view → (T, H, W, 3) uint8: (T, feature_size), on the CPU."""
        count = len(next(iter(pictures.values())))
        found = []
        for i in range(0, count, CHUNK):
            last = torch.arange(i, min(i + CHUNK, count))
            rows = windows(last, torch.zeros_like(last), self.mae.config.frames)
            found.append(self.features({view: x[rows].to(device) for view, x in pictures.items()}).cpu())
        return torch.cat(found)


def windows(last: Tensor, first: Tensor, frames: int) -> Tensor:
    """Rows (B, T) of the frames up to some, as the autoencoder sees them.

    Args:
        last: Rows of the newest ones, (B,).
        first: Where the episode of each begins, (B,); before that frame, it was always there.
        frames: T.
    """
    return torch.maximum(last[:, None] + torch.arange(1 - frames, 1), first[:, None])


def open_trunk(path: str, views: Sequence[str], learn: bool) -> Sight | Pretrained:
    """What a folder holds that sees: a sight of this project, or a model as `transformers` saves them.

    Args:
        path: The folder.
        views: Cameras it is to be given.
        learn: Whether it is trained on.

    Raises:
        RoboError: It holds neither, or does not fit.
    """
    folder = Path(path)
    if not (folder / CONFIG).is_file() or read_json(folder / CONFIG, {"model_type": str})["model_type"] != KIND:
        return Pretrained.from_pretrained(path, views, learn)
    return _trunk(Sight.load(folder), str(folder), views, learn)


def blank_trunk(said: Mapping[str, Any], views: Sequence[str], learn: bool) -> Sight | Pretrained:
    """What `open_trunk` opened, as it described itself, for weights to come.

    Args:
        said: Its `described`.
        views, learn: See `open_trunk`.

    Raises:
        RoboError: Nothing is described by that.
    """
    if said.get("model_type") != KIND:
        return Pretrained.blank(said, views, learn)
    return _trunk(Sight.blank(said), "the trunk of these weights", views, learn)


def _trunk(sight: Sight, name: str, views: Sequence[str], learn: bool) -> Sight:
    if sight.mae.config.views != tuple(views):
        raise ConfigError(
            f"{name} sees {', '.join(sight.mae.config.views)}, not {', '.join(views)}; name those, in this order"
        )
    sight.learn = learn
    sight.mae.only_see()
    return sight.requires_grad_(learn)
