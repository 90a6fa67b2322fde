"""A formula made ready to be evaluated: negations pushed into the predicates, seconds turned into steps.

What is left is a short list of operations, each a max or min over windows of others, that any kind of array can
run: `Algebra` says how. Robustness is monotone in every leaf of such a program, which is what bounds and monitors
rest on. Needs neither numpy nor torch.
"""

from __future__ import annotations

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Generic, TypeAlias, TypeVar

from robo.core.errors import SpecError
from tasks.stl.syntax import (
    And,
    Formula,
    Iff,
    Implies,
    Not,
    Or,
    Predicate,
    TimeInterval,
    Truth,
    Until,
    Window,
)

Steps: TypeAlias = float
"""A whole number of steps, or inf."""

_MULTIPLE_TOLERANCE = 1e-6
_MOST_PLANS = 512


@dataclass(frozen=True)
class Leaf:
    """A predicate, or its negation."""

    predicate: Predicate
    negated: bool


@dataclass(frozen=True)
class Limit:
    """Plus infinity (`top`) or minus infinity, at every sample of a trace."""

    top: bool


@dataclass(frozen=True)
class Extreme:
    """Max (`largest`) or min over the parts (c, lo, hi): child c at those samples ``t + lo .. t + hi`` that exist."""

    largest: bool
    parts: tuple[tuple[int, Steps, Steps], ...]


@dataclass(frozen=True)
class Chain:
    """Until (`largest`): the max over t' in ``t + lo .. t + hi`` of the min of right(t') and left on [t, t').

    Not `largest`: its dual, max and min swapped. `past` runs time backwards (since).
    """

    largest: bool
    left: int
    right: int
    lo: Steps
    hi: Steps
    past: bool


Op: TypeAlias = Leaf | Limit | Extreme | Chain


def lower(formula: Formula, dt: float) -> tuple[Op, ...]:
    """Operations of a formula, children before parents, the root last; equal ones are shared.

    Raises:
        SpecError: dt is not positive, or an interval end is no multiple of it.
    """
    cached = formula._cache.get(dt)
    if cached is None:
        cached = formula._cache[dt] = _Lowering(dt).run(formula)
    return cached


