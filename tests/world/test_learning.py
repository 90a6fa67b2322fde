"""A point learns in the plane, from 60 episodes of random pushes and a few of its own, to go where it pays."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from policies.world.actor import formula_score
from policies.world.agent import Agent
from policies.world.model import Batch, WorldModel
from policies.world.replay import Replay
from tasks.stl.syntax import parse
from tests.world.worlds import FEATURES, STEPS, play, randomly, tiny

NAMES = {"x": 1, "y": 1}


def acting(agent: Agent, planned: bool = False, explore: bool = False, score=None):
    """What an agent does in the real plane, as `play` wants it."""
    held, generator = {}, torch.Generator().manual_seed(5)

    @torch.no_grad()
    def act(features: np.ndarray, action: np.ndarray, first: np.ndarray) -> np.ndarray:
        count = len(features)
        before = agent.model.dynamics.initial(count) if first.all() else held["state"]
        seen = (torch.from_numpy(action), torch.from_numpy(features), torch.zeros(count, 0), torch.from_numpy(first))
        held["state"] = state = agent.model.correct(before, *seen, generator)
        if not planned:
            return agent.behaviour.actor.act(state.latent, generator if explore else None).numpy()
        plan = agent.planner.plan(state, generator, None if first.all() else held["plan"], score=score)
        held["plan"] = plan.mean
        return plan.action.numpy()

    return act


@pytest.fixture(scope="module", params=["gru", "mamba"])
def learned(request) -> Agent:
    agent, generator, replay = Agent(tiny(request.param), FEATURES, 2, signals=2), torch.Generator(), Replay(10**4, 0)
    generator.manual_seed(0)
    for episode in play(60, 1, randomly(0))[0]:
        replay.add(episode)
    agent.model.fit_scales(Batch.of(replay.sample(200, 8)))
    for step in range(240):
        if step in (120, 180):
            for episode in play(10, step, acting(agent, explore=True))[0]:
                replay.add(episode)
        agent.update(Batch.of(replay.sample(16, 10)), generator)
    return agent


def ends(episodes) -> np.ndarray:
    return np.stack([episode["signals"][STEPS // 2 :] for episode in episodes])


def test_actor_and_planner_do_what_pays(learned: Agent) -> None:
    nothing = play(32, 9, randomly(3))[1]
    assert play(32, 9, acting(learned))[1] > nothing + 0.25
    assert play(32, 9, acting(learned, planned=True))[1] > nothing + 0.25


def test_a_specification_keeps_a_plan_from_what_pays(learned: Agent) -> None:
    free = ends(play(16, 9, acting(learned, planned=True))[0])
    learned.planner.config = replace(learned.planner.config, robustness=50.0)
    score = formula_score(parse("always x < 0.1"), NAMES, 0.1)
    bound = ends(play(16, 9, acting(learned, planned=True, score=score))[0])
    assert np.median(free[..., 0]) > 0.3
    assert np.median(bound[..., 0]) < 0.1 and (bound[..., 0] < 0.2).mean() > 0.8


def explained(latents: torch.Tensor, values: torch.Tensor) -> float:
    """Share of the variance of values (M, S) that a linear map of latents (M, L) tells, on the half it did not see."""
    half = len(latents) // 2
    inputs = torch.cat([latents, torch.ones(len(latents), 1)], 1)
    gram = inputs[:half].T @ inputs[:half] + torch.eye(inputs.shape[1])
    told = inputs[half:] @ torch.linalg.solve(gram, inputs[:half].T @ values[:half])
    return 1.0 - float((told - values[half:]).var(0).mean() / values[half:].var(0).mean())


def test_a_bottleneck_takes_little_from_what_distracts() -> None:
    rng, replay, told = np.random.default_rng(0), Replay(10**4, 0), {}
    spread = rng.normal(size=(2, FEATURES)).astype(np.float32)
    for episode in play(80, 1, randomly(0))[0]:
        wave = np.sin(rng.uniform(0, 6, 2) + rng.uniform(0.5, 1.5, 2) * np.arange(STEPS + 1)[:, None])
        features = np.concatenate([episode["features"], wave @ spread], 1)
        replay.add(episode | {"features": features, "wave": wave.astype(np.float32)})
    for objective in ("features", "bottleneck"):
        torch.manual_seed(0)
        model = WorldModel(replace(tiny().model, objective=objective), 2 * FEATURES, 2, signals=2)
        optimiser, generator = torch.optim.Adam(model.parameters(), 2e-3), torch.Generator().manual_seed(0)
        model.fit_scales(Batch.of(replay.sample(200, 8)))
        for _ in range(200):
            optimiser.zero_grad()
            model.loss(Batch.of(replay.sample(16, 8)), generator).loss.backward()
            optimiser.step()
        drawn = replay.sample(400, 8)
        with torch.no_grad():
            latents = model.loss(Batch.of(drawn), generator).states.latent.flatten(0, 1)
        told[objective] = {
            name: explained(latents, torch.from_numpy(drawn[name]).flatten(0, 1)) for name in ("signals", "wave")
        }
    assert told["features"]["wave"] > 0.5 and told["bottleneck"]["wave"] < 0.5 * told["features"]["wave"]
    assert told["bottleneck"]["signals"] > 0.8
