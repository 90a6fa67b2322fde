"""What every learner keeps: a training that was interrupted goes on as if it had not been."""

from __future__ import annotations

from collections.abc import Callable

import torch

from policies.learner import Learner


def assert_resumes_exactly(make: Callable[[], Learner]) -> None:
    """Six steps are three, a state put into another learner, and three: the same bits in weights and state.

    Args:
        make: Makes a learner, always from the same seed.
    """
    whole, first, second = make(), make(), make()
    second.step()  # whatever it holds is replaced
    for _ in range(6):
        whole.step()
    for _ in range(3):
        first.step()
    second.load_state(*first.state())
    for _ in range(3):
        second.step()
    (tensors, meta), (again, meta_again) = whole.state(), second.state()
    assert meta == meta_again and set(tensors) == set(again)
    for name, value in tensors.items():
        assert torch.equal(value, again[name]), name
    weights, weights_again = whole.weights(), second.weights()
    assert set(weights) == set(weights_again)
    for name, value in weights.items():
        assert torch.equal(value, weights_again[name]), name
