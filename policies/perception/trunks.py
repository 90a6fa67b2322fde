"""Trunks: what makes features of pictures, one interface whether learned here or elsewhere. torch; transformers lazily.

`policies.perception.mae.MultiViewMae` is one, too.
"""

from __future__ import annotations

import dataclasses
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self

import torch
from pydantic import TypeAdapter, ValidationError
from torch import nn

from robo.core.errors import ConfigError, MissingDependencyError, UnknownNameError
from robo.core.files import read_json

Tensor = torch.Tensor
Pictures = Mapping[str, Tensor]
"""View → (B, T, H, W, 3) uint8, or (B, H, W, 3) for one frame."""


class Trunk(Protocol):
    """What policies ask of what sees for them.

    Attributes:
        feature_size: Length F of the features of one sample.
    """

    feature_size: int

    def tokens(self, pictures: Pictures) -> Tensor:
        """All that is seen, in pieces: (B, N, D)."""
        ...

    def features(self, pictures: Pictures) -> Tensor:
        """All that is seen, in short: (B, F)."""
        ...


class Conv(nn.Module):
    """Residual convolutions from scratch, one set for each view, and where in the picture each of their maps is high.

    One frame at a time, of any size from 16 pixels on.

    Args:
        views: Names of cameras, all of which are needed.
        channels: Of the maps at a half, a quarter, an eighth ... of the picture; multiples of 8.
        keypoints: Maps of each view that become places (spatial softmax, Finn et al., arXiv 1509.06113).
    """

    def __init__(self, views: Sequence[str], channels: Sequence[int] = (32, 64, 128), keypoints: int = 32) -> None:
        super().__init__()
        self.views = tuple(views)
        sizes = [3, *channels]
        self.maps = nn.ModuleList(
            nn.Sequential(*(Halving(n_in, n_out) for n_in, n_out in zip(sizes, channels, strict=False)))
            for _ in self.views
        )
        self.points = nn.ModuleList(nn.Conv2d(channels[-1], keypoints, 1) for _ in self.views)
        self.feature_size = 2 * keypoints * len(self.views)

    def tokens(self, pictures: Pictures) -> Tensor:
        """Places of the last maps, (B, views · h · w, C), rows first.

        Raises:
            UnknownNameError, ConfigError: Not the views there are, or pictures of another type.
        """
        return torch.cat([x.flatten(2).transpose(1, 2) for x in self._maps(pictures)], dim=1)

    def features(self, pictures: Pictures) -> Tensor:
        """Row and column of each keypoint in -1..1, (B, views · 2 · keypoints). Raises as `tokens`."""
        found = [where(point(x)) for point, x in zip(self.points, self._maps(pictures), strict=True)]
        return torch.cat(found, dim=1)

    def _maps(self, pictures: Pictures) -> list[Tensor]:
        return [layers(x) for layers, x in zip(self.maps, single(pictures, self.views), strict=True)]


class Halving(nn.Module):
    """A residual block whose maps are half as high and wide (ResNet, arXiv 1512.03385; group norm for small batches).

    Args:
        n_in, n_out: Channels.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.direct = nn.Conv2d(n_in, n_out, 1)
        self.block = nn.Sequential(
            nn.Conv2d(n_in, n_out, 3, stride=2, padding=1),
            nn.GroupNorm(8, n_out),
            nn.ReLU(),
            nn.Conv2d(n_out, n_out, 3, padding=1),
            nn.GroupNorm(8, n_out),
        )

    def forward(self, x: Tensor) -> Tensor:
        """(B, n_in, H, W) → (B, n_out, H / 2, W / 2)."""
        # Every other place, then one by one: as a convolution of stride 2, oneDNN's backward pass writes beyond its
        # memory where there are few channels and the last axis holds them (its issue 6035).
        return nn.functional.relu(self.direct(x[:, :, ::2, ::2]) + self.block(x))


def where(maps: Tensor) -> Tensor:
    """Mean place of each map under its softmax: (B, C, h, w) → (B, 2 C), rows then columns, in -1..1."""
    share = maps.flatten(2).softmax(dim=-1).unflatten(2, maps.shape[2:])
    row, column = (torch.linspace(-1, 1, n, device=maps.device) for n in maps.shape[2:])
    return torch.cat([share.sum(3) @ row, share.sum(2) @ column], dim=1)


@dataclass(frozen=True)
class Kind:
    """How a kind of pretrained model is asked.

    Attributes:
        part: Where its vision part is kept, or "" if it is all of it.
        video: Whether it takes (B, T, 3, H, W) instead of pictures.
        input: Name of its input.
    """

    part: str = ""
    video: bool = False
    input: str = "pixel_values"


KINDS = {
    "dinov2": Kind(),
    "dinov2_with_registers": Kind(),
    "dinov3_vit": Kind(),
    "siglip_vision_model": Kind(),
    "siglip": Kind(part="vision_model"),
    "vjepa2": Kind(video=True, input="pixel_values_videos"),
}
"""Kinds by ``model_type`` in a folder's ``config.json``."""
PREPROCESSORS = ("preprocessor_config.json", "video_preprocessor_config.json")


