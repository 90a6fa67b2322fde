"""Programs: read and written, complained about, applied."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from robo.core.errors import ProgramError, RoboError
from tasks.instruct.program import Program, StageText
from tasks.registry import TASKS, load_task
from tasks.stl import parse
from tasks.tabletop.base import TabletopTask, tabletop_task

TABLETOP = [name for name in TASKS if isinstance(TASKS.make(name), TabletopTask)]
_texts = st.text(min_size=1, max_size=40).filter(str.strip)
_stages = st.builds(
    StageText,
    name=_texts,
    condition=_texts,
    distance=st.text(max_size=40),
    scale=st.floats(1e-4, 100),
    shaping=st.text(max_size=40),
    weight=st.floats(0.01, 100),
)
programs = st.builds(
    Program,
    instruction=_texts,
    stages=st.lists(_stages, min_size=1, max_size=3).map(tuple),
    mission=_texts,
    goal=_texts,
    safety=st.text(max_size=40),
)


@pytest.fixture(scope="module")
def task() -> TabletopTask:
    return tabletop_task(load_task("pick_and_place"))


def _staged(program: Program, at: int, **values: object) -> Program:
    stages = list(program.stages)
    stages[at] = stages[at].model_copy(update=values)
    return program.model_copy(update={"stages": tuple(stages)})


# ---- text ------------------------------------------------------------------------------


@given(programs)
@settings(max_examples=60, deadline=None)
def test_any_program_is_read_back_as_it_was_written(program):
    assert Program.parse(program.text()) == program
    assert Program.parse(program.model_dump_json()) == program


def test_files_and_the_schema(task, tmp_path):
    program = Program.of(task)
    program.save(tmp_path / "sub" / "program.yaml")
    assert Program.load(tmp_path / "sub" / "program.yaml") == program
    assert Program.parse('{"stages": [{"name": "a", "condition": "x > 0", "scale": 1e-3}], "goal": "x > 0", '
                         '"mission": "F[0,1](x > 0)", "instruction": "go"}').stages[0].scale == 1e-3  # fmt: skip
    schema = Program.model_json_schema()
    assert schema["additionalProperties"] is False and set(schema["required"]) == set(program.model_fields_set)
    (tmp_path / "bad.yaml").write_text("stages: 3")
    with pytest.raises(ProgramError, match=r"(?s)bad\.yaml.*\n- stages: "):
        Program.load(tmp_path / "bad.yaml")


def test_everything_wrong_with_a_text_is_said_at_once(task):
    said = Program.of(task).model_dump(mode="json")
    said["gaol"] = said.pop("goal")
    said["stages"][1] |= {"wieght": 2, "scale": 0, "weight": True}
    with pytest.raises(ProgramError) as caught:
        Program.parse(json.dumps(said))
    lines = caught.value.complaints
    assert len(lines) == 5 and all("\n" not in line for line in lines)
    whole = str(caught.value)
    assert "did you mean 'goal'" in whole and "did you mean 'weight'" in whole and "stages: 2: scale" in whole


@given(st.one_of(st.text(max_size=80), st.recursive(
    st.one_of(st.none(), st.booleans(), st.floats(), st.text(max_size=9)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(st.sampled_from([*Program.model_fields, *StageText.model_fields]), inner, max_size=5),
    ),
).map(json.dumps)))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_whatever_a_writer_answers_is_a_program_or_an_error_of_ours(task, text):
    try:
        Program.parse(text).apply(task)
    except RoboError as error:
        assert str(error)


# ---- fitting a task ----------------------------------------------------------------------


@pytest.mark.parametrize("name", TABLETOP)
def test_what_tasks_say_themselves_fits_and_changes_nothing(name):
    task = tabletop_task(load_task(name))
    program = Program.of(task)
    assert program.complaints(task) == []
    made = program.apply(task)
    assert (made.spec, made.stages, made.goal) == (task.spec, task.stages, task.goal)
    instance = task.sample(np.random.default_rng(0))
    assert made.instruct(instance) == task.instruct(instance)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda p: _staged(p, 0, condition="helt_n > 0.5"), "did you mean 'held_n'"),
        (lambda p: _staged(p, 0, condition="F[0,1](held_n > 0.5)"), "one moment only"),
        (lambda p: _staged(p, 0, condition="H[0,1](held_n > 0.5)"), "one moment only"),
        (lambda p: _staged(p, 0, condition="true"), "no signal"),
        (lambda p: _staged(p, 0, condition="held_n > $least"), "write numbers"),
        (lambda p: _staged(p, 0, distance="reach_m + held_n"), "reach_m is in m, held_n in N"),
        (lambda p: _staged(p, 0, distance="max(reach_m, joint_margin_rad)"), "joint_margin_rad in rad"),
        (lambda p: _staged(p, 0, distance="reach_m > 0 and reach_m"), "expression over the signals"),
        (lambda p: _staged(p, 0, condition="reach_m * reach_m < lift_m"), r"m\^2"),
        (lambda p: _staged(p, 0, shaping="1 - tanh(reach_m)"), "without unit, not m"),
        (lambda p: _staged(p, 0, shaping="reach_m"), "a share in .* has no unit"),
        (lambda p: _staged(p, 0, weight=-1.0), "weight"),
        (lambda p: _staged(p, 0, scale=math.inf), "scale"),
        (lambda p: _staged(p, 0, name="lift"), "two stages are called 'lift'"),
        (lambda p: p.model_copy(update={"mission": "F[0,20](lift_m > 0)"}), "20 s ahead, the episode lasts 12 s"),
        (lambda p: p.model_copy(update={"mission": "F(lift_m > 0)"}), "inf s ahead"),
        (lambda p: p.model_copy(update={"mission": "F[0,0.01](lift_m > 0)"}), "multiple"),
        (lambda p: p.model_copy(update={"goal": "G[0,1](lift_m > 0)"}), "one moment only"),
        (lambda p: p.model_copy(update={"stages": ()}), "stages"),
        (lambda p: p.model_copy(update={"safety": "true) or (lift_m > -9"}), "safety"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_complained_of(task, change, said):
    program = change(Program.of(task))
    with pytest.raises(ProgramError, match=said):
        program.apply(task)


def test_factors_may_carry_a_unit(task):
    good = ("reach_m / 0.1 + 0.2 * held_n", "norm(reach_m, away_m)", "sqrt(reach_m * away_m)", "reach_m^2 / away_m")
    for distance in good:
        assert _staged(Program.of(task), 0, distance=distance).complaints(task) == []
    share = "0.5 * exp(-reach_m / 0.1) + 0.5 * tanh(reach_m / max(away_m, 0.1))"
    assert _staged(Program.of(task), 0, shaping=share).complaints(task) == []


def test_safety_is_added_to_and_never_taken_away(task):
    program = Program.of(task).model_copy(update={"safety": "gripper_width_m > 0.01 or lift_m < 0.2"})
    made = program.apply(task)
    rng = np.random.default_rng(0)
    signals = {name: rng.uniform(-1, 1, 4000) for name in task.signals}
    before, after = (t.safety_formula.verdict(signals, 0.05) for t in (task, made))
    added = parse(program.safety).verdict(signals, 0.05)
    assert before.any() and not added.all() and np.array_equal(after, before & added)
    again = Program.of(made).apply(made)  # what was added stays, whoever writes next
    assert np.array_equal(again.safety_formula.verdict(signals, 0.05), after)
    assert task.safety == type(task).safety and task.safety_formula != made.safety_formula


def test_instruction_and_formulas_of_the_copy_are_the_programs(task):
    task.staged_reward(dict.fromkeys(task.signals, 0.0), 0)  # what it parses stays its own
    assert "away_m" in str(task.mission_formula) and "away_m" in str(task.formula)
    program = Program.of(task).model_copy(
        update={"instruction": "lift it", "goal": "lift_m > 0.04", "mission": "F[0,5](lift_m > 0.04)"}
    )
    made = _staged(program, 0, distance="2 * reach_m").apply(task)
    assert made.instruct({}) == made.instruction == "lift it" and "lift_m > 0.04" in str(made.mission_formula)
    signals = {name: np.full(3, 0.05) for name in task.signals}
    assert (made.staged_reward(signals, 0) < task.staged_reward(signals, 0)).all()


# ---- the reward -----------------------------------------------------------------------------


@given(st.lists(st.floats(0.01, 100), min_size=4, max_size=4), st.lists(st.floats(-5, 5), min_size=4, max_size=4))
@settings(max_examples=60, deadline=None)
def test_reaching_a_stage_never_pays_less_whatever_the_shaping(task, weights, offsets):
    program = Program.of(task)
    for at, (weight, offset) in enumerate(zip(weights, offsets, strict=True)):
        program = _staged(program, at, weight=weight, shaping=f"{abs(offset)} * reach_m / 0.1 - {abs(offset)}")
    made = program.apply(task)
    signals = {name: np.linspace(-1, 2, 7) for name in task.signals}
    paid = np.array([np.broadcast_to(made.staged_reward(signals, stage), 7) for stage in range(5)])
    assert (paid >= 0).all() and (paid <= 1).all() and (paid[-1] == 1).all()
    assert (paid[1:].min(axis=1) >= paid[:-1].max(axis=1) - 1e-12).all()
    shares = np.cumsum([0, *weights]) / sum(weights)
    assert np.allclose(paid[:4].min(axis=1), shares[:4])
