"""An actor that aims: one of a few things, kept to, learned from what was shown and from what it earns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load, save

from policies.world.actor import ActorCritic
from policies.world.agent import Agent
from policies.world.aims import AimActor, Aims, Mixture, Pursuit
from policies.world.model import WorldModel
from policies.world.rssm import State
from robo.core.errors import NonFiniteError
from tests.world.worlds import FEATURES, batch, tiny

PLAIN = 3


class Walk:
    """In a plane, at most a fifth at once."""

    scales: Sequence[float] = (0.1, 0.1)

    def action(self, aim: torch.Tensor) -> torch.Tensor:
        return (aim / 0.2).clamp(-1.0, 1.0)

    def after(self, aim: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        return aim - 0.2 * action


AIMS = Aims(Walk(), (0.01, 0.0, 0.0))


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def setting(**actor) -> tuple[WorldModel, ActorCritic, State]:
    torch.manual_seed(0)
    config = tiny(**actor)
    model = WorldModel(config.model, FEATURES, 2, PLAIN, 2, PLAIN)
    behaviour = ActorCritic(config.actor, model.latent_size, 2, config.model.bins, AIMS)
    states = model.loss(batch(rows=8), generator()).states
    return model, behaviour, states.map(lambda part: part[:, -1].detach())


def aiming(behaviour: ActorCritic) -> AimActor:
    assert isinstance(behaviour.actor, AimActor)
    return behaviour.actor


def agent(seed: int = 0, **actor) -> Agent:
    return Agent(tiny(cloning=1.0, **actor), FEATURES, 2, PLAIN, 2, seed, PLAIN, AIMS)


def test_of_two_things_that_are_shown_each_is_an_aim_as_likely_as_it_is_frequent() -> None:
    torch.manual_seed(0)
    actor = AimActor(tiny().actor, AIMS)
    plain = torch.randn(600, PLAIN, generator=generator())
    often = torch.rand(600, generator=generator(1)) < 0.7
    aims = torch.where(often[:, None], plain[:, :2] + 0.5, torch.tensor([-2.0, 1.0]))
    optimiser = torch.optim.Adam(actor.parameters(), lr=3e-3)
    for _ in range(600):
        optimiser.zero_grad()
        actor.cloning(plain, aims).backward()
        optimiser.step()
    says, there = actor.at(plain), torch.arange(600)
    best = says.places[there, says.logits.argmax(-1)]
    assert (best - plain[:, :2] - 0.5).abs().median() < 0.05
    near = ((says.places - torch.tensor([-2.0, 1.0])).abs().sum(-1) < 0.3).float()
    assert ((near * says.logits.exp()).sum(-1)).mean().item() == pytest.approx(0.3, abs=0.06)


def test_a_number_that_is_one_of_a_few_is_chosen_and_never_what_lies_between() -> None:
    torch.manual_seed(0)
    actor = AimActor(replace(tiny().actor, modes=1), AIMS._replace(levels=4))
    actor.levels.copy_(torch.tensor([-0.9, -0.3, 1.0, 1.0]))
    plain = torch.randn(600, PLAIN, generator=generator())
    likely = torch.sigmoid(4.0 * plain[:, 0])
    last = torch.where(torch.rand(600, generator=generator(1)) < likely, 1.0, -0.9)
    aims = torch.stack([plain[:, 1], last], 1)
    optimiser = torch.optim.Adam(actor.parameters(), lr=3e-3)
    for _ in range(400):
        optimiser.zero_grad()
        actor.cloning(plain, aims).backward()
        optimiser.step()
    says = actor.at(plain).places[:, 0]
    assert (says[:, 0] - plain[:, 1]).abs().median() < 0.05
    chosen = says[:, 1].detach()
    assert set(chosen.tolist()) == set(torch.tensor([-0.9, 1.0]).tolist())
    assert ((chosen > 0) == (likely > 0.5)).float().mean() > 0.95
    slopes = torch.autograd.grad(actor.at(plain.requires_grad_()).places[..., 1].sum(), plain)[0]
    assert slopes[:, 0].mean() > 0.1  # and yet gradients say which way it is likelier


def test_what_is_shown_is_as_unlikely_as_a_plain_sum_says() -> None:
    torch.manual_seed(1)
    actor = AimActor(tiny().actor, AIMS)
    plain, aims = torch.randn(5, PLAIN), torch.randn(5, 2)
    says, total = actor.at(plain), 0.0
    for row in range(5):
        likely = 0.0
        for logit, place in zip(says.logits[row].tolist(), says.places[row].tolist(), strict=True):
            far = sum(abs(a - b) / s for a, b, s in zip(place, aims[row].tolist(), Walk.scales, strict=True))
            likely += 2.718281828**logit * 2.718281828**-far
        total -= torch.tensor(likely, dtype=torch.float64).log().item() / 5
    assert actor.cloning(plain, aims).item() == pytest.approx(total, rel=1e-3)


def test_it_sees_plain_numbers_alone_and_small_differences_of_some() -> None:
    _, behaviour, states = setting()
    actor, latent = aiming(behaviour), states.latent
    other = torch.cat([torch.randn_like(latent[:, :-PLAIN]), latent[:, -PLAIN:]], 1)
    assert torch.equal(actor(latent).places, actor(other).places)
    actor.standard.mean.fill_(0.3)
    actor.standard.std.fill_(2.0)
    raw = torch.randn(4, PLAIN)
    assert torch.allclose(actor.at(raw).logits, actor(torch.cat([latent[:4, :-PLAIN], (raw - 0.3) / 2], 1)).logits)
    moved = [actor.at(raw + torch.eye(PLAIN)[i] * 0.01).logits - actor.at(raw).logits for i in (0, 1)]
    raw[:, 0] = 0.0
    fine = actor.at(raw + torch.tensor([0.01, 0.0, 0.0])).logits - actor.at(raw).logits
    assert fine.abs().mean() > 10 * moved[1].abs().mean()


def test_an_aim_is_drawn_once_and_followed_until_it_is_reached() -> None:
    logits = torch.tensor([0.25, 0.75]).log().expand(4000, 2)
    says = Mixture(logits, torch.tensor([[0.5, 0.0], [0.0, -0.3]]).expand(4000, 2, 2))
    course = Pursuit(says, Walk(), generator())
    assert course.choices.float().mean().item() == pytest.approx(0.75, abs=0.03)
    moved = sum(0.2 * course(torch.zeros(4000, 1), k) for k in range(4))
    assert isinstance(moved, torch.Tensor)
    assert torch.allclose(moved, says.places[torch.arange(4000), course.choices], atol=1e-6)


def test_what_was_chosen_counts_where_it_was_chosen() -> None:
    model, behaviour, starts = setting()
    dream, choices = behaviour.imagine(model, starts, torch.full((8,), 4), generator())
    chance, entropy, decided = behaviour.actor.chances(dream.latents[:, :-1], choices, generator())
    exact = torch.distributions.Categorical(logits=aiming(behaviour)(starts.latent).logits)
    assert torch.allclose(chance[:, 0], exact.log_prob(choices)) and torch.allclose(entropy[:, 0], exact.entropy())
    assert decided[:, 0].all() and not decided[:, 1:].any() and not chance[:, 1:].any() and not entropy[:, 1:].any()
    rows = torch.arange(8)
    aim = aiming(behaviour)(starts.latent).places[rows, choices]
    assert torch.allclose(dream.actions[:, 0], Walk().action(aim))


def learned(sign: float, gradient: str) -> float:
    """Mean first signal at the end of what is imagined, after learning from robustness alone, less that before."""
    model, behaviour, starts = setting(gradient=gradient, robustness=5.0, entropy=0.0, lam=0.0, gamma=0.0)
    for head in (model.reward, behaviour.critic, behaviour.slow):
        torch.nn.init.zeros_(head.network[-1].weight)  # type: ignore[arg-type]
    model.requires_grad_(False)
    optimiser, found = torch.optim.Adam(behaviour.actor.parameters(), 1e-2), []
    many, horizons = starts.map(lambda part: part.repeat(16, 1)), torch.full((128,), 4)
    for step in range(41):
        if step in (0, 40):
            with torch.no_grad():
                dream, _ = behaviour.imagine(model, many, horizons, generator())
                found.append(model.told_signals(dream.latents)[:, -1, 0].mean().item())
        optimiser.zero_grad()
        lesson = behaviour.lesson(model, many, horizons, generator(step), lambda signals: sign * signals[:, -1, 0])
        lesson.actor.backward()
        optimiser.step()
    return found[1] - found[0]


@pytest.mark.parametrize("gradient", ["dynamics", "reinforce"])
def test_it_learns_from_what_its_aims_earn(gradient: str) -> None:
    assert learned(1.0, gradient) > 0.02 and learned(-1.0, gradient) < -0.02


def test_only_gradients_through_the_model_move_places() -> None:
    for gradient, moves in (("dynamics", True), ("reinforce", False)):
        model, behaviour, starts = setting(gradient=gradient, entropy=0.0)
        torch.nn.init.normal_(model.reward.network[-1].weight, std=0.3)  # type: ignore[arg-type]
        lesson = behaviour.lesson(model, starts, torch.full((8,), 4), generator())
        (found,) = torch.autograd.grad(lesson.actor, [aiming(behaviour).straight.weight], allow_unused=True)
        assert (found is not None and bool(found.any())) == moves


def test_training_goes_on_as_if_never_interrupted() -> None:
    whole, first, second = agent(), agent(), agent(seed=5)
    streams = [generator(), generator(), generator(9)]

    def step(learner: Agent, seed: int, stream: torch.Generator) -> dict[str, float]:
        shown = (torch.randn(6, PLAIN, generator=generator(seed)), torch.randn(6, 2, generator=generator(seed + 1)))
        return learner.update(batch(seed=seed), stream, shown=[shown, shown])

    whole.fit_scales(batch())
    first.fit_scales(batch())
    told = [step(whole, i, streams[0]) for i in range(4)]
    again = [step(first, i, streams[1]) for i in range(2)]
    second.load_state(load(save(first.state())))
    streams[2].set_state(streams[1].get_state())
    again += [step(second, i, streams[2]) for i in (2, 3)]
    assert told == again and "cloning" in told[0]
    assert "cloning" not in whole.update(batch(), streams[0])
    actor = aiming(second.behaviour)
    assert torch.equal(actor.standard.mean, second.model.seen_scale.mean[-PLAIN:])
    assert torch.equal(actor.standard.std, second.model.seen_scale.std[-PLAIN:])


def test_more_lessons_teach_more_and_one_that_fails_leaves_all_as_it_was() -> None:
    shown = (torch.randn(6, PLAIN, generator=generator(3)), torch.randn(6, 2, generator=generator(4)))
    often, once = agent(), agent()
    for learner, lessons in ((often, 8), (once, 1)):
        learner.fit_scales(batch())
        learner.update(batch(), generator(), shown=[shown] * lessons)
    assert aiming(often.behaviour).cloning(*shown) < aiming(once.behaviour).cloning(*shown) - 0.01
    before, stream = save(often.state()), generator(7)
    drawn = stream.get_state()
    for bad in (0, 1, 2):
        lessons = [shown] * 3
        lessons[bad] = (shown[0], shown[1] * float("nan"))
        with pytest.raises(NonFiniteError, match="actor"):
            often.update(batch(), stream, shown=lessons)
        assert save(often.state()) == before and torch.equal(stream.get_state(), drawn)


def test_plans_are_proposed_by_aims() -> None:
    learner = agent()
    planner, states = learner.planner, learner.model.loss(batch(), generator()).states.map(lambda p: p[:, -1].detach())
    planner.config = replace(planner.config, samples=1, elites=1, iterations=1)
    found = planner.plan(states, generator())
    assert found.action.shape == (4, 2) and found.mean.abs().max() <= 1
    assert torch.equal(found.mean, planner.plan(states, generator()).mean)
