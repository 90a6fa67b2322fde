"""Every command on a task that is no arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

from robo.cli import deploy, train, view
from robo.cli.eval import main as evaluate_main
from robo.data.rollout import Rollout, SystemRollout

TINY = ["--train.steps", "4", "--train.batch", "8", "--train.pool", "16", "--train.width", "8", "--plan.samples", "64"]


def test_from_training_to_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["bench/maze", *TINY]) == 0
    run = tmp_path / "runs" / "bench" / "maze" / "last"
    assert "policy: npc" in (run / "config.yaml").read_text()
    assert train.main(["--resume", str(run)]) == 0
    assert evaluate_main(["runs/bench/maze/last", "--episodes", "3", "--record", "1", "--json", "out.json"]) == 0
    record = json.loads(Path("out.json").read_text())
    assert record["task"] == "bench/maze" and record["episodes"] == 3 and record["plan_ms_p50"] > 0
    rollout = Rollout.load(run / "recordings" / "rollout-0.npz")
    assert isinstance(rollout, SystemRollout) and rollout.state.shape == (26, 9)
    names = [f"x.{ending}" for ending in ("png", "mp4", "rrd")]
    options = [f"--{option}={name}" for option, name in zip(("png", "mp4", "save"), names, strict=True)]
    assert view.main([str(run), *options]) == 0
    assert all(Path(name).stat().st_size > 5_000 for name in names)
    picture = Image.open("x.png").convert("RGB")
    assert picture.size[0] == 1440 and len(picture.getcolors(1 << 20) or range(1 << 20)) > 50
    assert "bench/maze" in (run / "report.html").read_text()
    capsys.readouterr()
    assert deploy.main([str(run), "--robot", "sim"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and "bench/maze moves no arm" in said and len(said.splitlines()) == 1


def test_a_kind_of_policy_that_does_not_fit_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
) -> None:
    monkeypatch.chdir(tmp_path)
    assert train.main(["bench/maze", "--policy", "stl"]) == 2
    said = capsys.readouterr().err
    assert "bench/maze moves no arm" in said and len(said.splitlines()) == 1
    assert train.main(["bench/mazes"]) == 2
    assert "did you mean 'bench/maze'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