class _Lowering:
    def __init__(self, dt: float) -> None:
        if not (isinstance(dt, int | float) and math.isfinite(dt) and dt > 0):
            raise SpecError(f"dt must be a positive number of seconds, got {dt!r}")
        self.dt = dt
        self.ops: list[Op] = []
        self.ids: dict[Op, int] = {}
        self.done: dict[tuple[int, bool], int] = {}

    def run(self, formula: Formula) -> tuple[Op, ...]:
        root = self.lower(formula, False)
        return prune(self.ops, root, children)

    def add(self, op: Op) -> int:
        if op not in self.ids:
            self.ids[op] = len(self.ops)
            self.ops.append(op)
        return self.ids[op]

    def lower(self, formula: Formula, negated: bool) -> int:
        key = (id(formula), negated)
        if key not in self.done:
            self.done[key] = self._lower(formula, negated)
        return self.done[key]

    def _lower(self, formula: Formula, negated: bool) -> int:
        if isinstance(formula, Truth):
            return self.add(Limit(formula.value != negated))
        if isinstance(formula, Predicate):
            return self.add(Leaf(formula, negated))
        if isinstance(formula, Not):
            return self.lower(formula.arg, not negated)
        if isinstance(formula, And | Or):
            return self.pick(isinstance(formula, Or) != negated, *(self.lower(arg, negated) for arg in formula.args))
        if isinstance(formula, Implies):
            return self.pick(not negated, self.lower(formula.left, not negated), self.lower(formula.right, negated))
        if isinstance(formula, Iff):
            a, b = self.lower(formula.left, False), self.lower(formula.right, False)
            not_a, not_b = self.lower(formula.left, True), self.lower(formula.right, True)
            if negated:
                return self.pick(True, self.pick(False, a, not_b), self.pick(False, not_a, b))
            return self.pick(False, self.pick(True, not_a, b), self.pick(True, a, not_b))
        if isinstance(formula, Window):
            lo, hi = self.steps(formula, formula.interval)
            if formula.op in "HOY":
                lo, hi = -hi, -lo
            return self.extreme((formula.op in "FO") != negated, [(self.lower(formula.arg, negated), lo, hi)])
        if isinstance(formula, Until):
            lo, hi = self.steps(formula, formula.interval)
            left, right = self.lower(formula.left, negated), self.lower(formula.right, negated)
            # Release is the dual of until: not (not p U not q).
            past, largest = formula.op == "S", (formula.op != "R") != negated
            if self.ops[left] == Limit(largest):
                chain = self.extreme(largest, [(right, -hi, -lo) if past else (right, lo, hi)])
            else:
                chain = self.add(Chain(largest, left, right, lo, hi, past))
            if formula.op == "W":
                return self.pick(largest, chain, self.extreme(not largest, [(left, 0, hi)]))
            return chain
        raise TypeError(f"not a formula: {type(formula).__name__}")

    def steps(self, formula: Formula, interval: TimeInterval) -> tuple[Steps, Steps]:
        def whole(time_s: float) -> Steps:
            if time_s == math.inf:
                return math.inf
            if interval.steps:
                return int(time_s)
            steps = time_s / self.dt
            if abs(steps - round(steps)) > _MULTIPLE_TOLERANCE * max(1.0, steps):
                below, above = math.floor(steps) * self.dt, math.ceil(steps) * self.dt
                raise SpecError(
                    f"interval {interval} of {str(formula)[:60]!r}: {time_s:g} s is no multiple of dt {self.dt:g} s; "
                    f"write {below:.6g} or {above:.6g}"
                )
            return round(steps)

        start, end = interval.numbers()
        return whole(start), whole(end)

    def pick(self, largest: bool, *children: int) -> int:
        return self.extreme(largest, [(child, 0, 0) for child in children])

    def extreme(self, largest: bool, parts: Sequence[tuple[int, Steps, Steps]]) -> int:
        return self.add_extreme(largest, merge(self.ops, largest, parts))

    def add_extreme(self, largest: bool, parts: Sequence[tuple[int, Steps, Steps]]) -> int:
        for child, lo, hi in parts:
            # Sample t itself is always inside the trace; other samples may lie beyond its ends.
            if self.ops[child] == Limit(largest) and lo <= 0 <= hi:
                return child
        if not parts:
            return self.add(Limit(not largest))
        if len(parts) == 1 and parts[0][1:] == (0, 0):
            return parts[0][0]
        return self.add(Extreme(largest, tuple(parts)))


def merge(
    ops: Sequence[object], largest: bool, parts: Sequence[tuple[int, Steps, Steps]]
) -> list[tuple[int, Steps, Steps]]:
    """Parts with nested windows of the same kind and direction made one window, neutral ones dropped."""
    merged: dict[tuple[int, Steps, Steps], None] = {}
    for child, lo, hi in parts:
        op = ops[child]
        if op == Limit(not largest):
            continue
        # Across directions the ends of the trace would cut the windows differently.
        if (
            isinstance(op, Extreme)
            and op.largest == largest
            and (
                (lo == hi == 0)
                or (lo >= 0 and all(inner >= 0 for _, inner, _ in op.parts))
                or (hi <= 0 and all(inner <= 0 for _, _, inner in op.parts))
            )
        ):
            merged.update(dict.fromkeys((grand, lo + first, hi + last) for grand, first, last in op.parts))
        else:
            merged[child, lo, hi] = None
    return list(merged)


AnyOp = TypeVar("AnyOp")


def prune(ops: Sequence[AnyOp], root: int, children: Callable[[AnyOp], tuple[int, ...]]) -> tuple[AnyOp, ...]:
    """The operations the root needs, renumbered."""
    needed = {root}
    for index in range(root, -1, -1):
        if index in needed:
            needed.update(children(ops[index]))
    order = {old: new for new, old in enumerate(sorted(needed))}
    return tuple(renumber(ops[old], order) for old in sorted(needed))


