"""The world model: it learns from sequences, and what is no moment of an episode does not count."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from policies.world.actor import lambda_returns
from policies.world.config import preset
from policies.world.model import Batch, WorldModel


def batch(seed: int = 0, rows: int = 4, steps: int = 8) -> Batch:
    g = torch.Generator().manual_seed(seed)
    first = torch.zeros(rows, steps, dtype=torch.bool)
    first[:, 0] = True
    mask = torch.ones(rows, steps, dtype=torch.bool)
    mask[1, 5:] = False
    return Batch(
        features=torch.randn(rows, steps, 6, generator=g),
        proprio=torch.randn(rows, steps, 3, generator=g),
        actions=torch.rand(rows, steps, 2, generator=g) * 2 - 1,
        rewards=torch.rand(rows, steps, generator=g),
        continues=torch.ones(rows, steps),
        is_first=first,
        signals=torch.randn(rows, steps, 2, generator=g),
        mask=mask,
        horizons=torch.full((rows, steps), 3),
        demo=torch.zeros(rows, dtype=torch.bool),
    )


def model(core: str) -> WorldModel:
    torch.manual_seed(0)
    config = preset("small").model
    return WorldModel(replace(config, dynamics=replace(config.dynamics, core=core)), 6, 2, 3, 2)


@pytest.mark.parametrize("core", ["gru", "mamba"])
def test_it_learns_and_padding_does_not_count(core: str) -> None:
    world, data = model(core), batch()
    world.fit_scales(data)
    first = world.loss(data, torch.Generator().manual_seed(1)).loss
    other = data.features.clone()
    other[1, 5:] += 3.0
    again = world.loss(replace(data, features=other), torch.Generator().manual_seed(1)).loss
    assert torch.allclose(first, again, rtol=1e-5)
    optimiser = torch.optim.Adam(world.parameters(), 1e-3)
    for step in range(40):
        optimiser.zero_grad()
        loss = world.loss(data, torch.Generator().manual_seed(step)).loss
        loss.backward()
        optimiser.step()
    assert loss < 0.8 * first


def test_lambda_returns_are_those_of_the_recursion() -> None:
    g = torch.Generator().manual_seed(0)
    rewards, values = torch.rand(2, 4, generator=g), torch.rand(2, 4, generator=g)
    discounts = torch.full((2, 4), 0.9)
    live = torch.tensor([[True] * 4, [True, True, False, False]])
    found = lambda_returns(rewards, values, discounts, live, 0.95)
    for row, last in ((0, 3), (1, 1)):
        expected = float(rewards[row, last] + 0.9 * values[row, last])
        assert float(found[row, last]) == pytest.approx(expected, rel=1e-5)
        for k in range(last - 1, -1, -1):
            expected = float(rewards[row, k]) + 0.9 * (0.05 * float(values[row, k]) + 0.95 * expected)
            assert float(found[row, k]) == pytest.approx(expected, rel=1e-5)
    assert (found[1, 2:] == 0).all()
