"""Distances between capsules, for numpy arrays and torch tensors alike.

Everything that can collide is a capsule: a segment with a radius; a sphere is a
capsule of length zero, and the set a bounded mover can reach along a straight path
is one too. Vectors come components first, (3, ...): the arithmetic then runs over long
contiguous rows, several times faster than reductions over an axis of three.

Gradients (torch) follow the envelope theorem: the closest points are found without
gradient and the distance is differentiated with their segment parameters held fixed,
which is exact wherever the distance is differentiable.
"""

from __future__ import annotations

from typing import Any

Array = Any  # numpy.ndarray or torch.Tensor

_TINY = 1e-9


def _detached(x: Array) -> Array:
    return x.detach() if hasattr(x, "detach") else x


def dot(x: Array, y: Array) -> Array:
    """Inner product over the first axis: (3, ...) and (3, ...) → (...)."""
    return x[0] * y[0] + x[1] * y[1] + x[2] * y[2]


def norm(x: Array) -> Array:
    """Euclidean length over the first axis: (3, ...) → (...), with a finite gradient at zero."""
    return (dot(x, x) + _TINY**2) ** 0.5


def segment_parameters(p0: Array, p1: Array, q0: Array, q1: Array) -> tuple[Array, Array]:
    """Parameters in [0, 1] of the closest points of two segments.

    Args:
        p0, p1, q0, q1: End points, (3, ...), broadcast against each other [m].

    Returns:
        ``s, t`` of shape (...): the points ``p0 + s (p1 - p0)`` and ``q0 + t (q1 - q0)``.

    Source: C. Ericson, Real-Time Collision Detection (2005), section 5.1.9.
    """
    u, v, w = p1 - p0, q1 - q0, p0 - q0
    a, e = dot(u, u), dot(v, v)
    b, c, f = dot(u, v), dot(u, w), dot(v, w)
    denom = a * e - b * b
    # Parallel (or degenerate) segments: any s will do, the clamps below mend the rest.
    # The arrays' own clip: for small arrays the namespace's costs eight times as much.
    s = ((b * f - c * e) / denom.clip(_TINY, None)).clip(0.0, 1.0)
    t = ((b * s + f) / e.clip(_TINY, None)).clip(0.0, 1.0)
    s = ((b * t - c) / a.clip(_TINY, None)).clip(0.0, 1.0)
    return s, t


def segment_distance(p0: Array, p1: Array, q0: Array, q1: Array) -> Array:
    """Distance between segments, (3, ...) each → (...) [m]; capsule distance less the radii."""
    s, t = segment_parameters(_detached(p0), _detached(p1), _detached(q0), _detached(q1))
    return norm((p0 + s * (p1 - p0)) - (q0 + t * (q1 - q0)))
