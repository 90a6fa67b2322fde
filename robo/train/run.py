"""The run folder: everything a training leaves behind, always whole; see docs/architecture.md for its layout."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from policies.learner import AnyPolicy, Learner
from robo.core.errors import RoboError, RunError, UnknownNameError, nearest
from robo.core.files import (
    FULL,
    make_parent,
    read_json,
    read_tensors,
    room_for,
    sync_folder,
    write_bytes,
    write_json,
    write_tensors,
    write_text,
)
from robo.train.config import Config, altered, build, read_config
from tasks.registry import is_task_file
from tasks.task import Task

if TYPE_CHECKING:
    import torch

LAYOUT = 1
"""Version of the layout of a run folder."""

SHIPPED = Path(__file__).parents[2] / "policies" / "trained"
"""Runs that come with the project, by name: a config, weights, perhaps a card, and nothing to go on training from."""
PRETRAINED = "pretrained:"
"""Before the name of one of these it says that no folder is meant."""
CARD = "card.json"
"""What one of these was trained with, and how it fares."""
TASK_FILE, PROGRAM_FILE = "task.py", "program.yaml"
CALIBRATION = "calibration.json"
"""What robo-calibrate measured."""
KEPT_CHECKPOINTS = 2
_PACKAGES = ("robo-stack", "torch", "mujoco", "numpy", "gymnasium", "safetensors")


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A whole checkpoint of a run.

    Attributes:
        path: Its folder.
        step: Training steps done.
        meta: The learner's JSON state.
        sha256: Checksums of its files, by file name.
    """

    path: Path
    step: int
    meta: Mapping[str, Any]
    sha256: Mapping[str, str]

    def weights(self, device: str = "cpu") -> dict[str, torch.Tensor]:
        """What the policy needs to act.

        Raises:
            RunError: The file is missing or corrupt.
        """
        return self._tensors("weights.safetensors", device)

    def state(self) -> dict[str, torch.Tensor]:
        """What a resume needs.

        Raises:
            RunError: The file is missing or corrupt; or the run came with the project, without it.
        """
        if "train.safetensors" not in self.sha256:
            config = self.path.parents[1] / "config.yaml"
            raise RunError(
                f"{self.path} came without the state that training goes on from; train anew: robo-train {config}"
            )
        return self._tensors("train.safetensors", "cpu")

    def _tensors(self, name: str, device: str) -> dict[str, torch.Tensor]:
        try:
            return read_tensors(self.path / name, self.sha256[name], device)
        except RoboError as error:
            raise RunError(f"{error}; {_go_back(self.path)}") from error


