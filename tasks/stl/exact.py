"""Exact robustness over whole traces with numpy alone, for code that may not import torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from robo.core.errors import SpecError
from tasks.stl.program import Algebra, Leaf, check_shapes, plan
from tasks.stl.syntax import Formula, Library, margin


def _norm(*args: np.ndarray | float) -> np.ndarray:
    return np.sqrt(sum(np.square(arg) for arg in args))


LIBRARY: Library = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "min": lambda *args: functools.reduce(np.minimum, args),
    "max": lambda *args: functools.reduce(np.maximum, args),
    "norm": _norm,
}
"""The functions of formulas on numpy arrays and floats."""


class Values(Algebra[np.ndarray]):
    """Max and min of arrays (batch, n).

    Args:
        batch: Number of traces.
        signals: The signals of the traces, (batch or 1, time) each.
    """

    def __init__(self, batch: int, signals: Mapping[str, np.ndarray] | None = None) -> None:
        self.batch, self.signals = batch, signals or {}

    def leaf(self, leaf: Leaf, first: int, last: int) -> np.ndarray:
        """Margins of a predicate or its negation, (batch, last - first + 1)."""
        cut = {name: self.signals[name][:, first : last + 1] for name in leaf.predicate.signals}
        value = margin(leaf.predicate, cut, LIBRARY, leaf.negated)
        return np.broadcast_to(value, (self.batch, last - first + 1))

    def fill(self, top: bool, count: int) -> np.ndarray:
        """Infinities, (batch, count)."""
        return np.full((self.batch, count), np.inf if top else -np.inf)

    def cut(self, x: np.ndarray, start: int, stop: int) -> np.ndarray:
        """A view of samples start..stop - 1."""
        return x[:, start:stop]

    def join(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """Pieces one after the other in time."""
        return np.concatenate(pieces, axis=1)

    def flip(self, x: np.ndarray) -> np.ndarray:
        """A view with time reversed."""
        return x[:, ::-1]

    def pick(self, x: np.ndarray, y: np.ndarray, largest: bool) -> np.ndarray:
        """Elementwise max or min."""
        return np.maximum(x, y) if largest else np.minimum(x, y)

    def reduce(self, x: np.ndarray, largest: bool) -> np.ndarray:
        """Max or min over time, (batch, 1)."""
        return x.max(axis=1, keepdims=True) if largest else x.min(axis=1, keepdims=True)

    def length(self, x: np.ndarray) -> int:
        """Number of samples."""
        return x.shape[1]


def rho(formula: Formula, signals: Mapping[str, np.ndarray], dt: float) -> np.ndarray:
    """See `Formula.rho`."""
    arrays = {name: np.asarray(signals[name], dtype=float) for name in formula.signals if name in signals}
    batch, samples = check_shapes(formula, {name: array.shape for name, array in arrays.items()})
    if not formula.signals:
        raise SpecError(f"formula {str(formula)!r} uses no signal, so the length of the trace is unknown")
    rows = {name: array if array.ndim == 2 else array[None] for name, array in arrays.items()}
    result = np.array(plan(formula, dt, samples, whole=True).run(Values(batch, rows)))
    return result if any(array.ndim == 2 for array in arrays.values()) else result[0]
