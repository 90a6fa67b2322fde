"""The world model: what counts in its loss, how far it imagines, and where it doubts itself."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch

from policies.world.agent import Agent
from policies.world.config import PRESETS, DynamicsConfig, ModelConfig, preset
from policies.world.model import Batch, WorldModel
from robo.core.errors import ConfigError, UnknownNameError
from tests.world.worlds import FEATURES, batch, tiny

VARIANTS = [("gru", "features"), ("mamba", "features"), ("gru", "target"), ("gru", "bottleneck")]


def world(core: str = "gru", objective: str = "features", **changes) -> WorldModel:
    torch.manual_seed(0)
    config = replace(tiny(core).model, objective=objective, **changes)
    model = WorldModel(config, FEATURES, 2, 3, 2, plain=4)
    # It first says 0 of everything, and so moves nothing below it.
    torch.nn.init.normal_(model.reward.network[-1].weight, std=0.1)  # type: ignore[arg-type]
    return model


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gradients(model: WorldModel, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(("core", "objective"), VARIANTS)
def test_moments_that_are_not_there_change_nothing(core: str, objective: str) -> None:
    model, data = world(core, objective), batch()
    mask = data.mask.clone()
    mask[1, 4:] = mask[2, 1:] = False
    one, other = replace(data, mask=mask), batch(seed=9)
    swapped = {
        item.name: torch.where(
            mask.view(*mask.shape, *[1] * (getattr(one, item.name).ndim - 2)),
            getattr(one, item.name),
            getattr(other, item.name),
        )
        for item in fields(Batch)
        if item.name not in ("mask", "demo")
    }
    fits = [model.loss(b, generator()) for b in (one, replace(one, **swapped))]
    assert fits[0].loss.item() == fits[1].loss.item()
    first, second = (gradients(model, fit.loss) for fit in fits)
    assert first.keys() == second.keys()
    for name in first:
        assert torch.allclose(first[name], second[name], atol=1e-7), name
    assert model.loss(data, generator()).loss.item() != fits[0].loss.item()


@pytest.mark.parametrize(("core", "objective"), VARIANTS)
def test_every_weight_learns_and_seeds_tell_everything(core: str, objective: str) -> None:
    model, data = world(core, objective), batch()
    fit = model.loss(data, generator())
    found = gradients(model, fit.loss)
    assert set(found) == {name for name, _ in model.named_parameters()}
    assert all(value.abs().max() > 0 for value in found.values())
    assert model.loss(data, generator()).loss.item() == fit.loss.item()
    assert model.loss(data, generator(1)).loss.item() != fit.loss.item()


def test_divergence_below_the_free_nats_costs_nothing_and_pulls_at_nothing() -> None:
    for free, moves in ((1e6, False), (0.0, True)):
        nothing = ("reward_weight", "continue_weight", "signals_weight", "features_weight", "plain_weight")
        model = world(kl_free=free, **dict.fromkeys(nothing, 0.0))
        found = gradients(model, model.loss(batch(), generator()).loss)
        assert bool(found["dynamics.expect.1.weight"].any()) is moves


@pytest.mark.parametrize("distance", ["cosine", "mse"])
def test_without_a_decoder_memory_learns_what_the_encoder_will_say(distance: str) -> None:
    model, data = world(objective="target", target_loss=distance), batch()
    assert model.decoder is None
    embed, _ = model.dynamics.parts(model.encode(data.features, data.proprio))
    assert torch.allclose(embed.unflatten(-1, (-1, 8)).sum(-1), torch.ones(4, 7, 8))
    assert model.target is not None and model.target.loss(torch.zeros(4, 7, 64), embed).requires_grad
    (loss := model.target.loss(torch.zeros(4, 7, 64), embed).sum()).backward()
    assert loss > 0 and all(p.grad is None for p in model.encoder.parameters())


def test_a_bottleneck_costs_more_the_longer_too_much_is_taken() -> None:
    for nats, rises in ((1e-3, True), (1e3, False)):
        model = world(objective="bottleneck", bottleneck_nats=nats)
        assert model.decoder is None and model.target is None and model.price is not None
        optimiser = torch.optim.Adam(model.parameters(), 1e-2)
        for _ in range(5):
            optimiser.zero_grad()
            model.loss(batch(), generator()).loss.backward()
            optimiser.step()
        assert (model.price.item() > 0) is rises


@pytest.mark.parametrize("core", ["gru", "mamba"])
def test_no_row_is_imagined_beyond_its_horizon(core: str) -> None:
    model, horizons = world(core), torch.tensor([3, 0, 5, 1])
    starts = model.loss(batch(), generator()).states.map(lambda part: part[:, -1].detach())
    actions = torch.randn(4, 9, 2)
    dream = model.dream(starts, lambda _, k: actions[:, k], horizons, None)
    assert dream.live.sum(1).tolist() == horizons.tolist() and dream.latents.shape[1] == 6
    state, states = starts, [starts.latent]
    for k in range(5):
        state = model.dynamics.imagine(state, actions[:, k], None)
        states.append(state.latent)
    for row, horizon in enumerate(horizons.tolist()):
        for k in range(6):
            expected = states[min(k, horizon)][row]
            assert torch.allclose(dream.latents[row, k], expected, atol=1e-6)


def test_scales_are_those_of_the_data_that_is_there() -> None:
    model, data = world(), batch(rows=30)
    mask = data.mask.clone()
    mask[:, 5:] = False
    shifted = replace(data, features=torch.where(mask[..., None], 5 + 3 * data.features, 1e6), mask=mask)
    model.fit_scales(shifted)
    assert model.seen_scale.mean[:FEATURES].mean() == pytest.approx(5, abs=0.2)
    assert model.seen_scale.std[:FEATURES].mean() == pytest.approx(3, abs=0.2)
    values = torch.randn(4, 2)
    assert torch.allclose(model.signal_scale.back(model.signal_scale(values)), values, atol=1e-6)


def test_predictors_disagree_where_nothing_was_seen() -> None:
    model, data = world(), batch(rows=16)
    quiet = replace(data, actions=data.actions * 0.2)
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for step in range(150):
        optimiser.zero_grad()
        model.loss(quiet, generator(step)).loss.backward()
        optimiser.step()
    latents = model.loss(quiet, generator()).states.latent.detach()[:, :-1]
    known = model.doubt(latents, quiet.actions[:, 1:]).mean()
    assert model.doubt(latents, torch.sign(quiet.actions[:, 1:])).mean() > 2 * known
    with pytest.raises(ConfigError, match=r"model\.ensemble is 0"):
        world(ensemble=0).doubt(latents, quiet.actions[:, 1:])


def test_presets() -> None:
    paper = preset("paper")
    dynamics = paper.model.dynamics
    assert (dynamics.deter, dynamics.hidden, dynamics.groups, dynamics.classes) == (1024, 1024, 32, 32)
    assert (paper.model.kl_balance, paper.model.kl_free) == (0.8, 0.1)
    assert (paper.rate.model, paper.rate.actor, paper.rate.critic) == (3e-4, 1e-4, 1e-4)
    assert (paper.actor.gamma, paper.actor.lam, paper.actor.horizon) == (0.99, 0.95, 15)
    assert (paper.batch, paper.demos, paper.length) == (36, 12, 50)
    small = Agent(preset("small"), FEATURES, 2)
    assert sum(p.numel() for p in small.parameters()) < 2e6 and set(PRESETS) == {"paper", "small"}
    with pytest.raises(UnknownNameError, match="small"):
        preset("smal")
    with pytest.raises(ConfigError, match="ensemble"):
        ModelConfig(ensemble=1)
    with pytest.raises(UnknownNameError, match="mamba"):
        DynamicsConfig(core="mambo")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"batch\.rewards"):
        replace(batch(), rewards=torch.zeros(4, 3))


@pytest.mark.parametrize("core", ["gru", "mamba"])
def test_plain_numbers_are_kept_as_they_are_and_expected_where_they_go(core: str) -> None:
    """Proprioception is a place that actions push about: exact where it is seen, and foreseen where it is not."""
    torch.manual_seed(0)
    model = WorldModel(tiny(core).model, FEATURES, 2, 2, 0, plain=2)
    draws = generator()

    def moves(rows: int) -> Batch:
        data = batch(rows, 10, int(torch.randint(10**6, (), generator=draws)), signals=0)
        steps = data.actions.clone()
        steps[:, 0] = torch.randn(rows, 2, generator=draws)
        return replace(data, features=0 * data.features, proprio=5.0 + 0.3 * steps.cumsum(1))

    model.fit_scales(moves(200))
    optimiser = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        fit = model.loss(moves(16), draws)
        optimiser.zero_grad()
        fit.loss.backward()
        optimiser.step()
    data = moves(64)
    with torch.no_grad():
        states = model.loss(data, draws).states
        scaled = model.seen_scale(torch.cat([data.features, data.proprio], -1))[..., -2:]
        assert torch.equal(states.plain, scaled) and torch.equal(states.latent[..., -2:], scaled)
        start = states.map(lambda part: part[:, 4])
        dream = model.dream(start, lambda _, k: data.actions[:, 5 + k], torch.full((64,), 5), None)
        error = (dream.latents[:, 5, -2:] - scaled[:, 9]).abs().mean()
        standing = (scaled[:, 4] - scaled[:, 9]).abs().mean()
    assert error < 0.35 * standing
