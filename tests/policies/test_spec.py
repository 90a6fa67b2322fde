"""Specifications that nobody knew at training: problems are satisfiable, texts that mean the same look the same."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.prediction import Course, Prediction
from policies.spec import spec_task
from policies.spec.config import SpecConfig, TrainConfig
from policies.spec.encode import Probe, tree
from policies.spec.learner import SpecLearner
from policies.spec.planner import SpecPolicy, load
from policies.system_model import SystemModel
from robo.bench.spec import spec_bench
from robo.cli import plan as robo_plan
from robo.core.errors import ConfigError, RunError, SpecError, TaskError, UnknownNameError
from robo.evaluate.worlds import SystemWorld
from robo.train.run import Run
from tasks.registry import load_task
from tasks.specs.grammar import CLEAR_M, KINDS, Clause, Shape, draw_shape
from tasks.specs.task import SpecTask, split_safety
from tasks.stl import parse
from tests.policies.learners import assert_resumes_exactly

torch.set_num_threads(1)
SMALL = SpecConfig(
    train=TrainConfig(
        steps=80, pool=12, batch=6, problems=8, rows=4, ways=64, width=32, depth=1, code=16, plans=2, learning_rate=3e-3
    )
)
BOTH = ("spec/point", "spec/panda")


@pytest.fixture(scope="module")
def point() -> SpecTask:
    return spec_task(load_task("spec/point"))


@pytest.fixture(scope="module")
def learner(point: SpecTask) -> SpecLearner:
    learner = SpecLearner(point, SMALL, 0, "cpu")
    learner.losses = [learner.step()["loss"] for _ in range(80)]  # type: ignore[attr-defined]
    return learner


# ---- problems --------------------------------------------------------------------


@pytest.mark.parametrize("name", BOTH)
@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_way_that_a_problem_was_laid_along_satisfies_it(name: str, seed: int) -> None:
    task, rng = spec_task(load_task(name)), np.random.default_rng(seed)
    shape = draw_shape(task.steps, rng)
    for _ in range(200):
        states = task.wander(rng)
        constants = task.fit(shape, states, rng)
        if constants is not None:
            break
    else:
        pytest.fail(f"{shape} fits no way")
    mission, safety = task.formulas(shape)
    assert mission.horizon(task.ctrl_dt_s) <= task.horizon_s + 1e-9
    signals = task.measure(states)
    for formula in (mission, *([safety] if safety else [])):
        bound = formula.bind(**{n: constants[n] for n in formula.parameters})
        rho = bound.rho(signals, task.ctrl_dt_s)
        assert (rho if formula is safety else rho[:1]).min() > 0.9 * CLEAR_M - 2e-4  # constants are rounded


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_every_kind_of_clause_is_drawn_and_is_what_it_says(kind: str, point: SpecTask) -> None:
    shape = Shape((Clause(kind, 3, 12, 0 if kind in ("reach", "until", "choice") else 6),), 1)
    mission, safety = shape.text(point.space, point.ctrl_dt_s)
    word = {"until": "U[0.6,2.4]", "respond": "G[0.6,2.4]"}.get(kind, "F[0.6,2.4]")
    assert word in mission and safety.startswith("norm(x_m - $c") and "> $c" in safety
    problem = point.problem(shape, np.random.default_rng(0))
    posed = point.pose(problem)
    assert posed.safety.count("norm") == 1 and not posed.formula.parameters
    assert any(clause.kind == kind for s in range(40) for clause in draw_shape(30, np.random.default_rng(s)).clauses)


def test_a_specification_is_given_later_and_leaves_the_task_alone(point: SpecTask) -> None:
    before = str(point.formula)
    posed = point.with_spec("F[0,3](x_m > 1) and G(speed_m_s < 2) and G[0,2](y_m < 3)", "x_m < 4")
    assert posed.mission == "F[0,3](x_m > 1) and G[0,2](y_m < 3)"
    assert str(posed.safety_formula) == "abs(x_m) < 5 and abs(y_m) < 5 and x_m < 4 and speed_m_s < 2"
    assert str(point.formula) == before and point.mission != posed.mission
    only = point.with_spec("G(x_m < 4)")
    assert only.mission == "always[0,6](abs(x_m) < 5 and abs(y_m) < 5)" and "x_m < 4" in only.safety


def test_what_is_safety_is_split_off() -> None:
    kept, always = split_safety(
        parse("F[0,1](a > 0) and G(b > 0 implies a > 0) and G[0,2](b > 1) and G(F[0,1](a > 2))")
    )
    assert str(kept) == "F[0,1](a > 0) and G[0,2](b > 1) and G(F[0,1](a > 2))"
    assert [str(part) for part in always] == ["b > 0 implies a > 0"]
    assert split_safety(parse("G(a > 0)")) == (None, [parse("a > 0")])


def test_a_specification_that_cannot_be_is_refused(point: SpecTask) -> None:
    for text, message in (
        ("F[0,9](x_m > 1)", "looks 9 s ahead, the episode lasts 6 s"),
        ("F[0,3](z_m > 1)", "unknown signal 'z_m'"),
        ("F[0,0.3](x_m > 1)", r"0\.3 s is no multiple of dt 0\.2 s"),
        ("G(F[0,1](x_m > 1))", "looks inf s ahead"),
    ):
        with pytest.raises((SpecError, TaskError), match=message):
            point.with_spec(text)
    with pytest.raises(TaskError, match="has one specification only; tasks for any: spec/point"):
        spec_task(load_task("bench/car"))


# ---- what the network reads --------------------------------------------------------


def test_texts_that_mean_the_same_look_the_same(point: SpecTask, learner: SpecLearner) -> None:
    policy = load(point, SMALL, learner.weights())
    obs = {"state": np.array([1.0, -1.0, 0.2, 0.0]), "time_s": np.zeros(1)}
    plans = []
    for text in (
        "F[0,3](norm(x_m - 1, y_m) < 0.5) and G[0,2](x_m > -3)",
        "not G[0,3](not (norm(x_m - 1, y_m) < 0.5)) and not F[0,2](x_m <= -3)",
        "F[0,1](F[0,2](0.5 > norm(x_m - 2 + 1, y_m))) and G[0,2](2 * x_m + 3 > x_m)",
    ):
        other = policy.of(point.with_spec(text))
        other.reset(obs, 0)
        plans.append(other.network(other._ahead(0), obs["state"]))
    np.testing.assert_allclose(plans[1], plans[0], atol=2e-5)
    np.testing.assert_allclose(plans[2], plans[0], atol=2e-5)
    different = policy.of(point.with_spec("F[0,3](norm(x_m - 1, y_m) < 0.5) and F[0,6](x_m > 3)"))
    assert np.abs(different.network(different._ahead(0), obs["state"]) - plans[0]).max() > 1e-3


def test_the_tree_has_windows_roles_and_directions(point: SpecTask) -> None:
    made = tree(parse("(x_m > 0) U[1,3] (y_m > 0) or F[0.2,6](x_m < -1)"), 0.2, 30)
    assert len(made.leaves) == 3 and made.level[-1] == made.level.max() and (made.level[made.leaf_nodes] == 0).all()
    features = {tuple(row[:3]): row[3:] for row in made.edge_features.tolist()}
    assert features[(0.0, 0.0, 1.0)] == pytest.approx([5 / 30, 15 / 30, 1.0, 0.0]), "until: what is reached"
    assert features[(1.0, 0.0, 0.0)][2] == 1.0, "or: a max"
    probed = Probe(point)(made.leaves)
    assert probed.shape == (3, 1, 64) and np.isfinite(probed).all() and np.ptp(probed[0]) > 1


def test_constants_given_later_make_no_difference(point: SpecTask) -> None:
    rng = np.random.default_rng(4)
    problem = point.problem(draw_shape(point.steps, rng), rng)
    bound, open_ = point.pose(problem), point.with_spec(problem.mission, problem.safety)
    names = open_.formula.parameters
    raw = rng.normal(size=(5, point.steps, 2))
    wanted = Prediction(bound, SystemModel(bound), Course(bound, 0), 20.0).rhos(problem.start, raw)
    ahead = Prediction(open_, SystemModel(open_), Course(open_, 0, names), 20.0)
    start = np.concatenate([problem.start, [problem.constants[n] for n in names]])
    rows = np.hstack([np.tile(start, (5, 1)), raw.reshape(5, -1)])
    np.testing.assert_allclose(ahead.lesson(rows, 0.1).parts, wanted, atol=1e-9)


# ---- learning and planning -----------------------------------------------------------


def test_training_lowers_the_loss(learner: SpecLearner) -> None:
    losses = learner.losses  # type: ignore[attr-defined]
    assert np.mean(losses[-20:]) < 0.8 * np.mean(losses[:6])


def test_resume_is_exact_to_the_bit(point: SpecTask) -> None:
    assert_resumes_exactly(lambda: SpecLearner(point, SMALL, 1, "cpu"))


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch \(9\) must not exceed train\.pool \(8\)"):
        TrainConfig(batch=9, pool=8)
    with pytest.raises(ConfigError, match=r"train\.fresh \(5\) must not exceed train\.rows \(4\)"):
        TrainConfig(fresh=5, rows=4)
    with pytest.raises(ConfigError, match="others must lie in"):
        TrainConfig(others=2.0)


def test_what_was_learnt_of_the_system_is_kept_between_formulas(point: SpecTask, learner: SpecLearner) -> None:
    policy = load(point, SMALL, learner.weights())
    written = len(policy._courses[0].trace._code)
    for k in range(3):
        other = policy.of(point.with_spec(f"F[0,{k + 1}](x_m > {k})"))
        assert other._courses is policy._courses and other._proposals.network is policy._proposals.network  # type: ignore[union-attr]
    assert len(policy._courses[0].trace._code) == written, "formulas leave nothing behind"
    with pytest.raises(RunError, match="do not fit"):
        load(point, SpecConfig(train=TrainConfig(code=8)), learner.weights())


@pytest.mark.parametrize(("name", "least"), [("spec/point", 0.65), ("spec/panda", 0.5)])
def test_the_shipped_networks_plan_for_formulas_they_never_saw(name: str, least: float, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    run = Run.open(name)
    policy, plain, alone, repaired, unsafe = run.policy(), spec_task(run.task()), 0, 0, 0
    assert isinstance(policy, SpecPolicy)
    for seed in range(40):
        rng = np.random.default_rng(20_000_000 + seed)
        problem = plain.problem(draw_shape(plain.steps, rng), rng)
        posed = plain.pose(problem)
        mine = policy.of(posed)
        alone += (
            float(mine._ahead(0).rhos(problem.start, mine.network(mine._ahead(0), problem.start)).min(-1).max()) > 0
        )
        rollout = SystemWorld(posed).roll_out(mine, seed, instance={"state": problem.start})
        assert rollout.rho == pytest.approx(rollout.plan_rho[0], abs=1e-9)
        repaired += rollout.satisfied
        unsafe += bool(rollout.violations) and bool(rollout.extra["certified"][0])
    assert alone / 40 >= least and repaired / 40 >= 0.95 and unsafe == 0


# ---- the command and the benchmark -----------------------------------------------------


def test_robo_plan_plans_for_a_formula_typed_now(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    text = "F[0,3](norm(x_m - 2, y_m - 1) < 0.5) and G(norm(x_m, y_m) > 0.8)"
    wanted = ["spec/point", "--spec", text, "--start=-2,-1,0,0"]
    assert robo_plan.main([*wanted, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["satisfied"] and found["certified"] and found["executed_rho"] == pytest.approx(found["rho"], abs=1e-9)
    assert found["parts"]["G[0,6](norm(x_m, y_m) > 0.8)"] > 0
    assert len(found["control"]) == 30 and found["start"] == [-2, -1, 0, 0]
    assert robo_plan.main([*wanted, "--png", "a.png", "--save", "a.npz"]) == 0
    assert "satisfied; executed: +0." in capsys.readouterr().out
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and (tmp_path / "a.npz").is_file()
    impossible = "F[0,1](x_m > 4) and F[0,1](x_m < -4)"
    assert robo_plan.main(["spec/point", "--spec", impossible, "--start=0,0,0,0"]) == 1
    assert "NOT satisfied" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["spec/point", "--spec", "F[0,3](x_m > "], "formula column"),
        (["spec/point", "--spec", "F[0,3](x_m > $a)"], "unbound parameter"),
        (["spec/point", "--spec", "x_m > 0", "--start", "1,2"], "--start takes 4 finite numbers, x [m]"),
        (["spec/point", "--spec", "x_m > 0", "--start", "1,2,nan,0"], "--start takes 4 finite numbers"),
        (["spec/point", "--spec", "x_m > 0", "--seed", "-1"], "--seed must be 0 or more"),
        (["spec/point", "--spec", "x_m > 0", "--png", "a.jpg"], "ends in .png"),
        (["bench/car", "--spec", "x_m > 0"], "has one specification only"),
        (["nowhere", "--spec", "x_m > 0"], "trained already: bench/car"),
        (["spec/point"], "--spec"),
    ],
)
def test_robo_plan_refuses_in_one_line(words: list[str], message: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert robo_plan.main(words) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("\n") == 1


def test_the_benchmark_puts_them_side_by_side(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = spec_bench(tasks=["point"], formulas=3, policies=["ours", "grad-compiled"], results="cells")
    ours, grad = report.rows
    assert ours["satisfied"].value == 1.0 and grad["ours is faster, plan"].endswith(" times")
    assert (
        spec_bench(tasks=["point"], formulas=3, policies=["ours", "grad-compiled"], results="cells").rows == report.rows
    )
    with pytest.raises(UnknownNameError, match="did you mean 'point'"):
        spec_bench(tasks=["pint"])
    with pytest.raises(ConfigError, match="formulas must be at least 1"):
        spec_bench(formulas=0)
