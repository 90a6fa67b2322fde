"""The loop: exact resume after any end, NaN, Ctrl-C, a full disk."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save

from robo.core.errors import ConfigError, NonFiniteError, RoboError, RunError
from robo.train import loop
from robo.train.config import Config, resolve
from robo.train.run import Run
from tests.train import toy

toy.register()

HERE = Path(__file__).parent
OPTIONS = {"policy": "toy", "train.steps": "12", "log_every": "1", "checkpoint_every": "4"}


def _config(**options: str) -> Config:
    return resolve(HERE / "toy_task.py", OPTIONS | {k.replace("__", "."): v for k, v in options.items()})


def _outcome(run: Run) -> tuple[dict[str, bytes], str]:
    """What must be equal, bit for bit: the files of the last checkpoint, and the metrics."""
    checkpoint = run.latest()
    assert checkpoint is not None
    files = {p.name: p.read_bytes() for p in checkpoint.path.iterdir()}
    return files, (run.path / "metrics.jsonl").read_text()


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> tuple[dict[str, bytes], str]:
    run = loop.train(_config(), tmp_path_factory.mktemp("undisturbed"))
    assert run.status == "done"
    return _outcome(run)


def test_metrics(undisturbed):
    lines = [json.loads(line) for line in undisturbed[1].splitlines()]
    assert [line["step"] for line in lines] == list(range(1, 13))
    assert all(line["loss"] > 0 for line in lines)


def test_tensorboard(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = loop.train(_config(), tmp_path)
    events = EventAccumulator(str(run.path / "tb")).Reload()
    assert [event.step for event in events.Scalars("loss")] == list(range(1, 13))


@pytest.mark.parametrize("at", [1, 4, 7, 11])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_stopping_and_resuming_is_exact(tmp_path, monkeypatch, undisturbed, at, number):
    step, handler = toy.ToyLearner.step, signal.getsignal(signal.SIGINT)

    def interrupted(self):
        if self.done + 1 == at:
            os.kill(os.getpid(), number)
        return step(self)

    monkeypatch.setattr(toy.ToyLearner, "step", interrupted)
    run = loop.train(_config(), tmp_path)
    monkeypatch.undo()
    checkpoint = run.latest()
    assert checkpoint is not None
    assert (run.status, checkpoint.step) == ("training", at)
    assert signal.getsignal(signal.SIGINT) is handler
    run = loop.resume(run.path)
    assert run.status == "done"
    assert _outcome(run) == undisturbed
    assert _outcome(loop.resume(run.path)) == undisturbed  # nothing left to do


def _fork(work: Callable[[], object]) -> int | None:
    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    process.join()
    return process.exitcode


def _killed_at(operation: int, work: Callable[[], object]) -> Callable[[], None]:
    """`work`, killed just before its n-th operation that changes what is on the disk."""

    def dying() -> None:
        count = 0

        def counted(original):
            def call(*args, **kwargs):
                nonlocal count
                count += 1
                if count == operation:
                    os.kill(os.getpid(), signal.SIGKILL)
                return original(*args, **kwargs)

            return call

        for name in ("fsync", "rename", "replace", "mkdir", "rmdir", "unlink", "symlink"):
            setattr(os, name, counted(getattr(os, name)))
        work()

    return dying


def _train_or_resume(root: Path) -> None:
    """What a user does who does not know how far it came: resume what there is, else train."""
    found = sorted(p for p in root.glob("toy/*/") if p.name.isdecimal())
    loop.resume(found[-1]) if found else loop.train(_config(), root)


@pytest.mark.parametrize("part", range(4))
def test_killed_at_every_change_of_the_disk(tmp_path, undisturbed, part):
    torch.set_num_threads(1)  # forking is safe with one thread
    operation, code = 1 + part, -signal.SIGKILL
    while code == -signal.SIGKILL:
        root = tmp_path / str(operation)
        code = _fork(_killed_at(operation, partial(loop.train, _config(), root)))
        assert code in (0, -signal.SIGKILL)
        # Killed again while resuming, a little later, and then left in peace.
        assert _fork(_killed_at(operation // 2 + 1, partial(_train_or_resume, root))) in (0, -signal.SIGKILL)
        assert _fork(partial(_train_or_resume, root)) == 0
        runs = [p for p in root.glob("toy/*/") if p.name.isdecimal()]
        assert len(runs) == 1
        assert _outcome(Run.open(runs[0])) == undisturbed, f"killed before operation {operation}"
        operation += 4
    assert operation > 40  # the count did see the checkpoints


def test_killed_at_random_moments(tmp_path):
    torch.set_num_threads(1)  # forking is safe with one thread
    config = _config(train__steps="200", train__step_s="0.01", checkpoint_every="3")
    undisturbed = loop.train(config, tmp_path / "undisturbed")
    rng, metrics, last = random.Random(0), tmp_path / "toy" / "001" / "metrics.jsonl", tmp_path / "toy" / "last"
    for attempt in range(6):
        work = partial(loop.resume, last) if attempt else partial(loop.train, config, tmp_path)
        process = multiprocessing.get_context("fork").Process(target=work)
        before = metrics.read_bytes() if metrics.exists() else b""
        process.start()
        while process.is_alive() and (not metrics.exists() or metrics.read_bytes() == before):
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 0.3))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL  # it had not ended yet
    assert _outcome(loop.resume(last)) == _outcome(undisturbed)


def test_nan_dumps_the_state_that_led_to_it(tmp_path, undisturbed):
    with pytest.raises(NonFiniteError) as caught:
        loop.train(_config(train__nan_at="7"), tmp_path)
    message = str(caught.value)
    assert "stopped at step 7: loss is nan" in message
    assert "last good checkpoint is step 4" in message
    assert "nonfinite-00000007" in message
    run = Run.open(tmp_path / "toy" / "last")
    checkpoint = run.latest()
    assert checkpoint is not None
    assert checkpoint.step == 4
    # From the dump the step can be repeated: with a finite loss it goes where an undisturbed training goes.
    folder = run.path / "nonfinite-00000007"
    learner = toy.ToyLearner(run.task(), _config().settings, 0, "cpu")
    learner.load_state(load_file(folder / "train.safetensors"), json.loads((folder / "train.json").read_text())["meta"])
    assert learner.done == 6
    while learner.done < learner.total_steps:
        learner.step()
    assert save(learner.weights()) == undisturbed[0]["weights.safetensors"]
    with pytest.raises(NonFiniteError, match="stopped at step 7"):
        loop.resume(run.path)


def test_a_metric_that_is_not_finite(tmp_path, monkeypatch):
    monkeypatch.setattr(toy.ToyLearner, "step", lambda self: {"loss": 1.0, "satisfied": float("inf")})
    with pytest.raises(NonFiniteError, match="metric 'satisfied' is inf"):
        loop.train(_config(), tmp_path)


def test_dry_run_writes_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert loop.dry_run(_config())["loss"] > 0
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(NonFiniteError):
        loop.dry_run(_config(train__nan_at="1"))


def test_device_that_is_not_there(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="'cuda' is not there"):
        loop.train(_config(device="cuda"), tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_one_process_per_run(tmp_path):
    run = Run.create(_config(), tmp_path)
    with loop._only_one(run), pytest.raises(RunError, match="being trained by another process"):
        loop.resume(run.path)


def test_torn_and_foreign_metrics(tmp_path, undisturbed):
    run = loop.train(_config(), tmp_path)
    path = run.path / "metrics.jsonl"
    path.write_text(undisturbed[1] + '{"step": 13, "lo')
    assert _outcome(loop.resume(run.path))[0] == undisturbed[0]
    path.write_text("nonsense\n" + undisturbed[1])
    checkpoints = run.path / "checkpoints"
    (checkpoints / "latest.json").unlink()
    (checkpoints / "00000012").rename(tmp_path / "away")
    with pytest.raises(RunError, match="line 1 is no metric"):
        loop.resume(run.path)


def _limited(root: Path, size: int) -> None:
    """A training whose files may not grow beyond a size: what a full disk does, without one."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
    try:
        loop.train(_config(train__widths="[64, 64]"), root)
    except RoboError as error:
        (root / "error").write_text(str(error))
        raise SystemExit(3) from error


def test_full_disk_keeps_what_was_saved(tmp_path):
    torch.set_num_threads(1)
    whole = loop.train(_config(train__widths="[64, 64]"), tmp_path / "whole")
    size = (whole.path / "checkpoints" / "00000012" / "train.safetensors").stat().st_size
    limited = tmp_path / "limited"
    limited.mkdir()
    assert _fork(lambda: _limited(limited, size - 1)) == 3
    message = (limited / "error").read_text()
    assert "no room left on the disk" in message
    assert "train.safetensors" in message
    run = Run.open(limited / "toy" / "last")
    assert run.latest() is None
    assert list((run.path / "checkpoints").iterdir()) == []
    assert _outcome(loop.resume(run.path)) == _outcome(whole)  # with room again, it goes on
