"""The training loop: drives a learner, keeps the run folder whole, and resumes exactly.

A resumed training ends in the same weights, bit for bit, as one that was never
disturbed: checkpoints hold the learner's whole state, metrics are cut back to the
checkpoint, threads and algorithms of torch are fixed.
"""

from __future__ import annotations

import fcntl
import json
import math
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any, Self

from policies.learner import Learner
from robo.core.errors import NonFiniteError, RunError
from robo.core.files import FULL, full_disk_error, make_parent, room_for, write_bytes, write_tensors, write_text
from robo.core.machine import require_device
from robo.core.progress import progress
from robo.dataset.video import Encoder
from robo.train.board import Board, require
from robo.train.config import Config
from robo.train.explore import Processes
from robo.train.run import Run, write_state
from tasks.tabletop.base import TabletopTask
from tasks.task import Task

FILM_FPS = 10
"""Half as fast as it was."""


def dry_run(config: Config) -> dict[str, float]:
    """Build everything, take one step if there is any, write nothing; returns the metrics of that step.

    Raises:
        RoboError: Whatever a training would stumble on at its start.
    """
    learner = _learner(config, _right_task(config))
    with _entered(learner, config):
        return _step(learner) if learner.total_steps else {}


def train(config: Config, root: str | Path = "runs") -> Run:
    """Train in a new run folder under `root`; returns the run, whose status is ``done`` unless it was asked to stop.

    Ctrl-C (SIGINT) and SIGTERM end it after the step in progress, with a checkpoint; a
    second Ctrl-C ends it at once, and the run resumes from the checkpoint before.

    Raises:
        RoboError: The task, the device or the settings do not fit, or the reward is wrong (no folder is made then),
            or there is no room on the disk.
        NonFiniteError: NaN or infinity; says where the state that led to it was saved.
    """
    learner = _learner(config, _right_task(config))
    run = Run.create(config, root)
    with _only_one(run):
        print(f"training in {shown(run.path)}", flush=True)
        _loop(run, learner, 0)
    return run


def resume(path: str | Path) -> Run:
    """Go on with a run from its latest checkpoint (from its start, if it has none); like `train` otherwise.

    Raises:
        RunError: The run cannot be continued (corrupt, or another process trains it).
    """
    run = Run.open(path)
    with _only_one(run):
        checkpoint = run.latest()
        state = checkpoint.state() if checkpoint else {}  # before demonstrations are asked for
        learner = _learner(run.config, run.task())
        step = 0
        if checkpoint:
            learner.load_state(state, checkpoint.meta)
            step = checkpoint.step
        print(f"going on with {shown(run.path)} from step {step}", flush=True)
        _loop(run, learner, step)
    return run


def _right_task(config: Config) -> Task:
    """The task, whose reward is right if somebody is to learn from it, or if a program says it.

    Raises:
        ProgramError: It is not.
    """
    task = config.open_task()
    if isinstance(task, TabletopTask) and (config.program or config.kind.rewarded):
        from robo.train.evidence import require_right  # lazily: mujoco

        require_right(task)
    return task


def shown(path: Path) -> str:
    """A path as a user would type it from here."""
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else str(path)


def _loop(run: Run, learner: Learner, step: int) -> None:
    config, total, saved = run.config, learner.total_steps, step
    began = time.monotonic()
    with (
        _Stop() as stop,
        _Metrics(run, step) as metrics,
        _entered(learner, config),
        progress("steps", total, step) as advance,
    ):
        while step < total and not stop.asked:
            try:
                values = _step(learner)
            except NonFiniteError as error:
                raise _explain(run, learner, step, saved, error) from error
            step += 1
            advance(_text(values))
            if step % config.log_every == 0 or step == total:
                metrics.write(step, values)
            if config.film_every and (step % config.film_every == 0 or step == total):
                for name, path in _film(run, learner, step).items():
                    metrics.film(step, name, path)
            if step % config.checkpoint_every == 0 or step == total or stop.asked:
                metrics.sync()  # first: a checkpoint promises the metrics up to its step
                run.save_checkpoint(step, learner)
                saved = step
        if saved != step or run.latest() is None:  # asked to stop between two steps; or there is nothing to learn
            metrics.sync()
            run.save_checkpoint(step, learner)
    run.add_time(time.monotonic() - began)
    if step == total:
        for name, write in learner.exports().items():
            with room_for(run.path / name):
                write(run.path / name)
        run.set_status("done")


def _film(run: Run, learner: Learner, step: int) -> dict[str, Path]:
    films = {}
    for name, pictures in learner.films().items():
        encoder = Encoder(FILM_FPS, pictures.shape[1:3])
        for picture in pictures:
            encoder.add(picture)
        path = run.path / "films" / f"{name}-{step:08d}.mp4"
        make_parent(path)
        with room_for(path):
            write_bytes(path, encoder.finish())
        films[name] = path
    return films


