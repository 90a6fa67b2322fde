"""The planners without a network: each plans from scratch; the mixed-integer program also proves there is no plan."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.planners.config import CemConfig, MilpConfig, MppiConfig
from policies.planners.linear import Affine, Mode, Model
from policies.planners.milp import Milp, hopeless
from policies.planners.plan_once import PlanOnce
from policies.registry import POLICIES
from policies.symbolic.arrays import UNARY
from robo.cli import eval as robo_eval
from robo.cli import train as robo_train
from robo.core.errors import ConfigError, MissingDependencyError, TaskError
from robo.evaluate.worlds import open_world
from tasks.registry import load_task
from tasks.system import SystemTask, system_task

torch.set_num_threads(1)


def planner(name: str, task: SystemTask, **changes: Any) -> PlanOnce:
    from dataclasses import replace

    kind = POLICIES.make(name)
    config = kind.config()
    policy = kind.load(task, replace(config, plan=replace(config.plan, **changes)), {}, "cpu")
    assert isinstance(policy, PlanOnce)
    return policy


@pytest.mark.parametrize(
    ("name", "on", "changes"),
    [
        *((name, "ship_safe", {"compiled": compiled}) for name in ("grad", "cem", "mppi") for compiled in (0, 1)),
        ("mpc", "maze", {}),
        ("mpc", "panda", {}),
        ("milp", "maze", {}),
        ("milp", "car", {}),
    ],
)
def test_each_solves_starts_from_scratch_and_executes_what_it_planned(
    name: str, on: str, changes: dict[str, Any]
) -> None:
    task = system_task(load_task(f"bench/{on}"))
    policy, world, solved = planner(name, task, **changes), open_world(task), []
    solve = policy.solve
    policy.solve = lambda state: solved.append(state) or solve(state)  # type: ignore[method-assign]
    rollouts = [world.roll_out(policy, seed) for seed in range(4)]
    assert sum(r.satisfied for r in rollouts) >= 3
    assert len(solved) == 4, "once per episode"
    for rollout in rollouts:
        assert rollout.rho == pytest.approx(rollout.plan_rho[0], abs=1e-9)


@pytest.mark.parametrize("name", ["cem", "mppi"])
def test_compiled_or_not_the_plans_are_the_same(name: str) -> None:
    task = system_task(load_task("bench/maze"))
    obs = {"state": task.sample(np.random.default_rng(1))["state"], "time_s": np.zeros(1)}
    plans = []
    for compiled in (False, True):
        policy = planner(name, task, compiled=compiled, samples=64)
        policy.reset(obs, 5)
        plans.append(policy.act(obs).control)
    np.testing.assert_allclose(*plans, atol=1e-9)


def test_settings_are_checked() -> None:
    for make, wrong in ((MppiConfig, "temperature"), (MilpConfig, "time_limit_s"), (CemConfig, "samples")):
        with pytest.raises(ConfigError, match=f"plan.{wrong} must be positive"):
            make(**{wrong: 0})
    with pytest.raises(ConfigError, match=r"plan\.elites must lie between 2 and plan\.samples \(8\), not 9"):
        CemConfig(samples=8, elites=9)


@pytest.mark.parametrize(
    ("name", "module", "extra"), [("mpc", "casadi", "planners"), ("sac", "stable_baselines3", "rl")]
)
def test_a_missing_package_is_named(name: str, module: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    kind = POLICIES.make(name)
    monkeypatch.setattr(importlib.util, "find_spec", lambda wanted: None if wanted == module else wanted)
    with pytest.raises(MissingDependencyError, match=rf"{name} needs {module}.*robo-stack\[{extra}\]"):
        kind.load(load_task("bench/car"), kind.config(), {}, "cpu")


def test_a_planner_has_a_run_of_its_own(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert robo_train.main(["bench/maze", "--policy", "milp", "--dry-run"]) == 0
    assert "# nothing to learn" in capsys.readouterr().out and not (tmp_path / "runs").exists()
    assert robo_train.main(["bench/maze", "--policy", "milp", "--plan.time_limit_s", "20"]) == 0
    assert robo_eval.main(["runs/bench/maze/last", "--episodes", "2"]) == 0
    assert "policy milp: 2 episodes" in capsys.readouterr().out
    assert robo_train.main(["bench/rover", "--policy", "milp"]) == 2
    assert "is no mixed-integer linear program: cos of an unknown" in capsys.readouterr().err


# ---- the mixed-integer program ----------------------------------------------------


@pytest.mark.parametrize("name", ["car", "maze"])
def test_plans_of_the_program_keep_their_margin(name: str) -> None:
    task = system_task(load_task(f"bench/{name}"))
    policy = Milp(task, MilpConfig(aim=0.01))
    kept = 0
    for seed in range(10):
        start = task.sample(np.random.default_rng(seed))["state"]
        obs = {"state": start, "time_s": np.zeros(1)}
        policy.reset(obs, 0)
        kept += policy.act(obs).info["plan_rho"] >= 0.01 - 1e-5
    assert kept >= 7


@pytest.mark.parametrize("name", ["car", "maze", "ship_safe", "ship_track", "rover"])
def test_what_can_be_satisfied_is_never_proven_hopeless(name: str) -> None:
    task = system_task(load_task(f"bench/{name}"))
    search, tried = planner("cem", task, compiled=True), 0
    for seed in range(30):
        start = task.sample(np.random.default_rng(seed))["state"]
        obs = {"state": start, "time_s": np.zeros(1)}
        search.reset(obs, 0)
        if search.act(obs).info["plan_rho"] > 0:
            assert hopeless(task, start, time_limit_s=2.0) is not True
            tried += 1
        if tried == 4:
            return
    pytest.fail("the search solved too few starts to say anything")


def test_proofs_find_what_is_hopeless() -> None:
    car, track = (system_task(load_task(f"bench/{name}")) for name in ("car", "ship_track"))
    # Ten metres from the stop sign at 0.1 m/s: two and a half seconds are not enough to get there and wait one.
    assert hopeless(car, np.array([-9.9, 0.1, 0.0, 0.0, -1.0, 0.0, 0.0]), 20.0) is True
    assert hopeless(car, np.array([-0.5, 0.1, 0.0, 0.0, -1.0, 0.0, 0.0]), 20.0) is False
    # At the edge of the river, heading outward, with a tenth of a second left off the track.
    assert hopeless(track, np.array([0.0, 1.9, 0.4, 5.0, 0.0, 0.0, -5.0, 0.0, 0.6, 0.15]), 20.0) is True


@given(
    st.sampled_from(["sin", "cos", "tanh", "atan", "exp", "sqrt"]), st.floats(-2, 2), st.floats(0.1, 3), st.floats(0, 1)
)
@settings(max_examples=40, deadline=None)
def test_relaxed_functions_hold_every_true_value(name: str, low: float, width: float, share: float) -> None:
    low = abs(low) if name == "sqrt" else low
    model = Model(Mode.PROOF)
    x = model.unknown(low, low + width)
    made = model.unary(name, x)
    assert isinstance(made, Affine)
    at = low + share * width
    value = float(UNARY[name](at))
    for side in (x - at, at - x, made - value, value - made):
        model.require(side + 1e-7)
    assert model.solve(5.0) is not False


@given(st.floats(-3, 3), st.floats(-3, 3), st.floats(-3, 3), st.sampled_from(list(Mode)))
@settings(max_examples=40, deadline=None)
def test_piecewise_linear_functions_are_exact(x: float, y: float, bound: float, mode: Mode) -> None:
    model = Model(mode)
    a, b, flag = model.unknown(-3, 3), model.unknown(-3, 3), model.unknown(0, 1, whole=True)
    wanted = {"larger": max(x, y), "smaller": min(x, y), "clipped": min(max(x, -1.0), bound) if bound > -1 else bound}
    made = {
        "larger": model.apply("maximum", a, b),
        "smaller": model.apply("minimum", a, b),
        "clipped": model.apply("minimum", model.apply("maximum", a, -1.0), bound),
    }
    for side in (a - x, x - a, b - y, y - b):
        model.require(side)
    product = flag * a
    found = model.solve(5.0)
    assert isinstance(found, np.ndarray)
    for name, value in wanted.items():
        assert model.value(made[name], found) == pytest.approx(value, abs=1e-5)
    assert model.value(product, found) == pytest.approx(model.value(flag, found) * x, abs=1e-5)


def test_what_is_not_linear_is_refused_in_plans() -> None:
    for name, why in (("ship_safe", "cos of an unknown"), ("panda", "cos of an unknown")):
        with pytest.raises(TaskError, match=f"no mixed-integer linear program: {why}"):
            Milp(system_task(load_task(f"bench/{name}")), MilpConfig())