def children(op: Op) -> tuple[int, ...]:
    """Indices of the operations an operation reads."""
    if isinstance(op, Extreme):
        return tuple(child for child, _, _ in op.parts)
    if isinstance(op, Chain):
        return (op.left, op.right)
    return ()


def renumber(op: Any, order: Mapping[int, int]) -> Any:
    """The same operation reading others under new indices."""
    if isinstance(op, Extreme):
        return replace(op, parts=tuple((order[child], lo, hi) for child, lo, hi in op.parts))
    readers = ("left", "right", "child")
    return replace(op, **{name: order[getattr(op, name)] for name in readers if hasattr(op, name)})


def reads(op: Op, first: Steps, last: Steps) -> list[tuple[int, Steps, Steps]]:
    """What an operation at samples first..last reads: (child, first, last), before any clipping to the trace."""
    if isinstance(op, Extreme):
        return [(child, first + lo, last + hi) for child, lo, hi in op.parts]
    if isinstance(op, Chain) and op.past:
        return [(op.right, first - op.hi, last - op.lo), (op.left, first - op.hi + 1, last)]
    if isinstance(op, Chain):
        return [(op.right, first + op.lo, last + op.hi), (op.left, first, last + op.hi - 1)]
    return []


# ---- running a program over whole traces -----------------------------------------

A = TypeVar("A")
Made = TypeVar("Made")


class Algebra(ABC, Generic[A]):
    """Arrays over time: leaves, and max and min of them. The last axis is time."""

    @abstractmethod
    def leaf(self, leaf: Leaf, first: int, last: int) -> A:
        """Values of a predicate at samples first..last."""

    @abstractmethod
    def fill(self, top: bool, count: int) -> A:
        """`count` samples of plus or minus infinity."""

    @abstractmethod
    def cut(self, x: A, start: int, stop: int) -> A:
        """Samples start..stop - 1, as in slicing."""

    @abstractmethod
    def join(self, pieces: Sequence[A]) -> A:
        """Pieces one after the other in time."""

    @abstractmethod
    def flip(self, x: A) -> A:
        """Time reversed."""

    @abstractmethod
    def pick(self, x: A, y: A, largest: bool) -> A:
        """Elementwise max or min."""

    @abstractmethod
    def reduce(self, x: A, largest: bool) -> A:
        """Max or min over all of time: one sample."""

    @abstractmethod
    def length(self, x: A) -> int:
        """Number of samples."""

    def window(self, x: A, width: int, largest: bool) -> A:
        """Max or min over every window of `width` samples: ``length - width + 1`` samples.

        Doubling: windows of 1, 2, 4, ... and last two overlapping ones.
        """
        done = 1
        while done < width:
            shift = min(done, width - done)
            count = self.length(x)
            x = self.pick(self.cut(x, 0, count - shift), self.cut(x, shift, count), largest)
            done += shift
        return x

    def extreme(self, windows: Sequence[tuple[A, int]], largest: bool) -> A:
        """Max or min over several windows (x, width) that start together: ``length(x) - width + 1`` samples of each."""
        found = [self.window(x, width, largest) for x, width in windows]
        return functools.reduce(lambda x, y: self.pick(x, y, largest), found)

    def until(self, right: A, left: A, lo: int, hi: int, largest: bool) -> A:
        """Until (or its dual) over [lo, hi] at n starts.

        Args:
            right: Samples ``lo .. n + hi - 1``, counted from the first start.
            left: Samples ``0 .. n + hi - 2``.
        """
        count = self.length(right) - (hi - lo)
        # One more on the left makes both equally long; it is never looked at.
        held = self.join([self.cut(left, lo, count + hi - 1), self.fill(largest, 1)])
        result = self._chain(right, held, hi - lo + 1, largest)
        if lo:
            before = self.window(self.cut(left, 0, count + lo - 1), lo, not largest)
            result = self.pick(before, result, not largest)
        return result

    def _chain(self, right: A, left: A, width: int, largest: bool) -> A:
        """For every start t the max over i < width of the min of right[t + i] and left[t .. t + i - 1] (or its dual).

        `right` and `left` have equal length; the result is ``width - 1`` shorter. Segments are joined as
        (r, l) then (r', l') = (max(r, min(l, r')), min(l, l')), in lengths of powers of two.
        """
        whole: tuple[A, A] | None = None
        offset, size = 0, 1
        while True:
            if width & size:
                if whole is None:
                    whole = (right, left)
                else:
                    count = min(self.length(whole[0]), self.length(right) - offset)
                    whole = self._follow(whole, (right, left), offset, count, largest)
                offset += size
                if offset == width:
                    break
            right, left = self._follow((right, left), (right, left), size, self.length(right) - size, largest)
            size *= 2
        return whole[0]

    def _follow(self, a: tuple[A, A], b: tuple[A, A], shift: int, count: int, largest: bool) -> tuple[A, A]:
        right, left = self.cut(a[0], 0, count), self.cut(a[1], 0, count)
        right2, left2 = self.cut(b[0], shift, shift + count), self.cut(b[1], shift, shift + count)
        return (
            self.pick(right, self.pick(left, right2, not largest), largest),
            self.pick(left, left2, not largest),
        )


