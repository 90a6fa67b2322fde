"""Whole deployments on the simulated arm: what goes right, and every way of going wrong.

Thresholds of time are generous: a busy test machine is no real-time machine, and nothing here measures one.
"""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardware.plant import PlantScene
from robo.core.errors import RobotError, RunError
from robo.runtime.deploy import DeployConfig, deploy, draw
from robo.runtime.log import RAW, TICKS, Recorder, next_folder, read_ticks
from robo.runtime.protocol import CONTROLLERS, Factory
from robo.runtime.supervisor import SupervisorConfig
from tasks.registry import load_task

HERE = Path(__file__).parent
TASK_FILE = HERE / "wave_task.py"
PATIENT = SupervisorConfig(stale_s=1.0)


@pytest.fixture(autouse=True)
def no_process_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.syspath_prepend(str(HERE))
    before = descendants(os.getpid())
    yield
    eventually(lambda: descendants(os.getpid()) <= before)


def descendants(pid: int) -> set[int]:
    parents = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            try:
                with open(f"/proc/{entry}/stat") as file:
                    fields = file.read().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if fields[0] != "Z":
                parents[int(entry)] = int(fields[1])
    found, new = set(), {pid}
    while new:
        new = {child for child, parent in parents.items() if parent in new}
        found |= new
    return found


def running(module: str, pid: int) -> list[int]:
    """Descendants of a process that run a module."""
    found = []
    for child in descendants(pid):
        try:
            words = Path(f"/proc/{child}/cmdline").read_bytes().split(b"\0")
        except (FileNotFoundError, ProcessLookupError):
            continue
        if module.encode() in words:
            found.append(child)
    return found


def eventually(condition: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.02)
    return value


def play(folder: Path | None, policy: str = "wave", options: dict[str, Any] | None = None, **changes: Any) -> dict:
    values: dict[str, Any] = {
        "robot": "sim://panda?watchdog_s=1",
        "task": Factory(call="tasks.registry:load_task", arguments={"name_or_path": str(TASK_FILE)}),
        "policy": Factory(call=f"runtime_doubles:{policy}", arguments=options or {}),
        "supervisor": PATIENT,
    }
    return deploy(load_task(TASK_FILE), DeployConfig(**(values | changes)), folder)


def controllers(ticks: dict[str, np.ndarray]) -> list[str]:
    """Who was in control, in order, without repeats."""
    codes = ticks["controller"].astype(int)
    return [CONTROLLERS[c] for i, c in enumerate(codes) if i == 0 or c != codes[i - 1]]


# ---- what goes right -----------------------------------------------------------


def test_episodes_are_played_judged_and_logged(tmp_path: Path):
    folder = next_folder(tmp_path / "deploy")
    summary = play(folder, seconds=3.5)
    assert folder.name == "001" and next_folder(tmp_path / "deploy").name == "002"
    assert summary["stopped"] == "" and summary["events"] == [] and summary["late_chunks"] == 0
    assert len(summary["episodes"]) == 2 and summary["satisfied"] == 2 and summary["safety_violations"] == 0
    for episode in summary["episodes"]:
        assert episode["whole"] and episode["rho_low"] == episode["rho_high"] == pytest.approx(episode["rho"], abs=0.02)
    assert json.loads((folder / "summary.json").read_text()) == summary

    ticks = read_ticks(folder)
    assert not (folder / RAW).exists()
    assert summary["ticks"] == len(ticks["tick"]) and (np.diff(ticks["tick"]) == 1).all()
    assert (np.diff(ticks["due_s"]) > 0).all()
    assert summary["limited"] == 0 and (ticks["sent_pos"] == ticks["asked_pos"]).all()
    assert ticks["obs/ball"].shape == (len(ticks["tick"]), 3)
    per_episode = [controllers({k: v[ticks["episode"] == e] for k, v in ticks.items()}) for e in (0, 1)]
    assert per_episode == [["hold", "policy", "backup"]] * 2
    calls = np.isfinite(ticks["safety_rho"])
    assert calls.sum() == 2 * 11 and np.isfinite(ticks["signal/turned_rad"][calls]).all()


def test_the_same_seed_gives_the_same_world():
    task = load_task("reach_avoid")
    first, second, other = (PlantScene(xml="", episodes=(draw(task, seed)[1],)).to_json() for seed in (5, 5, 6))
    assert first == second != other


def test_a_dry_run_starts_everything_and_moves_nothing(tmp_path: Path):
    summary = play(tmp_path / "log", dry_run=True)
    assert summary["stopped"] == "" and summary["ticks"] == 0 and len(summary["warm_ms"]) == 3
    assert not (tmp_path / "log").exists()


