"""Small functions of numpy arrays and torch tensors that the benchmarks share."""

from __future__ import annotations

from typing import Any

from array_api_compat import array_namespace

Array = Any  # numpy.ndarray or torch.Tensor


def step(x: Array, gentle: float, sharp: float = 500.0) -> Array:
    """0 below 0, 1 above: ``(1 + tanh(sharp x)) / 2``, in torch with the gradient of ``(1 + tanh(gentle x)) / 2``.

    A sharp step has no gradient to speak of except at its edge; with a gentle one (straight through, Bengio et al.,
    arXiv 1308.3432) a planner learns on which side it is and where the edge lies.
    """
    xp = array_namespace(x)
    if hasattr(xp, "step"):  # a solver's symbols have a step of their own: see policies/planners/symbolic.py
        return xp.step(x, gentle, sharp)
    value = 0.5 + 0.5 * xp.tanh(sharp * x)
    if hasattr(x, "detach"):
        soft = 0.5 + 0.5 * xp.tanh(gentle * x)
        return value.detach() + soft - soft.detach()
    return value


def split(state: Array) -> list[Array]:
    """Components of a state (..., n), each (...)."""
    return [state[..., i] for i in range(state.shape[-1])]


def join(*components: Array) -> Array:
    """A state (..., n) from its components."""
    xp = array_namespace(components[0])
    return xp.stack(components, axis=-1)