@dataclass(frozen=True, kw_only=True)
class Preprocessing:
    """What pictures are made before a model sees them.

    Attributes:
        size: Height and width [px].
        mean, std: Of each colour in 0..1.
    """

    size: tuple[int, int]
    mean: list[float]
    std: list[float]


class Pretrained(nn.Module):
    """A vision model as `transformers` has them; nothing is ever downloaded. Made by `from_pretrained` or `blank`.

    All views go through the same weights, which stay as they are unless `learn`. Pictures of any size are scaled and
    colours normalised as it wants them.

    Args:
        model: The model, of a kind in `KINDS`.
        sees: How pictures are made what it wants.
        views: Names of cameras, all of which are needed.
        learn: Whether the weights are trained.
    """

    def __init__(self, model: Any, sees: Preprocessing, views: Sequence[str], learn: bool) -> None:
        super().__init__()
        self._config = model.config
        name = self._config.model_type
        self.views, self.learn, self.kind, self.sees = tuple(views), learn, KINDS[name], sees
        self.mean: Tensor
        self.std: Tensor
        self.register_buffer("mean", torch.tensor(sees.mean), persistent=False)
        self.register_buffer("std", torch.tensor(sees.std), persistent=False)
        self.model: Any = getattr(model, self.kind.part) if self.kind.part else model
        self.model.requires_grad_(learn).eval()
        config = self.model.config
        self.width: int = config.hidden_size
        # DINO puts a token for the whole picture, and further ones that hold nothing, before those of cells.
        self._before = 1 + getattr(config, "num_register_tokens", 0) if name.startswith("dino") else 0
        self._tubelet: int = getattr(config, "tubelet_size", 1)
        self.feature_size = self.width * len(self.views)

    @classmethod
    def from_pretrained(cls, path: str | Path, views: Sequence[str], learn: bool = False) -> Self:
        """A model of a local folder with ``config.json``, weights and ``preprocessor_config.json``.

        Raises:
            ConfigError: No such folder, or it lacks a file or a setting.
            UnknownNameError: A kind of model that this does not know.
            MissingDependencyError: `transformers` is not installed.
        """
        _require_transformers()
        folder = Path(path)
        if not (folder / "config.json").is_file():
            raise ConfigError(
                f"{folder} is no folder of a trunk: it has no config.json; give sight of a run of horizon, or one as "
                "model.save_pretrained(...) of transformers writes it"
            )
        name = read_json(folder / "config.json", {"model_type": str})["model_type"]
        if name not in KINDS:
            raise UnknownNameError(f"kind of pretrained model in {folder}", name, KINDS)
        sees = _preprocessing(folder)
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoModel

        try:
            model, loaded = AutoModel.from_pretrained(folder, local_files_only=True, output_loading_info=True)
        except (OSError, ValueError, RuntimeError, StrictDataclassError) as error:
            line = " ".join(str(error).split())[:300]
            raise ConfigError(f"{folder}: its weights cannot be read as {name}: {line}") from error
        if loaded["missing_keys"]:
            lacking = ", ".join(sorted(loaded["missing_keys"])[:3])
            raise ConfigError(
                f"{folder}: its weights lack {len(loaded['missing_keys'])} of those of {name}: {lacking} ..."
            )
        return cls(model, sees, views, learn)

    def described(self) -> dict[str, Any]:
        """All but the weights, as JSON has it; see `blank`."""
        model = self._config.to_dict()
        return {"model_type": model["model_type"], "model": model, "sees": dataclasses.asdict(self.sees)}

    @classmethod
    def blank(cls, said: Mapping[str, Any], views: Sequence[str], learn: bool = False) -> Self:
        """One as `described`, for weights to come.

        Raises:
            ConfigError: Something is missing or does not fit.
            UnknownNameError: A kind of model that this does not know.
            MissingDependencyError: `transformers` is not installed.
        """
        _require_transformers()
        try:
            name = TypeAdapter(str).validate_python(said["model_type"])
            settings = TypeAdapter(dict[str, Any]).validate_python(said["model"])
            sees = TypeAdapter(Preprocessing).validate_python(said["sees"])
        except KeyError as error:
            raise ConfigError(f"this describes no pretrained model: {error} is missing") from error
        except ValidationError as error:
            raise ConfigError(f"this describes no pretrained model: {str(error).splitlines()[0]}") from error
        if name not in KINDS:
            raise UnknownNameError("kind of pretrained model", name, KINDS)
        from huggingface_hub.errors import StrictDataclassError
        from transformers import AutoConfig, AutoModel

        try:
            config = AutoConfig.for_model(**settings | {"model_type": name})
            return cls(AutoModel.from_config(config), sees, views, learn)
        except (TypeError, ValueError, AttributeError, StrictDataclassError) as error:
            raise ConfigError(f"this describes no {name}: {' '.join(str(error).split())[:300]}") from error

    def train(self, mode: bool = True) -> Pretrained:
        """See `torch.nn.Module.train`; what is not learned stays as it is when used, without dropout."""
        super().train(mode)
        self.model.train(mode and self.learn)
        return self

    def tokens(self, pictures: Pictures) -> Tensor:
        """Cells of all views, one after the other, (B, N, D).

        Raises:
            UnknownNameError, ConfigError: Not the views there are, or pictures of another type.
        """
        return self._by_view(pictures).flatten(1, 2)

    def features(self, pictures: Pictures) -> Tensor:
        """Mean over cells and frames, view after view, (B, views · D). Raises as `tokens`."""
        return self._by_view(pictures).mean(dim=2).flatten(1)

    def _by_view(self, pictures: Pictures) -> Tensor:
        """(B, views, N, D)."""
        x = torch.stack(checked(pictures, self.views), dim=1)
        batch, views, frames = x.shape[:3]
        x = x.flatten(0, 2).permute(0, 3, 1, 2).float() / 255
        x = nn.functional.interpolate(x, self.sees.size, mode="bicubic", antialias=True, align_corners=False)
        x = (x.clamp(0, 1) - self.mean[:, None, None]) / self.std[:, None, None]
        if self.kind.video:
            x = x.unflatten(0, (batch * views, frames))
            x = torch.cat([x, x[:, -1:].expand(-1, -frames % self._tubelet, -1, -1, -1)], dim=1)
        with torch.set_grad_enabled(self.learn and torch.is_grad_enabled()):
            options = {"skip_predictor": True} if self.kind.video else {}
            seen = self.model(**{self.kind.input: x}, **options).last_hidden_state[:, self._before :]
        return seen.reshape(batch, views, -1, self.width)


