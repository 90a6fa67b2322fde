"""Exact robustness over whole traces with numpy alone, for code that may not import torch."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np

from robo.core.errors import NonFiniteError, SpecError
from tasks.stl.program import Algebra, Leaf, check_shapes, plan
from tasks.stl.syntax import Formula, Library, channel, evaluate, margin


def _norm(*args: np.ndarray | float) -> np.ndarray:
    return np.sqrt(sum(np.square(arg) for arg in args))


LIBRARY: Library = {
    "abs": np.abs,
    "sqrt": np.sqrt,
    "exp": np.exp,
    "tanh": np.tanh,
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
        cut = {v.channel: self.signals[v.channel][:, first : last + 1] for v in leaf.predicate.channels}
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


class Truths(Values):
    """And and or of truth values (batch, n)."""

    def leaf(self, leaf: Leaf, first: int, last: int) -> np.ndarray:
        """Whether a predicate holds, or does not, (batch, last - first + 1)."""
        cut = {v.channel: self.signals[v.channel][:, first : last + 1] for v in leaf.predicate.channels}
        left, right = (evaluate(side, cut, LIBRARY) for side in (leaf.predicate.left, leaf.predicate.right))
        if np.isnan(left).any() or np.isnan(right).any():
            raise NonFiniteError(f"{str(leaf.predicate)!r} is neither true nor false: there is a NaN in the trace")
        holds = _COMPARE[leaf.predicate.op](left, right) != leaf.negated
        return np.broadcast_to(holds, (self.batch, last - first + 1))

    def fill(self, top: bool, count: int) -> np.ndarray:
        """True or false, (batch, count)."""
        return np.full((self.batch, count), top)

    def pick(self, x: np.ndarray, y: np.ndarray, largest: bool) -> np.ndarray:
        """Elementwise or (`largest`) or and."""
        return np.logical_or(x, y) if largest else np.logical_and(x, y)


_COMPARE = {">": np.greater, ">=": np.greater_equal, "<": np.less, "<=": np.less_equal}


def verdict(formula: Formula, signals: Mapping[str, np.ndarray], dt: float) -> np.ndarray:
    """See `Formula.verdict`."""
    rows, batch, samples, single = _rows(formula, signals)
    result = np.array(plan(formula, dt, samples, whole=True).run(Truths(batch, rows)))
    return result[0] if single else result


def rho(formula: Formula, signals: Mapping[str, np.ndarray], dt: float) -> np.ndarray:
    """See `Formula.rho`."""
    rows, batch, samples, single = _rows(formula, signals)
    result = np.array(plan(formula, dt, samples, whole=True).run(Values(batch, rows)))
    return result[0] if single else result


def _rows(formula: Formula, signals: Mapping[str, np.ndarray]) -> tuple[dict[str, np.ndarray], int, int, bool]:
    """The channels used, (batch or 1, time) float; the batch, the samples, and whether there is no batch axis."""
    if not formula.signals:
        raise SpecError(f"formula {str(formula)!r} uses no signal, so the length of the trace is unknown")
    arrays = {v.channel: np.asarray(channel(v, signals), dtype=float) for v in formula.channels}
    batch, samples = check_shapes({name: array.shape for name, array in arrays.items()})
    rows = {name: array if array.ndim == 2 else array[None] for name, array in arrays.items()}
    return rows, batch, samples, all(array.ndim == 1 for array in arrays.values())