class Run:
    """A run folder. Get one from `create` or `open`.

    Attributes:
        path: The folder.
        config: The resolved config.
    """

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config

    # ---- making and opening --------------------------------------------------

    @classmethod
    def create(cls, config: Config, root: str | Path = "runs") -> Run:
        """Make ``root/<task or name>/<number>/`` with its config, and point ``last`` at it.

        Raises:
            TaskError: The task does not load.
            RoboError: No room on the disk, or no right to write there.
        """
        task = config.open_task()
        parent = Path(root) / (config.name or task.name)
        draft = parent / f".new-{os.getpid()}"
        with room_for(draft):
            shutil.rmtree(draft, ignore_errors=True)  # of a killed process that had this one's number
            try:
                draft.mkdir(parents=True)
            except OSError as error:
                if error.errno in FULL:
                    raise
                raise RunError(f"cannot make a run in {parent}: {error.strerror}; choose another --runs") from error
            try:
                if is_task_file(config.task):
                    write_bytes(draft / TASK_FILE, Path(config.task).expanduser().read_bytes())
                    config = replace(config, task=TASK_FILE)
                if config.program:
                    write_bytes(draft / PROGRAM_FILE, Path(config.program).expanduser().read_bytes())
                    config = replace(config, program=PROGRAM_FILE)
                write_text(draft / "config.yaml", config.to_yaml())
                write_json(draft / "run.json", _describe(config, task.name))
                (draft / "checkpoints").mkdir()
                path = _place(draft, parent)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            _point(parent / "last", path.name)
        return cls.open(path)

    @classmethod
    def open(cls, path: str | Path) -> Run:
        """The run in a folder; ``runs/<task>/last`` is followed.

        A trained network that ships with the project is opened by its name, ``pretrained:<name>`` or, where no folder
        is called so, ``<name>``: the run is then first put into ``runs/<name>/shipped``; what was recorded there before
        stays.

        Raises:
            RunError: The folder is missing, no run, half-written or of another version.
            UnknownNameError: Nothing of that name ships.
        """
        if (name := str(path).removeprefix(PRETRAINED)) != str(path) and name not in shipped():
            raise UnknownNameError("trained network", name, shipped())
        path = Path(path)
        if not path.is_dir() and name in shipped():
            path = _unpack(name)
        if not path.is_dir():
            raise RunError(_not_found(path))
        path = path.resolve()
        if not (path / "run.json").is_file():
            inside = sorted(p.name for p in path.iterdir() if (p / "run.json").is_file())
            hint = f"runs in it: {', '.join(inside)}" if inside else "robo-train makes one"
            raise RunError(f"{path} is no run folder (it has no run.json); {hint}")
        try:
            about = read_json(path / "run.json", {"layout": int})
        except RoboError as error:
            raise RunError(f"half-written run folder: {error}; train again with robo-train") from error
        if about["layout"] != LAYOUT:
            made = about.get("packages", {}).get("robo-stack", "another version")
            raise RunError(
                f"{path} has layout {about['layout']}, this version reads layout {LAYOUT}; "
                f"it was written by robo-stack {made}: use that version, or train again with robo-train"
            )
        try:
            config = build(read_config(path / "config.yaml"))
        except RoboError as error:
            raise RunError(f"run folder {path}: {error}; restore config.yaml or train again with robo-train") from error
        return cls(path, config)

    @cached_property
    def _task(self) -> Task:
        return self.config.open_task()

    def task(self) -> Task:
        """The task, from the run's own copy when it came from a user's file.

        Raises:
            TaskError: It does not load any more.
        """
        return self._task

    def policy(self, device: str = "cpu", settings: Any = None, options: Mapping[str, str] | None = None) -> AnyPolicy:
        """The trained policy, with the weights of the latest checkpoint.

        Args:
            device: Where it computes.
            settings: The policy kind's config to use instead of the run's own, for comparisons. The run's own
                subtracts the margin that robo-calibrate measured for these weights, if it did.
            options: Keys of the run's own that are to be other, see `robo.train.config.altered`.

        Raises:
            RunError: There is no checkpoint yet, or it is half-written or corrupt.
            ConfigError: An option is wrong.
        """
        checkpoint = self.latest()
        if checkpoint is None:
            raise RunError(f"{self.path} has no checkpoint yet; robo-train --resume {self.path} goes on with it")
        if settings is None:
            settings, margin = self.config.settings, self.margin
            if margin is not None:
                settings = replace(settings, plan=replace(settings.plan, conformal=margin))
            if options:
                settings = altered(replace(self.config, settings=settings), options).settings
        return self.config.kind.load(self.task(), settings, checkpoint.weights(device), device)

    @property
    def margin(self) -> float | None:
        """Robustness that robo-calibrate measured for these weights and that their planner subtracts; None before.

        Raises:
            RunError: What was measured cannot be read, or is of other weights.
        """
        path, checkpoint = self.path / CALIBRATION, self.latest()
        if checkpoint is None or not path.is_file():
            return None
        try:
            found = read_json(path, {"margin": float, "weights": str})
        except RoboError as error:
            raise RunError(f"{error}; robo-calibrate {self.path} measures it again") from error
        if found["weights"] != checkpoint.sha256["weights.safetensors"]:
            raise RunError(f"{path} is of other weights: robo-calibrate {self.path} measures it again, or delete it")
        return found["margin"]

    # ---- status ----------------------------------------------------------------

    @property
    def status(self) -> str:
        """``training`` or ``done``.

        Raises:
            RunError: run.json cannot be read.
        """
        return str(self._about()["status"])

    def set_status(self, status: str) -> None:
        """Write the status into run.json."""
        write_json(self.path / "run.json", self._about() | {"status": status})

    @property
    def train_s(self) -> float:
        """Time that training has taken so far, over all its sittings that ended in order [s]."""
        return float(self._about().get("train_s", 0.0))

    def add_time(self, seconds: float) -> None:
        """Add a sitting to `train_s`."""
        write_json(self.path / "run.json", self._about() | {"train_s": round(self.train_s + seconds, 3)})

    def _about(self) -> dict[str, Any]:
        try:
            return read_json(self.path / "run.json", {"layout": int, "status": str})
        except RoboError as error:
            raise RunError(str(error)) from error

    # ---- checkpoints -----------------------------------------------------------

    @property
    def _checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def save_checkpoint(self, step: int, learner: Learner) -> Path:
        """Write a checkpoint: a whole one or none; older ones beyond the last two are removed afterwards.

        Raises:
            RoboError: No room on the disk; what was saved before is untouched.
        """
        final = self._checkpoints / f"{step:08d}"
        if (latest := self.latest()) and latest.step == step:
            return final
        draft = self._checkpoints / f".new-{os.getpid()}"
        with room_for(draft):
            shutil.rmtree(draft, ignore_errors=True)
            try:
                draft.mkdir(parents=True)
                write_state(draft, step, learner)
                if final.exists():  # left by a kill between the rename and latest.json; nothing points at it
                    shutil.rmtree(final)
                os.rename(draft, final)
            except BaseException:
                shutil.rmtree(draft, ignore_errors=True)
                raise
            sync_folder(self._checkpoints)
            write_json(self._checkpoints / "latest.json", {"step": step})
        for old in self._steps()[:-KEPT_CHECKPOINTS]:
            shutil.rmtree(self._checkpoints / f"{old:08d}")
        for stale in self._checkpoints.glob(".new-*"):  # of a process that was killed while writing
            shutil.rmtree(stale)
        return final

    def latest(self) -> Checkpoint | None:
        """The newest whole checkpoint; None before the first one.

        Without latest.json (a user who goes back a step deletes it) the newest folder counts.

        Raises:
            RunError: It is half-written, of another version or corrupt; says how to go back one.
        """
        pointer = self._checkpoints / "latest.json"
        if pointer.exists():
            try:
                step = read_json(pointer, {"step": int})["step"]
            except RoboError as error:
                raise RunError(f"{error}; delete it to use the newest checkpoint there is") from error
        elif steps := self._steps():
            step = steps[-1]
        else:
            return None
        path = self._checkpoints / f"{step:08d}"
        if not path.is_dir():
            left = f"step {self._steps()[-1]}" if self._steps() else "the start"
            raise RunError(f"{path} is missing; restore it, or delete {pointer} to go on from {left}")
        try:
            about = read_json(path / "train.json", {"layout": int, "step": int, "meta": dict, "sha256": dict})
        except RoboError as error:
            raise RunError(f"{error}; {_go_back(path)}") from error
        if about["layout"] != LAYOUT:
            raise RunError(f"{path} has layout {about['layout']}, this version reads layout {LAYOUT}; train again")
        if "weights.safetensors" not in about["sha256"]:
            raise RunError(f"{path}/train.json has no checksum of weights.safetensors; {_go_back(path)}")
        return Checkpoint(path=path, step=about["step"], meta=about["meta"], sha256=about["sha256"])

    def _steps(self) -> list[int]:
        if not self._checkpoints.is_dir():
            return []
        return sorted(int(p.name) for p in self._checkpoints.iterdir() if re.fullmatch(r"\d{8,}", p.name))


