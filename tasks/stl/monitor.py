"""Online monitoring with numpy alone: what the robustness at time 0 can still become, after every sample.

The two ends of the interval are the robustness of two traces, one whose unknown samples are all minus infinity
and one where they are all plus infinity, because robustness is monotone in every leaf of a lowered program. Each
end is kept up to date on its own: every operation holds its values at the times that can still matter, and a new
sample changes only the few whose windows hold it.

 - Where the unknown value is neutral (a max whose unknown samples are minus infinity), new values are simply folded in.
 - Otherwise (a min there), a value leaves infinity only when its whole window is known, and is then computed once.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np

from robo.core.errors import NonFiniteError, SpecError
from tasks.stl.exact import Values
from tasks.stl.program import Chain, Extreme, Leaf, Limit, Op, Steps, children, lower, merge, prune, reads
from tasks.stl.syntax import SCALAR_LIBRARY, Formula, Predicate, channel, margin

_MOST_VALUES = 5_000_000

Range: TypeAlias = tuple[int, int]
"""First and last sample."""


class Interval(NamedTuple):
    """Between what the robustness at time 0 will end up; ``lo == hi`` once decided."""

    lo: float
    hi: float


class Monitor:
    """Feeds on one sample after the other; made by `Formula.monitor`.

    `interval` holds what is known so far, `predicates` the predicates' latest values.

    Args:
        formula: What is monitored.
        dt: Distance of samples [s].

    Raises:
        SpecError: An interval is no multiple of dt, or the formula needs too much memory: an operator without end
            below another temporal one, or windows of millions of samples.
    """

    def __init__(self, formula: Formula, dt: float) -> None:
        self.formula, self.dt = formula, dt
        ops = lower(formula, dt)
        self._ends = (_End(formula, ops, upper=False), _End(formula, ops, upper=True))
        self._texts = tuple(str(predicate) for predicate in formula.predicates)
        self._latest: list[float] = []
        self._samples = 0
        self.interval = Interval(self._ends[0].value, self._ends[1].value)

    def update(self, sample: Mapping[str, float]) -> Interval:
        """Take in the next sample and return what is known of the robustness at time 0.

        Args:
            sample: Numbers by signal name, arrays (components,) for vector signals.

        Raises:
            NonFiniteError: A signal is NaN, or a predicate has no value; the monitor is as before.
            SpecError: A signal of the formula is missing.
        """
        values = {}
        for variable in self.formula.channels:
            value = channel(variable, sample)
            if getattr(value, "ndim", 0):
                raise SpecError(f"signal {variable.channel!r} of a sample must be one number, not {value!r}")
            values[variable.channel] = value = float(value)
            if value != value:
                raise NonFiniteError(f"signal {variable.channel!r} is NaN at sample {self._samples}")
        latest = [self._margin(predicate, values) for predicate in self.formula.predicates]
        self._latest = latest
        if self.interval.lo != self.interval.hi:
            for end in self._ends:
                end.update(self._samples, latest)
            self.interval = Interval(self._ends[0].value, self._ends[1].value)
        self._samples += 1
        return self.interval

    def predicates(self) -> dict[str, float]:
        """Robustness of every predicate at the latest sample, by its text; empty before the first."""
        return dict(zip(self._texts, self._latest, strict=False))

    def _margin(self, predicate: Predicate, values: Mapping[str, float]) -> float:
        try:
            value = margin(predicate, values, SCALAR_LIBRARY)
        except (ArithmeticError, ValueError) as error:
            raise NonFiniteError(f"{str(predicate)!r} has no value at sample {self._samples}: {error}") from error
        if isinstance(value, complex) or value != value:
            raise NonFiniteError(f"{str(predicate)!r} has no value at sample {self._samples}")
        return value


# ---- one end of the interval -----------------------------------------------------


@dataclass(frozen=True)
class _Prefix:
    """Max or min of a child over all samples up to now."""

    largest: bool
    child: int


@dataclass(frozen=True)
class _Scan:
    """Since without interval: value(t) = max(right(t), min(left(t), value(t - 1))), or its dual."""

    largest: bool
    left: int
    right: int


_Op: TypeAlias = Op | _Prefix | _Scan


def _children(op: _Op) -> tuple[int, ...]:
    if isinstance(op, _Prefix):
        return (op.child,)
    if isinstance(op, _Scan):
        return (op.right, op.left)
    return children(op)


def _reads(op: _Op, first: Steps, last: Steps) -> list[tuple[int, Steps, Steps]]:
    if isinstance(op, _Prefix | _Scan):
        return [(child, first, last) for child in _children(op)]
    return reads(op, first, last)


class _Rewrite:
    """A program for one end: windows that can never be known whole become infinity, endless pasts recursions."""

    def __init__(self, ops: Sequence[Op], upper: bool) -> None:
        self.ops: list[_Op] = []
        self.ids: dict[_Op, int] = {}
        self.upper = upper
        new: list[int] = []
        for op in ops:
            new.append(self.rewrite(op, new))
        self.pruned = prune(self.ops, new[-1], _children)

    def add(self, op: _Op) -> int:
        if op not in self.ids:
            self.ids[op] = len(self.ops)
            self.ops.append(op)
        return self.ids[op]

    def rewrite(self, op: Op, new: Sequence[int]) -> int:
        if isinstance(op, Extreme):
            parts = []
            for child, lo, hi in op.parts:
                if hi == math.inf and op.largest == self.upper:
                    return self.add(Limit(self.upper))
                if lo == -math.inf:
                    parts.append((self.add(_Prefix(op.largest, new[child])), hi, hi))
                else:
                    parts.append((new[child], lo, hi))
            return self.extreme(op.largest, parts)
        if isinstance(op, Chain):
            left, right = new[op.left], new[op.right]
            if op.past and op.hi == math.inf:
                # The left side over the last `lo` samples, and a since without interval that ended `lo` samples ago.
                since = self.extreme(op.largest, [(self.add(_Scan(op.largest, left, right)), -op.lo, -op.lo)])
                recent = [(left, 1 - op.lo, 0)] if op.lo else []
                return self.extreme(not op.largest, [*recent, (since, 0, 0)])
            return self.add(Chain(op.largest, left, right, op.lo, op.hi, op.past))
        return self.add(op)

    def extreme(self, largest: bool, parts: Iterable[tuple[int, Steps, Steps]]) -> int:
        parts = merge(self.ops, largest, list(parts))
        for child, _, hi in parts:
            if self.ops[child] == Limit(largest) and hi >= 0:
                return self.add(Limit(largest))
        if not parts:
            return self.add(Limit(not largest))
        if len(parts) == 1 and parts[0][1:] == (0, 0):
            return parts[0][0]
        return self.add(Extreme(largest, tuple(parts)))


class _Track:
    """Values of one operation at samples ``base .. end - 1``; a sliding one forgets what is no longer needed."""

    def __init__(self, first: int, size: int) -> None:
        self.base = self.end = first
        self.known = first  # samples from here on hold what they held before any sample came
        self.data = np.empty(size)

    def view(self, first: int, last: int) -> np.ndarray:
        return self.data[first - self.base : last + 1 - self.base]

    def append(self, values: np.ndarray, keep_from: int) -> None:
        """Add values at the end, dropping those before sample `keep_from` when room is needed."""
        used = self.end - self.base
        if used + len(values) > len(self.data):
            drop = min(max(keep_from - self.base, 0), used)
            self.data[: used - drop] = self.data[drop:used].copy()
            self.base += drop
            used -= drop
        self.data[used : used + len(values)] = values
        self.end += len(values)


class _End:
    """One end of the interval: the program's values when all unknown samples are minus (or, `upper`, plus) infinity."""

    def __init__(self, formula: Formula, ops: Sequence[Op], upper: bool) -> None:
        self.formula, self.upper = formula, upper
        self.unknown = math.inf if upper else -math.inf
        self.ops: tuple[_Op, ...] = _Rewrite(ops, upper).pruned
        count = len(self.ops)
        order = {predicate: slot for slot, predicate in enumerate(formula.predicates)}
        self.slots = [order[op.predicate] if isinstance(op, Leaf) else -1 for op in self.ops]
        self.algebra = Values(1)
        self._measure()
        capacities = [self._capacity(i) for i in range(count)]
        if sum(capacities) > _MOST_VALUES:
            raise SpecError(
                f"cannot monitor {str(formula)[:80]!r}: it needs {sum(capacities)} values in memory, at most "
                f"{_MOST_VALUES} are kept; shorten its intervals or raise dt"
            )
        self.tracks = [_Track(span[0], size) for span, size in zip(self.spans, capacities, strict=True)]
        self.endless = {
            i: _Endless(op, self.spans[i][0], self.unknown)
            for i, op in enumerate(self.ops)
            if isinstance(op, Chain) and op.hi == math.inf
        }
        self.under_way = {
            i: _UnderWay(op, upper, track)
            for i, (op, track) in enumerate(zip(self.ops, self.tracks, strict=True))
            if isinstance(op, Chain) and not op.past and op.hi < math.inf and self.instant(op.left, op.right)
        }
        for i in range(count):
            self._extend(i, 0)
            self.tracks[i].known = self.tracks[i].base

    @property
    def value(self) -> float:
        """Value of the root at sample 0."""
        return float(self.tracks[-1].data[0])

    def instant(self, *ops: int) -> bool:
        """Whether operations depend on one sample only, their own."""
        return all(
            isinstance(op, Leaf)
            or (isinstance(op, Extreme) and all(lo == hi == 0 and self.instant(child) for child, lo, hi in op.parts))
            for op in (self.ops[i] for i in ops)
        )

    # What each operation needs: static, from the program alone.

    def _measure(self) -> None:
        count = len(self.ops)
        # Samples ahead that a value depends on; samples ahead whose value depends on now; whether nothing but
        # infinity is there before a sample comes.
        self.ahead: list[Steps] = [0] * count
        self.after: list[Steps] = [0] * count
        self.plain = [True] * count
        # Samples behind now from which a value changes no more. Endless windows are folded up as values come; only
        # what is below them is looked back at.
        settles = [0] * count
        for i, op in enumerate(self.ops):
            if isinstance(op, Limit):
                self.plain[i] = op.top == self.upper
            for child, first, last in _reads(op, 0, 0):
                self.ahead[i] = max(self.ahead[i], self.ahead[child] + max(last, 0))
                self.after[i] = max(self.after[i], self.after[child] - min(first, 0))
                # A value that reads the past may be decided, or empty, before its own sample comes.
                self.plain[i] = self.plain[i] and self.plain[child] and first >= 0 and isinstance(op, Extreme | Chain)
                settles[i] = max(settles[i], settles[child] + (1 if last == math.inf else int(max(last, 0))))
        self.spans: list[tuple[int, Steps]] = [(-1, -1)] * count
        self.spans[-1] = (0, 0)
        self.back: list[int] = [0] * count
        self.front: list[int] = [0] * count
        for i in range(count - 1, -1, -1):
            first, last = self.spans[i]
            op = self.ops[i]
            endless = any(hi == math.inf for _, _, hi in _reads(op, 0, 0))
            if endless and (last == math.inf or (isinstance(op, Chain) and first != last)):
                raise SpecError(
                    f"cannot monitor {str(self.formula)[:80]!r} in bounded memory: an operator without end stands "
                    "below another temporal operator; give the inner one an interval"
                )
            self.back[i] = max(self.back[i], settles[i] + 2)
            if isinstance(op, _Prefix | _Scan):
                first = 0  # a recursion starts at the start
                self.spans[i] = (0, last)
            for child, lo, hi in _reads(op, first, last):
                low, high = max(lo, 0), max(hi, 0)
                old = self.spans[child]
                self.spans[child] = (int(low), high) if old[0] < 0 else (min(old[0], int(low)), max(old[1], high))
            for child, lo, hi in _reads(op, 0, 0):
                self.back[child] = max(self.back[child], self.back[i] - int(min(lo, 0)))
                # How far ahead of now a child has to have values at all.
                ahead = (
                    self.after[child] if hi == math.inf else max(hi, 0) + (self.front[i] if last == math.inf else last)
                )
                self.front[child] = max(self.front[child], int(ahead))

    def _capacity(self, i: int) -> int:
        first, last = self.spans[i]
        needed = self.back[i] + self.front[i] + 2
        return 2 * needed + 64 if last == math.inf else int(last) - first + 1

    # Updating.

    def update(self, now: int, latest: Sequence[float]) -> None:
        """Take in the values of the formula's predicates at sample `now`."""
        changed: list[Range | None] = [None] * len(self.ops)
        for i, op in enumerate(self.ops):
            track = self.tracks[i]
            grown = self._extend(i, now) if self.spans[i][1] == math.inf else None
            if isinstance(op, Leaf):
                if track.base <= now < track.end:
                    value = latest[self.slots[i]]
                    track.data[now - track.base] = -value if op.negated else value
                    changed[i] = (now, now)
            elif isinstance(op, Extreme):
                changed[i] = self._update_extreme(i, op, changed)
            elif isinstance(op, Chain) and i in self.endless:
                changed[i] = self._update_endless(i, op, now)
            elif isinstance(op, Chain) and i in self.under_way:
                changed[i] = self.under_way[i].update(track, self.tracks[op.left], self.tracks[op.right], now)
            elif not isinstance(op, Limit):
                touched = self._touched(op, changed, track)
                if touched is not None:
                    if isinstance(op, _Prefix | _Scan):
                        touched = (touched[0], track.end - 1)
                    track.view(*touched)[:] = self._compute(i, *touched)
                changed[i] = touched
            if changed[i] is not None:
                track.known = max(track.known, changed[i][1] + 1)  # type: ignore[index]
            if grown is not None:
                old = changed[i]
                changed[i] = grown if old is None else (min(old[0], grown[0]), max(old[1], grown[1]))

    def _touched(self, op: _Op, changed: Sequence[Range | None], track: _Track) -> Range | None:
        """Samples of an operation that read a changed sample of a child."""
        first, last = track.end, track.base - 1
        for child, lo, hi in _reads(op, 0, 0):
            span = changed[child]
            if span is not None:
                first = min(first, span[0] - hi)
                last = max(last, span[1] - lo)
        first, last = max(first, track.base), min(last, track.end - 1)
        return (int(first), int(last)) if first <= last else None

    def _update_extreme(self, i: int, op: Extreme, changed: Sequence[Range | None]) -> Range | None:
        track = self.tracks[i]
        if op.largest != self.upper:
            return self._fold(op, track, changed)
        touched = self._touched(op, changed, track)
        if touched is None:
            return None
        first, last = touched
        for child, _, hi in op.parts:
            if self.plain[child]:
                # One unknown sample in the window keeps the value unknown.
                last = min(last, self.tracks[child].known - 1 - int(hi))
        if first > last:
            return None
        track.view(first, last)[:] = self._compute(i, first, last)
        return first, last

    def _fold(self, op: Extreme, track: _Track, changed: Sequence[Range | None]) -> Range | None:
        """Fold the changed samples of the children into the values whose windows hold them.

        A few array operations a part, whatever the width: all windows are taken at once by doubling.
        """
        pick = np.maximum if op.largest else np.minimum
        low, high = track.end, track.base - 1
        for child, lo, hi in op.parts:
            span = changed[child]
            if span is None:
                continue
            fresh = self.tracks[child].view(*span)
            if track.end - track.base == 1:
                start, stop = max(span[0], track.base + lo), min(span[1], track.base + hi)
                if start <= stop:
                    held = fresh[int(start) - span[0] : int(stop) + 1 - span[0]]
                    track.data[0] = pick.reduce(held, initial=track.data[0])
                    low = high = track.base
                continue
            first, last = int(max(span[0] - hi, track.base)), int(min(span[1] - lo, track.end - 1))
            if first <= last:
                held = track.view(first, last)
                if span[0] < span[1]:
                    # What each window sees of the changed stretch; nothing, where it reaches beyond. Wider than from
                    # any window to both of its ends it need not be: a window may be endless.
                    lo, hi = int(max(lo, span[0] - last)), int(min(hi, span[1] - first))
                    neutral = -math.inf if op.largest else math.inf
                    reach = np.full(last - first + hi - lo + 1, neutral)
                    start = span[0] - (first + lo)
                    a, b = max(start, 0), min(start + len(fresh), len(reach))
                    reach[a:b] = fresh[a - start : b - start]
                    fresh = self.algebra.window(reach[None], hi - lo + 1, op.largest)[0]
                pick(held, fresh, out=held)
                low, high = min(low, first), max(high, last)
        return (low, high) if low <= high else None

    def _update_endless(self, i: int, op: Chain, now: int) -> Range:
        left, right = self.tracks[op.left], self.tracks[op.right]
        settled = now - int(max(self.ahead[op.left], self.ahead[op.right]))
        self.tracks[i].data[0] = self.endless[i].update(left, right, settled, now)
        return self.spans[i][0], self.spans[i][0]

    # Computing values from the children's.

    def _extend(self, i: int, now: int) -> Range | None:
        """Append the values that are needed by now; returns their samples."""
        track = self.tracks[i]
        last = self.spans[i][1]
        wanted = max(now, self.spans[i][0]) + 1 + self.front[i] if last == math.inf else int(last) + 1
        if wanted <= track.end:
            return None
        first = track.end
        track.append(self._compute(i, first, wanted - 1), now - self.back[i])
        return first, wanted - 1

    def _compute(self, i: int, first: int, last: int) -> np.ndarray:
        op = self.ops[i]
        count = last - first + 1
        if isinstance(op, Leaf):
            return np.full(count, self.unknown)
        if isinstance(op, Limit):
            return np.full(count, math.inf if op.top else -math.inf)
        if isinstance(op, _Prefix):
            return self._prefix(i, op, first, last)
        if isinstance(op, _Scan):
            return self._scan(i, op, first, last)
        if isinstance(op, Chain):
            if i in self.endless:
                return np.full(count, self.unknown)
            return self._chain(op, first, last)
        neutral = -math.inf if op.largest else math.inf
        result = np.full(count, neutral)
        pick = np.maximum if op.largest else np.minimum
        for child, lo, hi in op.parts:
            if hi == math.inf:
                # What is there already; the rest is folded in as it comes, and neutral until then.
                track = self.tracks[child]
                for at in range(first, last + 1):
                    held = track.data[max(at + int(lo) - track.base, 0) : track.end - track.base]
                    result[at - first] = pick.reduce(held, initial=result[at - first])
                continue
            read = self._read(child, first + int(lo), last + int(hi), neutral)
            if count == 1:
                pick(result, read.max() if op.largest else read.min(), out=result)
            else:
                pick(result, self.algebra.window(read[None], int(hi - lo) + 1, op.largest)[0], out=result)
        return result

    def _read(self, child: int, first: int, last: int, neutral: float) -> np.ndarray:
        """Child at samples first..last; `neutral` before the start of time."""
        if first >= 0:
            return self.tracks[child].view(first, last)
        missing = min(-first, last - first + 1)
        known = self.tracks[child].view(0, last) if last >= 0 else np.empty(0)
        return np.concatenate((np.full(missing, neutral), known))

    def _before(self, i: int, first: int, largest: bool) -> float:
        track = self.tracks[i]
        return float(track.data[first - 1 - track.base]) if first > track.base else (-math.inf if largest else math.inf)

    def _prefix(self, i: int, op: _Prefix, first: int, last: int) -> np.ndarray:
        pick = np.maximum if op.largest else np.minimum
        values = np.concatenate(([self._before(i, first, op.largest)], self.tracks[op.child].view(first, last)))
        return pick.accumulate(values)[1:]

    def _scan(self, i: int, op: _Scan, first: int, last: int) -> np.ndarray:
        value = self._before(i, first, op.largest)
        result = []
        left, right = self.tracks[op.left].view(first, last), self.tracks[op.right].view(first, last)
        for holds, reached in zip(left.tolist(), right.tolist(), strict=True):
            value = max(reached, min(holds, value)) if op.largest else min(reached, max(holds, value))
            result.append(value)
        return np.array(result)

    def _chain(self, op: Chain, first: int, last: int) -> np.ndarray:
        lo, hi = int(op.lo), int(op.hi)
        bad = -math.inf if op.largest else math.inf
        if op.past:
            right = self._read(op.right, first - hi, last - lo, bad)[::-1]
            left = self._read(op.left, first - hi + 1, last, -bad)[::-1]
        else:
            right = self._read(op.right, first + lo, last + hi, bad)
            left = self._read(op.left, first, last + hi - 1, -bad)
        result = self.algebra.until(right[None], left[None], lo, hi, op.largest)[0]
        return result[::-1] if op.past else result


