"""The trained networks that ship with the project, opened by the name of their task."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from robo.cli import eval as robo_eval
from robo.cli import train as robo_train
from robo.core.errors import RunError
from robo.train.run import SHIPPED, Run, shipped


def test_all_six_benchmarks_ship_and_are_small() -> None:
    assert shipped() == [
        *(f"bench/{name}" for name in ("car", "maze", "panda", "rover", "ship_safe", "ship_track")),
        "horizon/put_item_in_drawer",
        *(f"spec/{name}" for name in ("panda", "point")),
    ]
    assert sum(p.stat().st_size for p in SHIPPED.rglob("bench/*/checkpoints/*/*.safetensors")) <= 1_000_000
    assert sum(p.stat().st_size for p in SHIPPED.rglob("horizon/*/checkpoints/*/*.safetensors")) <= 7_000_000


def test_a_long_task_is_done_from_pictures_as_its_card_says(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    name, out = "horizon/put_item_in_drawer", tmp_path / "found.json"
    card = json.loads((SHIPPED / name / "card.json").read_text())
    assert card["trained"]["demonstrations"]["episodes"] == 50
    told = card["evaluation"]
    assert told["episodes"] == 100 and told["success"] > 0.8
    words = ["--policy", f"pretrained:{name}", "--episodes", "3", "--workers", "2", "--json", str(out)]
    assert robo_eval.main(words) == 0
    found = json.loads(out.read_text())
    first = told["by_seed"][:3]
    assert [each["seed"] for each in found["by_seed"]] == [each["seed"] for each in first]
    # Another renderer may decide a close case.
    same = [a["success"] == b["success"] for a, b in zip(found["by_seed"], first, strict=True)]
    assert sum(same) >= 2


def test_a_task_is_evaluated_by_its_name(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert robo_eval.main(["bench/panda", "--episodes", "5"]) == 0
    assert "100.0 %" in capsys.readouterr().out
    assert (tmp_path / "runs/bench/panda/shipped/eval.json").is_file()
    assert Run.open("bench/panda").path == Run.open("runs/bench/panda/shipped").path, "it is there already"
    weights = next((tmp_path / "runs/bench/panda/shipped/checkpoints").glob("*/weights.safetensors"))
    weights.write_bytes(b"spoilt")
    assert Run.open("bench/panda").policy(), "put there again"
    assert (tmp_path / "runs/bench/panda/shipped/eval.json").is_file(), "what else was there has stayed"


def test_it_is_no_training_to_go_on_with(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("bench/car", "horizon/put_item_in_drawer"):
        Run.open(name)
        assert robo_train.main(["--resume", f"runs/{name}/shipped"]) == 2
        assert "came without the state that training goes on from; train anew: robo-train" in capsys.readouterr().err
    assert robo_train.main(["runs/bench/car/shipped/config.yaml", "--dry-run"]) == 0


def test_a_policy_is_said_by_name(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "bench" / "panda").mkdir(parents=True)  # a folder of that name is not meant
    assert robo_eval.main(["--policy", "pretrained:bench/panda", "--episodes", "1"]) == 0
    assert "100.0 %" in capsys.readouterr().out
    for words, told in (
        (["--policy", "pretrained:bench/pand"], "did you mean 'bench/panda'"),
        (["bench/car", "--policy", "pretrained:bench/panda"], "not both"),
        ([], "give a run folder"),
        (["horizon/put_item_in_drawer", "--act", "mpcc"], "'act' must be one of actor, drawn, mpc, not 'mpcc'"),
    ):
        assert robo_eval.main(words) == 2
        assert told in (error := capsys.readouterr().err) and len(error.splitlines()) == 1


@pytest.mark.parametrize("name", [".", "bench", "bench/car/checkpoints", "../elsewhere"])
def test_nothing_that_ships_is_shipped_over_by_another_name(tmp_path, name: str) -> None:
    tool, before = Path(__file__).parents[2] / "tools" / "ship.py", shipped()
    words = [sys.executable, str(tool), "bench/car", "--name", name]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and len(done.stderr.splitlines()) == 1
    assert f"--name {name} " in done.stderr and shipped() == before


def test_a_name_that_is_nothing_says_what_there_is(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match="trained already: bench/car"):
        Run.open("bench/nothing")
    # A folder of that name is taken as what it is.
    shutil.copytree(SHIPPED / "bench/maze", tmp_path / "bench/maze")
    assert Run.open("bench/maze").path == tmp_path / "bench/maze"
