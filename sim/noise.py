"""What real cameras make of pictures: noise of depth and of colour, for policies that have to cross to the real arm."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import gymnasium
import numpy as np

from robo.core.errors import ConfigError, UnknownNameError
from sim.perturb import Obs, Perturbation, observed

KINECT_COLUMNS = 640
"""Columns of the pictures that Nguyen et al. measured; their pixels are taken as a share of the picture."""


def _ranges(settings: Any, **most: float) -> None:
    for name, high in most.items():
        value = getattr(settings, name)
        if not isinstance(value, int | float) or not 0.0 <= value <= high:
            raise ConfigError(f"{name} must lie in [0, {high:g}], not {value!r}")


@dataclass(frozen=True, kw_only=True)
class DepthNoise:
    """How a structured-light camera measures depth, see `depth`; the defaults are a Kinect's.

    Attributes:
        axial: Factor on the standard deviation along the axis.
        lateral: Factor on that of where in the picture a pixel looks.
        levels_m: Depth z is told in steps of about z² / `levels_m`; 0: exactly.
        edge_m: A pixel is at an edge where its neighbour is further behind or before it than this, beyond the slope.
        edge_holes: Probability that a pixel at an edge is not measured.
        grazing_rad: Surfaces turned away by more than this are not measured.
        holes: Probability that any pixel is not measured.
        range_m: Nothing is measured outside.
        fovy_deg: Vertical field of view.
    """

    axial: float = 1.0
    lateral: float = 1.0
    levels_m: float = 351.3
    edge_m: float = 0.03
    edge_holes: float = 0.5
    grazing_rad: float = 1.4
    holes: float = 0.005
    range_m: tuple[float, float] = (0.2, 4.0)
    fovy_deg: float = 45.0

    def __post_init__(self) -> None:
        _ranges(self, axial=100, lateral=100, levels_m=1e9, edge_m=1e9, edge_holes=1, grazing_rad=np.pi / 2, holes=1)
        if not (len(self.range_m) == 2 and 0.0 <= self.range_m[0] < self.range_m[1]):
            raise ConfigError(f"range_m must be (near, far) with 0 <= near < far, not {self.range_m}")
        if not 0.0 < self.fovy_deg < 180.0:
            raise ConfigError(f"fovy_deg must lie in (0, 180), not {self.fovy_deg}")


@dataclass(frozen=True, kw_only=True)
class ColourNoise:
    """How a camera sees colour, see `colour`; the default is a cheap one indoors.

    Attributes:
        exposure: Pictures are up to this share brighter or darker.
        white_balance: Every channel is up to this share stronger or weaker.
        blur_px: Standard deviation of a lens out of focus [pixels].
        photons: A white pixel counts so many; 0: no shot noise.
        read: Standard deviation of noise in the dark, as a share of white.
        jpeg: Quality of compression, 1..95; 0: none.
    """

    exposure: float = 0.15
    white_balance: float = 0.05
    blur_px: float = 0.4
    photons: float = 1500.0
    read: float = 0.008
    jpeg: int = 0

    def __post_init__(self) -> None:
        _ranges(self, exposure=0.95, white_balance=0.95, blur_px=10, photons=1e9, read=1, jpeg=95)


def axial_std_m(z_m: np.ndarray, angle_rad: np.ndarray | float = 0.0) -> np.ndarray:
    """Standard deviation (...) [m] of a Kinect's depth (...) [m] of surfaces turned away by angles (...) [rad].

    Nguyen, Izadi and Lovell, *Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking* (3DIMPVT 2012):
    ``0.0012 + 0.0019 (z - 0.4)²``, beyond 60° with ``0.0001 / √z · angle² / (π/2 - angle)²`` on top.
    """
    # They measured up to 80°; a little further it would be infinite.
    angle = np.minimum(angle_rad, np.float32(1.5))
    steep = np.where(angle > np.pi / 3, (angle / (np.pi / 2 - angle)) ** 2, 0.0)
    return 0.0012 + 0.0019 * (z_m - 0.4) ** 2 + 0.0001 * steep / np.sqrt(np.maximum(z_m, 1e-3))


def lateral_std_px(angle_rad: np.ndarray | float = 0.0) -> np.ndarray | float:
    """Standard deviation (...) of where a Kinect's pixel looks [its pixels]: ``0.8 + 0.035 angle / (π/2 - angle)``.

    Of the same source as `axial_std_m`.
    """
    angle = np.minimum(angle_rad, np.float32(1.5))
    return 0.8 + 0.035 * angle / (np.pi / 2 - angle)


def depth(picture: np.ndarray, rng: np.random.Generator, settings: DepthNoise) -> np.ndarray:
    """A depth picture as a structured-light camera would take it.

    Pixels look a little beside themselves and get noise along the axis (`lateral_std_px`, `axial_std_m`); then depth is
    told in equal steps of disparity, ``z = c / round(c / z)``: a Kinect tells eighths of a pixel, c = 8 f b = 351.3 m
    (Barron and Malik, *Intrinsic Scene Properties from a Single RGB-D Image*, CVPR 2013; as in the ICL-NUIM pictures of
    Handa et al., ICRA 2014). Edges, surfaces that turn away, and some pixels anywhere stay without depth.

    Args:
        picture: (H, W) float32 [m] along the axis; 0 where nothing is.
        rng: What chance draws from.
        settings: How much of everything.

    Returns:
        (H, W) float32 [m]; 0 where nothing was measured.
    """
    height, width = picture.shape
    across, down, steepness, jump = _slope(picture, settings.fovy_deg)
    angle = np.arctan(steepness)
    # Where a pixel looks: some surface's pixel, at random the one to either side, and from there along that surface.
    shift = rng.standard_normal((2, height, width), dtype=np.float32) * lateral_std_px(angle)
    shift *= settings.lateral * width / KINECT_COLUMNS
    whole = np.floor(shift + rng.random(shift.shape, dtype=np.float32)).astype(np.intp)
    rows, columns = np.arange(height)[:, None], np.arange(width)
    row, column = np.clip(rows + whole[0], 0, height - 1), np.clip(columns + whole[1], 0, width - 1)
    at = row * width + column
    surface = picture.take(at)
    z = surface + down.take(at) * (shift[0] - (row - rows)) + across.take(at) * (shift[1] - (column - columns))
    z = z + settings.axial * axial_std_m(z, angle) * rng.standard_normal(z.shape, dtype=np.float32)
    if settings.levels_m:
        # A thousandth of a level keeps out the division by zero; so far away is out of range in any case.
        z = settings.levels_m / np.maximum(np.rint(settings.levels_m / np.maximum(z, 1e-3)), 1e-3)
    chance = rng.random(z.shape, dtype=np.float32)
    lost = chance < np.where(jump > settings.edge_m, max(settings.edge_holes, settings.holes), settings.holes)
    near, far = settings.range_m
    lost |= (angle > settings.grazing_rad) | (z < near) | (z > far) | (surface <= 0.0)
    return np.where(lost, 0.0, z).astype(np.float32)


def colour(
    picture: np.ndarray, rng: np.random.Generator, settings: ColourNoise, gain: np.ndarray | None = None
) -> np.ndarray:
    """A colour picture as a camera would take it: lens, gain of the channels, noise of photons and of reading out.

    Noise of a value x in 0..1 has the variance ``x / photons + read²``: Poisson counts, with so many photons as good as
    Gaussian (Foi et al., *Practical Poissonian-Gaussian Noise Modeling and Fitting*, IEEE TIP 2008).

    Args:
        picture: (H, W, 3) uint8.
        rng: What chance draws from.
        settings: How much of everything.
        gain: (3,) of exposure and white balance, such as `draw_gain` gives; None: drawn anew.

    Returns:
        (H, W, 3) uint8.
    """
    gain = draw_gain(rng, settings) if gain is None else gain
    light = _blur(picture.astype(np.float32), settings.blur_px) * (gain / 255.0).astype(np.float32)
    variance = settings.read**2 + (light / np.float32(settings.photons) if settings.photons else 0.0)
    light = light + np.sqrt(variance) * rng.standard_normal(light.shape, dtype=np.float32)
    seen = np.rint(np.clip(light, 0.0, 1.0) * 255.0).astype(np.uint8)
    return _jpeg(seen, settings.jpeg) if settings.jpeg else seen


def draw_gain(rng: np.random.Generator, settings: ColourNoise) -> np.ndarray:
    """Gains (3,) of the channels."""
    bright = rng.uniform(-settings.exposure, settings.exposure)
    return (1.0 + bright) * (1.0 + rng.uniform(-settings.white_balance, settings.white_balance, 3))


class NoisyPictures(Perturbation):
    """Depth and colour as real cameras take them; segmentation stays.

    Exposure and white balance hold for an episode, each camera has its own; the field of view is that of the task's
    camera. Info: ``gain`` (camera → (3,)).

    Args:
        env: With pictures.
        depth, rgb: Settings, as an object or by name; None leaves such pictures as they are.

    Raises:
        UnknownNameError: No such setting.
        ConfigError: A setting is out of range, or nothing takes such pictures.
    """

    kind = "noisy_pictures"

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        depth: DepthNoise | Mapping[str, Any] | None = DepthNoise(),
        rgb: ColourNoise | Mapping[str, Any] | None = ColourNoise(),
    ) -> None:
        super().__init__(env)
        by_depth, self._rgb = _settings(DepthNoise, depth), _settings(ColourNoise, rgb)
        names = [name.partition("_") for name in observed(self)]
        angles = {camera.name: camera.fovy_deg for camera in self.task.cameras}
        self._depth = {
            camera: replace(by_depth, fovy_deg=angles[camera])
            for kind, _, camera in names
            if by_depth is not None and kind == "depth"
        }
        self._cameras = [camera for kind, _, camera in names if self._rgb is not None and kind == "rgb"]
        if not self._depth and not self._cameras:
            raise ConfigError(f"{self.kind} needs pictures of colour or depth; give the environment cameras")

    def _begin(self, obs: Obs, info: Mapping[str, Any]) -> None:
        self._memory["gain"] = {c: draw_gain(self._rng, self._rgb) for c in self._cameras if self._rgb is not None}

    def _see(self, obs: Obs, told: dict[str, Any]) -> Obs:
        seen = dict(obs)
        for camera, settings in self._depth.items():
            seen[f"depth_{camera}"] = depth(obs[f"depth_{camera}"], self._rng, settings)
        for camera, gain in self._memory["gain"].items():
            if self._rgb is not None:
                seen[f"rgb_{camera}"] = colour(obs[f"rgb_{camera}"], self._rng, self._rgb, gain)
        told["gain"] = {camera: gain.copy() for camera, gain in self._memory["gain"].items()}
        return seen


# ---- within ------------------------------------------------------------------------


def _slope(z: np.ndarray, fovy_deg: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """dz/du, dz/dv [m per pixel], tangent of the angle between normal and axis, height of edges [m]; (H, W) each.

    A point is ``z (a, b, 1)`` with a, b its place in the picture over the focal length f, so the normal is along
    ``(-f dz/du, -f dz/dv, z + f (a dz/du + b dz/dv))``. Of the differences to both sides the smaller counts for the
    slope, so that an edge does not pass for a steep surface; by how much they differ is the height of an edge.
    """
    height, width = z.shape
    focal = height / 2 / np.tan(np.radians(fovy_deg) / 2)
    across, edge = _differences(z)
    down, edge_down = (found.T for found in _differences(z.T))
    u = (np.arange(width, dtype=np.float32) - (width - 1) / 2)[None]
    v = (np.arange(height, dtype=np.float32) - (height - 1) / 2)[:, None]
    along = np.abs(z + u * across + v * down)
    return across, down, focal * np.hypot(across, down) / np.maximum(along, 1e-6), np.maximum(edge, edge_down)


def _differences(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Along rows: the smaller of the differences to both neighbours, and by how much the two differ."""
    step = np.diff(z, axis=1)
    before, after = np.empty_like(z), np.empty_like(z)
    before[:, 1:], after[:, :-1] = step, step
    before[:, 0], after[:, -1] = step[:, 0], step[:, -1]  # beyond the picture it goes on alike
    return np.where(np.abs(before) < np.abs(after), before, after), np.abs(after - before)