def single(pictures: Pictures, views: Sequence[str]) -> list[Tensor]:
    """One frame of each view as convolutions take it, (B, 3, H, W) in -1..1.

    Raises:
        UnknownNameError, ConfigError: As `checked`; or there are more frames.
    """
    given = checked(pictures, views)
    if any(x.shape[1] != 1 for x in given):
        raise ConfigError("convolutions see one frame at a time, (B, H, W, 3); join batch and time for more")
    return [x[:, 0].permute(0, 3, 1, 2).float() / 127.5 - 1 for x in given]


def checked(pictures: Pictures, views: Sequence[str]) -> list[Tensor]:
    """Pictures of all views, (B, T, H, W, 3) each.

    Raises:
        UnknownNameError: A view too many.
        ConfigError: One too few, or no such pictures.
    """
    for name in pictures:
        if name not in views:
            raise UnknownNameError("view", name, views)
    found = []
    for name in views:
        if name not in pictures:
            raise ConfigError(f"no picture of view {name!r}; given: {', '.join(pictures) or 'none'}")
        x = pictures[name]
        if x.dtype != torch.uint8 or x.ndim not in (4, 5) or x.shape[-1] != 3:
            raise ConfigError(
                f"pictures of view {name!r} must be (B, [T,] H, W, 3) uint8, not {tuple(x.shape)} {x.dtype}"
            )
        found.append(x[:, None] if x.ndim == 4 else x)
    return found


def _require_transformers() -> None:
    if importlib.util.find_spec("transformers") is None:
        raise MissingDependencyError(
            "a pretrained trunk needs transformers, which is not installed; try: pip install 'robo-stack[video]'"
        )


def _preprocessing(folder: Path) -> Preprocessing:
    path = next((folder / name for name in PREPROCESSORS if (folder / name).is_file()), None)
    if path is None:
        raise ConfigError(f"{folder} has no {' or '.join(PREPROCESSORS)}, which says how its pictures are normalised")
    said = read_json(path, {"image_mean": list, "image_std": list})
    size = said.get("crop_size") or said.get("size")
    match size:
        case {"height": int(height), "width": int(width)}:
            pass
        case {"shortest_edge": int(edge)} | int(edge):
            height = width = edge
        case _:
            raise ConfigError(f"{path}: crop_size or size must say height and width in pixels, not {size!r}")
    return Preprocessing(size=(height, width), mean=said["image_mean"], std=said["image_std"])
