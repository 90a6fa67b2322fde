"""Actor and critic: returns, horizons, what moves what; and the same bits again."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from policies.world.actor import ActorCritic, TanhNormal, formula_score, lambda_returns
from policies.world.agent import Agent
from policies.world.model import WorldModel
from policies.world.rssm import State
from robo.core.errors import ConfigError, NonFiniteError, RunError
from tasks.stl.syntax import parse
from tests.world.worlds import FEATURES, batch, tiny


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setting(**actor) -> tuple[WorldModel, ActorCritic, State]:
    """A model whose rewards and values are not zero, and states of it."""
    torch.manual_seed(0)
    config = tiny(**actor)
    model = WorldModel(config.model, FEATURES, 2, 3, 2)
    behaviour = ActorCritic(config.actor, model.latent_size, 2, config.model.bins)
    for head in (model.reward, behaviour.critic, behaviour.slow):
        torch.nn.init.normal_(head.network[-1].weight, std=0.3)  # type: ignore[union-attr]
    states = model.loss(batch(rows=8), generator()).states
    return model, behaviour, states.map(lambda part: part[:, -1])


def moved(loss: torch.Tensor, module: torch.nn.Module) -> torch.Tensor:
    weights = list(module.parameters())
    found = torch.autograd.grad(loss, weights, allow_unused=True, retain_graph=True)
    return torch.cat(
        [torch.zeros_like(w).flatten() if g is None else g.flatten() for w, g in zip(weights, found, strict=True)]
    )


@settings(deadline=None, max_examples=60)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=4), st.floats(0, 1), st.integers(0, 100))
def test_returns_are_those_of_a_plain_loop(horizons, lam, seed):
    rewards, values = (torch.randn(len(horizons), 6, generator=generator(seed + i)) for i in range(2))
    discounts = torch.rand(len(horizons), 6, generator=generator(seed + 2))
    live = torch.arange(6) < torch.tensor(horizons)[:, None]
    found = lambda_returns(rewards, values, discounts, live, lam)
    for row, horizon in enumerate(horizons):
        for k in range(6):
            total = 0.0
            # Every number of steps n, weighted by its share; the longest takes what is left.
            for n in range(1, horizon - k + 1):
                share = lam ** (n - 1) * (1.0 if n == horizon - k else 1.0 - lam)
                ahead, factor = 0.0, 1.0
                for i in range(k, k + n):
                    ahead += factor * rewards[row, i].item()
                    factor *= discounts[row, i].item()
                total += share * (ahead + factor * values[row, k + n - 1].item())
            assert found[row, k].item() == pytest.approx(total, abs=1e-4)


def test_densities_are_those_of_a_squashed_normal():
    says = TanhNormal(torch.tensor([[0.3, -1.0]]), torch.tensor([[0.5, 0.9]]))
    exact = torch.distributions.TransformedDistribution(
        torch.distributions.Normal(*says), torch.distributions.TanhTransform()
    )
    action = torch.tensor([[0.7, -0.4]])
    assert says.log_prob_of(action).item() == pytest.approx(exact.log_prob(action).sum().item(), abs=1e-5)
    many = TanhNormal(*(part.expand(50000, 2) for part in says))
    grid = torch.linspace(-0.999, 0.999, 4001)[:, None].expand(-1, 2)
    inner = exact.log_prob(grid)
    entropy = -torch.trapezoid(inner.exp() * inner, grid, dim=0).sum()
    assert many.entropy(generator()).mean().item() == pytest.approx(entropy.item(), abs=0.02)


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_steps_beyond_the_horizon_teach_nothing(gradient):
    model, behaviour, starts = setting(gradient=gradient, horizon=6)
    short, none = torch.full((8,), 2), torch.zeros(8, dtype=torch.long)

    def taught(horizons: torch.Tensor, states: State = starts) -> tuple[torch.Tensor, ...]:
        lesson = behaviour.lesson(model, states, horizons, generator())
        return lesson.actor, lesson.critic, moved(lesson.actor, behaviour.actor), moved(lesson.critic, behaviour.critic)

    # A row without a horizon may be anything.
    some = torch.where(torch.arange(8) < 5, short, none)
    other = starts.map(lambda part: torch.cat([part[:5], torch.randn(3, part.shape[1])]))
    for a, b in zip(taught(some), taught(some, other), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    assert not torch.allclose(taught(some)[2], taught(short)[2])
    lesson = behaviour.lesson(model, starts, torch.tensor([99, 1, 2, 3, 4, 5, 6, 0]), generator())
    assert lesson.metrics["imagined_steps"].item() == pytest.approx((6 + 1 + 2 + 3 + 4 + 5 + 6) / 8)
    with pytest.raises(ConfigError, match="nothing to imagine"):
        behaviour.lesson(model, starts, none, generator())


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_the_actor_is_moved_by_what_it_earns_and_the_critic_only_by_what_it_says(gradient):
    model, behaviour, starts = setting(gradient=gradient, entropy=0.0)
    lesson = behaviour.lesson(model, starts, torch.full((8,), 4), generator())
    assert moved(lesson.actor, behaviour.actor).any() and moved(lesson.critic, behaviour.critic).any()
    assert not moved(lesson.critic, behaviour.actor).any() and not moved(lesson.critic, model).any()
    assert not moved(lesson.actor, behaviour.critic).any()


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_what_follows_an_end_teaches_nothing(gradient):
    model, behaviour, starts = setting(gradient=gradient, entropy=0.0, return_rate=0.0)
    behaviour.commit(torch.tensor([0.0, 1e-3]))  # returns are not divided by their range
    torch.nn.init.constant_(model.goes_on.network[-1].bias, -100.0)  # type: ignore[arg-type]
    one, three = (behaviour.lesson(model, starts, torch.full((8,), n), generator()) for n in (1, 3))
    for name, module in (("actor", behaviour.actor), ("critic", behaviour.critic)):
        once, thrice = (moved(getattr(lesson, name), module) for lesson in (one, three))
        assert once.any() and torch.allclose(once, 3 * thrice, atol=1e-5)


def test_disagreement_costs_and_pays_in_rewards():
    found = []
    for doubt in (-5.0, 0.0, 5.0):
        model, behaviour, starts = setting(doubt=doubt)
        found.append(behaviour.lesson(model, starts, torch.full((8,), 4), generator()).metrics["return"].item())
    assert found[0] > found[1] > found[2]


def learned_direction(score, gradient: str) -> float:
    """Mean first signal at the end of what an actor imagines that learned from robustness alone, less that before."""
    model, behaviour, starts = setting(gradient=gradient, robustness=5.0, entropy=0.0, lam=0.0, gamma=0.0)
    for head in (model.reward, behaviour.critic, behaviour.slow):
        torch.nn.init.zeros_(head.network[-1].weight)  # type: ignore[arg-type]
    model.requires_grad_(False)
    horizons, optimiser, found = torch.full((8,), 4), torch.optim.Adam(behaviour.actor.parameters(), 1e-2), []
    many = starts.map(lambda part: part.detach().repeat(8, 1))
    for step in range(41):
        if step in (0, 40):
            with torch.no_grad():
                dream, _ = behaviour.imagine(model, many, horizons.repeat(8), generator())
                found.append(model.told_signals(dream.latents)[:, -1, 0].mean().item())
        optimiser.zero_grad()
        behaviour.lesson(model, many, horizons.repeat(8), generator(step), score).actor.backward()
        optimiser.step()
    return found[1] - found[0]


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_a_specification_moves_what_is_done_its_own_way(gradient):
    names = {"x": 1, "y": 1}
    above, below = (formula_score(parse(f"always[0.3, 0.4] x {sign} 0"), names, 0.1) for sign in "><")
    assert learned_direction(above, gradient) > 0.03 and learned_direction(below, gradient) < -0.03
    # And by steps.
    assert learned_direction(lambda signals: signals[:, 1:, 0], gradient) > 0.03


def test_scores_see_signals_hold_still_where_a_row_has_ended():
    model, behaviour, starts = setting(robustness=1.0)
    seen = []

    def score(signals: torch.Tensor) -> torch.Tensor:
        seen.append(signals.detach())
        return signals[:, -1, 0]

    behaviour.lesson(model, starts, torch.tensor([1, 2, 3, 4, 4, 4, 4, 4]), generator(), score)
    assert seen[0].shape == (8, 5, 2)
    assert torch.equal(seen[0][0, 1], seen[0][0, 4]) and not torch.equal(seen[0][3, 1], seen[0][3, 4])
    with pytest.raises(ConfigError, match="a score of 8 rows"):
        behaviour.lesson(model, starts, torch.full((8,), 4), generator(), lambda signals: signals)


def test_demonstrated_actions_become_likely():
    _, behaviour, starts = setting()
    latents = starts.latent.detach()
    actions = torch.tensor([0.8, -1.0]).expand(8, 2)
    optimiser = torch.optim.Adam(behaviour.actor.parameters(), 1e-2)
    for _ in range(100):
        optimiser.zero_grad()
        behaviour.cloning(latents, actions, torch.arange(8) < 6).backward()
        optimiser.step()
    assert torch.allclose(behaviour.actor.act(latents, None)[:6], actions[:6], atol=0.1)


def agent(seed: int = 0, **actor) -> Agent:
    return Agent(tiny(cloning=1.0, **actor), FEATURES, 2, 3, 2, seed)


def test_training_goes_on_as_if_never_interrupted():
    whole, first, second = agent(), agent(), agent(seed=5)
    streams = [generator(), generator(), generator(9)]
    second.update(batch(), streams[2])
    metrics = [whole.update(batch(seed=i), streams[0]) for i in range(4)]
    again = [first.update(batch(seed=i), streams[1]) for i in range(2)]
    second.load_state(load(save(first.state())))
    streams[2].set_state(streams[1].get_state())
    again += [second.update(batch(seed=i), streams[2]) for i in (2, 3)]
    assert metrics == again and {"cloning", "kl", "reward", "return"} <= set(metrics[0])
    one, two = whole.state(), second.state()
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    with pytest.raises(RunError, match="checkpoint does not fit"):
        second.load_state({name: value for name, value in one.items() if "gates" not in name})


def test_no_number_that_is_none_gets_into_the_weights():
    learner, stream = agent(robustness=1.0), generator()
    learner.update(batch(), stream)
    before, at = learner.state(), stream.get_state()
    for name in ("rewards", "features", "actions"):
        bad = batch()
        getattr(bad, name)[0, 1] = float("nan")
        with pytest.raises(NonFiniteError, match=r"of the model is nan; lower rate\.model"):
            learner.update(bad, stream)
    with pytest.raises(NonFiniteError, match="of the actor"):
        learner.update(batch(), stream, lambda signals: signals[:, -1, 0] * float("inf"))
    after = learner.state()
    assert torch.equal(at, stream.get_state()) and all(torch.equal(before[name], after[name]) for name in before)


def test_imagination_begins_where_there_is_something_to_imagine():
    learner, data = agent(starts=5), batch()
    horizons, mask = torch.zeros(4, 7, dtype=torch.long), data.mask.clone()
    horizons[0, :3] = 2
    horizons[1, 6] = 4
    mask[1, 6] = False
    metrics = learner.update(replace(data, horizons=horizons, mask=mask), generator())
    assert metrics["imagined_steps"] == pytest.approx(3 * 2 / 5)


def test_of_two_things_that_are_demonstrated_one_is_taken_up():
    torch.manual_seed(0)
    behaviour = ActorCritic(tiny(cloning=1.0).actor, 4, 1, 41)
    latents = torch.zeros(60, 4)
    actions = torch.where(torch.arange(60)[:, None] < 40, 0.6, -0.6)  # twice as often
    optimiser = torch.optim.Adam(behaviour.actor.parameters(), lr=3e-3)
    for _ in range(400):
        optimiser.zero_grad()
        behaviour.cloning(latents, actions, torch.ones(60, dtype=torch.bool)).backward()
        optimiser.step()
    assert behaviour.actor.act(latents[:1], None).item() == pytest.approx(0.6, abs=0.05)


def test_only_what_demonstrators_did_is_cloned():
    data = batch(rows=4)  # the last two are demonstrations
    first, mask = data.is_first.clone(), data.mask.clone()
    first[2, 4] = True
    mask[3, 5:] = False
    data = replace(data, is_first=first, mask=mask)

    def cloned(*places: tuple[int, int]) -> float:
        values = data.cloned.clone()
        for row, t in places:
            values[row, t] = -0.9
        return agent().update(replace(data, cloned=values), generator())["cloning"]

    assert cloned((0, 1), (1, 3), (2, 6), (2, 3), (3, 5)) == cloned()
    assert cloned((2, 5)) != cloned() and cloned((3, 3)) != cloned()
    assert "cloning" not in agent().update(replace(data, demo=torch.zeros(4, dtype=torch.bool)), generator())


def test_the_slow_critic_and_the_range_of_returns_follow():
    learner = agent(target_rate=0.25, return_rate=0.5)
    behaviour = learner.behaviour
    slow = [weight.clone() for weight in behaviour.slow.parameters()]
    spans = []
    for step in range(2):
        learner.update(batch(), generator(step))
        spans.append(behaviour.span.clone())
        slow = [old.lerp(new, 0.25) for old, new in zip(slow, behaviour.critic.parameters(), strict=True)]
        for expected, weight in zip(slow, behaviour.slow.parameters(), strict=True):
            assert torch.allclose(expected, weight, atol=1e-7)
    assert any(weight.any() for weight in slow)
    behaviour.commit(torch.tensor([-3.0, 5.0]))
    torch.nn.init.normal_(learner.model.reward.network[-1].weight, std=0.3)  # type: ignore[arg-type]
    starts = learner.model.loss(batch(), generator()).states.map(lambda part: part[:, -1])
    lesson = behaviour.lesson(learner.model, starts, torch.full((4,), 3), generator())
    with torch.no_grad():
        dream, _ = behaviour.imagine(learner.model, starts, torch.full((4,), 3), generator())
        discounts = 0.99 * learner.model.goes_on(dream.latents[:, 1:])
        rewards, values = learner.model.reward(dream.latents[:, 1:]), behaviour.slow(dream.latents[:, 1:])
        returns = lambda_returns(rewards, values, discounts, dream.live, 0.95)
    low, high = torch.quantile(returns, torch.tensor([0.05, 0.95])).tolist()
    assert lesson.span.tolist() == pytest.approx([(low - 3) / 2, (high + 5) / 2], abs=1e-4)
    assert lesson.metrics["return_span"].item() == pytest.approx((high + 5) / 2 - (low - 3) / 2, abs=1e-4)


def test_a_plan_is_worth_what_a_plain_loop_says():
    learner = agent()
    model, behaviour, planner = learner.model, learner.behaviour, learner.planner
    for head in (model.reward, behaviour.slow):
        torch.nn.init.normal_(head.network[-1].weight, std=0.3)  # type: ignore[union-attr]
    planner.config = replace(planner.config, doubt=2.0)
    states = model.loss(batch(), generator()).states.map(lambda part: part[:, -1].detach())
    plans, limits = torch.rand(4, 3, 4, 2) * 2 - 1, torch.tensor([1, 4, 2, 3])
    with torch.no_grad():
        found = planner.judge(states, plans, limits)
        for row in range(4):
            state = states.map(lambda part, r=row: part[r : r + 1].expand(3, -1))
            total, counts = torch.zeros(3), torch.ones(3)
            for k in range(int(limits[row])):
                doubt = model.doubt(state.latent, plans[row, :, k])
                state = model.dynamics.imagine(state, plans[row, :, k], None)
                total = total + counts * (model.reward(state.latent) - 2.0 * doubt)
                counts = counts * 0.99 * model.goes_on(state.latent)
            assert torch.allclose(found[row], total + counts * behaviour.slow(state.latent), atol=1e-4)


def test_a_plan_begins_with_the_one_before():
    learner = agent()
    config = replace(learner.config.plan, samples=1, from_actor=0, elites=1, iterations=1, min_std=1e-6, max_std=1e-6)
    learner.planner.config = config
    before = torch.rand(2, 4, 2) * 2 - 1
    found = learner.planner.plan(learner.model.dynamics.initial(2), generator(), before)
    expected = torch.cat([before[:, 1:], torch.zeros(2, 1, 2)], 1)
    assert torch.allclose(found.mean, expected, atol=1e-4) and torch.allclose(found.action, before[:, 1], atol=1e-4)


def test_plans_keep_to_horizons_limits_and_specification():
    learner = agent()
    planner, states = learner.planner, learner.model.loss(batch(), generator()).states.map(lambda p: p[:, -1].detach())
    torch.nn.init.normal_(learner.model.reward.network[-1].weight, std=0.3)  # type: ignore[arg-type]
    plans = torch.rand(4, 9, 4, 2) * 2 - 1
    changed = plans.clone()
    changed[:, :, 2:] = 0.0
    limits = torch.tensor([2, 2, 4, 1])
    one, two = (planner.judge(states, p, limits) for p in (plans, changed))
    assert torch.allclose(one[[0, 1, 3]], two[[0, 1, 3]], atol=1e-5) and not torch.allclose(one[2], two[2])
    found = planner.plan(states, generator(), horizons=limits)
    assert found.action.shape == (4, 2) and found.mean.shape == (4, 4, 2) and found.mean.abs().max() <= 1
    again = planner.plan(states, generator(), horizons=limits)
    assert torch.equal(found.mean, again.mean)
    assert (found.worth >= planner.judge(states, torch.zeros(4, 1, 4, 2), limits)[:, 0] - 1e-4).all()
    warm = planner.plan(states, generator(), before=found.mean, explore=True)
    assert warm.action.abs().max() <= 1 and not torch.equal(warm.action, found.action)

    planner.config = replace(planner.config, robustness=100.0)
    ends = []
    for sign in (1.0, -1.0):
        plan = planner.plan(states, generator(), score=lambda signals, s=sign: s * signals[:, -1, 0])
        dream = learner.model.dream(states, lambda _, k, p=plan: p.mean[:, k], torch.full((4,), 4), None)
        ends.append(learner.model.told_signals(dream.latents)[:, -1, 0])
    assert (ends[0] > ends[1]).all()
