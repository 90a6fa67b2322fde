"""Distances between capsules, for numpy arrays and torch tensors alike.

Everything that can collide is a capsule: a segment with a radius; a sphere is a
capsule of length zero, and the set a bounded mover can reach along a straight path
is one too. Gradients (torch) follow the envelope theorem: the closest
points are found without gradient and the distance is differentiated with their
segment parameters held fixed, which is exact wherever the distance is
differentiable.
"""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any  # numpy.ndarray or torch.Tensor

_TINY = 1e-9


def _detached(x: Array) -> Array:
    return x.detach() if hasattr(x, "detach") else x


def norm(x: Array) -> Array:
    """Euclidean length over the last axis: (..., 3) → (...), with a finite gradient at zero."""
    return ((x * x).sum(-1) + _TINY**2) ** 0.5


def segment_parameters(p0: Array, p1: Array, q0: Array, q1: Array) -> tuple[Array, Array]:
    """Parameters in [0, 1] of the closest points of two segments.

    Args:
        p0, p1, q0, q1: End points, (..., 3), broadcast against each other [m].

    Returns:
        ``s, t`` of shape (..., 1): the points ``p0 + s (p1 - p0)`` and ``q0 + t (q1 - q0)``.

    Source: C. Ericson, Real-Time Collision Detection (2005), section 5.1.9.
    """
    xp = array_namespace(p0, q0)
    u, v, w = p1 - p0, q1 - q0, p0 - q0
    a, e = (u * u).sum(-1), (v * v).sum(-1)
    b, c, f = (u * v).sum(-1), (u * w).sum(-1), (v * w).sum(-1)
    a_safe, e_safe = xp.clip(a, _TINY, None), xp.clip(e, _TINY, None)
    denom = a * e - b * b
    # Parallel (or degenerate) segments: any s will do, the clamps below mend the rest.
    s = xp.where(denom > _TINY, (b * f - c * e) / xp.clip(denom, _TINY, None), 0.0 * denom)
    s = xp.clip(s, 0.0, 1.0)
    t = (b * s + f) / e_safe
    t_clamped = xp.clip(t, 0.0, 1.0)
    s = xp.clip((b * t_clamped - c) / a_safe, 0.0, 1.0)
    return s[..., None], t_clamped[..., None]


def segment_distance(p0: Array, p1: Array, q0: Array, q1: Array) -> Array:
    """Distance between segments, (..., 3) each → (...) [m]; capsule distance less the radii."""
    s, t = segment_parameters(_detached(p0), _detached(p1), _detached(q0), _detached(q1))
    return norm((p0 + s * (p1 - p0)) - (q0 + t * (q1 - q0)))
