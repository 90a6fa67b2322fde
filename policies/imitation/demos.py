"""Demonstrations of a task, as windows to learn from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from policies.imitation.config import DoConfig, SeeConfig
from policies.observed import around, told
from robo.core.errors import ConfigError
from robo.dataset.lerobot import Dataset
from tasks.tabletop.base import TabletopTask

COLUMNS = {"joint_pos": "action", "ee_delta": "action.ee_delta"}
"""What an action is → the column of a dataset that holds it."""


@dataclass(frozen=True, kw_only=True)
class Window:
    """What was seen at some frames, and what was done from there on.

    Attributes:
        numbers: (B, N) float32, see `numbers_of`.
        pictures: Camera → (B, H, W, 3) uint8; none where `seen` says what they are.
        actions: (B, chunk, A) float32.
        valid: (B, chunk) bool, false beyond the end of an episode.
        seen: (B, D) float32, what eyes said of pictures, where that is the same every time.
    """

    numbers: torch.Tensor
    pictures: Mapping[str, torch.Tensor]
    actions: torch.Tensor
    valid: torch.Tensor
    seen: torch.Tensor | None = None

    def named(self) -> dict[str, torch.Tensor]:
        """All of it, pictures by their cameras."""
        seen = {} if self.seen is None else {"seen": self.seen}
        return {"numbers": self.numbers, **self.pictures, **seen, "actions": self.actions, "valid": self.valid}


class Demonstrations:
    """The demonstrations in a folder, all of them in memory.

    Attributes:
        numbers: (F, N) float32, of every frame.
        actions: (F, A) float32.
        columns: All numbers of the dataset, name → (F, ...).
        pictures: Camera → (F, H, W, 3) uint8; none once there is `seen`.
        seen: (F, D) float32, see `Window`.
        spans: First frame of each episode, and the one after its last.

    Args:
        folder: A dataset of `robo-collect`.
        task: The task that is to be learned.
        see, do: What is to be seen and done.
        group: Key under which the config says what is seen, for messages.
        episodes: The first so many; 0: all.

    Raises:
        ConfigError: No folder is given, or it holds another task, other cameras, sizes or actions.
        RunError: The dataset is damaged.
    """

    def __init__(
        self, folder: str, task: TabletopTask, see: SeeConfig, do: DoConfig, episodes: int = 0, group: str = "see"
    ) -> None:
        collect = f"robo-collect {task.name} --out PATH --size {see.size} --views {','.join(see.views)}"
        if not folder:
            raise ConfigError(f"there are no demonstrations to learn from: --demos PATH; {collect} records some")
        if not Path(folder).is_dir():
            raise ConfigError(f"no demonstrations in {folder}: no such folder; {collect} records some")
        dataset = Dataset(Path(folder))
        _check(dataset, task, see, do, folder, collect, group)
        count = episodes or len(dataset.episodes)
        if count > len(dataset.episodes):
            raise ConfigError(f"train.episodes is {episodes}, {folder} holds {len(dataset.episodes)} episodes")
        self.spans = [(e.start, e.start + e.length) for e in dataset.episodes[:count]]
        frames = self.spans[-1][1]
        self.columns = {name: np.asarray(dataset.column(name)[:frames]) for name in dataset.features.columns}
        columns = [self.columns["observation.state"]]
        if around(task):
            rest = self.columns["observation.environment_state"]
            columns.append(rest if see.around else rest[:, told(task)])
        self.numbers = np.concatenate(columns, axis=1).astype(np.float32)
        self.actions = np.asarray(self.columns[COLUMNS[do.action]], np.float32)
        self.pictures = {
            view: dataset.batch(np.arange(frames), names=[f"observation.images.{view}"])[f"observation.images.{view}"]
            for view in see.views
        }
        dataset.close()
        self.seen: torch.Tensor | None = None
        self._ends = np.repeat([stop for _, stop in self.spans], [stop - start for start, stop in self.spans])
        self._ahead = np.arange(do.chunk)

    def __len__(self) -> int:
        """How many frames."""
        return len(self.numbers)

    def window(self, frames: np.ndarray, device: str) -> Window:
        """Windows that begin at frames (B,)."""
        due = frames[:, None] + self._ahead
        rows = np.minimum(due, self._ends[frames][:, None] - 1)

        def put(array: np.ndarray) -> torch.Tensor:
            return torch.from_numpy(array).to(device)

        return Window(
            numbers=put(self.numbers[frames]),
            pictures={view: put(pictures[frames]) for view, pictures in self.pictures.items()},
            actions=put(self.actions[rows]),
            valid=put(rows == due),
            seen=None if self.seen is None else self.seen[torch.from_numpy(frames)].to(device),
        )


def _check(
    dataset: Dataset, task: TabletopTask, see: SeeConfig, do: DoConfig, folder: str, collect: str, group: str
) -> None:
    """Refuse a dataset of something else."""
    features = dataset.features
    if not dataset.episodes:
        raise ConfigError(f"{folder} holds no episode; {collect} records some")
    j = task.robot.dof
    wanted = {
        "observation.state": j + 8,
        COLUMNS[do.action]: j + 1 if do.action == "joint_pos" else 7,
        "signals": len(task.signals),
    } | ({"observation.environment_state": sum(around(task).values())} if around(task) else {})
    for name, size in wanted.items():
        if name not in features.columns or features.columns[name].shape != (size,):
            has = features.columns[name].shape if name in features.columns else None
            raise ConfigError(
                f"{folder} is no dataset of task {task.name}: {name} has "
                + (f"shape {has}, not ({size},)" if has else "no column")
                + f"; {collect} records one"
            )
    if features.columns["signals"].names != tuple(task.signals):
        raise ConfigError(f"{folder} is a dataset of another task than {task.name}: its signals are others; {collect}")
    if features.robot_type != task.robot.name:
        raise ConfigError(f"{folder} was recorded with robot {features.robot_type}, here it is {task.robot.name}")
    if features.fps != round(1.0 / task.ctrl_dt_s):
        raise ConfigError(f"{folder} was recorded at {features.fps} Hz, the task runs at {1.0 / task.ctrl_dt_s:g} Hz")
    for view in see.views:
        if (name := f"observation.images.{view}") not in features.cameras:
            has = ", ".join(c.removeprefix("observation.images.") for c in features.cameras) or "none"
            raise ConfigError(
                f"{folder} has no camera {view}; it has: {has}; choose with --{group}.views, or {collect}"
            )
        if features.cameras[name] != (see.size, see.size):
            height, width = features.cameras[name]
            raise ConfigError(
                f"pictures in {folder} are {height} x {width}, {group}.size is {see.size}; try --{group}.size {height}"
            )
