"""Exact robustness on the CPU, compiled by numba: a plan becomes a table of instructions, run trace by trace.

All intermediate values of a trace stay in a buffer that fits into the processor's first caches, and every
instruction is a loop over contiguous samples that the compiler turns into vector instructions. So a formula costs
O(T log w) whatever the length w of its windows, and memory O(T) besides input and result. The table is data: no
formula is ever compiled by itself, only the two interpreters below are, once per machine (numba caches them).

The same numbers come out as in `tasks.stl.robustness`, ties included; that is where torch's own path lives.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from robo.core.jit import jit
from tasks.stl.program import Algebra, Leaf, Plan

LOAD, FILL, COPY, FLIP, MAX, MIN, REDUCE_MAX, REDUCE_MIN, STORE = range(9)
_LINE = 16
"""Buffers start at multiples of this many samples: cache lines of float32."""
_APART = 9 * _LINE
"""Room behind every buffer. Traces often have some 1,000 samples; two buffers 4 KiB apart would stall each other, for
processors first compare the low 12 bits of the addresses of loads and stores under way."""


# ---- a plan as a table -------------------------------------------------------------


class _Ref(NamedTuple):
    """Samples start..start + count - 1 of a buffer, or as many infinities (`_TOP`, `_BOTTOM`)."""

    buffer: int
    start: int
    count: int


_BOTTOM, _TOP = -2, -1


@dataclass(frozen=True)
class Table:
    """A plan, ready to run.

    Attributes:
        rows: (n, 5) int64: instruction, target, count, first and second operand (offsets into the scratch buffer;
            LOAD: column of the bank; FILL: 1 for plus, 0 for minus infinity).
        scratch: Samples of scratch per trace.
        columns: Samples of the bank per trace: those of all leaves, side by side.
        samples: Samples of the result per trace.
    """

    rows: np.ndarray
    scratch: int
    columns: int
    samples: int


class _Recorder(Algebra[_Ref]):
    """Writes down what a plan does, in buffers of which every sample is written once."""

    def __init__(self) -> None:
        # Instruction, target, first operand, second operand.
        self.code: list[tuple[int, _Ref, _Ref | int, _Ref | int]] = []
        self.sizes: list[int] = []
        self.columns = 0

    def emit(self, op: int, count: int, x: _Ref | int, y: _Ref | int = 0) -> _Ref:
        x, y = (self.solid(ref) if isinstance(ref, _Ref) else ref for ref in (x, y))
        self.sizes.append(count)
        target = _Ref(len(self.sizes) - 1, 0, count)
        self.code.append((op, target, x, y))
        return target

    def solid(self, x: _Ref) -> _Ref:
        """Infinities in a buffer, where they are needed in one; anything else as it is."""
        return self.join([x]) if x.buffer < 0 else x

    def leaf(self, leaf: Leaf, first: int, last: int) -> _Ref:
        count = last - first + 1
        self.columns += count
        return self.emit(LOAD, count, self.columns - count)

    def fill(self, top: bool, count: int) -> _Ref:
        return _Ref(_TOP if top else _BOTTOM, 0, count)

    def cut(self, x: _Ref, start: int, stop: int) -> _Ref:
        return _Ref(x.buffer, x.start + start, stop - start)

    def join(self, pieces: Sequence[_Ref]) -> _Ref:
        first, *rest = pieces
        if first.buffer >= 0 and rest and first.start + first.count == self.sizes[first.buffer]:
            buffer, start = first.buffer, first.start  # nothing lies behind it yet: the rest goes there
        else:
            self.sizes.append(0)
            buffer, start, rest = len(self.sizes) - 1, 0, list(pieces)
        for piece in rest:
            target = _Ref(buffer, self.sizes[buffer], piece.count)
            self.sizes[buffer] += piece.count
            self.code.append(
                (FILL, target, int(piece.buffer == _TOP), 0) if piece.buffer < 0 else (COPY, target, piece, 0)
            )
        return _Ref(buffer, start, self.sizes[buffer] - start)

    def flip(self, x: _Ref) -> _Ref:
        return self.emit(FLIP, x.count, x)

    def pick(self, x: _Ref, y: _Ref, largest: bool) -> _Ref:
        return self.emit(MAX if largest else MIN, x.count, x, y)

    def reduce(self, x: _Ref, largest: bool) -> _Ref:
        return self.emit(REDUCE_MAX if largest else REDUCE_MIN, 1, x, x.count)

    def length(self, x: _Ref) -> int:
        return x.count


def table(made: Plan) -> Table:
    """The table of a plan."""
    recorder = _Recorder()
    root = recorder.solid(made.run(recorder))
    recorder.code.append((STORE, root, root, 0))
    offsets, scratch = _place(recorder)

    def place(operand: _Ref | int) -> int:
        return offsets[operand.buffer] + operand.start if isinstance(operand, _Ref) else operand

    rows = [(op, place(target), target.count, place(x), place(y)) for op, target, x, y in recorder.code]
    return Table(np.array(rows, np.int64), scratch, recorder.columns, root.count)


def _place(recorder: _Recorder) -> tuple[list[int], int]:
    """Where each buffer lies in the scratch, so that those in use never overlap; and how long that is."""
    last = [0] * len(recorder.sizes)
    for step, (_, *operands) in enumerate(recorder.code):
        for ref in operands:
            if isinstance(ref, _Ref):
                last[ref.buffer] = step
    offsets = [-1] * len(recorder.sizes)
    free: list[tuple[int, int]] = []  # (offset, size)
    end = 0
    for step, (_, (target, _, _), _, _) in enumerate(recorder.code):
        if offsets[target] < 0:
            size = _room(recorder.sizes[target])
            # The smallest gap that is large enough; a step's operands are freed after it.
            gap = min((gap for gap in free if gap[1] >= size), key=lambda gap: gap[1], default=None)
            if gap is None:
                offsets[target], end = end, end + size
            else:
                free.remove(gap)
                offsets[target] = gap[0]
                if gap[1] > size:
                    free.append((gap[0] + size, gap[1] - size))
        for buffer, done in enumerate(last):
            if done == step and offsets[buffer] >= 0:
                free = _with(free, offsets[buffer], _room(recorder.sizes[buffer]))
    return offsets, end


def _room(samples: int) -> int:
    """What a buffer takes of the scratch."""
    return -(-samples // _LINE) * _LINE + _APART


def _with(free: list[tuple[int, int]], offset: int, size: int) -> list[tuple[int, int]]:
    """Free gaps and one more, neighbours joined."""
    joined: list[tuple[int, int]] = []
    for start, length in sorted([*free, (offset, size)]):
        if joined and sum(joined[-1]) == start:
            joined[-1] = (joined[-1][0], joined[-1][1] + length)
        else:
            joined.append((start, length))
    return joined


# ---- running it ------------------------------------------------------------------

# The loops are written so that LLVM vectorises them: no branches, and the winner's column is chosen by bit masks, for
# a choice between two loads would become a gather. A NaN on either side wins, as in torch.maximum.


def _values(rows, bank, out, scratch):
    """Values alone. rows (n, 5), bank (B, columns), out (B, samples), scratch (size,)."""
    for trace in range(bank.shape[0]):
        source, result = bank[trace], out[trace]
        for k in range(rows.shape[0]):
            op, into, n, first, second = rows[k, 0], rows[k, 1], rows[k, 2], rows[k, 3], rows[k, 4]
            if op == MAX:
                x, y, z = scratch[first : first + n], scratch[second : second + n], scratch[into : into + n]
                for i in range(n):
                    z[i] = x[i] if x[i] >= y[i] else (x[i] if x[i] != x[i] else y[i])
            elif op == MIN:
                x, y, z = scratch[first : first + n], scratch[second : second + n], scratch[into : into + n]
                for i in range(n):
                    z[i] = x[i] if x[i] <= y[i] else (x[i] if x[i] != x[i] else y[i])
            elif op == LOAD:
                x, z = source[first : first + n], scratch[into : into + n]
                for i in range(n):
                    z[i] = x[i]
            elif op == STORE:
                x = scratch[first : first + n]
                for i in range(n):
                    result[i] = x[i]
            elif op == COPY:
                x, z = scratch[first : first + n], scratch[into : into + n]
                for i in range(n):
                    z[i] = x[i]
            elif op == FLIP:
                x, z = scratch[first : first + n], scratch[into : into + n]
                for i in range(n):
                    z[i] = x[n - 1 - i]
            elif op == FILL:
                z = scratch[into : into + n]
                z[:] = np.inf if first == 1 else -np.inf
            else:
                x = scratch[first : first + second]
                best = x[0]
                for i in range(1, second):
                    if x[i] != x[i] or ((x[i] > best) if op == REDUCE_MAX else (x[i] < best)):
                        best = x[i]
                scratch[into] = best


def _tracked(rows, bank, out, out_column, scratch, column):
    """Values, and the column of the bank each comes from: out_column (B, samples), column (size,), int32."""
    nowhere = bank.shape[1]
    for trace in range(bank.shape[0]):
        source, result, result_column = bank[trace], out[trace], out_column[trace]
        for k in range(rows.shape[0]):
            op, into, n, first, second = rows[k, 0], rows[k, 1], rows[k, 2], rows[k, 3], rows[k, 4]
            if op == MAX:
                x, y, z = scratch[first : first + n], scratch[second : second + n], scratch[into : into + n]
                a, b, c = column[first : first + n], column[second : second + n], column[into : into + n]
                for i in range(n):
                    left, right = a[i], b[i]
                    mask = np.int32(0) - np.int32(x[i] >= y[i])
                    z[i] = x[i] if x[i] >= y[i] else (x[i] if x[i] != x[i] else y[i])
                    c[i] = right ^ ((left ^ right) & mask)
            elif op == MIN:
                x, y, z = scratch[first : first + n], scratch[second : second + n], scratch[into : into + n]
                a, b, c = column[first : first + n], column[second : second + n], column[into : into + n]
                for i in range(n):
                    left, right = a[i], b[i]
                    mask = np.int32(0) - np.int32(x[i] <= y[i])
                    z[i] = x[i] if x[i] <= y[i] else (x[i] if x[i] != x[i] else y[i])
                    c[i] = right ^ ((left ^ right) & mask)
            elif op == LOAD:
                x, z, c = source[first : first + n], scratch[into : into + n], column[into : into + n]
                for i in range(n):
                    z[i] = x[i]
                    c[i] = first + i
            elif op == STORE:
                x, a = scratch[first : first + n], column[first : first + n]
                for i in range(n):
                    result[i] = x[i]
                    result_column[i] = a[i]
            elif op == COPY:
                x, z = scratch[first : first + n], scratch[into : into + n]
                a, c = column[first : first + n], column[into : into + n]
                for i in range(n):
                    z[i] = x[i]
                    c[i] = a[i]
            elif op == FLIP:
                x, z = scratch[first : first + n], scratch[into : into + n]
                a, c = column[first : first + n], column[into : into + n]
                for i in range(n):
                    z[i] = x[n - 1 - i]
                    c[i] = a[n - 1 - i]
            elif op == FILL:
                # No column of the bank: what flows there is dropped.
                scratch[into : into + n] = np.inf if first == 1 else -np.inf
                column[into : into + n] = nowhere
            else:
                x, a = scratch[first : first + second], column[first : first + second]
                best, where = x[0], a[0]
                for i in range(1, second):
                    if best == best and (x[i] != x[i] or ((x[i] > best) if op == REDUCE_MAX else (x[i] < best))):
                        best, where = x[i], a[i]
                scratch[into] = best
                column[into] = where


def _scatter(grad, column, bank):
    """Add grad (B, n) to the columns (B, n) of bank (B, columns) they came from; column `columns` is none.

    Neighbouring samples mostly come from the same column, so sums are kept in a register.
    """
    nowhere = bank.shape[1]
    for trace in range(grad.shape[0]):
        g, c, into = grad[trace], column[trace], bank[trace]
        into[:] = 0
        total, last = g[0], c[0]
        for i in range(1, g.shape[0]):
            if c[i] == last:
                total += g[i]
            else:
                if last != nowhere:
                    into[last] += total
                total, last = g[i], c[i]
        if last != nowhere:
            into[last] += total


run_values: Any = jit(_values)
run_tracked: Any = jit(_tracked)
run_scatter: Any = jit(_scatter)
