"""Formulas over symbols: lists over time, run by `tasks.stl.program`."""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

from policies.symbolic.arrays import Namespace, SmoothNamespace, Symbol
from tasks.stl.program import Algebra, Leaf
from tasks.stl.syntax import Formula, Library, Parameter, Variable, map_tree, margin

X = TypeVar("X")
Signals = Mapping[str, Sequence[Symbol]]
"""Name → its values at samples 0 .. T."""


class Lists(Algebra[list[X]]):
    """Max and min of lists over time.

    Args:
        signals: Of the whole trace.
    """

    def __init__(self, signals: Signals) -> None:
        self.signals = signals

    def leaf(self, leaf: Leaf, first: int, last: int) -> list[X]:
        """See `Algebra`."""
        names = [v.channel for v in leaf.predicate.channels]
        return [self.at({name: self.signals[name][k] for name in names}, leaf) for k in range(first, last + 1)]

    @abstractmethod
    def at(self, signals: Mapping[str, Symbol], leaf: Leaf) -> X:
        """A predicate, or its negation, at one moment."""

    @abstractmethod
    def both(self, x: X, y: X, largest: bool) -> X:
        """The larger or the smaller of two."""

    def cut(self, x: list[X], start: int, stop: int) -> list[X]:
        """See `Algebra`."""
        return x[start:stop]

    def join(self, pieces: Sequence[list[X]]) -> list[X]:
        """See `Algebra`."""
        return [item for piece in pieces for item in piece]

    def flip(self, x: list[X]) -> list[X]:
        """See `Algebra`."""
        return x[::-1]

    def length(self, x: list[X]) -> int:
        """See `Algebra`."""
        return len(x)

    def pick(self, x: list[X], y: list[X], largest: bool) -> list[X]:
        """See `Algebra`."""
        return [self.both(a, b, largest) for a, b in zip(x, y, strict=True)]

    def reduce(self, x: list[X], largest: bool) -> list[X]:
        """See `Algebra`."""
        return [functools.reduce(lambda a, b: self.both(a, b, largest), x)]


class Margins(Lists[Symbol]):
    """Exact robustness of symbols.

    Args:
        signals: Of the whole trace.
        namespace: Whose symbols they are.
    """

    def __init__(self, signals: Signals, namespace: Namespace) -> None:
        super().__init__(signals)
        self.namespace, self.library = namespace, library(namespace)

    def at(self, signals: Mapping[str, Symbol], leaf: Leaf) -> Symbol:
        """See `Lists`."""
        return margin(leaf.predicate, signals, self.library, leaf.negated)

    def both(self, x: Symbol, y: Symbol, largest: bool) -> Symbol:
        """See `Lists`; infinities go their own way, for they are no numbers to calculate with."""
        for a, b in ((x, y), (y, x)):
            if isinstance(a, float) and math.isinf(a):
                return a if (a > 0) == largest else b
        return self.finite(x, y, largest)

    def finite(self, x: Symbol, y: Symbol, largest: bool) -> Symbol:
        """The larger or the smaller of two that are not infinite."""
        return self.namespace.apply("maximum" if largest else "minimum", x, y)

    def fill(self, top: bool, count: int) -> list[Symbol]:
        """See `Algebra`."""
        return [math.inf if top else -math.inf] * count


class SmoothMargins(Margins):
    """Smooth robustness by log-sum-exp: above the exact value where that is a max, below it where it is a min.

    Args:
        signals: Of the whole trace.
        namespace: Whose symbols they are.
        temperature: Of the log-sum-exp.
    """

    def __init__(self, signals: Signals, namespace: SmoothNamespace, temperature: float) -> None:
        super().__init__(signals, namespace)
        self._soft = functools.partial(namespace.soft_extreme, temperature=temperature)

    def finite(self, x: Symbol, y: Symbol, largest: bool) -> Symbol:
        """See `Margins`."""
        return self._soft(x, y, largest=largest)


def open_constants(formula: Formula) -> Formula:
    """The formula with its parameters read as signals ``$name``, so that they can differ from episode to episode."""
    return map_tree(formula, lambda node: Variable(f"${node.name}") if isinstance(node, Parameter) else node)


def library(namespace: Namespace) -> Library:
    """The functions of formulas on symbols."""

    def fold(name: str) -> Callable[..., Symbol]:
        return lambda *args: functools.reduce(functools.partial(namespace.apply, name), args)

    def norm(*args: Symbol) -> Symbol:
        # The root has no derivative at zero.
        return namespace.apply("sqrt", sum((arg * arg for arg in args), 1e-24))

    return {
        "abs": functools.partial(namespace.apply, "abs"),
        **{name: functools.partial(namespace.apply, name) for name in ("sqrt", "exp", "tanh")},
        "min": fold("minimum"),
        "max": fold("maximum"),
        "norm": norm,
    }