class _UnderWay:
    """Until at all starts whose windows hold now, of sides that each depend on one sample only.

    Of every start it keeps the best that is reached already and what the left side has held up to now; a sample costs
    a few array operations.
    """

    def __init__(self, op: Chain, upper: bool, track: _Track) -> None:
        self.lo, self.hi = int(op.lo), int(op.hi)
        self.pick, self.other = (np.maximum, np.minimum) if op.largest else (np.minimum, np.maximum)
        self.neutral = -math.inf if op.largest else math.inf
        # What is unknown may still be reached, as long as the left side holds: so says one end of the interval.
        self.hopes = op.largest == upper
        self.best, self.held = (_Track(track.base, len(track.data)) for _ in range(2))

    def update(self, track: _Track, left: _Track, right: _Track, now: int) -> Range | None:
        """Take in both sides at sample `now`; returns the starts whose values were written into `track`."""
        fresh = track.end - self.best.end
        if fresh:
            self.best.append(np.full(fresh, self.neutral), now - self.hi)
            self.held.append(np.full(fresh, -self.neutral), now - self.hi)
        first, last = max(now - self.hi, track.base), min(now, track.end - 1)
        if first > last:
            return None
        best, held, values = (t.view(first, last) for t in (self.best, self.held, track))
        reached = max(now - self.lo - first + 1, 0)
        if reached and right.base <= now < right.end:
            last_chance = self.other(held[:reached], right.data[now - right.base])
            self.pick(best[:reached], last_chance, out=best[:reached])
        if left.base <= now < left.end:
            self.other(held, left.data[now - left.base], out=held)
        values[:] = self.pick(best, held) if self.hopes else best
        if now - self.hi == first:
            values[0] = best[0]  # its window is over
        return first, last


class _Endless:
    """Until without an end at one sample: everything settled is folded into two numbers."""

    def __init__(self, op: Chain, start: int, unknown: float) -> None:
        self.largest = op.largest
        self.first = start + int(op.lo)
        self.next = start
        self.unknown = unknown
        self.best = -math.inf if op.largest else math.inf
        self.held = -self.best

    def update(self, left: _Track, right: _Track, settled: int, now: int) -> float:
        """Value after sample `now`, when the children's values up to sample `settled` change no more."""
        while self.next <= settled:
            self.best, self.held = self._step(self.best, self.held, left, right, self.next)
            self.next += 1
        best, held = self.best, self.held
        for at in range(self.next, now + 1):
            best, held = self._step(best, held, left, right, at)
        # Whatever comes later is unknown.
        return max(best, min(held, self.unknown)) if self.largest else min(best, max(held, self.unknown))

    def _step(self, best: float, held: float, left: _Track, right: _Track, at: int) -> tuple[float, float]:
        holds = left.data[at - left.base]
        if at >= self.first:
            reached = right.data[at - right.base]
            best = max(best, min(held, reached)) if self.largest else min(best, max(held, reached))
        return best, (min(held, holds) if self.largest else max(held, holds))
