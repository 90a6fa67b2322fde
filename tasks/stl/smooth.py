"""Smooth robustness: which max and min stand in for the exact ones, and how far off they can be. No torch at import.

| | max over n values | sign | gradient |
|---|---|---|---|
| `LogSumExp` | at most log(n) / k above | may differ near 0 | to all, by how near they are to the max |
| `Softmax` | at most log(n) / k below | may differ near 0 | to all, by how near they are to the max |
| `Dgmsr` | no bound | exact: positive only if the formula holds | to all that decide the sign |

A min is the mirror image of a max. `bound` adds this up over a formula.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from robo.core.errors import SpecError
from tasks.stl.program import Algebra, Leaf, plan
from tasks.stl.syntax import Formula


@dataclass(frozen=True)
class Smoothing(ABC):
    """A way to smooth robustness."""

    @abstractmethod
    def error(self, count: int) -> float:
        """How far a max over `count` values can be from the exact one; inf if there is no bound."""


@dataclass(frozen=True)
class Tempered(Smoothing):
    """A smoothing that tends to the exact max as its temperature grows.

    Attributes:
        temperature: k > 0, in 1 over the unit of the predicates.
    """

    temperature: float

    def __post_init__(self) -> None:
        _check("temperature", self.temperature)

    def error(self, count: int) -> float:
        """``log(count) / k``."""
        return math.log(count) / self.temperature


@dataclass(frozen=True)
class LogSumExp(Tempered):
    """``log(sum(exp(k v))) / k``; never below the max."""


@dataclass(frozen=True)
class Softmax(Tempered):
    """``sum(w v)`` with weights ``w = softmax(k v)``; never above the max.

    The bound: the entropy of the weights is at most log(n), and ``log(sum(exp(k v))) / k`` less the entropy over k is
    the weighted mean (Gibbs).
    """


@dataclass(frozen=True)
class Dgmsr(Smoothing):
    """Generalised means of the squares of what is positive, less those of what is negative (D-GMSR).

    The min over z_1..z_n is ``sqrt(M0) - sqrt(Mp)`` with ``M0 = (eps^n + prod(max(z, 0)^2))^(1/n)`` and
    ``Mp = (eps^p + mean(max(-z, 0)^(2 p)))^(1/p)``. Positive only where every z is (Uzun, Elango, Garoche & Acikmese,
    arXiv 2405.10996); next to 0, below sqrt(eps), rounding may give 0, but never the wrong sign.

    Attributes:
        epsilon: Keeps roots differentiable, in the square of the predicates' unit.
        power: p; larger ones weigh the worst violation more.
    """

    epsilon: float = 1e-8
    power: float = 1.0

    def __post_init__(self) -> None:
        _check("epsilon", self.epsilon)
        _check("power", self.power)

    def error(self, count: int) -> float:
        """No bound: the sign is exact, the value has a scale of its own."""
        return math.inf


def _check(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not (math.isfinite(value) and value > 0):
        raise SpecError(f"smooth: {name} must be a positive number, got {value!r}; None gives exact robustness")


def smoothing(smooth: float | Smoothing) -> Smoothing:
    """What a temperature stands for, or the smoothing itself."""
    return smooth if isinstance(smooth, Smoothing) else LogSumExp(smooth)


def bound(formula: Formula, dt: float, samples: int, smooth: float | Smoothing) -> float:
    """How far smooth robustness can be from the exact one, at any sample of a trace [unit of the predicates].

    Follows the evaluation step by step, so it holds for windows, untils and their nesting alike; rounding is not in it.

    Raises:
        SpecError: As for `Formula.robustness`.
    """
    algebra = _Errors(smoothing(smooth))
    return plan(formula, dt, samples, whole=True).run(algebra)[0]


_Error: TypeAlias = tuple[float, int]
"""A bound on the error of every sample, and the number of samples."""


class _Errors(Algebra[_Error]):
    def __init__(self, smooth: Smoothing) -> None:
        self.smooth = smooth

    def leaf(self, leaf: Leaf, first: int, last: int) -> _Error:
        return 0.0, last - first + 1

    def fill(self, top: bool, count: int) -> _Error:
        return 0.0, count

    def cut(self, x: _Error, start: int, stop: int) -> _Error:
        return x[0], stop - start

    def join(self, pieces: Sequence[_Error]) -> _Error:
        return max(error for error, _ in pieces), sum(count for _, count in pieces)

    def flip(self, x: _Error) -> _Error:
        return x

    def pick(self, x: _Error, y: _Error, largest: bool) -> _Error:
        return max(x[0], y[0]) + self.smooth.error(2), x[1]

    def reduce(self, x: _Error, largest: bool) -> _Error:
        return x[0] + self.smooth.error(x[1]), 1

    def extreme(self, windows: Sequence[tuple[_Error, int]], largest: bool) -> _Error:
        (_, count), width = windows[0]
        error = max(error for (error, _), _ in windows)
        return error + self.smooth.error(sum(width for _, width in windows)), count - width + 1

    def window(self, x: _Error, width: int, largest: bool) -> _Error:
        return self.extreme([(x, width)], largest)

    def length(self, x: _Error) -> int:
        return x[1]
