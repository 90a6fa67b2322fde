"""Straight-line programs of scalars, written down by running ordinary code on symbols; run in batches by numba.

A tape is data: two interpreters (values, and gradients by reverse accumulation) are compiled once per machine and run
any tape. Every instruction is a loop over a block of rows, small enough for all values to stay in the caches.
"""

from __future__ import annotations

import functools
import threading
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from policies.symbolic.arrays import BINARY, UNARY, SmoothNamespace, Symbol, Unknown
from robo.core.jit import jit

_TERNARY = ("step", "soft_max", "soft_min")
_CODES = {name: code for code, name in enumerate((*UNARY, *BINARY, *_TERNARY))}
(
    _NEG, _ABS, _SQRT, _SIN, _COS, _TAN, _ASIN, _ACOS, _ATAN, _TANH, _EXP, _LOG, _FLOOR,
    _ADD, _SUB, _MUL, _DIV, _POW, _MAX, _MIN, _GE, _GT, _ATAN2, _STEP, _SOFT_MAX, _SOFT_MIN,
) = range(len(_CODES))  # fmt: skip
ROW = 5
"""Numbers of an instruction while it is written: what, three operands, result."""
BLOCK = 32
"""Rows that go through a tape together."""


class Node(Unknown):
    """A value on a tape.

    Attributes:
        index: Its place among inputs, constants and results, in this order of their making.
    """

    __slots__ = ("index",)

    def __init__(self, trace: Trace, index: int) -> None:
        super().__init__(trace)
        self.index = index


class Trace(SmoothNamespace):
    """Writes a tape: make inputs, calculate with them, then `finish`. Equal calculations are done once."""

    def __init__(self) -> None:
        self._inputs: list[int] = []
        self._constants: dict[float, int] = {}
        self._code = array("i")
        """Instruction, three operands, result; and so on. Flat, for `finish` to read it as one array."""
        self._known: dict[tuple[int, int, int, int], Node] = {}
        self._count = 0

    def inputs(self, *shape: int) -> np.ndarray:
        """New inputs as an array of symbols (numpy, of objects), in the order in which `Tape` takes them."""
        made = np.empty(shape, dtype=object)
        for index in np.ndindex(*shape):
            self._inputs.append(self._count)
            made[index] = self._node()
        return made

    def _node(self) -> Node:
        self._count += 1
        return Node(self, self._count - 1)

    def place(self, x: Symbol) -> int:
        """Where a value or a constant is."""
        if isinstance(x, Node):
            return x.index
        value = float(x)  # type: ignore[arg-type]
        if value not in self._constants:
            self._constants[value] = self._node().index
        return self._constants[value]

    def emit(self, name: str, *args: Symbol) -> Node:
        """A result of up to three operands."""
        places = tuple(self.place(arg) for arg in args)
        a, b, c = (*places, 0, 0)[:3]
        key = (_CODES[name], a, b, c)
        if key not in self._known:
            node = self._known[key] = self._node()
            self._code.extend((*key, node.index))
        return self._known[key]

    def rows(self, name: str, *args: np.ndarray | float) -> np.ndarray:
        """Places (n,) of many results of up to three operands, some of them places (n,). Nothing is looked up."""
        places = (arg if isinstance(arg, np.ndarray) else self.place(arg) for arg in args)
        return self._write(name, *np.broadcast_arrays(*places))

    def chain(self, name: str, x: np.ndarray, *args: float) -> int:
        """Place of one result: an operation of the first two places of `x` (n,), of that and the third, and so on."""
        if len(x) == 1:
            return int(x[0])
        more = [np.full(len(x) - 1, self.place(arg)) for arg in args]  # may write constants, so before the results
        before = np.arange(self._count - 1, self._count + len(x) - 2)
        before[0] = x[0]
        return int(self._write(name, before, x[1:], *more)[-1])

    def _write(self, name: str, *places: np.ndarray) -> np.ndarray:
        made = np.arange(self._count, self._count + len(places[0]), dtype=np.int32)
        code = np.zeros((len(made), ROW), np.int32)
        code[:, 0], code[:, -1] = _CODES[name], made
        for i, operand in enumerate(places, 1):
            code[:, i] = operand
        self._code.frombytes(code.tobytes())
        self._count += len(made)
        return made

    # ---- Namespace -------------------------------------------------------------

    def unary(self, name: str, x: Unknown) -> Symbol:
        """See `Namespace`."""
        return self.emit(name, x)

    def binary(self, name: str, x: Symbol, y: Symbol) -> Symbol:
        """See `Namespace`."""
        return simplified(self.emit, name, x, y)

    def unit_step(self, x: Unknown, gentle: float, sharp: float) -> Symbol:
        """See `Namespace`."""
        return self.emit("step", x, gentle, sharp)

    def soft_extreme(self, x: Symbol, y: Symbol, temperature: float, largest: bool) -> Symbol:
        """See `SmoothNamespace`."""
        return self.emit("soft_max" if largest else "soft_min", x, y, temperature)

    @contextmanager
    def aside(self) -> Iterator[None]:
        """What is written in the block is forgotten after it, tapes that were finished in it are not."""
        code, count, sizes = len(self._code), self._count, (len(self._known), len(self._constants))
        try:
            yield
        finally:
            for known, size in zip((self._known, self._constants), sizes, strict=True):
                while len(known) > size:  # what came last goes first
                    known.popitem()
            del self._code[code:]
            self._count = count

    def finish(self, outputs: Sequence[Symbol], inputs: int | None = None) -> Tape:
        """The tape that calculates these.

        Args:
            outputs: What it returns.
            inputs: It needs the first so many inputs only; None: it takes all there are.
        """
        places = np.array([self.place(x) for x in outputs], np.int32)
        code = np.array(self._code, np.int32).reshape(-1, ROW)
        needed = np.zeros(self._count, np.bool_)
        needed[places] = True
        _need(code, needed)
        # Inputs first, then constants, then results in order: so that results are written one after the other.
        taken = self._inputs if inputs is None else self._inputs[:inputs]
        constants = {value: old for value, old in self._constants.items() if needed[old]}
        kept = code[needed[code[:, -1]]]
        order = np.zeros(self._count, np.int32)
        for place, old in enumerate((*taken, *constants.values())):
            order[old] = place
        first = len(taken) + len(constants)
        order[kept[:, -1]] = np.arange(first, first + len(kept))
        renamed = np.column_stack([kept[:, 0], order[kept[:, 1:-1]]])
        return Tape(renamed, np.array(list(constants), float), len(taken), order[places])


