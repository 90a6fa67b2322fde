"""Latent states: what is remembered, forgotten, expected and corrected, the same for every core."""

from __future__ import annotations

import pytest
import torch

from policies.world.config import DynamicsConfig
from policies.world.mamba import SelectiveLayer, scan
from policies.world.model import CORES
from policies.world.rssm import Dynamics, State, balanced, divergence

B, T, A, E = 3, 11, 2, 6


@pytest.fixture(params=sorted(CORES))
def dynamics(request) -> Dynamics:
    torch.manual_seed(0)
    config = DynamicsConfig(core=request.param, deter=16, hidden=24, groups=4, classes=5, layers=2, heads=4, memory=3)
    return CORES[request.param](config, A, E)


def sequence(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    embed, actions = torch.randn(B, T, E, generator=generator), torch.randn(B, T, A, generator=generator)
    first = torch.zeros(B, T, dtype=torch.bool)
    first[:, 0] = True
    return embed, actions, first


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(7)


def test_what_is_imagined_with_the_same_draws_is_what_was_expected(dynamics: Dynamics) -> None:
    embed, actions, first = sequence()
    seen = dynamics.observe(embed, actions, first, generator())
    state = seen.states.map(lambda part: part[:, 0])
    for t in range(1, T):
        expected = dynamics.imagine(state, actions[:, t], None)
        assert torch.allclose(expected.deter, seen.states.deter[:, t], atol=1e-5)
        assert torch.allclose(dynamics.prior(expected.deter), seen.prior[:, t], atol=1e-5)
        state = expected._replace(stoch=seen.states.stoch[:, t])


def test_all_moments_at_once_are_one_after_the_other(dynamics: Dynamics) -> None:
    embed, actions, first = sequence()
    first[1, 5] = first[2, 8] = True
    noise = dynamics.noise((B, T), generator(), embed)
    start = dynamics.initial(B).map(lambda part: torch.randn(part.shape, generator=generator()))
    whole = dynamics.follow(embed, actions, first, noise, start)
    steps = Dynamics.follow(dynamics, embed, actions, first, noise, start)
    for a, b in zip((*whole.states, *whole[1:]), (*steps.states, *steps[1:]), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    weights = list(dynamics.parameters())
    gradients = [
        torch.autograd.grad(seen.states.latent.square().sum() + seen.prior.sum(), weights, allow_unused=True)
        for seen in (whole, steps)
    ]
    for a, b in zip(*gradients, strict=True):
        assert a is None if b is None else torch.allclose(a, b, rtol=1e-3, atol=1e-4)


def test_acting_sees_what_training_sees(dynamics: Dynamics) -> None:
    embed, actions, first = sequence()
    seen = dynamics.observe(embed, actions, first, None)
    state = dynamics.initial(B)
    for t in range(T):
        state = dynamics.correct(state, actions[:, t], embed[:, t], first[:, t], None)
        assert torch.allclose(state.latent, seen.states.latent[:, t], atol=1e-5)


def test_an_episode_knows_nothing_of_the_one_before(dynamics: Dynamics) -> None:
    (embed, actions, first), (other, others, _) = sequence(0), sequence(1)
    first[:, 6] = True
    joined = [torch.cat([a[:, :6], b[:, 6:]], 1) for a, b in ((other, embed), (others, actions))]
    joined[1][:, 6] = 99.0
    noise = dynamics.noise((B, T), generator(), embed)
    one = dynamics.follow(embed, actions, first, noise, dynamics.initial(B))
    two = dynamics.follow(*joined, first, noise, dynamics.initial(B))
    assert torch.equal(one.states.latent[:, 6:], two.states.latent[:, 6:])
    assert not torch.allclose(one.states.latent[:, :6], two.states.latent[:, :6])
    first[:, 6] = False
    two = dynamics.follow(*joined, first, noise, dynamics.initial(B))
    assert not torch.allclose(one.states.latent[:, 7:], two.states.latent[:, 7:])


def test_draws_follow_their_probabilities_and_pass_gradients(dynamics: Dynamics) -> None:
    logits = torch.randn(4 * 5, requires_grad=True)
    log_probs = dynamics.log_probs(logits)
    assert log_probs.exp().sum(-1).tolist() == pytest.approx([1.0] * 4)
    assert dynamics.log_probs(torch.tensor([1e4, *[0.0] * 4] * 4)).exp().min() == pytest.approx(0.01 / 5, rel=1e-3)
    noise = torch.rand(20000, 4, generator=generator())
    drawn = dynamics.draw(log_probs.expand(20000, 4, 5), noise).unflatten(-1, (4, 5))
    assert torch.allclose(drawn.detach().sum(-1), torch.ones(20000, 4))
    assert torch.allclose(drawn.mean(0), log_probs.exp(), atol=0.015)
    (drawn[0, 0, 0] * 3).backward()
    assert logits.grad is not None and logits.grad[:5].abs().max() > 0 and not logits.grad[5:].any()


def test_the_prior_takes_its_share_of_the_divergence() -> None:
    torch.manual_seed(0)
    left, right = (torch.randn(6, 4, 5, requires_grad=True) for _ in range(2))

    def gradients(balance: float | None) -> tuple[torch.Tensor, ...]:
        a, b = torch.log_softmax(left, -1), torch.log_softmax(right, -1)
        value = divergence(a, b) if balance is None else balanced(a, b, balance)
        assert torch.allclose(value, divergence(a, b))
        return torch.autograd.grad(value.sum(), (left, right))

    whole, shared = gradients(None), gradients(0.8)
    assert torch.allclose(shared[0], 0.2 * whole[0], atol=1e-6)
    assert torch.allclose(shared[1], 0.8 * whole[1], atol=1e-6)
    exact = torch.distributions.kl_divergence(
        torch.distributions.Categorical(logits=left), torch.distributions.Categorical(logits=right)
    )
    assert torch.allclose(divergence(torch.log_softmax(left, -1), torch.log_softmax(right, -1)), exact.sum(-1))


@pytest.mark.parametrize("length", [1, 2, 7, 16])
def test_the_scan_is_the_recursion(length: int) -> None:
    torch.manual_seed(length)
    decay, push = torch.rand(2, length, 3, 1), torch.randn(2, length, 3, 4)
    decay[:, length // 2] = 0.0
    held, told = torch.zeros(2, 3, 4), []
    for t in range(length):
        held = decay[:, t] * held + push[:, t]
        told.append(held)
    assert torch.allclose(scan(decay, push), torch.stack(told, 1), atol=1e-6)


def test_a_selective_layer_remembers_for_long_what_it_was_told() -> None:
    torch.manual_seed(0)
    block = SelectiveLayer(8, 4, 3)
    x = torch.randn(1, 40, 8)
    nothing, known = torch.zeros(1, 8 * 3), torch.ones(1, 40)
    changed = x.clone()
    changed[:, 0, 0] += 1.0
    difference = (block(x, nothing, known)[0] - block(changed, nothing, known)[0]).abs().amax(-1)[0]
    assert (difference[1:] > 0).all()
    later = x.clone()
    later[:, 20, 0] += 1.0
    assert torch.equal(block(x, nothing, known)[0][:, :20], block(later, nothing, known)[0][:, :20])


def test_where_chooses_rows() -> None:
    ones, twos = (State(*(torch.full((2, n), v) for n in (3, 4, 0, 2))) for v in (1.0, 2.0))
    assert ones.where(torch.tensor([True, False]), twos).latent.tolist() == [[1.0] * 9, [2.0] * 9]
