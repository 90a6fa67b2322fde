"""What a dataset of episodes holds: the declaration of its columns, and how these lie in parquet."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from robo.core.errors import ConfigError, NonFiniteError, RunError, UnknownNameError

DTYPES = ("float32", "float64", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "bool")
"""Kinds of numbers that a feature can hold."""
EXTRA = {"bool": pa.bool_(), "int64": pa.int64(), "float64": pa.float64(), "string": pa.string()}
"""Kinds of facts that an episode can carry."""
_KINDS = {"bool": bool, "int64": int, "float64": (int, float), "string": str}


@dataclass(frozen=True)
class Feature:
    """One column of numbers.

    Args:
        dtype: One of `DTYPES`.
        shape: Shape of the value of one frame; ``(1,)`` for a single number.
        names: A name for each element of a vector, its unit included (``"shoulder_rad"``).

    Raises:
        ConfigError: A kind of number that cannot be stored, an empty shape, or names that do not fit it.
    """

    dtype: str
    shape: tuple[int, ...] = (1,)
    names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.dtype not in DTYPES:
            raise ConfigError(f"a feature cannot be of dtype {self.dtype!r}; available: {', '.join(DTYPES)}")
        if not self.shape or any(isinstance(n, bool) or not isinstance(n, int) or n < 1 for n in self.shape):
            raise ConfigError(
                f"the shape of a feature must hold positive numbers, not {self.shape!r}; a number is (1,)"
            )
        if self.names is not None and len(self.names) != self.shape[0]:
            raise ConfigError(f"{len(self.names)} names {self.names} for {self.shape[0]} elements; name each or none")


BOOKKEEPING = {
    "timestamp": Feature("float32"),
    "frame_index": Feature("int64"),
    "episode_index": Feature("int64"),
    "index": Feature("int64"),
    "task_index": Feature("int64"),
}
"""Columns that every dataset has: time in the episode [s], frame in the episode, episode, frame overall, task."""


@dataclass(frozen=True, kw_only=True)
class Features:
    """Everything that a dataset holds of each frame and each episode.

    Args:
        values: Name → numbers of each frame, for example ``observation.state`` and ``action``.
        fps: Frames a second.
        robot_type: Name of the robot.
        cameras: Name → height and width of its pictures [px], even numbers; by custom ``observation.images.<camera>``.
        extra: Name → ``bool``, ``int64``, ``float64`` or ``string``: facts of a whole episode (``seed``, ``success``).

    Raises:
        ConfigError: A name that is taken or cannot name a file, or a number out of its range.
    """

    values: Mapping[str, Feature]
    fps: int
    robot_type: str | None = None
    cameras: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    extra: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if isinstance(self.fps, bool) or not isinstance(self.fps, int) or self.fps < 1:
            raise ConfigError(f"fps must be a whole number of frames a second, at least 1, not {self.fps!r}")
        taken = {*BOOKKEEPING, "task", "tasks", "length", "dataset_from_index", "dataset_to_index"}
        for name in (*self.values, *self.cameras, *self.extra):
            # The name of a camera is the name of a folder.
            if not re.fullmatch(r"[\w-][\w.-]*", name):
                raise ConfigError(f"{name!r} cannot name a feature; use letters, digits, '_', '-' and '.'")
            if name in taken:
                raise ConfigError(f"the name {name!r} is taken; choose another for this feature")
            taken.add(name)
        if not self.values:
            raise ConfigError("a dataset needs numbers in each frame, for example values={'action': ...}")
        for name, size in self.cameras.items():
            if len(size) != 2 or any(n < 2 or n % 2 for n in size):
                raise ConfigError(f"pictures of {name!r} must have even height and width, not {size}")
        for name, kind in self.extra.items():
            if kind not in EXTRA:
                raise ConfigError(f"extra {name!r} cannot be {kind!r}; available: {', '.join(EXTRA)}")

    @property
    def columns(self) -> dict[str, Feature]:
        """All columns of numbers: the declared ones and `BOOKKEEPING`."""
        return {**self.values, **BOOKKEEPING}

    def check_values(self, values: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """The numbers of one frame as arrays of the declared dtypes and shapes.

        Raises:
            RunError: A feature too many or too few, a wrong shape, or a kind that cannot become the declared one.
            NonFiniteError: NaN or infinity.
        """
        _same_names("values of a frame", values, self.values)
        return {name: _checked(name, values[name], feature) for name, feature in self.values.items()}

    def check_pictures(self, pictures: Mapping[str, np.ndarray]) -> None:
        """See that there is a picture (H, W, 3) uint8 of each camera.

        Raises:
            RunError: A camera too many or too few, or a picture of another size or dtype.
        """
        _same_names("pictures of a frame", pictures, self.cameras)
        for name, size in self.cameras.items():
            found = np.asarray(pictures[name])
            if found.shape != (*size, 3) or found.dtype != np.uint8:
                raise RunError(f"{name}: expected uint8 of shape {(*size, 3)}, not {found.dtype} of {found.shape}")

    def check_extra(self, extra: Mapping[str, Any]) -> dict[str, Any]:
        """The facts of an episode as plain Python values.

        Raises:
            RunError: A fact too many or too few, or of another kind.
            NonFiniteError: NaN or infinity.
        """
        _same_names("extra of an episode", extra, self.extra)
        plain = {name: value.item() if isinstance(value, np.generic) else value for name, value in extra.items()}
        for name, kind in self.extra.items():
            value = plain[name]
            if not isinstance(value, _KINDS[kind]) or (isinstance(value, bool) and kind != "bool"):
                raise RunError(f"extra {name!r} must be {kind}, not {value!r}")
            if kind == "float64" and not math.isfinite(value):
                raise NonFiniteError(f"extra {name!r} is {value}; a finite number is needed")
        return {name: float(plain[name]) if kind == "float64" else plain[name] for name, kind in self.extra.items()}


def arrow_type(feature: Feature) -> pa.DataType:
    """How a feature lies in parquet: a number, a list of fixed length, or lists of lists."""
    kind = pa.from_numpy_dtype(np.dtype(feature.dtype))
    if feature.shape == (1,):
        return kind
    if len(feature.shape) == 1:
        return pa.list_(kind, feature.shape[0])
    for _ in feature.shape:
        kind = pa.list_(kind)
    return kind


def to_arrow(values: np.ndarray, feature: Feature) -> pa.Array:
    """Values (N, *shape) of N frames as a column."""
    array = pa.array(values.reshape(-1))
    if feature.shape == (1,):
        return array
    if len(feature.shape) == 1:
        return pa.FixedSizeListArray.from_arrays(array, feature.shape[0])
    for length in reversed(feature.shape):
        array = pa.ListArray.from_arrays(pa.array(np.arange(0, len(array) + 1, length, dtype=np.int32)), array)
    return array


def from_arrow(column: pa.ChunkedArray, feature: Feature, where: str) -> np.ndarray:
    """Values (N, *shape) of a column of N frames.

    Raises:
        RunError: Another kind of numbers, another shape, or missing values; names `where`.
    """
    array = column.combine_chunks()
    if isinstance(array, pa.ExtensionArray):
        array = array.storage
    expected = f"{where}: expected {feature.dtype} of shape {feature.shape}"
    rows, lengths = len(array), []
    while pa.types.is_list(array.type) or pa.types.is_large_list(array.type) or pa.types.is_fixed_size_list(array.type):
        if array.null_count:
            raise RunError(f"{expected}, but {array.null_count} values are missing")
        fixed = pa.types.is_fixed_size_list(array.type)
        found = [array.type.list_size] if fixed else array.value_lengths().unique().to_pylist()
        if len(found) > 1:
            raise RunError(f"{expected}, but the rows are of different lengths {found[:3]}")
        lengths += found
        array = array.flatten()
    if array.null_count:
        raise RunError(f"{expected}, but {array.null_count} values are missing")
    if array.type != pa.from_numpy_dtype(np.dtype(feature.dtype)):
        raise RunError(f"{expected}, not {column.type}")
    if rows and tuple(lengths) != feature.shape and (lengths or feature.shape != (1,)):
        raise RunError(f"{expected}, not {tuple(lengths) or (1,)}")
    return array.to_numpy(zero_copy_only=False).reshape(rows, *feature.shape)


def _same_names(what: str, given: Mapping[str, Any], declared: Mapping[str, Any]) -> None:
    for name in given:
        if name not in declared:
            raise UnknownNameError(f"name in the {what}", name, declared)
    missing = [name for name in declared if name not in given]
    if missing:
        raise RunError(f"{what}: {', '.join(missing)} missing; expected {', '.join(declared)}")


def _checked(name: str, value: Any, feature: Feature) -> np.ndarray:
    found = np.asarray(value)
    if found.shape == () and feature.shape == (1,):
        found = found.reshape(1)
    if found.shape != feature.shape:
        raise RunError(f"{name}: expected shape {feature.shape}, not {found.shape}")
    if not np.can_cast(found.dtype, feature.dtype, "same_kind"):
        raise RunError(f"{name}: expected {feature.dtype}, and {found.dtype} does not turn into it without loss")
    with np.errstate(over="ignore"):  # too large becomes infinite, which the next lines refuse
        array = found.astype(feature.dtype)
    if not np.isfinite(array).all():
        raise NonFiniteError(f"{name} holds {array[~np.isfinite(array)][0]}; finite numbers are needed")
    return array