def test_an_arm_with_a_load_and_soft_servos_still_does_it():
    summary = play(None, robot="sim://panda?watchdog_s=1&payload_kg=0.5&gain_scale=0.9")
    assert summary["stopped"] == "" and summary["satisfied"] == 1


# ---- refused before anything moves -------------------------------------------------


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ("other_task", "trained with the task 'push'"),
        ("other_observation", "'rgb_front'"),
        ("no_such_function", "no_such_function"),
    ],
)
def test_a_policy_that_does_not_fit_is_refused(tmp_path: Path, policy: str, message: str):
    with pytest.raises(RobotError, match=message):
        play(tmp_path / "log", policy)
    assert not (tmp_path / "log").exists()


def test_a_task_that_drags_torch_into_the_control_process_is_refused(tmp_path: Path):
    heavy = tmp_path / "heavy.py"
    heavy.write_text("import torch\n" + TASK_FILE.read_text())
    with pytest.raises(RobotError, match="control process has loaded torch"):
        play(None, task=Factory(call="tasks.registry:load_task", arguments={"name_or_path": str(heavy)}))


def test_a_task_whose_signals_have_no_source_is_refused(tmp_path: Path):
    task_file = tmp_path / "truth.py"
    task_file.write_text(TASK_FILE.read_text().replace("source=Source.TRACKER", "source=Source.SIMULATOR"))
    factory = Factory(call="tasks.registry:load_task", arguments={"name_or_path": str(task_file)})
    config = DeployConfig(robot="sim://panda?truth=0", task=factory, policy=Factory(call="runtime_doubles:wave"))
    with pytest.raises(RobotError, match="'ball_gap_m' needs the source 'simulator'"):
        deploy(load_task(task_file), config, None)


def test_the_control_process_needs_neither_torch_nor_mujoco():
    code = (
        "import sys, robo.runtime.control, robo.runtime.deploy, tasks.registry\n"
        "from tasks.registry import load_task\n"
        "from robo.runtime.supervisor import Watch\n"
        "Watch(load_task('reach_avoid'))\n"
        "print(sorted({'torch', 'mujoco', 'rerun', 'gymnasium'} & set(sys.modules)))"
    )
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(p or os.getcwd() for p in sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout.strip() == "[]"


# ---- inference goes wrong ------------------------------------------------------------


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("die", "the inference process ended with status -9"),
        ("raise", "the inference process ended with status 1"),
        ("nan", "NaN or infinity"),
    ],
)
def test_without_inference_the_backup_plays_out_and_the_arm_stops(tmp_path: Path, fault: str, message: str):
    summary = play(tmp_path / "log", options={"fault": fault})
    assert message in summary["stopped"] and not summary["episodes"][0]["whole"]
    ticks = read_ticks(tmp_path / "log")
    assert controllers(ticks) == ["hold", "policy", "backup"]
    # It came to rest where the backup ends, without a kink.
    assert not ticks["sent_vel"][-1].any() or np.abs(ticks["sent_vel"][-1]).max() < 0.05
    assert ticks["limited"].sum() == 0


def test_inference_that_hangs_is_given_up(tmp_path: Path):
    summary = play(tmp_path / "log", options={"fault": "hang"}, seconds=1.0)
    texts = [event["event"] for event in summary["events"]]
    assert "no chunk came in time" in texts[0]
    assert controllers(read_ticks(tmp_path / "log"))[:4] == ["hold", "policy", "backup", "hold"]


@pytest.mark.parametrize(
    ("fault", "message"), [("jump", "does not meet the reference"), ("late", "no chunk came in time")]
)
def test_a_chunk_that_does_not_fit_hands_over_to_the_backup_and_back(tmp_path: Path, fault: str, message: str):
    summary = play(tmp_path / "log", options={"fault": fault})
    assert summary["stopped"] == "" and message in summary["events"][0]["event"]
    seen = controllers(read_ticks(tmp_path / "log"))
    assert seen[:4] == ["hold", "policy", "backup", "hold"]
    if fault == "late":  # it happens once, so the policy gets the arm back
        assert seen[4:] == ["policy", "backup"]


def test_a_safety_alarm_hands_over_to_the_backup(tmp_path: Path):
    task_file = tmp_path / "near.py"
    text = TASK_FILE.read_text().replace("- 0.1", "- 0.62")
    task_file.write_text(text)
    factory = Factory(call="tasks.registry:load_task", arguments={"name_or_path": str(task_file)})
    config = DeployConfig(
        robot="sim://panda?watchdog_s=1", task=factory, policy=Factory(call="runtime_doubles:wave"), supervisor=PATIENT
    )
    summary = deploy(load_task(task_file), config, tmp_path / "log")
    assert "safety margin is gone" in summary["events"][0]["event"]
    assert summary["stopped"] == "" and summary["episodes"][0]["rho_high"] < 0
    ticks = read_ticks(tmp_path / "log")
    assert controllers(ticks) == ["hold", "policy", "backup", "hold"]
    alarm = np.flatnonzero(ticks["safety_rho"] <= 0)[0]
    assert not (ticks["controller"][alarm + 60 :] == CONTROLLERS.index("policy")).any()


