"""The STL controller in physics, its learner, and what happens when the network is wrong."""

import dataclasses
import itertools

import numpy as np
import pytest
import torch

import sim
from policies.registry import POLICIES
from policies.stl.config import PlanConfig, StlConfig, TrainConfig
from policies.stl.learner import StlLearner
from policies.stl.planner import load
from robo.core.errors import ConfigError, NonFiniteError, RunError
from tasks.reach_avoid import ReachAvoid
from tests.policies.learners import assert_resumes_exactly

SMALL = TrainConfig(steps=60, batch=32, pool=64, width=64, depth=2)


@pytest.fixture(scope="module")
def task() -> ReachAvoid:
    return ReachAvoid()


@pytest.fixture(scope="module")
def learner(task) -> StlLearner:
    learner = StlLearner(task, StlConfig(train=SMALL), 0, "cpu")
    for _ in range(SMALL.steps):
        learner.step()
    return learner


def _policy(task, learner, **plan):
    config = StlConfig(train=SMALL, plan=PlanConfig(**plan))
    return load(task, config, learner.weights(), "cpu")


def _episode(task, policy, seed, steps=None):
    env = sim.make(task)
    obs, info = env.reset(seed=seed)
    policy.reset(obs, seed)
    chunks, signals = [], [info["signals"]]
    for _ in range(steps or task.steps):
        chunk = policy.act(obs)
        chunks.append(chunk)
        obs, _, _, _, info = env.step(np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0]]))
        signals.append(info["signals"])
    env.close()
    return chunks, signals, info


def _unsafe(info) -> bool:
    seen = info["violations"]
    return bool(seen["contacts"] or seen["joint_limit"] or seen["velocity"])


# ---- training -------------------------------------------------------------------


def test_training_raises_robustness(task):
    learner = StlLearner(task, StlConfig(train=SMALL), 0, "cpu")
    rows = [learner.step() for _ in range(SMALL.steps)]
    assert np.mean([r["loss"] for r in rows[-10:]]) < 0.7 * np.mean([r["loss"] for r in rows[:5]])
    assert learner.steps_done == SMALL.steps


def test_resume_is_exact_to_the_bit(task):
    assert_resumes_exactly(lambda: StlLearner(task, StlConfig(train=SMALL), 3, "cpu"))


def test_a_checkpoint_of_other_sizes_is_refused(task, learner):
    other = StlLearner(task, StlConfig(train=dataclasses.replace(SMALL, width=32)), 0, "cpu")
    with pytest.raises(RunError, match="does not fit"):
        other.load_state(*learner.state())
    with pytest.raises(RunError, match="do not fit"):
        load(task, StlConfig(train=dataclasses.replace(SMALL, width=32)), learner.weights(), "cpu")


def test_a_nan_loss_leaves_the_state_before_the_step(task):
    learner = StlLearner(task, StlConfig(train=SMALL), 0, "cpu")
    learner.step()
    learner.q[:] = torch.nan
    weights, adam = learner.weights(), learner.optimiser.state_dict()["state"][0]["exp_avg"].clone()
    with pytest.raises(NonFiniteError, match="step 1"):
        learner.step()
    assert learner.steps_done == 1
    assert all(torch.equal(v, weights[k]) for k, v in learner.weights().items())
    assert torch.equal(adam, learner.optimiser.state_dict()["state"][0]["exp_avg"])


# ---- acting ----------------------------------------------------------------------


def test_chunks_meet_the_contract(task, learner):
    policy = _policy(task, learner)
    chunks, _, _ = _episode(task, policy, seed=11)
    for k, chunk in enumerate(chunks):
        assert chunk.start_s == pytest.approx((k + 1) * task.ctrl_dt_s)
        assert np.all(chunk.joint_vel[-1] == 0), "every chunk ends at rest"
        assert chunk.info["plan_ms"] > 0
        if chunk.tail:  # the longest certified way is the one that was committed
            assert chunk.stops and chunk.stops[-1] == chunk.tail - 1
    for old, new in itertools.pairwise(chunks):
        pos, vel = old.at(new.start_s)
        np.testing.assert_allclose(new.joint_pos[0], pos, atol=1e-9)
        np.testing.assert_allclose(new.joint_vel[0], vel, atol=1e-9)


