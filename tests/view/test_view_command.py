"""robo-view from the command line: outputs, report, viewer."""

from __future__ import annotations

import dataclasses
import os
import re
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from robo.cli import view as command
from robo.core.errors import RunError
from robo.data.rollout import ArmRollout
from robo.train.run import Run
from robo.view.report import read_evaluation, read_metrics
from tests.evaluate import runs
from tests.view.tools import page, shorten


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return runs.train(tmp_path_factory.mktemp("runs"))


def test_outputs_and_report_in_a_browser(run: Path, rollout: ArmRollout, tmp_path: Path, capsys) -> None:
    shorten(rollout, 5).save(run / "recordings" / f"rollout-{rollout.seed}.npz")
    names = [tmp_path / f"x.{ending}" for ending in ("rrd", "mp4", "png")]
    options = [f"--{option}={name}" for option, name in zip(("save", "mp4", "png"), names, strict=True)]
    assert command.main([str(run), *options]) == 0
    printed, said = capsys.readouterr()
    assert re.search(r"frames (\d+)/\1 ", said), "drawing takes its time"
    assert all(name.stat().st_size > 10_000 and str(name) in printed for name in names)
    assert "recording a rollout" not in printed, "the newest rollout was there"

    report = run / "report.html"
    assert str(tmp_path) not in report.read_text(), "nothing of the page lies outside it"
    with page(1000, 800) as tab:
        asked: list[str] = []
        tab.on("request", lambda request: asked.append(request.url))
        tab.goto(report.as_uri())
        assert tab.locator("h1").inner_text() == "reach_avoid"
        assert "robo-eval" in tab.locator("#evaluation").inner_text(), "there is no evaluation yet"
        # F[0,4](at_a_m > 0), F[4,7](...), G[0,8](...)
        assert tab.locator("#robustness table tr").count() == 1 + len(rollout.parts)
        assert tab.locator("svg").count() == 3
        tab.wait_for_function("document.querySelector('video').readyState >= 2")
        size = tab.evaluate("(v => [v.videoWidth, v.videoHeight, v.error])(document.querySelector('video'))")
        assert size == [720, 740, None]
        assert all(url.startswith(("file:", "data:")) for url in asked)

    (run / "eval.json").write_text(_EVALUATION)
    assert command.main([str(run), f"--mp4={names[1]}"]) == 0
    with page(1000, 800) as tab:
        tab.goto(report.as_uri())
        table = tab.locator("#evaluation table").inner_text()
        assert re.search(r"satisfied\s+95.0 %\s+88.8 % .. 97.8 %", table)
        assert "Not satisfied: seeds 3." in tab.locator("#evaluation").inner_text()
        assert tab.locator(".tile").count() == 4


_EVALUATION = """{"episodes": 100, "seed": 0, "mismatch": 0.0, "satisfied": 0.95, "satisfied_ci95": [0.888, 0.978],
"success": 0.9, "success_ci95": [0.8, 0.95], "safety_violations": 0, "safety_violation_rate_ci95": [0.0, 0.04],
"rho_mean": 0.03, "rho_min": -0.1, "backup_fraction": 0.05, "refinement_fraction": 0.2, "plan_ms_p50": 6.0,
"plan_ms_p99": 12.0, "by_seed": [{"seed": 3, "satisfied": false}, {"seed": 4, "satisfied": true}]}"""


def test_a_missing_or_outdated_rollout_is_recorded(run: Path, rollout: ArmRollout, capsys) -> None:
    path = run / "recordings" / "rollout-2.npz"
    found = command.find_rollout(Run.open(run), 2)
    assert "recording a rollout of seed 2" in capsys.readouterr().out
    assert path.is_file() and (found.seed, found.policy, found.steps) == (2, "stl", 80)
    command.find_rollout(Run.open(run), 2)
    assert capsys.readouterr().out == ""
    trained = run / "checkpoints" / "latest.json"
    later = path.stat().st_mtime + 10
    os.utime(trained, (later, later))
    try:
        command.find_rollout(Run.open(run), 2)
        assert "recording a rollout of seed 2" in capsys.readouterr().out
    finally:
        os.utime(trained, (later - 1000, later - 1000))


def test_the_viewer_is_served_until_it_is_stopped(run: Path, rollout: ArmRollout) -> None:
    dataclasses.replace(shorten(rollout, 2), seed=77).save(run / "recordings" / "rollout-77.npz")
    words = [Path(sys.executable).with_name("robo-view"), run, "--rollout", "77", "--no-browser"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=runs.ONE_THREAD)
    try:
        assert process.stdout is not None
        url = next(line for line in process.stdout if line.startswith("viewer: ")).split()[1]
        assert url.startswith("http://127.0.0.1:")
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"Rerun Viewer" in answer.read()
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()
    with pytest.raises(OSError):
        urllib.request.urlopen(url, timeout=10)
    assert (run / "recordings" / "rollout-77.rrd").is_file()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mp4", "x.avi"], "--mp4 takes a name that ends in .mp4, not 'x.avi'; try x.avi.mp4"),
        (["--rollout", "-1"], "--rollout must be 0 or more"),
        (["--rollot", "1"], "--rollot"),
        (["--save", "/proc/no/x.rrd"], "cannot write /proc/no/x.rrd"),
    ],
)
def test_bad_options(run: Path, options: list[str], message: str, capsys) -> None:
    assert command.main([str(run), *options]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and len(said.splitlines()) == 1


def test_a_damaged_rollout_is_one_line(run: Path, capsys) -> None:
    (run / "recordings").mkdir(exist_ok=True)
    (run / "recordings" / "rollout-55.npz").write_bytes(b"PK no")
    assert command.main([str(run), "--rollout", "55", "--png", str(run / "x.png")]) == 2
    said = capsys.readouterr().err
    assert "rollout-55.npz is corrupt" in said and len(said.splitlines()) == 1
    (run / "recordings" / "rollout-55.npz").unlink()


def test_files_a_report_reads_may_be_missing_but_not_damaged(tmp_path: Path) -> None:
    assert read_metrics(tmp_path / "metrics.jsonl") == [] and read_evaluation(tmp_path / "eval.json") == {}
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "loss": 2.0}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1, "loss": 2.0}], "a line cut off by a kill is left out"
    path.write_text('{"step": 1,\n{"step": 2, "loss": 1.0}\n')
    with pytest.raises(RunError, match="line 1 is no JSON"):
        read_metrics(path)
    path = tmp_path / "eval.json"
    path.write_text('{"episodes": 3}')
    with pytest.raises(RunError, match=r"is no evaluation .*robo-eval"):
        read_evaluation(path)