# ---- everything else goes wrong --------------------------------------------------------


@pytest.fixture
def started(tmp_path: Path) -> Iterator[tuple[subprocess.Popen, Path]]:
    """A long deployment in full motion, and its log folder."""
    folder = tmp_path / "log"
    paths = os.pathsep.join([str(HERE), *(p or os.getcwd() for p in sys.path)])
    process = subprocess.Popen(
        [sys.executable, str(HERE / "deploy_main.py"), str(folder), str(TASK_FILE), "60"],
        stdout=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": paths},
    )
    try:
        eventually(lambda: moving(folder), 60)
        yield process, folder
    finally:
        process.kill()
        process.communicate()


def moving(folder: Path) -> bool:
    if not (folder / RAW).exists():
        return False
    return bool((read_ticks(folder)["controller"] == CONTROLLERS.index("policy")).any())


def summary_of(process: subprocess.Popen) -> dict[str, Any]:
    return json.loads(process.communicate(timeout=30)[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_brakes_holds_and_releases(started: tuple[subprocess.Popen, Path], number: int):
    process, folder = started
    process.send_signal(number)
    summary = summary_of(process)
    assert summary["interrupted"] and summary["stopped"] == "stopped on request"
    ticks = read_ticks(folder)
    assert controllers(ticks)[-1] == "stop" and not ticks["sent_vel"][-1].any()


def test_the_arm_stops_when_the_starting_process_is_killed(started: tuple[subprocess.Popen, Path]):
    process, folder = started
    children = descendants(process.pid)
    assert len(children) == 3
    process.kill()
    process.wait()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}/fd") and alive(pid) for pid in children))
    assert len(read_ticks(folder)["tick"]) > 0  # what was logged can be read


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_killed_control_process_is_told_and_its_log_is_whole(started: tuple[subprocess.Popen, Path]):
    process, folder = started
    (control,) = running("robo.runtime.control", process.pid)
    children = descendants(control)
    os.kill(control, signal.SIGKILL)
    summary = summary_of(process)
    assert summary["stopped"] == "the control process ended with status -9"
    eventually(lambda: not any(alive(pid) for pid in children))
    assert (folder / TICKS).exists() and len(read_ticks(folder)["tick"]) == summary["ticks"] > 0


def test_a_killed_arm_is_told(started: tuple[subprocess.Popen, Path]):
    process, _ = started
    (plant,) = running("hardware.plant", process.pid)
    os.kill(plant, signal.SIGKILL)
    assert "the arm no longer answers" in summary_of(process)["stopped"]


def test_an_arm_that_freezes_is_stale(started: tuple[subprocess.Popen, Path]):
    process, _ = started
    (plant,) = running("hardware.plant", process.pid)
    os.kill(plant, signal.SIGSTOP)
    try:
        assert " ms old" in summary_of(process)["stopped"]
    finally:
        if alive(plant):
            os.kill(plant, signal.SIGCONT)


def test_a_full_disk_stops_the_arm_and_keeps_what_was_logged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    append = Recorder.append

    def full_later(self: Recorder, rows: np.ndarray) -> None:
        if (self.folder / RAW).stat().st_size > 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        append(self, rows)

    monkeypatch.setattr(Recorder, "append", full_later)
    with pytest.raises(OSError, match="No space"):
        play(tmp_path / "log", seconds=20.0)
    assert len(read_ticks(tmp_path / "log")["tick"]) > 0


def test_a_log_that_was_cut_off_is_read_up_to_its_last_whole_tick(tmp_path: Path):
    recorder = Recorder(tmp_path / "log", {"tick": (), "joint_pos": (7,)})
    rows = np.zeros(3, recorder.dtype)
    rows["tick"], rows["joint_pos"][2] = [1, 2, 3], 0.5
    recorder.append(rows)
    raw = tmp_path / "log" / RAW
    raw.write_bytes(raw.read_bytes()[:-5])
    assert read_ticks(tmp_path / "log")["tick"].tolist() == [1, 2]


def test_no_log_is_told_in_words(tmp_path: Path):
    with pytest.raises(RunError, match="no readable log"):
        read_ticks(tmp_path)
