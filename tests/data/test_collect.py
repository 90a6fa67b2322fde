"""Collecting demonstrations: what is recorded is what happened, whatever the number of processes, kills included."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

import robo.data.collect
from robo.cli import collect as robo_collect
from robo.cli import data as robo_data
from robo.core.errors import ConfigError, RunError, UnknownNameError
from robo.data.collect import FIRST_SEED, ORDER, SHARDS, Order, actor, collect, features
from robo.dataset.lerobot import Dataset, validate
from robo.dataset.recording import Writer
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task

SMALL = ["--episodes", "3", "--policy", "zero", "--views", "front", "--size", "32"]


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    order = Order(task="pick_and_place", episodes=2, views=("front",), size=32)
    return collect(tmp_path_factory.mktemp("data") / "expert", order)


def test_what_is_recorded_is_what_happened(dataset: Dataset) -> None:
    assert validate(dataset.folder, decode=True) == []
    assert [e.extra["success"] for e in dataset.episodes] == [True, True]
    task = tabletop_task(load_task("pick_and_place"))
    frames = dataset.episode(1)
    assert len(frames["action"]) == task.steps
    env = TabletopEnv(task, control="joint_pos", cameras=("front",), size=32)
    obs, info = env.reset(seed=FIRST_SEED + 1)
    assert dataset.tasks == (info["instruction"],) or list(dataset.tasks) == [info["instruction"]]
    # The recorded actions, taken as commands of joint angles, do the same again (to float32).
    for k, action in enumerate(frames["action"]):
        state = np.concatenate([obs["joint_pos"], obs["gripper_width_m"], obs["ee_pos"]])
        np.testing.assert_allclose(frames["observation.state"][k][:11], state, atol=2e-3)
        obs, reward, _, _, info = env.step(action.astype(float))
        assert frames["reward"][k] == pytest.approx(reward, abs=0.05)
    assert info["success"] and frames["stage"][-1] == len(task.stages)
    env.close()


def test_motion_of_the_tool_says_the_same(dataset: Dataset) -> None:
    frames = dataset.episode(0)
    env = TabletopEnv("pick_and_place", control="ee_delta")
    obs, _ = env.reset(seed=FIRST_SEED)
    for k, action in enumerate(frames["action.ee_delta"][:120]):
        np.testing.assert_allclose(obs["ee_pos"], frames["observation.state"][k][8:11], atol=4e-3)
        obs, *_ = env.step(np.clip(action.astype(float), -1, 1))


def test_the_same_whatever_the_number_of_processes(dataset: Dataset, tmp_path: Path) -> None:
    order = Order(task="pick_and_place", episodes=2, views=("front",), size=32)
    other = collect(tmp_path / "two", order, workers=2)
    for k in range(2):
        ours, theirs = dataset.episode(k), other.episode(k)
        for name, value in ours.items():
            assert np.array_equal(value, theirs[name]), name


def test_a_killed_recording_goes_on(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = ["pick_and_place", *SMALL, "--episodes", "6", "--out", "here", "--workers", "2"]
    process = subprocess.Popen([sys.executable, "-m", "robo.cli.collect", *words], start_new_session=True)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and len(list(Path("here").glob(f"{SHARDS}/*/**/episode-*"))) < 2:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert (Path("here") / ORDER).exists()
    kept = sum(len(Dataset(shard).episodes) for shard in Path("here", SHARDS).iterdir())
    assert kept >= 1
    assert robo_collect.main(["pick_and_place", *SMALL, "--episodes", "5", "--out", "here"]) == 2
    assert "the beginning of another recording" in capsys.readouterr().err
    assert robo_collect.main(words) == 0, capsys.readouterr().err
    assert "recorded 6 episodes" in capsys.readouterr().out
    whole = Dataset(Path("here"))
    assert [e.extra["seed"] for e in whole.episodes] == list(range(6)) and validate(Path("here")) == []
    assert not Path("here", SHARDS).exists() and not Path("here", ORDER).exists()
    assert robo_collect.main(words) == 2
    assert "holds a whole dataset already" in capsys.readouterr().err


def test_successes_only_means_that_it_tries_again(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(robo.data.collect, "MOST_ATTEMPTS", 2)
    order = Order(task="pick_and_place", policy="zero", episodes=1, views=(), successes=True)
    task = tabletop_task(load_task("pick_and_place"))
    writer = Writer(tmp_path / "x", features(task, order))
    with pytest.raises(RunError, match="zero failed 3 times at seed 0; record without --successes"):
        robo.data.collect._episode(writer, TabletopEnv(task), actor("zero", task), order, 0)


def test_datasets_are_looked_at_and_checked(dataset: Dataset, tmp_path: Path, capsys) -> None:
    folder = str(dataset.folder)
    assert robo_data.main(["stats", folder]) == 0
    assert "2 episodes" in capsys.readouterr().out
    assert robo_data.main(["validate", folder, "--decode"]) == 0
    assert "nothing is wrong" in capsys.readouterr().out
    outputs = [str(tmp_path / "e.mp4"), str(tmp_path / "e.rrd")]
    assert robo_data.main(["view", folder, "--episode", "1", "--mp4", outputs[0], "--save", outputs[1]]) == 0
    assert all(Path(output).stat().st_size > 5_000 for output in outputs)
    (tmp_path / "copy").mkdir()
    for words, message in (
        (["view", folder], "--mp4 X.mp4 or --save X.rrd"),
        (["view", folder, "--mp4", "x.avi"], "ends in .mp4"),
        (["view", folder, "--episode", "7", "--mp4", outputs[0]], "episodes 0 .. 1, not 7"),
        (["stats", str(tmp_path / "copy")], str(tmp_path / "copy")),
        (["show", folder], "invalid choice"),
    ):
        capsys.readouterr()
        assert robo_data.main(words) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("error:") == 1


def test_what_cannot_be_recorded_is_refused(tmp_path: Path, capsys) -> None:
    for words, message in (
        (["pick_and_plaice"], "did you mean 'pick_and_place'"),
        (["bench/car"], "none on a tabletop"),
        (["pick_and_place", "--policy", "expret"], "expret"),
        (["pick_and_place", "--views", "frnt"], "did you mean 'front'"),
        (["pick_and_place", "--size", "33"], "even number"),
        (["pick_and_place", "--episodes", "0"], "at least 1"),
        (["pick_and_place", "--workers", "0"], "--workers must be 1 or more"),
        (["pick_and_place", "--sway", "2"], "move.sway must lie in [0, 0.5]"),
        (["pick_and_place", "--sway", "0.1", "--policy", "zero"], "sway is the expert's"),
    ):
        assert robo_collect.main([*words, "--out", str(tmp_path / "no")]) == 2
        told = capsys.readouterr().err
        assert message in told and told.count("error:") == 1, told
    with pytest.raises(ConfigError, match="even number"):
        Order(task="pick_and_place", size=1)
    with pytest.raises(UnknownNameError):
        collect(tmp_path / "no2", Order(task="nothing"))