def simplified(emit: Callable[..., Symbol], name: str, x: Symbol, y: Symbol) -> Symbol:
    """A function of `BINARY`; nothing is emitted where an operand is neutral."""
    if name == "multiply":
        for one, other in ((x, y), (y, x)):
            if _is(one, 1.0):
                return other
    if (name in ("add", "subtract") and _is(y, 0.0)) or (name == "divide" and _is(y, 1.0)):
        return x
    if name == "add" and _is(x, 0.0):
        return y
    if name == "pow" and _is(y, 2.0):
        return emit("multiply", x, x)
    return emit(name, x, y)


def _is(x: Symbol, value: float) -> bool:
    return not isinstance(x, Unknown) and x == value


class Tape:
    """A program of numbers; see `Trace`.

    Args:
        code: (n, 4) instructions: what, and the places of up to three operands; results follow on the constants.
        constants: (c,), behind the inputs.
        inputs: How many there are.
        outputs: (o,) places of what is returned.
    """

    def __init__(self, code: np.ndarray, constants: np.ndarray, inputs: int, outputs: np.ndarray) -> None:
        self.code, self.constants, self.inputs, self.outputs = code, constants, inputs, outputs
        self._size = inputs + len(constants) + len(code)

    def run(self, shared: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Outputs (B, o) of inputs that all rows share (k,) and of those of each row (B, inputs - k)."""
        made = np.empty((len(rows), len(self.outputs)))
        (room,) = _rooms(self._size, 1)
        _values(self.code, self.constants, shared, rows, self.outputs, made, room)
        return made

    def run_gradient(self, shared: np.ndarray, rows: np.ndarray, weigh: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Outputs (B, o), and the gradient (B, inputs - k) of ``sum(weights * outputs)`` by each row's own inputs.

        Args:
            shared, rows: As for `run`.
            weigh: (o, 3): an output y counts as ``w * y`` where ``low < y < high``, for rows (w, low, high).
        """
        made, gradient = np.empty((len(rows), len(self.outputs))), np.empty(rows.shape)
        room, slope = _rooms(self._size, 2)
        _gradients(self.code, self.constants, shared, rows, self.outputs, weigh, made, gradient, room, slope)
        return made, gradient


_local = threading.local()


def _rooms(size: int, count: int) -> np.ndarray:
    """Working memory (count, size, BLOCK) of this thread; all tapes share it, one after the other."""
    room = getattr(_local, "room", None)
    if room is None or len(room) < size * count:
        room = _local.room = np.empty((size * count, BLOCK))
    return room[: size * count].reshape(count, size, BLOCK)


# ---- compiled ----------------------------------------------------------------------


_compiled = functools.partial(jit, error_model="numpy")  # a division by zero is infinity or NaN, no exception


@_compiled
def _need(code: np.ndarray, needed: np.ndarray) -> None:
    """Mark, of instructions (n, `ROW`), the operands of all that are needed."""
    for i in range(len(code) - 1, -1, -1):
        if needed[code[i, 4]]:
            for k in range(1, 4):
                needed[code[i, k]] = True


@_compiled
def _forward(code: np.ndarray, first: int, v: np.ndarray, width: int) -> None:
    for i in range(len(code)):
        op, a, b, c = code[i, 0], v[code[i, 1]], v[code[i, 2]], code[i, 3]
        out = v[first + i]
        if op == _ADD:
            for j in range(width):
                out[j] = a[j] + b[j]
        elif op == _SUB:
            for j in range(width):
                out[j] = a[j] - b[j]
        elif op == _MUL:
            for j in range(width):
                out[j] = a[j] * b[j]
        elif op == _MAX:
            for j in range(width):
                out[j] = a[j] if a[j] > b[j] or a[j] != a[j] else b[j]  # NaN stays NaN, from either side
        elif op == _MIN:
            for j in range(width):
                out[j] = a[j] if a[j] < b[j] or a[j] != a[j] else b[j]
        elif op == _DIV:
            for j in range(width):
                out[j] = a[j] / b[j]
        elif op == _NEG:
            for j in range(width):
                out[j] = -a[j]
        elif op == _ABS:
            for j in range(width):
                out[j] = abs(a[j])
        elif op == _SQRT:
            for j in range(width):
                out[j] = np.sqrt(a[j])
        elif op == _SIN:
            for j in range(width):
                out[j] = np.sin(a[j])
        elif op == _COS:
            for j in range(width):
                out[j] = np.cos(a[j])
        elif op == _TANH:
            for j in range(width):
                out[j] = np.tanh(a[j])
        elif op == _STEP:
            for j in range(width):
                x = v[c, j] * a[j]
                # tanh of what is far from 0 is 1 to the last bit; it is seldom otherwise, and slow.
                out[j] = (1.0 if x > 0 else 0.0) if abs(x) > 20.0 else 0.5 + 0.5 * np.tanh(x)
        elif op == _GE:
            for j in range(width):
                out[j] = 1.0 if a[j] >= b[j] else 0.0
        elif op == _GT:
            for j in range(width):
                out[j] = 1.0 if a[j] > b[j] else 0.0
        elif op == _SOFT_MAX:
            for j in range(width):
                k = v[c, j]
                out[j] = (a[j] if a[j] > b[j] else b[j]) + np.log1p(np.exp(-k * abs(a[j] - b[j]))) / k
        elif op == _SOFT_MIN:
            for j in range(width):
                k = v[c, j]
                out[j] = (a[j] if a[j] < b[j] else b[j]) - np.log1p(np.exp(-k * abs(a[j] - b[j]))) / k
        elif op == _ATAN2:
            for j in range(width):
                out[j] = np.arctan2(a[j], b[j])
        elif op == _POW:
            for j in range(width):
                out[j] = a[j] ** b[j]
        elif op == _EXP:
            for j in range(width):
                out[j] = np.exp(a[j])
        elif op == _LOG:
            for j in range(width):
                out[j] = np.log(a[j])
        elif op == _TAN:
            for j in range(width):
                out[j] = np.tan(a[j])
        elif op == _ASIN:
            for j in range(width):
                out[j] = np.arcsin(a[j])
        elif op == _ACOS:
            for j in range(width):
                out[j] = np.arccos(a[j])
        elif op == _ATAN:
            for j in range(width):
                out[j] = np.arctan(a[j])
        elif op == _FLOOR:
            for j in range(width):
                out[j] = np.floor(a[j])


@_compiled
def _load(constants: np.ndarray, shared: np.ndarray, rows: np.ndarray, start: int, width: int, v: np.ndarray) -> int:
    for i in range(len(shared)):
        v[i, :width] = shared[i]
    own = rows.shape[1]
    for i in range(own):
        for j in range(width):
            v[len(shared) + i, j] = rows[start + j, i]
    for i in range(len(constants)):
        v[len(shared) + own + i, :width] = constants[i]
    return len(shared) + own + len(constants)


@_compiled
def _values(
    code: np.ndarray,
    constants: np.ndarray,
    shared: np.ndarray,
    rows: np.ndarray,
    outputs: np.ndarray,
    made: np.ndarray,
    v: np.ndarray,
) -> None:
    for start in range(0, len(rows), v.shape[1]):
        width = min(v.shape[1], len(rows) - start)
        first = _load(constants, shared, rows, start, width, v)
        _forward(code, first, v, width)
        for i in range(len(outputs)):
            for j in range(width):
                made[start + j, i] = v[outputs[i], j]


@_compiled
def _gradients(
    code: np.ndarray,
    constants: np.ndarray,
    shared: np.ndarray,
    rows: np.ndarray,
    outputs: np.ndarray,
    weigh: np.ndarray,
    made: np.ndarray,
    gradient: np.ndarray,
    v: np.ndarray,
    g: np.ndarray,
) -> None:
    for start in range(0, len(rows), v.shape[1]):
        width = min(v.shape[1], len(rows) - start)
        first = _load(constants, shared, rows, start, width, v)
        _forward(code, first, v, width)
        g[:, :width] = 0.0
        for i in range(len(outputs)):
            for j in range(width):
                y = v[outputs[i], j]
                made[start + j, i] = y
                if weigh[i, 1] < y < weigh[i, 2]:
                    g[outputs[i], j] += weigh[i, 0]
        _backward(code, first, v, g, width)
        for i in range(rows.shape[1]):
            for j in range(width):
                gradient[start + j, i] = g[len(shared) + i, j]


@_compiled
def _backward(code: np.ndarray, first: int, v: np.ndarray, g: np.ndarray, width: int) -> None:
    for i in range(len(code) - 1, -1, -1):
        op, c = code[i, 0], code[i, 3]
        a, b, ga, gb = v[code[i, 1]], v[code[i, 2]], g[code[i, 1]], g[code[i, 2]]
        y, gy = v[first + i], g[first + i]
        if op == _ADD:
            for j in range(width):
                ga[j] += gy[j]
                gb[j] += gy[j]
        elif op == _SUB:
            for j in range(width):
                ga[j] += gy[j]
                gb[j] -= gy[j]
        elif op == _MUL:
            for j in range(width):
                d = gy[j]
                ga[j] += d * b[j]
                gb[j] += d * a[j]
        elif op in (_MAX, _MIN):
            for j in range(width):
                # Of two equal ones each has half: as torch does it.
                share = 0.5 if a[j] == b[j] else (1.0 if y[j] == a[j] else 0.0)
                ga[j] += share * gy[j]
                gb[j] += (1.0 - share) * gy[j]
        elif op == _DIV:
            for j in range(width):
                ga[j] += gy[j] / b[j]
                gb[j] -= gy[j] * y[j] / b[j]
        elif op == _NEG:
            for j in range(width):
                ga[j] -= gy[j]
        elif op == _ABS:
            for j in range(width):
                ga[j] += gy[j] * np.sign(a[j])
        elif op == _SQRT:
            for j in range(width):
                ga[j] += gy[j] * 0.5 / y[j]
        elif op == _SIN:
            for j in range(width):
                if gy[j] != 0.0:
                    ga[j] += gy[j] * np.cos(a[j])
        elif op == _COS:
            for j in range(width):
                if gy[j] != 0.0:
                    ga[j] -= gy[j] * np.sin(a[j])
        elif op == _TANH:
            for j in range(width):
                ga[j] += gy[j] * (1.0 - y[j] * y[j])
        elif op == _STEP:
            for j in range(width):
                if gy[j] != 0.0:
                    soft = np.tanh(v[code[i, 2], j] * a[j])
                    ga[j] += gy[j] * 0.5 * v[code[i, 2], j] * (1.0 - soft * soft)
        elif op == _SOFT_MAX:
            for j in range(width):
                if gy[j] != 0.0:
                    share = 1.0 / (1.0 + np.exp(v[c, j] * (b[j] - a[j])))
                    ga[j] += gy[j] * share
                    gb[j] += gy[j] * (1.0 - share)
        elif op == _SOFT_MIN:
            for j in range(width):
                if gy[j] != 0.0:
                    share = 1.0 / (1.0 + np.exp(v[c, j] * (a[j] - b[j])))
                    ga[j] += gy[j] * share
                    gb[j] += gy[j] * (1.0 - share)
        elif op == _ATAN2:
            for j in range(width):
                square = a[j] * a[j] + b[j] * b[j]
                ga[j] += gy[j] * b[j] / square
                gb[j] -= gy[j] * a[j] / square
        elif op == _POW:
            for j in range(width):
                ga[j] += gy[j] * b[j] * a[j] ** (b[j] - 1.0)
                if a[j] > 0:
                    gb[j] += gy[j] * y[j] * np.log(a[j])
        elif op == _EXP:
            for j in range(width):
                ga[j] += gy[j] * y[j]
        elif op == _LOG:
            for j in range(width):
                ga[j] += gy[j] / a[j]
        elif op == _TAN:
            for j in range(width):
                ga[j] += gy[j] * (1.0 + y[j] * y[j])
        elif op == _ASIN:
            for j in range(width):
                ga[j] += gy[j] / np.sqrt(1.0 - a[j] * a[j])
        elif op == _ACOS:
            for j in range(width):
                ga[j] -= gy[j] / np.sqrt(1.0 - a[j] * a[j])
        elif op == _ATAN:
            for j in range(width):
                ga[j] += gy[j] / (1.0 + a[j] * a[j])
