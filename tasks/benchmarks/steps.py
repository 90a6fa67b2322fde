"""Small functions of numpy arrays and torch tensors that the benchmarks share."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any  # numpy.ndarray or torch.Tensor


def soft_step(x: Array) -> Array:
    """0 below 0, 1 above, ``(1 + tanh(500 x)) / 2`` in between: a step with a gradient."""
    xp = array_namespace(x)
    return 0.5 + 0.5 * xp.tanh(500.0 * x)


def split(state: Array) -> list[Array]:
    """Components of a state (..., n), each (...)."""
    return [state[..., i] for i in range(state.shape[-1])]


def join(*components: Array) -> Array:
    """A state (..., n) from its components."""
    xp = array_namespace(components[0])
    return xp.stack(components, axis=-1)