def _learner(config: Config, task: Task) -> Learner:
    import torch

    if config.device != "cpu":
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # what cuBLAS asks for to be deterministic
    require_device(config.device)
    if config.log_wandb:
        require()
    torch.set_num_threads(config.threads)
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(config.seed)
    return config.kind.learner(task, config.settings, config.seed, config.device)


@contextmanager
def _entered(learner: Learner, config: Config) -> Iterator[None]:
    """A learner that may play episodes."""
    learner.enter(lambda processes: Processes(config, processes))
    try:
        yield
    finally:
        learner.leave()


def _step(learner: Learner) -> dict[str, float]:
    values = {name: float(value) for name, value in learner.step().items()}
    if bad := [name for name, value in values.items() if not math.isfinite(value)]:
        raise NonFiniteError(f"metric {bad[0]!r} is {values[bad[0]]}")
    return values


def _explain(run: Run, learner: Learner, step: int, saved: int, error: NonFiniteError) -> NonFiniteError:
    """Save batch and state that lead to NaN (generators included, so the step can be repeated); say what to do."""
    folder = run.path / f"nonfinite-{step + 1:08d}"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    write_state(folder, step, learner)
    if batch := learner.batch():
        write_tensors(folder / "batch.safetensors", batch)
    good = f"the last good checkpoint is step {saved}" if saved else "there is no checkpoint before it"
    return NonFiniteError(
        f"training stopped at step {step + 1}: {error}; the state and generators that led to it are in "
        f"{shown(folder)}, {good}; start anew with gentler settings: "
        f"robo-train {shown(run.path / 'config.yaml')} --KEY VALUE"
    )


@contextmanager
def _only_one(run: Run) -> Iterator[None]:
    """Hold the run for this process; the system lets go of it however the process ends."""
    descriptor = os.open(run.path, os.O_RDONLY)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise RunError(f"{run.path} is being trained by another process; wait for it or stop it") from error
        yield
    finally:
        os.close(descriptor)


class _Stop:
    """Notes the first SIGINT or SIGTERM instead of dying of it; the second acts as usual."""

    def __enter__(self) -> Self:
        self.asked = False
        self._before: dict[int, Any] = {}
        if threading.current_thread() is threading.main_thread():  # signals can be handled nowhere else
            self._before = {number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.asked = True
        signal.signal(number, self._before[number])

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


class _Metrics:
    """metrics.jsonl and TensorBoard, cut back to the step that training goes on from; and whoever else is asked for."""

    def __init__(self, run: Run, step: int) -> None:
        self._run = run
        self._other: Board | None = None
        self._path, self._folder, self._step = run.path / "metrics.jsonl", run.path / "tb", step

    def __enter__(self) -> Self:
        from torch.utils.tensorboard import SummaryWriter

        if self._run.config.log_wandb:  # first: it may refuse, and then nothing is open
            self._other = Board(self._run)
        write_text(self._path, "".join(f"{line}\n" for line in _kept(self._path, self._step)))
        with room_for(self._path):
            self._file = self._path.open("a")
            self._board = SummaryWriter(self._folder, purge_step=self._step + 1)
        return self

    def write(self, step: int, values: Mapping[str, float]) -> None:
        with room_for(self._path):
            self._file.write(json.dumps({"step": step, **values}) + "\n")
            for name, value in values.items():
                self._board.add_scalar(name, value, step)
        if self._other is not None:
            self._other.write(step, values)

    def film(self, step: int, name: str, path: Path) -> None:
        if self._other is not None:
            self._other.film(step, name, path)

    def sync(self) -> None:
        with room_for(self._path):
            self._file.flush()
            os.fsync(self._file.fileno())
            self._board.flush()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None):
        if self._other is not None:
            self._other.close()
        try:
            self._file.close()
            self._board.close()
        except OSError as late:
            # Closing flushes once more: on a full disk that fails again, and the first error is the one to tell.
            if late.errno not in FULL:
                raise
            if error is None:
                raise full_disk_error(self._path) from late


def _kept(path: Path, step: int) -> list[str]:
    """Lines up to a step; a torn last line (the process was killed while writing it) goes."""
    kept = []
    lines = path.read_text().splitlines() if path.exists() else []
    for number, line in enumerate(lines, start=1):
        try:
            at = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, line {number} is no metric: remove the line and resume again") from error
        if at <= step:
            kept.append(line)
    return kept


def _text(values: Mapping[str, float]) -> str:
    """The first metrics, which are those a learner thinks matter most."""
    return "  ".join(f"{name} {value:.3g}" for name, value in list(values.items())[:3])