def _blur(picture: np.ndarray, std_px: float) -> np.ndarray:
    """Gaussian blur of (H, W, 3); beyond the edge it goes on as at the edge."""
    reach = int(np.ceil(2.5 * std_px))
    if not reach:
        return picture
    weights = np.exp(-0.5 * (np.arange(-reach, reach + 1) / std_px) ** 2)
    weights = (weights / weights.sum()).astype(np.float32)
    height, width, _ = picture.shape
    wide = np.pad(picture, ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    rows = np.add.reduce([w * wide[i : i + height] for i, w in enumerate(weights)])
    return np.add.reduce([w * rows[:, i : i + width] for i, w in enumerate(weights)])


def _jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image  # lazily: few need it

    packed = io.BytesIO()
    Image.fromarray(picture).save(packed, "JPEG", quality=quality)
    return np.array(Image.open(packed))


S = TypeVar("S", DepthNoise, ColourNoise)


def _settings(kind: type[S], given: S | Mapping[str, Any] | None) -> S | None:
    """Settings from settings by name."""
    if given is None or isinstance(given, kind):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"settings of pictures are {kind.__name__} or a mapping, not {given!r}")
    known = [field.name for field in fields(kind)]
    for name in given:
        if name not in known:
            raise UnknownNameError(f"setting of {kind.__name__}", str(name), known)
    return kind(**given)
