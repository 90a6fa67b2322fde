"""robo-eval from the command line to the files it leaves."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robo.cli import eval as command
from robo.data.rollout import Rollout
from tests.evaluate import runs


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return runs.train(tmp_path_factory.mktemp("runs"))


def test_evaluate_record_and_write(run: Path, tmp_path: Path, capsys) -> None:
    out = tmp_path / "new" / "out.json"
    options = ["--episodes", "2", "--seed", "3", "--record", "1", "--mismatch", "0.1", "--json", str(out)]
    assert command.main([str(run), *options]) == 0
    printed = capsys.readouterr()
    assert "episodes 2/2" in printed.err
    assert "satisfied" in printed.out and "95 % interval" in printed.out
    record = json.loads(out.read_text())
    keys = "task policy episodes seed satisfied success safety_violations rho_mean rho_min backup_fraction"
    keys += " plan_ms_p50 plan_ms_p99 satisfied_ci95 success_ci95 mismatch"
    assert set(keys.split()) <= record.keys()
    assert (record["task"], record["policy"], record["episodes"], record["seed"]) == ("reach_avoid", "stl", 2, 3)
    # Hardly trained, but certified: whatever it does is safe.
    assert record["safety_violations"] == 0
    assert json.loads((run / "eval.json").read_text()) == record
    assert [p.name for p in (run / "recordings").iterdir()] == ["rollout-3.npz"]
    rollout = Rollout.load(run / "recordings" / "rollout-3.npz")
    assert rollout.rho == record["by_seed"][0]["rho"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--episodes", "0"], "--episodes must be 1 or more, not 0"),
        (["--workers", "many"], "invalid int value: 'many'"),
        (["--mismatch", "2"], "mismatch"),
        (["--episods", "3"], "--episods"),
        (["--episodes", "1", "--json", "/proc/no/out.json"], "cannot write /proc/no/out.json"),
    ],
)
def test_bad_options(run: Path, options: list[str], message: str, capsys) -> None:
    assert command.main([str(run), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and len(said.splitlines()) == 1


def test_no_run(tmp_path: Path, capsys) -> None:
    assert command.main([str(tmp_path / "last")]) == 2
    assert "no such run folder" in capsys.readouterr().err
