"""The planners without a network, and the benchmark that puts ours beside them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from policies.npc.baselines import CrossEntropy, GradientSearch, Mppi, PlanOnce, SamplingConfig
from robo.bench import Rate
from robo.bench.stl import _row, stl_bench
from robo.core.errors import ConfigError, RunError, UnknownNameError
from robo.evaluate.evaluation import Episode
from robo.evaluate.worlds import open_world
from robo.train.config import resolve
from robo.train.loop import train
from tasks.registry import load_task
from tasks.system import system_task

torch.set_num_threads(1)


@pytest.mark.parametrize("make", [GradientSearch, CrossEntropy, Mppi])
def test_each_solves_starts_from_scratch_and_executes_what_it_planned(make: type[PlanOnce]) -> None:
    task = system_task(load_task("bench/ship_safe"))
    policy, world, solved = make(task), open_world(task), []
    solve = policy.solve
    policy.solve = lambda state: solved.append(state) or solve(state)  # type: ignore[method-assign]
    rollouts = [world.roll_out(policy, seed) for seed in range(4)]
    assert sum(r.satisfied for r in rollouts) >= 3
    assert len(solved) == 4, "once per episode"
    for rollout in rollouts:
        assert rollout.rho == pytest.approx(rollout.plan_rho[0], abs=1e-9)


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="must be positive"):
        SamplingConfig(temperature=0.0)


def test_the_benchmark_puts_them_side_by_side(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"train.steps": "3", "train.batch": "8", "train.pool": "16", "train.width": "8", "plan.samples": "64"}
    train(resolve("bench/car", options | {"plan.iterations": "4"}))
    report = stl_bench(tasks=["car"], states=6, baselines=["mppi"], baseline_states=2, budget=2, workers=1)
    ours, mppi = report.rows
    assert (ours["policy"], mppi["policy"]) == ("ours", "mppi")
    assert ours["satisfied, of satisfiable"].value >= ours["satisfied, of all"].value
    assert ours["unsafe of certified"] == 0 and 0 <= ours["plans [%]"] <= 100
    assert mppi["decision p50 [ms]"] > ours["decision p50 [ms]"]
    for wrong, message in (({"tasks": ["cars"]}, "did you mean 'car'"), ({"baselines": ["cme"]}, "did you mean 'cem'")):
        with pytest.raises(UnknownNameError, match=message):
            stl_bench(**wrong)
    with pytest.raises(RunError, match="no such run folder"):
        stl_bench(tasks=["maze"], states=1, baseline_states=1)
    with pytest.raises(ConfigError, match="baseline_states"):
        stl_bench(states=1, baseline_states=2)


def test_rows_count_what_is_possible_and_what_was_promised() -> None:
    def episode(seed: int, satisfied: bool, certified: bool, unsafe: bool) -> Episode:
        return Episode(
            seed=seed,
            rho=1.0 if satisfied else -1.0,
            satisfied=satisfied,
            success=satisfied,
            violations=("hit",) if unsafe else (),
            backup=0.0,
            refinement=0.0,
            plan_ms=(10.0, 1.0, 1.0),
            plans=float(satisfied),
            certified=certified,
        )

    episodes = [episode(0, True, True, False), episode(1, False, False, True), episode(2, False, True, True)]
    row = _row("car", "ours", episodes, {1})
    assert row["satisfied, of satisfiable"] == Rate.of(1, 2) and row["satisfied, of all"] == Rate.of(1, 3)
    assert row["unsatisfiable"] == 1 and row["unsafe of certified"] == 1
    assert row["certified [%]"] == pytest.approx(66.7) and row["decision p50 [ms]"] == 1.0
    assert np.isclose(row["first decision [ms]"].value, 10.0)
