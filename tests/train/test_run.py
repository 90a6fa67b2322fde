"""The run folder: made whole, opened with care, and every way it can be broken."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

from robo.core.errors import RoboError, RunError
from robo.train.config import resolve
from robo.train.run import KEPT_CHECKPOINTS, Run
from tests.train import toy

toy.register()

TASK_FILE = Path(__file__).with_name("toy_task.py")


def _config(**options: str):
    return resolve(TASK_FILE, {"policy": "toy"} | options)


@pytest.fixture
def run(tmp_path) -> Run:
    """A run with three checkpoints written, at steps 1, 2 and 3."""
    run = Run.create(_config(), tmp_path / "runs")
    learner = toy.ToyLearner(run.task(), run.config.settings, 0, "cpu")
    for step in (1, 2, 3):
        learner.step()
        run.save_checkpoint(step, learner)
    return run


def test_layout(run):
    assert sorted(p.name for p in run.path.iterdir()) == ["checkpoints", "config.yaml", "run.json", "task.py"]
    kept = sorted(p.name for p in (run.path / "checkpoints").iterdir())
    assert kept == ["00000002", "00000003", "latest.json"]
    assert len(kept) == KEPT_CHECKPOINTS + 1
    about = json.loads((run.path / "run.json").read_text())
    assert (about["task"], about["policy"], about["seed"], about["status"]) == ("toy", "toy", 0, "training")
    assert torch.__version__.startswith(about["packages"]["torch"])  # some builds add what they compute on


def test_numbers_and_last(tmp_path):
    first, second = (Run.create(_config(), tmp_path) for _ in range(2))
    assert (first.path.name, second.path.name) == ("001", "002")
    assert Run.open(tmp_path / "toy" / "last").path == second.path
    assert Run.create(_config(name="mine"), tmp_path).path == tmp_path / "mine" / "001"


def test_policy_and_its_own_copy_of_the_task(run, tmp_path):
    moved = shutil.move(run.path, tmp_path / "elsewhere")
    opened = Run.open(moved)
    policy = opened.policy()
    assert isinstance(policy, toy.ToyPolicy)
    assert policy.info.task == "toy"
    assert opened.config.task == str(tmp_path / "elsewhere" / "task.py")
    checkpoint = opened.latest()
    assert checkpoint is not None
    assert checkpoint.step == 3
    assert all(torch.equal(policy.weights[k], v) for k, v in checkpoint.weights().items())


def test_status(run):
    run.set_status("done")
    assert Run.open(run.path).status == "done"


def _flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    path.write_bytes(bytes(data))


def _edit(path: Path, **values) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


LATEST = "checkpoints/00000003"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda p: (p / "run.json").unlink(), "is no run folder"),
        (lambda p: (p / "run.json").write_text('{"layout": 1'), "half-written run folder"),
        (lambda p: (p / "run.json").write_text("{}"), "'layout' must be int"),
        (lambda p: _edit(p / "run.json", layout=2, packages={"robo-stack": "9.0"}), "written by robo-stack 9.0"),
        (lambda p: (p / "config.yaml").unlink(), "no such config file"),
        (lambda p: (p / "config.yaml").write_text("task: task.py\npolicy: toy\ntrain: {stepz: 3}"), "'train.stepz'"),
        (lambda p: (p / "task.py").unlink(), "no such task file"),
        (lambda p: (p / "task.py").write_text("import nonsense_nowhere"), "line 1: ModuleNotFoundError"),
        (lambda p: _flip(p / LATEST / "weights.safetensors"), "corrupt"),
        (lambda p: (p / LATEST / "weights.safetensors").unlink(), "rm -r"),
        (lambda p: (p / LATEST / "weights.safetensors").write_bytes(b""), "corrupt"),
        (lambda p: (p / LATEST / "train.json").unlink(), "rm -r"),
        (lambda p: (p / LATEST / "train.json").write_text("{"), "is no JSON"),
        (lambda p: _edit(p / LATEST / "train.json", layout=2), "has layout 2"),
        (lambda p: _edit(p / LATEST / "train.json", sha256={}), "has no checksum of weights.safetensors"),
        (lambda p: shutil.rmtree(p / LATEST), "is missing; restore it, or delete"),
        (lambda p: (p / "checkpoints/latest.json").write_text(""), "delete it to use the newest checkpoint"),
        (lambda p: _edit(p / "checkpoints/latest.json", step="3"), "delete it to use the newest checkpoint"),
        (lambda p: shutil.rmtree(p / "checkpoints"), "has no checkpoint yet; robo-train --resume"),
    ],
)
def test_damage(run, damage, message):
    damage(run.path)
    with pytest.raises(RoboError) as caught:
        Run.open(run.path).policy()
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_going_back_one_checkpoint_as_the_error_says(run):
    _flip(run.path / LATEST / "weights.safetensors")
    with pytest.raises(RunError) as caught:
        run.policy()
    for path in str(caught.value).rpartition("rm -r ")[2].split():
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    checkpoint = run.latest()
    assert checkpoint is not None
    assert checkpoint.step == 2
    assert run.policy() is not None


def test_paths_that_are_no_runs(run, tmp_path):
    with pytest.raises(RunError, match="did you mean 'last'"):
        Run.open(run.path.parent / "lats")
    with pytest.raises(RunError, match="robo-train makes one"):
        Run.open(tmp_path / "no" / "where")
    with pytest.raises(RunError, match="runs in it: 001, last"):
        Run.open(run.path.parent)
    with pytest.raises(RunError, match="is a file"):
        Run.open(run.path / "run.json")


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "runs").write_text("a file")
    with pytest.raises(RunError, match="choose another --runs"):
        Run.create(_config(), tmp_path / "runs")


def test_a_bad_task_leaves_nothing(tmp_path):
    with pytest.raises(RoboError, match="unknown task"):
        Run.create(resolve("reach_avid", {"policy": "toy"}), tmp_path / "runs")
    assert not (tmp_path / "runs").exists()


def test_a_program_says_what_is_wanted_and_the_run_keeps_it(tmp_path):
    from tasks.instruct.program import Program
    from tasks.registry import load_task

    own = Program.of(load_task("reach"))
    nearer = own.model_copy(update={"mission": own.mission.replace("0.5]", "0.4]"), "instruction": "come near"})
    assert nearer.mission != own.mission
    nearer.save(tmp_path / "nearer.yaml")
    options = {"policy": "zero", "program": str(tmp_path / "nearer.yaml")}
    run = Run.create(resolve("reach", options), tmp_path / "runs")
    (tmp_path / "nearer.yaml").unlink()
    task = Run.open(run.path).task()
    assert (task.mission, task.instruction) == (nearer.mission, "come near")
    assert load_task("reach").mission == own.mission
    with pytest.raises(RoboError, match=r"nearer\.yaml"):
        Run.create(resolve("reach", options), tmp_path / "runs")
    own.model_copy(update={"goal": "away < 0.1"}).save(tmp_path / "wrong.yaml")
    with pytest.raises(RoboError, match="away_m"):
        Run.create(resolve("reach", options | {"program": str(tmp_path / "wrong.yaml")}), tmp_path / "runs")
    assert sorted(p.name for p in (tmp_path / "runs" / "reach").iterdir()) == ["001", "last"]
