"""STL predictive control of systems: training, exact resume, search, and the certificate for a whole episode."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.npc.config import NpcConfig, PlanConfig, TrainConfig
from policies.npc.learner import NpcLearner
from policies.npc.planner import NpcPolicy, load
from policies.prediction import Prediction
from policies.registry import POLICIES
from robo.core.errors import ConfigError, NonFiniteError, RunError, TaskError
from robo.core.protocols import Obs
from robo.data.rollout import SystemRollout
from robo.evaluate.worlds import open_world
from tasks.registry import load_task
from tasks.system import SystemTask, system_task
from tests.policies.learners import assert_resumes_exactly

torch.set_num_threads(1)
TINY = NpcConfig(train=TrainConfig(steps=150, batch=64, pool=256, width=32, depth=2))


@pytest.fixture(scope="module")
def task() -> SystemTask:
    return system_task(load_task("bench/ship_safe"))


@pytest.fixture(scope="module")
def learner(task: SystemTask) -> NpcLearner:
    learner = NpcLearner(task, TINY, 0, "cpu")
    learner.losses = [learner.step()["loss"] for _ in range(150)]  # type: ignore[attr-defined]
    return learner


def policy_of(task: SystemTask, learner: NpcLearner, **plan) -> NpcPolicy:
    return load(task, replace(TINY, plan=replace(PlanConfig(), **plan)), learner.weights(), "cpu")


def episode(task: SystemTask, policy: NpcPolicy, seed: int, mismatch: float = 0.0) -> SystemRollout:
    rollout = open_world(task, mismatch).roll_out(policy, seed)
    assert isinstance(rollout, SystemRollout)
    return rollout


# ---- training --------------------------------------------------------------------


def test_training_lowers_the_loss(learner: NpcLearner) -> None:
    losses = learner.losses  # type: ignore[attr-defined]
    assert np.mean(losses[-5:]) < 0.7 * np.mean(losses[:5])


def test_resume_is_exact_to_the_bit(task: SystemTask) -> None:
    assert_resumes_exactly(lambda: NpcLearner(task, TINY, 1, "cpu"))


def test_a_checkpoint_of_another_task_is_refused(learner: NpcLearner) -> None:
    other = NpcLearner(system_task(load_task("bench/car")), TINY, 0, "cpu")
    with pytest.raises(RunError, match="does not fit"):
        other.load_state(*learner.state())


# ---- acting ----------------------------------------------------------------------


def test_plans_are_what_is_executed_under_exact_dynamics(task: SystemTask, learner: NpcLearner) -> None:
    rollout = episode(task, policy_of(task, learner, search=False), 3)
    for k in range(rollout.steps):
        plan = rollout.plan_state[k]
        assert np.isfinite(plan[: rollout.steps - k + 1]).all() and np.isnan(plan[rollout.steps - k + 1 :]).all()
        np.testing.assert_allclose(plan[1], rollout.state[k + 1], atol=1e-9)
    assert rollout.plan_rho[-1] == pytest.approx(rollout.rho, abs=1e-9)
    low, high = np.array(task.control_low), np.array(task.control_high)
    assert (rollout.control >= low).all() and (rollout.control <= high).all()


def test_search_repairs_what_the_network_cannot(task: SystemTask, learner: NpcLearner) -> None:
    random = {"network": False}
    alone = [episode(task, policy_of(task, learner, **random, search=False), seed).rho for seed in range(12)]
    repaired = [episode(task, policy_of(task, learner, **random), seed) for seed in range(12)]
    assert sum(r.satisfied for r in repaired) >= sum(rho > 0 for rho in alone) + 4
    assert all(r.rho >= rho - 1e-9 for r, rho in zip(repaired, alone, strict=True))
    assert any(r.share("refinement") > 0 for r in repaired)


@pytest.mark.parametrize("name", ["bench/ship_safe", "bench/maze", "bench/rover"])
def test_who_starts_with_a_certified_plan_stays_safe(name: str) -> None:
    task = system_task(load_task(name))
    policy = NpcPolicy(task, PlanConfig(samples=64, starts=4, iterations=5, rounds=1), _Blind(task))
    certified = 0
    for seed in range(12):
        rollout = episode(task, policy, seed)
        if rollout.extra["certified"][0]:
            certified += 1
            assert rollout.extra["certified"] == [1.0] * rollout.steps and not rollout.violations
    assert certified >= 3


class _Blind:
    """A network that wants something else, and mostly something unsafe, at every step."""

    def __init__(self, task: SystemTask) -> None:
        self.controls = task.control_size
        self.random = np.random.default_rng(0)

    def __call__(self, ahead: Prediction, shared: np.ndarray) -> np.ndarray:
        return 2.0 * self.random.standard_normal((1, ahead.left, self.controls))


def test_the_same_seed_makes_the_same_plans(task: SystemTask, learner: NpcLearner) -> None:
    first, again = (episode(task, policy_of(task, learner, network=False), 5) for _ in range(2))
    assert np.array_equal(first.control, again.control)


def test_mismatch_is_replanned_for(task: SystemTask, learner: NpcLearner) -> None:
    rollout = episode(task, policy_of(task, learner), 3, mismatch=0.3)
    assert np.abs(rollout.plan_state[0][-1] - rollout.state[-1]).max() > 1e-6


# ---- what is refused -------------------------------------------------------------


def test_nan_from_a_network_is_not_executed(task: SystemTask, learner: NpcLearner) -> None:
    policy = policy_of(task, learner)
    world = open_world(task)
    obs: Obs = {"state": task.sample(np.random.default_rng(0))["state"], "time_s": np.zeros(1)}
    policy.reset(obs)
    first = policy.act(obs)
    good, policy.network = policy.network, lambda ahead, shared: np.full((1, ahead.left, 2), np.nan)  # type: ignore
    later = {"state": first.state[1], "time_s": np.array([task.ctrl_dt_s])}
    assert np.isfinite(policy.act(later).control).all(), "the plan in force goes on"
    policy.reset(obs)
    with pytest.raises(NonFiniteError, match="holds NaN or infinity, and there is no other yet"):
        policy.act(obs)
    policy.network = good
    with pytest.raises(NonFiniteError, match="observed state"):
        policy.act(obs | {"state": np.full(12, np.nan)})
    world.close()


def test_weights_and_tasks_that_do_not_fit_are_refused(task: SystemTask, learner: NpcLearner) -> None:
    weights = learner.weights()
    with pytest.raises(RunError, match="do not fit"):
        load(system_task(load_task("bench/car")), TINY, weights, "cpu")
    broken = {k: v.clone() for k, v in weights.items()}
    broken["body.0.bias"][0] = torch.nan
    with pytest.raises(RunError, match=r"body.0.bias hold NaN"):
        load(task, TINY, broken, "cpu")
    kind = POLICIES.make("npc")
    with pytest.raises(TaskError, match="--policy stl"):
        kind.learner(load_task("reach_avoid"), kind.config(), 0, "cpu")
    with pytest.raises(TaskError, match="moves no arm"):
        stl = POLICIES.make("stl")
        stl.learner(task, stl.config(), 0, "cpu")
    with pytest.raises(ConfigError, match="the policy was made for 'bench/ship_safe'"):
        open_world(system_task(load_task("bench/car"))).roll_out(policy_of(task, learner), 0)
    for change in ({"samples": 0}, {"starts": 1000}):
        with pytest.raises(ConfigError):
            PlanConfig(**change)
