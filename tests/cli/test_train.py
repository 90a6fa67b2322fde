"""robo-train from end to end, as a user runs it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from robo.cli.train import main

SMALL = ["--train.steps", "3", "--train.batch", "8", "--train.pool", "64", "--train.width", "16", "--threads", "1"]
Train = Callable[..., str]


@pytest.fixture
def train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Train:
    """What the command prints, run in this process: a new one imports torch for most of its time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", False)

    def of(*words: str) -> str:
        assert main(words) == 0, capsys.readouterr().err
        return capsys.readouterr().out

    return of


def test_by_name_by_config_and_again(train: Train, tmp_path: Path) -> None:
    script = Path(sys.executable).with_name("robo-train")
    done = subprocess.run([script, "reach_avoid", *SMALL], cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "trained: runs/reach_avoid/001" in done.stdout
    assert "next:    robo-eval runs/reach_avoid/001" in train("--resume", "runs/reach_avoid/last")
    again = train("runs/reach_avoid/001/config.yaml")
    assert "trained: runs/reach_avoid/002" in again
    one, two = (tmp_path / f"runs/reach_avoid/00{i}/checkpoints/00000003/weights.safetensors" for i in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    about = json.loads((tmp_path / "runs/reach_avoid/last/run.json").read_text())
    assert (about["task"], about["policy"], about["status"]) == ("reach_avoid", "stl", "done")


def test_the_task_file_of_the_readme(train: Train, tmp_path: Path) -> None:
    example = (Path(__file__).parents[2] / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "patient.py").write_text(example)
    assert "# one step" in train("patient.py", *SMALL, "--dry-run")
    assert [path.name for path in tmp_path.iterdir()] == ["patient.py"]  # no bytecode beside it either
    assert "trained: runs/patient/001" in train("patient.py", *SMALL)
    assert (tmp_path / "runs/patient/001/task.py").read_text() == example
    (tmp_path / "patient.py").unlink()
    assert "trained" in train("--resume", "runs/patient/last")


def test_dry_run(train: Train, tmp_path: Path) -> None:
    printed = train("reach_avoid", *SMALL, "--dry-run")
    assert "steps: 3" in printed
    assert "# one step: loss" in printed
    assert list(tmp_path.iterdir()) == []
