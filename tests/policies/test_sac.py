"""Soft actor-critic: the specification as reward in instalments, exact resume, nobody else's generators touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.registry import POLICIES
from policies.sac.config import SacConfig, TrainConfig
from policies.sac.env import SpecificationEnv
from policies.sac.learner import SacLearner
from policies.sac.policy import ActorPolicy, load
from robo.core.errors import ConfigError, NonFiniteError, RunError
from robo.evaluate.worlds import open_world
from tasks.registry import load_task
from tasks.system import SystemTask, system_task
from tests.policies.learners import assert_resumes_exactly

torch.set_num_threads(1)
TINY = SacConfig(
    train=TrainConfig(steps=6, episodes=4, collect=5, updates=3, batch=16, buffer=64, warm_up=20, width=16)
)


@pytest.fixture(scope="module")
def task() -> SystemTask:
    return system_task(load_task("bench/maze"))


def test_the_rewards_of_an_episode_add_up_to_its_robustness(task: SystemTask) -> None:
    env = SpecificationEnv(task, 3, 0.2, np.random.default_rng(0))
    random, total, first = np.random.default_rng(1), np.zeros(3), env.value.copy()
    signals = [{k: v.copy() for k, v in task.measure(env.state).items()}]
    for k in range(task.steps):
        env.step_async(random.uniform(-1, 1, (3, task.control_size)).astype(np.float32))
        before = env.state
        seen, reward, over, info = env.step_wait()
        total += reward
        assert seen.shape == (3, *env.observation_space.shape) and seen.dtype == np.float32
        assert over.all() == (k == task.steps - 1) and (("terminal_observation" in info[0]) == over.all())
        if k < task.steps - 1:
            signals.append(task.measure(env.state))
        else:
            last = task.advance(before, task.squash(np.arctanh(np.clip(env._actions.astype(float), -0.9999, 0.9999))))
            signals.append(task.measure(last))
    trace = {name: torch.from_numpy(np.stack([s[name] for s in signals], axis=1)) for name in task.signals}
    rhos = env.model.part_rhos(trace)
    np.testing.assert_allclose(total, rhos.clamp_max(0.2).sum(-1).numpy() - first, atol=1e-5)
    assert env.satisfied == pytest.approx(float((rhos.amin(-1) > 0).double().mean()))


def test_resume_is_exact_and_the_process_keeps_its_own_generators(task: SystemTask) -> None:
    torch.manual_seed(7)
    np.random.seed(7)  # noqa: NPY002
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    assert_resumes_exactly(lambda: SacLearner(task, TINY, 1, "cpu"))
    assert torch.equal(before[0], torch.get_rng_state())
    assert np.array_equal(before[1], np.random.get_state()[1])  # noqa: NPY002


def test_it_learns_something(task: SystemTask) -> None:
    config = TrainConfig(steps=40, episodes=16, collect=8, updates=16, batch=128, buffer=20_000, warm_up=500, width=64)
    learner = SacLearner(task, SacConfig(train=config), 0, "cpu")
    assert np.mean([learner.step()["satisfied"] for _ in range(40)][-10:]) > 0.15  # at random: about 0.02


def test_what_it_would_do_is_what_it_does(task: SystemTask) -> None:
    learner = SacLearner(task, TINY, 0, "cpu")
    for _ in range(3):
        learner.step()
    policy = POLICIES.make("sac").load(task, TINY, learner.weights(), "cpu")
    assert isinstance(policy, ActorPolicy)
    rollout = open_world(task).roll_out(policy, 2)
    for k in range(rollout.steps):
        np.testing.assert_allclose(rollout.plan_state[k][1], rollout.state[k + 1], atol=1e-9)  # type: ignore[attr-defined]
    assert rollout.plan_rho[0] == pytest.approx(rollout.rho, abs=1e-6)


def test_what_does_not_fit_is_refused(task: SystemTask) -> None:
    learner = SacLearner(task, TINY, 0, "cpu")
    with pytest.raises(RunError, match="do not fit"):
        load(task, replace(TINY, train=replace(TINY.train, width=8)), learner.weights())
    other = SacLearner(system_task(load_task("bench/car")), TINY, 0, "cpu")
    with pytest.raises(RunError, match="does not fit"):
        other.load_state(*learner.state())
    with pytest.raises(ConfigError, match="must not exceed 1"):
        TrainConfig(discount=1.5)
    with torch.no_grad():
        next(learner.model.critic.parameters()).fill_(torch.nan)
    with pytest.raises((NonFiniteError, ValueError), match=r"nan|NaN"):
        for _ in range(4):
            learner.step()