@dataclass(frozen=True)
class Plan:
    """A program with the samples each operation is needed at, for traces of `samples` samples.

    Attributes:
        ops: The operations, children first.
        spans: First and last sample needed of each; None where none is.
        samples: Length of the trace, T.
    """

    ops: tuple[Op, ...]
    spans: tuple[tuple[int, int] | None, ...]
    samples: int
    _derived: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def derived(self, name: str, make: Callable[[Plan], Made]) -> Made:
        """What somebody makes of the plan, made once and kept with it."""
        if name not in self._derived:
            self._derived[name] = make(self)
        return self._derived[name]

    def leaves(self) -> list[tuple[Leaf, int, int]]:
        """The leaves needed, with first and last sample."""
        return [
            (op, *span)
            for op, span in zip(self.ops, self.spans, strict=True)
            if isinstance(op, Leaf) and span is not None
        ]

    def run(self, algebra: Algebra[A]) -> A:
        """Value of the root over its span."""
        values: list[Any] = [None] * len(self.ops)
        for index, (op, span) in enumerate(zip(self.ops, self.spans, strict=True)):
            if span is None:
                continue
            first, last = span
            if isinstance(op, Leaf):
                values[index] = algebra.leaf(op, first, last)
            elif isinstance(op, Limit):
                values[index] = algebra.fill(op.top, last - first + 1)
            elif isinstance(op, Extreme) and first == last:
                values[index] = self._reduce(algebra, values, op, first)
            elif isinstance(op, Extreme):
                values[index] = self._windows(algebra, values, op, first, last)
            else:
                values[index] = self._chain(algebra, values, op, first, last)
        return values[-1]

    def _read(self, algebra: Algebra[A], values: list[A], child: int, first: int, last: int, top: bool) -> A:
        """Child at samples first..last, infinity (`top` or not) where the trace has none."""
        low, high = max(first, 0), min(last, self.samples - 1)
        if low > high:
            return algebra.fill(top, last - first + 1)
        start = self.spans[child][0]  # type: ignore[index]
        pieces = [algebra.cut(values[child], low - start, high + 1 - start)]
        if first < low:
            pieces.insert(0, algebra.fill(top, low - first))
        if high < last:
            pieces.append(algebra.fill(top, last - high))
        return algebra.join(pieces) if len(pieces) > 1 else pieces[0]

    def _reduce(self, algebra: Algebra[A], values: list[A], op: Extreme, at: int) -> A:
        pieces = []
        for child, lo, hi in op.parts:
            first, last = max(0, at + lo), min(self.samples - 1, at + hi)
            if first <= last:
                pieces.append(self._read(algebra, values, child, int(first), int(last), not op.largest))
        if not pieces:
            return algebra.fill(not op.largest, 1)
        whole = algebra.join(pieces) if len(pieces) > 1 else pieces[0]
        return algebra.reduce(whole, op.largest) if algebra.length(whole) > 1 else whole

    def _windows(self, algebra: Algebra[A], values: list[A], op: Extreme, first: int, last: int) -> A:
        windows = []
        for child, lo, hi in op.parts:
            lo, hi = int(max(lo, -last)), int(min(hi, self.samples - 1 - first))
            if lo <= hi:
                read = self._read(algebra, values, child, first + lo, last + hi, not op.largest)
                windows.append((read, hi - lo + 1))
        return algebra.extreme(windows, op.largest) if windows else algebra.fill(not op.largest, last - first + 1)

    def _chain(self, algebra: Algebra[A], values: list[A], op: Chain, first: int, last: int) -> A:
        count = last - first + 1
        reach = last if op.past else self.samples - 1 - first
        if op.lo > reach:
            return algebra.fill(not op.largest, count)
        lo, hi = int(op.lo), int(min(op.hi, reach))
        if op.past:
            right = algebra.flip(self._read(algebra, values, op.right, first - hi, last - lo, not op.largest))
            left = algebra.flip(self._read(algebra, values, op.left, first - hi + 1, last, op.largest))
        else:
            right = self._read(algebra, values, op.right, first + lo, last + hi, not op.largest)
            left = self._read(algebra, values, op.left, first, last + hi - 1, op.largest)
        result = algebra.until(right, left, lo, hi, op.largest)
        return algebra.flip(result) if op.past else result


