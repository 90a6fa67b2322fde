"""Bad input on the command line: one line that says what to do, exit code 2, no traceback."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import entry_points
from pathlib import Path

import pytest

BIN = Path(sys.executable).parent
SCRIPTS = {script.name: script for script in entry_points(group="console_scripts") if script.name.startswith("robo-")}
TASK_HEAD = "from tasks.arm import ArmTask\n"
Refused = Callable[[str], str]


def run(command: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """A console script, as a user runs it."""
    program, *words = command.split()
    return subprocess.run([BIN / program, *words], cwd=cwd, capture_output=True, text=True, check=False, timeout=120)


def told(code: int, out: str, errors: str) -> str:
    """The one line a command refuses with."""
    assert (code, out) == (2, ""), errors
    assert "Traceback" not in errors
    (line,) = errors.splitlines()
    assert line.startswith("error: ")
    return line


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """What a console script refuses with, run in this process, for that is where the time of a new one goes."""
    monkeypatch.chdir(tmp_path)

    def of(command: str) -> str:
        program, *words = command.split()
        return told(SCRIPTS[program].load()(words), *capsys.readouterr())

    return of


def test_every_script_refuses_as_a_process_of_its_own_does(tmp_path: Path) -> None:
    assert len(SCRIPTS) == 11
    for script in SCRIPTS:
        done = run(f"{script} --nonsense", tmp_path)
        assert f"{script} --help" in told(done.returncode, done.stdout, done.stderr)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("robo-train", "give a task, a config file or a task file, or --resume RUN"),
        ("robo-train reach_avid", "unknown task 'reach_avid': did you mean 'reach_avoid'?"),
        ("robo-train reach_avoid --policy slt", "unknown policy 'slt': did you mean 'stl'?"),
        ("robo-train reach_avoid --train.stepz 3", "unknown config key 'train.stepz': did you mean 'train.steps'?"),
        ("robo-train reach_avoid --train.steps many", "'train.steps' must be a whole number, not 'many'"),
        ("robo-train reach_avoid --train.steps", "option --train.steps needs a value"),
        ("robo-train reach_avoid --seed=-3", "'seed' must be 0 or more"),
        ("robo-train reach_avoid extra", "unrecognized arguments: extra; see robo-train --help"),
        ("robo-train none.yaml", "no such config file: none.yaml"),
        ("robo-train none.py", "no such task file"),
        (
            "robo-train --resume runs/reach_avoid/last",
            "no such run folder: runs/reach_avoid/last; robo-train makes one",
        ),
        ("robo-train --resume x --seed 3", "--resume goes on with the run's own config"),
        ("robo-info --jsn", "unrecognized arguments: --jsn; see robo-info --help"),
        ("robo-bench", "give a benchmark"),
        ("robo-bench rendr", "unknown benchmark 'rendr': did you mean 'render'?"),
    ],
)
def test_refusals(refused, tmp_path, command, message):
    assert message in refused(command)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def f(:", "line 1: invalid syntax"),
        ("\nimport no_such_module", "line 2: ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0", "line 1: ZeroDivisionError"),
        (TASK_HEAD, "must define exactly one subclass of Task (found: none)"),
        (TASK_HEAD + "class A(ArmTask): pass\nclass B(ArmTask): pass", "(found: A, B) or set TASK"),
        (TASK_HEAD + "class A(ArmTask):\n    name = 'a'", "class A lacks instruction, ctrl_dt_s"),
        ("TASK = 3", "TASK must be a Task, not int"),
    ],
)
def test_bad_task_files(refused, tmp_path, text, message):
    (tmp_path / "mine.py").write_text(text)
    assert message in refused("robo-train mine.py")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("F[0,1] (joint > 0)", "F[0,1] (jiont > 0)", "did you mean 'joint'"),
        ("F[0,1] (joint > 0)", "F[0,9] (joint > 0)", "the specification looks 9 s ahead, the episode lasts 1 s"),
        ('"panda"', '"pander"', "unknown robot 'pander': did you mean 'panda'?"),
    ],
)
def test_task_files_that_break_the_contract(refused, tmp_path, old, new, message):
    good = (Path(__file__).parents[1] / "train" / "toy_task.py").read_text()
    assert old in good
    (tmp_path / "mine.py").write_text(good.replace(old, new))
    assert message in refused("robo-train mine.py")


def test_info(tmp_path):
    found = json.loads(run("robo-info --json", tmp_path).stdout)
    assert found["packages"]["torch"]
    assert found["renderers"]["used"] in ("egl", "osmesa")
    assert "reach_avoid" in found["tasks"]
    assert "panda" in found["robots"]
    page = run("robo-info", tmp_path).stdout
    assert found["packages"]["mujoco"] in page


@pytest.mark.parametrize("script", ["robo-info", "robo-train reach_avoid"])
def test_a_renderer_that_is_not_there(tmp_path, monkeypatch, script):
    monkeypatch.setenv("MUJOCO_GL", "elg")
    done = run(script, tmp_path)
    said = told(done.returncode, done.stdout, done.stderr)
    assert "MUJOCO_GL=elg is no renderer: did you mean 'egl'?" in said


def test_info_tells_when_rendering_is_off(tmp_path, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "disable")
    found = json.loads(run("robo-info --json", tmp_path).stdout)
    assert found["renderers"]["used"] is None
    assert any("unset it to take pictures" in mend for mend in found["mend"])
