import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from policies.perception.twohot import TwoHot, symexp, symlog
from robo.core.errors import ConfigError

numbers = st.floats(-1e6, 1e6, allow_subnormal=False)


@given(numbers)
def test_symexp_undoes_symlog(x):
    value = torch.tensor(x, dtype=torch.float64)
    assert symexp(symlog(value)).item() == pytest.approx(x, rel=1e-9, abs=1e-12)


@given(st.floats(-1e4, 1e4))
def test_a_number_comes_back_from_its_two_bins(x):
    scale = TwoHot(-20, 20, 255)
    weights = scale.encode(torch.tensor([x]))
    assert (weights > 0).sum() <= 2 and weights.sum().item() == pytest.approx(1)
    assert scale.mean(weights.log()).item() == pytest.approx(x, rel=2e-3, abs=1e-3)


def test_what_lies_beyond_the_bins_counts_as_the_outermost():
    scale = TwoHot(-1, 1, 3)
    assert scale.encode(torch.tensor([1e9, -1e9])).tolist() == [[0, 0, 1], [1, 0, 0]]


def test_equal_weights_mean_exactly_nothing():
    assert TwoHot().mean(torch.zeros(4, 255)).tolist() == [0.0] * 4


def test_the_loss_is_least_at_the_number():
    scale, value = TwoHot(-5, 5, 41), torch.tensor([2.5])
    logits = torch.zeros(1, 41, requires_grad=True)
    optimizer = torch.optim.Adam([logits], 0.2)
    for _ in range(300):
        optimizer.zero_grad()
        scale.loss(logits, value).sum().backward()
        optimizer.step()
    assert scale.mean(logits).item() == pytest.approx(2.5, rel=0.02)


def test_bins_need_an_extent():
    with pytest.raises(ConfigError, match="at least 2 bins"):
        TwoHot(0, 0, 1)
