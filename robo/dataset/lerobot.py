"""Datasets of robot episodes in the LeRobotDataset v3.0 layout: recorded, read for training, checked, merged.

features = Features(
    values={"observation.state": Feature("float32", (7,)), "action": Feature("float32", (7,))},
    cameras={"observation.images.front": (96, 96)},
    extra={"seed": "int64", "success": "bool"},
    fps=20,
    robot_type="panda",
)
with Writer(folder, features) as writer:
    ...
    writer.add_frame({"observation.state": q, "action": u}, {"observation.images.front": picture}, "pick the cube")
    ...
    writer.save_episode(extra={"seed": 7, "success": True})

dataset = Dataset(folder)
batch = dataset.batch(indices, {"action": range(16), "observation.images.front": (-1, 0)})
batch["action"], batch["action_is_pad"]  # (B, 16, 7), (B, 16)
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from robo.core.errors import ConfigError, UnknownNameError
from robo.dataset import layout
from robo.dataset.features import Feature, Features
from robo.dataset.layout import Episode
from robo.dataset.recording import Writer, merge
from robo.dataset.video import Shelf

__all__ = ["Dataset", "Episode", "Feature", "Features", "Writer", "merge", "stats", "validate"]


class Dataset:
    """A dataset opened for reading; also a recording that goes on or was interrupted, up to its last finished episode.

    Numbers are kept in memory, pictures are decoded when they are asked for. Several threads, and processes forked
    from this one, may read at the same time: each opens the videos for itself.

    Attributes:
        folder: Where it lies.
        features: What it holds.
        tasks: Text of each task; ``task_index`` of a frame points here.
        episodes: Number, first frame, length, tasks and extra of each episode.

    Args:
        folder: The dataset.

    Raises:
        RunError: Something is missing, damaged or does not fit; names the file. `validate` finds all at once.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._contents = layout.load(self.folder)
        self.features, self.tasks, self.episodes = (
            self._contents.features,
            self._contents.tasks,
            self._contents.episodes,
        )
        lengths = np.array([episode.length for episode in self.episodes], np.int64)
        self._ends = np.cumsum(lengths)
        self._starts = self._ends - lengths
        self._episode_of = np.repeat(np.arange(len(lengths)), lengths)
        self._local = threading.local()

    def __len__(self) -> int:
        """Number of frames."""
        return len(self._episode_of)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """One frame: name → numbers of the declared shape, and (H, W, 3) uint8 of each camera.

        Raises:
            IndexError: There is no such frame.
            RunError: A video is damaged.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f"no frame {index} in {self.folder}, it holds {len(self)}")
        return {name: values[0] for name, values in self.batch([index % len(self)]).items()}

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        return (self[index] for index in range(len(self)))

    def __reduce__(self) -> tuple[type[Dataset], tuple[Path]]:
        """Another process opens the dataset anew."""
        return Dataset, (self.folder,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of all features: numbers and cameras."""
        return (*self.features.columns, *self.features.cameras)

    @cached_property
    def statistics(self) -> dict[str, dict[str, np.ndarray]]:
        """Name → ``min``, ``max``, ``mean``, ``std``, ``q01`` … ``q99`` of one value's shape, and ``count`` (1,).

        Those of pictures are (3, 1, 1), a number for each channel, scaled to 0..1.
        """
        return layout.statistics_of(self._contents)

    def column(self, name: str) -> np.ndarray:
        """Numbers (frames, *shape) of all frames; do not write into it.

        Raises:
            UnknownNameError: No such numbers.
        """
        if name not in self.features.columns:
            raise UnknownNameError("column", name, self.features.columns)
        return self._contents.columns[name]

    def episode(self, number: int, names: Iterable[str] | None = None) -> dict[str, np.ndarray]:
        """All frames of an episode: name → (length, ...).

        Args:
            number: The episode.
            names: Which features; all if none are given.

        Raises:
            ConfigError: No such episode or feature.
            RunError: A video is damaged.
        """
        if not 0 <= number < len(self.episodes):
            raise ConfigError(f"no episode {number} in {self.folder}, it holds {len(self.episodes)}")
        return self.batch(np.arange(self._starts[number], self._ends[number]), names=names)

    def batch(
        self,
        indices: Sequence[int] | np.ndarray,
        delta_steps: Mapping[str, Sequence[int]] | None = None,
        names: Iterable[str] | None = None,
    ) -> dict[str, np.ndarray]:
        """Frames, or windows around them, for training.

        Args:
            indices: (B,) frames of the dataset.
            delta_steps: Name → T steps relative to the frame, for example ``range(16)`` for the actions to come.
            names: Which features; all if none are given. Cameras that are left out are not decoded.

        Returns:
            Name → (B, ...); with steps (B, T, ...) and ``<name>_is_pad`` (B, T), which is true where a step lies
            outside the episode: there stands the first or last frame of the episode.

        Raises:
            ConfigError: No such frame or feature, or steps that are no whole numbers.
            RunError: A video is damaged.
        """
        frames, steps = self._frames(indices), delta_steps or {}
        wanted = tuple(dict.fromkeys([*(self.names if names is None else names), *steps]))
        for name in wanted:
            if name not in self.names:
                raise UnknownNameError("feature", name, self.names)
        starts, ends = self._starts[self._episode_of[frames]], self._ends[self._episode_of[frames]]
        found = {}
        for name in wanted:
            rows = frames
            if name in steps:
                due = frames[:, None] + _steps(name, steps[name])
                rows = np.clip(due, starts[:, None], ends[:, None] - 1)
                found[f"{name}_is_pad"] = rows != due
            found[name] = (
                self._pictures(name, rows) if name in self.features.cameras else self._contents.columns[name][rows]
            )
        return found

    def close(self) -> None:
        """Close the videos that this thread has opened; they are opened again when needed."""
        self._shelf().close()

    def _frames(self, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        frames = np.asarray(indices)
        if frames.ndim != 1 or (frames.size and frames.dtype.kind not in "iu"):
            raise ConfigError(f"indices must be a list of whole numbers, not {frames.dtype} of shape {frames.shape}")
        if frames.size and (frames.min() < 0 or frames.max() >= len(self)):
            raise ConfigError(f"{self.folder} holds frames 0 to {len(self) - 1}, not {frames.min()} to {frames.max()}")
        return frames.astype(np.int64)

    def _pictures(self, camera: str, rows: np.ndarray) -> np.ndarray:
        size, shelf = self.features.cameras[camera], self._shelf()
        # In order, each once: neighbours in a video are decoded together.
        frames, places = np.unique(rows, return_inverse=True)
        pictures = np.empty((len(frames), *size, 3), np.uint8)
        for i, (frame, number) in enumerate(zip(frames.tolist(), self._episode_of[frames].tolist(), strict=True)):
            path, first = self.episodes[number].videos[camera]
            pictures[i] = shelf.film(path, size).picture(first + frame - self.episodes[number].start)
        return pictures[places.reshape(rows.shape)]

    def _shelf(self) -> Shelf:
        """The open videos of this thread. A forked process has its own; those of its parent it must not even close."""
        shelves = self._local.__dict__.setdefault("shelves", {})
        return shelves.setdefault(os.getpid(), Shelf(self.features.fps))


def validate(folder: Path, *, decode: bool = False) -> list[str]:
    """What is wrong with a dataset, one line each that names the file; empty if nothing is.

    Finds files that are missing or damaged, another version, counts that do not add up, times off their frames by
    more than 0.1 ms, NaN, features that are not declared, videos that are too short or too long, and statistics that
    are not those of the frames.

    Args:
        folder: The dataset.
        decode: Whether to decode every picture too, which takes a while.
    """
    return list(layout.Examination(Path(folder), thorough=True, decode=decode).problems())


def stats(folder: Path) -> str:
    """A summary of a dataset for people, some lines of text.

    Raises:
        RunError: Something is missing, damaged or does not fit.
    """
    dataset = Dataset(folder)
    features, episodes = dataset.features, dataset.episodes
    seconds = len(dataset) / features.fps
    size = sum(path.stat().st_size for path in dataset.folder.rglob("*") if path.is_file())
    lines = [
        f"{dataset.folder}: {len(episodes)} episodes, {len(dataset)} frames at {features.fps} Hz "
        f"({seconds / 60:.1f} min), {size / 1e6:.1f} MB, robot {features.robot_type or 'unknown'}"
    ]
    if not episodes:
        return lines[0]
    lengths = np.array([episode.length for episode in episodes])
    lines.append(f"length: {lengths.min()} to {lengths.max()} frames, mean {lengths.mean():.1f}")
    lines += [f"task {task!r}: {sum(task in episode.tasks for episode in episodes)} episodes" for task in dataset.tasks]
    lines += [_extra_line(name, [e.extra[name] for e in episodes]) for name in features.extra]
    lines.append(f"{'feature':32} {'kind':16} {'min':>10} {'mean':>10} {'max':>10} {'std':>10}")
    for name, found in dataset.statistics.items():
        feature = features.columns.get(name)
        kind = f"{feature.dtype} {'x'.join(map(str, feature.shape))}" if feature else "video"
        numbers = (found["min"].min(), found["mean"].mean(), found["max"].max(), found["std"].mean())
        lines.append(f"{name:32} {kind:16} " + " ".join(f"{number:10.4g}" for number in numbers))
    return "\n".join(lines)


def _extra_line(name: str, values: Sequence[Any]) -> str:
    if all(isinstance(value, bool) for value in values):
        return f"{name}: {sum(values)} of {len(values)} ({100 * sum(values) / len(values):.1f} %)"
    if all(isinstance(value, str) for value in values):
        return f"{name}: {len(set(values))} different"
    return f"{name}: {min(values):g} to {max(values):g}"


def _steps(name: str, steps: Sequence[int]) -> np.ndarray:
    found = np.asarray(steps)
    if found.ndim != 1 or not found.size or found.dtype.kind not in "iu":
        raise ConfigError(f"steps of {name!r} must be a list of whole numbers, not {steps!r}")
    return found.astype(np.int64)
