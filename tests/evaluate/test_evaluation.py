"""Evaluations: the same for any number of workers, and counted right."""

from __future__ import annotations

from functools import partial

import pytest

from robo.core.errors import RoboError
from robo.data.rollout import Rollout
from robo.evaluate.evaluation import Episode, Evaluation, evaluate, rows
from robo.evaluate.metrics import wilson
from tests.evaluate import doubles


def _episode(seed: int, rho: float, **kwargs) -> Episode:
    given = {"violations": (), "backup": 0.0, "refinement": 0.0, "plan_ms": (1.0, 2.0), "success": rho > 0} | kwargs
    return Episode(seed=seed, rho=rho, satisfied=rho > 0, **given)


def test_summary_counts_episodes_and_weighs_steps() -> None:
    episodes = (
        _episode(5, 0.1, backup=0.5, plan_ms=(1.0, 3.0)),
        _episode(6, -0.2, violations=("contact of ball and hand (3 physics steps)", "another")),
        _episode(7, 0.3, success=False, refinement=1.0, plan_ms=(9.0,)),
    )
    evaluation = Evaluation(task="t", policy="p", seed=5, mismatch=0.1, episodes=episodes)
    record = evaluation.summary()
    assert record["satisfied"] == pytest.approx(2 / 3) and record["success"] == pytest.approx(1 / 3)
    assert record["satisfied_ci95"] == list(wilson(2, 3)) and record["success_ci95"] == list(wilson(1, 3))
    assert record["safety_violations"] == 1 and record["safety_violation_rate_ci95"] == list(wilson(1, 3))
    assert record["rho_mean"] == pytest.approx(0.2 / 3) and record["rho_min"] == -0.2
    assert record["backup_fraction"] == pytest.approx(1 / 5) and record["refinement_fraction"] == pytest.approx(1 / 5)
    assert record["plan_ms_p50"] == 2.0 and record["plan_ms_p99"] == pytest.approx(9.0, abs=0.3)
    assert {"task", "policy", "episodes", "seed"} <= record.keys()
    assert [row["seed"] for row in evaluation.record()["by_seed"]] == [5, 6, 7]
    assert rows(record)[0][:2] == ("satisfied", "66.7 %")


def test_workers_change_nothing() -> None:
    load = partial(doubles.load, doubles.GoHome)
    seen: list[Rollout] = []
    alone = evaluate(load, episodes=3, seed=4, on_rollout=seen.append)
    many = evaluate(load, episodes=3, seed=4, workers=2)
    assert alone == many
    assert [e.seed for e in alone.episodes] == [4, 5, 6] == [r.seed for r in seen]
    assert len({e.rho for e in alone.episodes}) == 3


def test_mismatch_changes_the_physics_and_nothing_else() -> None:
    load = partial(doubles.load, doubles.GoHome)
    nominal, off = (evaluate(load, episodes=1, mismatch=m).episodes[0] for m in (0.0, 0.2))
    assert nominal.rho != off.rho and nominal.rho == pytest.approx(off.rho, abs=0.05)


def test_planning_time_comes_from_the_policy() -> None:
    episode = evaluate(partial(doubles.load, doubles.Hold), episodes=1).episodes[0]
    assert episode.plan_ms[:2] == pytest.approx((2.01, 2.02))


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_policy_refuses_reaches_the_user(workers: int) -> None:
    with pytest.raises(RoboError, match="no, not today"):
        evaluate(partial(doubles.load, doubles.Refuses), episodes=2, workers=workers)


@pytest.mark.parametrize("bad", [{"episodes": 0}, {"episodes": 1, "workers": 0}, {"episodes": 1, "seed": -1}])
def test_impossible_numbers_are_refused(bad: dict) -> None:
    with pytest.raises(RoboError, match="cannot evaluate"):
        evaluate(partial(doubles.load, doubles.Hold), **bad)