def plan(formula: Formula, dt: float, samples: int, whole: bool) -> Plan:
    """The plan for traces of `samples` samples, at every sample (`whole`) or at sample 0 alone; made once.

    Raises:
        SpecError: As `lower`, or the trace is empty.
    """
    key = (dt, samples, whole)
    cached = formula._cache.get(key)
    if cached is None:
        if samples < 1:
            raise SpecError("signals hold no samples; a robustness needs at least one")
        if len(formula._cache) > _MOST_PLANS:
            formula._cache.clear()
        cached = formula._cache[key] = _plan(lower(formula, dt), samples, whole)
    return cached


def _plan(ops: tuple[Op, ...], samples: int, whole: bool) -> Plan:
    spans: list[tuple[int, int] | None] = [None] * len(ops)
    spans[-1] = (0, samples - 1) if whole else (0, 0)
    for index in range(len(ops) - 1, -1, -1):
        span = spans[index]
        if span is None:
            continue
        op = ops[index]
        wanted = reads(op, *span)
        for child, first, last in wanted:
            low, high = max(0, first), min(samples - 1, last)
            if low <= high:
                old = spans[child]
                spans[child] = (int(low), int(high)) if old is None else (min(old[0], int(low)), max(old[1], int(high)))
    return Plan(ops, tuple(spans), samples)


def check_shapes(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, int]:
    """Batch and time common to the channels of a formula, from their shapes.

    Raises:
        SpecError: A channel is neither (time,) nor (batch, time), or differs from the others.
    """
    batch, samples, first = 1, -1, ""
    for name, shape in shapes.items():
        if len(shape) not in (1, 2):
            raise SpecError(f"signal {name!r} has shape {shape}, expected (time,) or (batch, time)")
        if samples >= 0 and shape[-1] != samples:
            raise SpecError(f"signal {name!r} has {shape[-1]} samples, signal {first!r} has {samples}")
        rows = shape[0] if len(shape) == 2 else 1
        if rows != 1 and batch not in (1, rows):
            raise SpecError(f"signal {name!r} has a batch of {rows}, others have {batch}")
        batch, samples, first = max(batch, rows) if rows else 0, shape[-1], first or name
    return batch, samples