def write_state(folder: Path, step: int, learner: Learner) -> None:
    """Write a learner's weights and state into a folder: two safetensors files and train.json with their checksums."""
    tensors, meta = learner.state()
    sha256 = {
        "weights.safetensors": write_tensors(folder / "weights.safetensors", learner.weights()),
        "train.safetensors": write_tensors(folder / "train.safetensors", tensors),
    }
    write_json(folder / "train.json", {"layout": LAYOUT, "step": step, "meta": meta, "sha256": sha256})


def shipped() -> list[str]:
    """Names of the trained networks that ship with the project."""
    return sorted(str(p.parent.relative_to(SHIPPED)) for p in SHIPPED.rglob("run.json"))


def _unpack(name: str, root: str | Path = "runs") -> Path:
    """The folder of a shipped run under `root`; what is missing in it or differs is written, nothing is removed."""
    source, target = SHIPPED / name, Path(root) / name / "shipped"
    parts = [p.relative_to(source) for p in source.rglob("*") if p.is_file()]
    # What points at other files comes after them: a kill in between leaves the old run, or none yet.
    for part in sorted(parts, key=lambda p: (p.name in ("latest.json", "run.json"), p)):
        data, path = (source / part).read_bytes(), target / part
        if not path.is_file() or path.read_bytes() != data:
            make_parent(path)
            write_bytes(path, data)
    return target


def _describe(config: Config, task: str) -> dict[str, Any]:
    return {
        "layout": LAYOUT,
        "task": task,
        "policy": config.policy,
        "seed": config.seed,
        "packages": {name: _version(name) for name in _PACKAGES},
        "status": "training",
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _place(draft: Path, parent: Path) -> Path:
    """Rename a draft to the next free number; another training may take a number at the same time."""
    while True:
        taken = [int(p.name) for p in parent.iterdir() if p.name.isdecimal()]
        path = parent / f"{max(taken, default=0) + 1:03d}"
        try:
            os.rename(draft, path)
        except OSError:
            if not path.exists():
                raise
            continue
        sync_folder(parent)
        return path


def _point(link: Path, target: str) -> None:
    temporary = link.with_name(f".{link.name}.{os.getpid()}")
    temporary.unlink(missing_ok=True)
    temporary.symlink_to(target)
    os.replace(temporary, link)


def _not_found(path: Path) -> str:
    if path.exists():
        return f"{path} is a file, a run is a folder such as runs/reach_avoid/last"
    known = [p.name for p in path.parent.iterdir() if p.is_dir()] if path.parent.is_dir() else []
    near = f"; {nearest(path.name, known)}" if known else ""
    return (
        f"no such run folder: {path}{near}; robo-train makes one, such as runs/reach_avoid/last; "
        f"trained already: {', '.join(shipped())}"
    )


def _go_back(path: Path) -> str:
    return f"restore {path}, or go back to the checkpoint before it: rm -r {path} {path.parent / 'latest.json'}"