def test_same_seed_same_chunks(task, learner):
    first = _episode(task, _policy(task, learner), seed=4, steps=25)[0]
    again = _episode(task, _policy(task, learner), seed=4, steps=25)[0]
    for a, b in zip(first, again, strict=True):
        assert np.array_equal(a.joint_pos, b.joint_pos) and a.controller == b.controller


def test_backup_alone_keeps_a_random_network_safe_and_without_it_things_break(task, learner):
    wild = {"network": False, "refine": False}
    safe = [_episode(task, _policy(task, learner, **wild), seed) for seed in range(6)]
    assert not any(_unsafe(info) for _, _, info in safe)
    assert any(c.controller == "backup" for chunks, _, _ in safe for c in chunks)
    broken = [_episode(task, _policy(task, learner, **wild, certify=False), seed) for seed in range(6)]
    assert sum(_unsafe(info) for _, _, info in broken) >= 2


def test_refinement_raises_the_robustness_of_plans(task, learner):
    env = sim.make(task)
    gained = []
    for seed in range(6):
        obs, _ = env.reset(seed=seed)
        rho = []
        for refine in (False, True):
            policy = _policy(task, learner, refine=refine, certify=False)
            policy.reset(obs, 0)
            rho.append(policy.act(obs).info["plan_rho"])
        gained.append(rho[1] - rho[0])
    env.close()
    assert min(gained) >= 0 and np.mean(gained) > 0.01


def test_skipped_calls_and_a_start_in_the_middle_do_not_spoil_the_plan(task, learner):
    """At run time calls can be late; ticks nobody saw must not count as violations."""
    env = sim.make(task)
    obs, _ = env.reset(seed=3)
    policy = _policy(task, learner, certify=False)
    policy.reset(obs, 0)
    at_once = policy.act(obs).info["plan_rho"]
    later = obs | {"time_s": np.array([0.5])}
    assert policy.act(later).info["plan_rho"] > at_once - 0.1
    policy.reset(later, 0)
    assert policy.act(later).info["plan_rho"] > at_once - 0.1
    env.close()
    assert at_once != 0.0


def test_a_network_that_puts_out_nan_hands_over_to_the_certified_plan(task, learner):
    policy = _policy(task, learner)
    env = sim.make(task)
    obs, _ = env.reset(seed=2)
    policy.reset(obs, 0)
    for k in range(40):
        if k == 10:
            with torch.no_grad():
                policy.network.body[-1].bias.fill_(torch.nan)
            policy._plan = None
        chunk = policy.act(obs)
        obs, _, _, _, info = env.step(np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0]]))
        if k >= 10:
            assert "not finite" in chunk.info["fault"] or "NaN" in chunk.info["fault"]
    env.close()
    assert chunk.controller == "backup" and np.all(chunk.joint_vel[0] == 0)
    assert not _unsafe(info)


def test_broken_weights_are_refused_at_load(task, learner):
    weights = learner.weights()
    name = next(iter(weights))
    weights[name] = weights[name].clone()
    weights[name].view(-1)[0] = torch.nan
    with pytest.raises(RunError, match="NaN"):
        load(task, StlConfig(train=SMALL), weights, "cpu")


def test_a_broken_observation_is_named(task, learner):
    policy = _policy(task, learner)
    env = sim.make(task)
    obs, _ = env.reset(seed=2)
    policy.reset(obs, 0)
    env.close()
    with pytest.raises(NonFiniteError, match="mover_clearance_m"):
        policy.act(obs | {"mover": np.full(3, np.nan)})


def test_the_kind_is_registered_and_its_settings_checked():
    kind = POLICIES.make("stl")
    assert kind.config().train.steps > 0
    for bad in ({"steps": 0}, {"batch": 10, "pool": 5}, {"restart": 2.0}):
        with pytest.raises(ConfigError):
            TrainConfig(**bad)
    with pytest.raises(ConfigError):
        PlanConfig(iterations=0)
