"""Formulas on a tape, all samples of a signal at once: a formula that is typed now is written in a millisecond or two.

The same tapes as `policies.symbolic.formulas.Margins` would write sample by sample, but that what is calculated twice
is written twice, predicates apart: nothing is looked up.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np

from policies.symbolic.arrays import SmoothNamespace, Symbol, Unknown
from policies.symbolic.formulas import library
from policies.symbolic.tape import Trace, simplified
from tasks.stl.program import Algebra, Leaf
from tasks.stl.syntax import margin


class Block(Unknown):
    """Values on a tape that are calculated alike.

    Attributes:
        places: Where they are, (n,).
    """

    __slots__ = ("places",)

    def __init__(self, namespace: Blocks, places: np.ndarray) -> None:
        super().__init__(namespace)
        self.places = places


class Blocks(SmoothNamespace):
    """Writes blocks on a tape.

    Args:
        trace: The tape.
    """

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def _emit(self, name: str, *args: Symbol) -> Block:
        return Block(self, self.trace.rows(name, *(arg.places if isinstance(arg, Block) else arg for arg in args)))

    def unary(self, name: str, x: Unknown) -> Symbol:
        """See `Namespace`."""
        return self._emit(name, x)

    def binary(self, name: str, x: Symbol, y: Symbol) -> Symbol:
        """See `Namespace`."""
        return simplified(self._emit, name, x, y)

    def unit_step(self, x: Unknown, gentle: float, sharp: float) -> Symbol:
        """See `Namespace`."""
        return self._emit("step", x, gentle, sharp)

    def soft_extreme(self, x: Symbol, y: Symbol, temperature: float, largest: bool) -> Symbol:
        """See `SmoothNamespace`."""
        return self._emit("soft_max" if largest else "soft_min", x, y, temperature)


class BlockMargins(Algebra[np.ndarray]):
    """Robustness as places on a tape.

    Args:
        places: Signal → where its values at samples 0 .. T are, (T + 1,).
        trace: The tape.
    """

    def __init__(self, places: Mapping[str, np.ndarray], trace: Trace) -> None:
        self.places, self.trace = places, trace
        self.blocks = Blocks(trace)
        self.library = library(self.blocks)
        self.top, self.bottom = trace.place(math.inf), trace.place(-math.inf)
        self._most, self._least, self._more = "maximum", "minimum", ()
        self._leaves: dict[tuple[Leaf, int, int], np.ndarray] = {}

    def smooth(self, temperature: float) -> BlockMargins:
        """Smooth robustness by log-sum-exp, of the same predicates: see `SmoothMargins`."""
        other = copy.copy(self)
        other._most, other._least, other._more = "soft_max", "soft_min", (temperature,)
        return other

    def leaf(self, leaf: Leaf, first: int, last: int) -> np.ndarray:
        """See `Algebra`; written once."""
        if (leaf, first, last) not in self._leaves:
            names = (v.channel for v in leaf.predicate.channels)
            signals = {name: Block(self.blocks, self.places[name][first : last + 1]) for name in names}
            value = margin(leaf.predicate, signals, self.library, leaf.negated)
            places = value.places if isinstance(value, Block) else np.full(last - first + 1, self.trace.place(value))
            self._leaves[leaf, first, last] = places
        return self._leaves[leaf, first, last]

    def fill(self, top: bool, count: int) -> np.ndarray:
        """See `Algebra`."""
        return np.full(count, self.top if top else self.bottom)

    def cut(self, x: np.ndarray, start: int, stop: int) -> np.ndarray:
        """See `Algebra`."""
        return x[start:stop]

    def join(self, pieces: Sequence[np.ndarray]) -> np.ndarray:
        """See `Algebra`."""
        return np.concatenate(pieces)

    def flip(self, x: np.ndarray) -> np.ndarray:
        """See `Algebra`."""
        return x[::-1]

    def length(self, x: np.ndarray) -> int:
        """See `Algebra`."""
        return len(x)

    def pick(self, x: np.ndarray, y: np.ndarray, largest: bool) -> np.ndarray:
        """See `Algebra`; infinities go their own way, for they are no numbers to calculate with."""
        wins, loses = (self.top, self.bottom) if largest else (self.bottom, self.top)
        made = np.where(x == loses, y, np.where(y == loses, x, wins))
        finite = self._finite(x) & self._finite(y)
        made[finite] = self.trace.rows(self._most if largest else self._least, x[finite], y[finite], *self._more)
        return made

    def reduce(self, x: np.ndarray, largest: bool) -> np.ndarray:
        """See `Algebra`."""
        wins, loses = (self.top, self.bottom) if largest else (self.bottom, self.top)
        x = x[x != loses]
        if not len(x) or wins in x:
            return np.array([wins if len(x) else loses])
        return np.array([self.trace.chain(self._most if largest else self._least, x, *self._more)])

    def _finite(self, x: np.ndarray) -> np.ndarray:
        return (x != self.top) & (x != self.bottom)
