"""robo-instruct, as a user runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from robo.cli.instruct import main
from tasks.instruct.program import Program
from tasks.registry import load_task
from tasks.tabletop.put_item_in_drawer import PutItemInDrawer
from tests.instruct.server import serving

SAID = "open the top drawer"


def run(capsys, *words: str) -> tuple[int, str, str]:
    code = main(list(words))
    return code, *capsys.readouterr()


def test_the_script_prints_stages_mission_and_safety(tmp_path):
    script = Path(sys.executable).parent / "robo-instruct"
    words = [script, "put_item_in_drawer", SAID, "--save", "mine/program.yaml"]
    wide = os.environ | {"COLUMNS": "200"}
    done = subprocess.run(words, cwd=tmp_path, env=wide, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 0, done.stderr
    program = Program.load(tmp_path / "mine" / "program.yaml")
    assert [stage.name for stage in program.stages] == ["grip", "pull"]
    assert program.instruction == SAID and program.complaints(PutItemInDrawer()) == []
    for text in (*(s.condition for s in program.stages), *(s.distance for s in program.stages)):
        assert text in done.stdout
    for line in (f"mission: {program.mission}", "goal:    opened_m > 0.1", f"safety:  {PutItemInDrawer.safety}"):
        assert line in done.stdout
    assert "written: mine/program.yaml" in done.stdout
    assert "verified by " in done.stdout


def test_json_is_a_program(capsys):
    code, out, _ = run(capsys, "put_item_in_drawer", SAID, "--json")
    assert code == 0
    assert Program.parse(out) == Program.parse(json.dumps(json.loads(out)))
    assert Program.parse(out).goal == "opened_m > 0.1"


def test_without_an_instruction_it_is_the_tasks_own(capsys):
    code, out, _ = run(capsys, "put_item_in_drawer@ur5e", "--json")
    assert code == 0
    assert Program.parse(out) == Program.of(PutItemInDrawer())


def test_a_reward_that_is_wrong_is_no_program(tmp_path, monkeypatch, capsys):
    right = Program.of(load_task("pick_and_place"))
    away = right.stages[0].model_copy(update={"distance": "", "shaping": "1 - exp(-reach_m / 0.1)"})
    wrong = right.model_copy(update={"stages": (away, *right.stages[1:])})
    with serving("a plan", wrong.model_dump_json(), right.model_dump_json()) as server:
        monkeypatch.setenv("ROBO_LLM_URL", server.url)
        monkeypatch.setenv("ROBO_LLM_MODEL", "backwards")
        code, out, _ = run(capsys, "pick_and_place", "--writer", "llm")
        assert code == 0 and "verified by" in out and len(server.asked) == 3
        assert "moving away" in server.asked[-1]["messages"][-1]["content"], "the model is told what is wrong"
    with serving("a plan", wrong.model_dump_json()) as server:
        monkeypatch.setenv("ROBO_LLM_URL", server.url)
        code, out, err = run(capsys, "pick_and_place", "--writer", "llm")
        assert (code, out) == (2, "") and "moving away" in err
        code, out, err = run(capsys, "pick_and_place", "--writer", "llm", "--unverified", "--json")
        assert code == 0 and Program.parse(out).stages[0].shaping == away.shaping


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pick_and_plase"], "did you mean 'pick_and_place'"),
        (["bench/car", "drive"], "none on a tabletop"),
        (["pick_and_place", "put the cueb on the target"], "did you mean 'cube'"),
        (["pick_and_place", "--writer", "gramar"], "unknown writer 'gramar': did you mean 'grammar'"),
        (["pick_and_place", "--writer", "llm"], "needs ROBO_LLM_URL and ROBO_LLM_MODEL"),
        (["pick_and_place", "--writer", "replay:none"], "no record at none"),
        (["pick_and_place", "--writer", "local:none"], "no model in none"),
        (["pick_and_place", "--record", "talk"], "leave out --record"),
        (["pick_and_place", "--save", "x.txt"], "--save takes a name that ends in .yaml"),
        (["pick_and_place", "a", "b"], "unrecognized arguments: b; see robo-instruct --help"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, words, message):
    monkeypatch.chdir(tmp_path)
    for name in ("ROBO_LLM_URL", "ROBO_LLM_MODEL"):
        monkeypatch.delenv(name, raising=False)
    code, out, err = run(capsys, *words)
    assert (code, out) == (2, "")
    assert len(err.splitlines()) == 1 and err.startswith("error: ") and message in err
    assert list(tmp_path.iterdir()) == []
