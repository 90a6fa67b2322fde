"""robo-train from end to end, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

SMALL = ["--train.steps", "3", "--train.batch", "8", "--train.pool", "64", "--train.width", "16", "--threads", "1"]


def train(*words: str, cwd: Path) -> str:
    done = subprocess.run(
        [Path(sys.executable).with_name("robo-train"), *words],
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_by_name_by_config_and_again(tmp_path):
    assert "trained: runs/reach_avoid/001" in train("reach_avoid", *SMALL, cwd=tmp_path)
    assert "next:    robo-eval runs/reach_avoid/001" in train("--resume", "runs/reach_avoid/last", cwd=tmp_path)
    again = train("runs/reach_avoid/001/config.yaml", cwd=tmp_path)
    assert "trained: runs/reach_avoid/002" in again
    one, two = (tmp_path / f"runs/reach_avoid/00{i}/checkpoints/00000003/weights.safetensors" for i in (1, 2))
    assert one.read_bytes() == two.read_bytes()
    about = json.loads((tmp_path / "runs/reach_avoid/last/run.json").read_text())
    assert (about["task"], about["policy"], about["status"]) == ("reach_avoid", "stl", "done")


def test_the_task_file_of_the_readme(tmp_path):
    example = (Path(__file__).parents[2] / "README.md").read_text().split("```python\n")[1].split("```")[0]
    (tmp_path / "patient.py").write_text(example)
    assert "# one step" in train("patient.py", *SMALL, "--dry-run", cwd=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["patient.py"]  # no bytecode beside it either
    assert "trained: runs/patient/001" in train("patient.py", *SMALL, cwd=tmp_path)
    assert (tmp_path / "runs/patient/001/task.py").read_text() == example
    (tmp_path / "patient.py").unlink()
    assert "trained" in train("--resume", "runs/patient/last", cwd=tmp_path)


def test_dry_run(tmp_path):
    printed = train("reach_avoid", *SMALL, "--dry-run", cwd=tmp_path)
    assert "steps: 3" in printed
    assert "# one step: loss" in printed
    assert list(tmp_path.iterdir()) == []
