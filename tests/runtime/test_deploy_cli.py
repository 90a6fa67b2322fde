"""robo-deploy as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from robo.bench.runtime import runtime_bench
from robo.cli.deploy import main
from robo.cli.train import main as train
from robo.core.errors import ConfigError
from robo.runtime.log import read_ticks


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of one training step of a user's own task: its certificate keeps it safe, nothing makes it good."""
    runs = tmp_path_factory.mktemp("runs")
    task_file = str(Path(__file__).with_name("wave_task.py"))
    assert train([task_file, "--runs", str(runs), "--train.steps", "1", "--plan.refine", "false"]) == 0
    return runs / "wave" / "last"


def test_an_episode(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    code = main([str(run), "--robot", "sim", "--json", str(tmp_path / "out.json")])
    out = capsys.readouterr()
    assert code == 0, out.err
    summary = json.loads((tmp_path / "out.json").read_text())
    assert summary["task"] == "wave" and summary["stopped"] == "" and summary["safety_violations"] == 0
    assert summary["episodes"][0]["whole"]
    log = run.resolve() / "deploy" / "001"
    assert f"log of every tick: {log}" in out.out
    for text in ("ticks, missed", "lateness", "satisfied", "safety violation", "ticks by backup"):
        assert text in out.out
    assert len(read_ticks(log)["tick"]) == summary["ticks"] >= 200


def test_the_benchmark(run: Path):
    report = runtime_bench(str(run), seconds=0.5)
    assert [row["scheduling"].split()[0] for row in report.rows] == ["SCHED_FIFO", "ordinary"]
    for row in report.rows:
        assert row["rate [Hz]"] == 100 and row["ticks"] >= 200
        assert 0 <= row["lateness p50 [ms]"] <= row["lateness p99 [ms]"] <= row["lateness max [ms]"]
    with pytest.raises(ConfigError, match="seconds"):
        runtime_bench(str(run), seconds=0.0)


def test_a_dry_run(run: Path, capsys: pytest.CaptureFixture[str]):
    before = sorted((run / "deploy").iterdir()) if (run / "deploy").exists() else []
    assert main([str(run), "--robot", "sim", "--dry-run"]) == 0
    assert "nothing sent" in capsys.readouterr().out
    assert before == (sorted((run / "deploy").iterdir()) if (run / "deploy").exists() else [])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--robot", "sin"], "unknown robot driver 'sin': did you mean 'sim'"),
        (["--robot", "sim://panda?payload=1"], "did you mean 'payload_kg'"),
        (["--robot", "sim", "--seconds", "-1"], "seconds"),
        (["--robot", "sim", "--seconds", "nan"], "seconds"),
        (["--robot", "sim", "--seed", "-1"], "seed"),
        (["--robot", "sim", "--json", "/proc/none/out.json"], "cannot write --json /proc/none"),
        (["--robot", "sim", "--json", "/proc"], "it is a folder"),
        ([], "--robot"),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    run: Path, words: list[str], message: str, capsys: pytest.CaptureFixture[str]
):
    assert main([str(run), *words]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and message in err


def test_a_run_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    assert main([str(tmp_path / "none"), "--robot", "sim"]) == 2
    assert "no such run folder" in capsys.readouterr().err


def test_ctrl_c(run: Path):
    process = subprocess.Popen(
        [sys.executable, "-m", "robo.cli.deploy", str(run), "--robot", "sim", "--seconds", "60"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)},
    )
    folders = set((run / "deploy").iterdir()) if (run / "deploy").exists() else set()
    deadline = time.monotonic() + 60
    while not any(new.stat().st_size for new in (run / "deploy").glob("*/ticks.raw") if new.parent not in folders):
        assert time.monotonic() < deadline and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130, err
    assert "ticks by stop" in out and "Traceback" not in err
