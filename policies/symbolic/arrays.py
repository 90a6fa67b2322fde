"""Arrays of symbols: the tasks' own `advance` and `measure`, run on these, write down what a solver or a tape needs."""

from __future__ import annotations

import functools
import operator
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np

from robo.core.errors import TaskError, nearest

Symbol: TypeAlias = Any
"""One number, known (a float) or not (an `Unknown`)."""

UNARY: dict[str, Callable[[float], float]] = {
    "negative": operator.neg,
    "abs": abs,
    "sqrt": np.sqrt,
    "sin": np.sin,
    "cos": np.cos,
    "tan": np.tan,
    "asin": np.arcsin,
    "acos": np.arccos,
    "atan": np.arctan,
    "tanh": np.tanh,
    "exp": np.exp,
    "log": np.log,
    "floor": np.floor,
}
BINARY: dict[str, Callable[[float, float], float]] = {
    "add": operator.add,
    "subtract": operator.sub,
    "multiply": operator.mul,
    "divide": operator.truediv,
    "pow": operator.pow,
    "maximum": max,
    "minimum": min,
    "greater_equal": lambda x, y: float(x >= y),
    "greater": lambda x, y: float(x > y),
    "atan2": np.arctan2,
}
"""What tasks may call, by its name in the array API, and what it is of known numbers. Comparisons are 1.0 or 0.0."""


class Unknown:
    """A number that is not known yet; arithmetic on it is told to its namespace.

    Args:
        namespace: Which knows what to make of it.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace

    def _with(self, name: str, x: Symbol, y: Symbol) -> Symbol:
        return self.namespace.binary(name, x, y)

    def __add__(self, other: Symbol) -> Symbol:
        return self._with("add", self, other)

    def __radd__(self, other: Symbol) -> Symbol:
        return self._with("add", other, self)

    def __sub__(self, other: Symbol) -> Symbol:
        return self._with("subtract", self, other)

    def __rsub__(self, other: Symbol) -> Symbol:
        return self._with("subtract", other, self)

    def __mul__(self, other: Symbol) -> Symbol:
        return self._with("multiply", self, other)

    def __rmul__(self, other: Symbol) -> Symbol:
        return self._with("multiply", other, self)

    def __truediv__(self, other: Symbol) -> Symbol:
        return self._with("divide", self, other)

    def __rtruediv__(self, other: Symbol) -> Symbol:
        return self._with("divide", other, self)

    def __pow__(self, other: Symbol) -> Symbol:
        return self._with("pow", self, other)

    def __ge__(self, other: Symbol) -> Symbol:
        return self._with("greater_equal", self, other)

    def __gt__(self, other: Symbol) -> Symbol:
        return self._with("greater", self, other)

    def __le__(self, other: Symbol) -> Symbol:
        return self._with("greater_equal", other, self)

    def __lt__(self, other: Symbol) -> Symbol:
        return self._with("greater", other, self)

    def __neg__(self) -> Symbol:
        return self.namespace.unary("negative", self)


class Namespace(ABC):
    """What tasks use of the array API, on arrays of symbols; subclasses know single unknowns.

    ``unary``, ``binary`` and ``unit_step`` get at least one `Unknown`.
    """

    __name__ = "symbols"  # array namespaces are modules elsewhere, and are asked for their name

    @abstractmethod
    def unary(self, name: str, x: Unknown) -> Symbol:
        """A function of `UNARY`."""

    @abstractmethod
    def binary(self, name: str, x: Symbol, y: Symbol) -> Symbol:
        """A function of `BINARY`."""

    @abstractmethod
    def unit_step(self, x: Unknown, gentle: float, sharp: float) -> Symbol:
        """0 below 0, 1 above; see `tasks.benchmarks.steps.step`."""

    def apply(self, name: str, *args: Symbol) -> Symbol:
        """A function of `UNARY` or `BINARY` of numbers, known or not."""
        if any(isinstance(arg, Unknown) for arg in args):
            return self.unary(name, *args) if len(args) == 1 else self.binary(name, *args)  # type: ignore[arg-type]
        table: dict[str, Callable[..., float]] = {**UNARY, **BINARY}
        return float(table[name](*args))

    # ---- the array API ---------------------------------------------------------

    def wrap(self, items: Any) -> SymbolicArray:
        """An array of symbols, from one or from a nested sequence of them."""
        return SymbolicArray(np.array(items, dtype=object), self)

    def asarray(self, x: Any, dtype: Any = None, device: Any = None) -> Any:
        """Known numbers stay an array of numpy."""
        return x if isinstance(x, SymbolicArray) else np.asarray(x, float)

    def map(self, function: Callable[..., Symbol], *arrays: Any) -> SymbolicArray:
        """A function of symbols, elementwise."""
        return self.wrap(np.frompyfunc(function, len(arrays), 1)(*(_items(x) for x in arrays)))

    def __getattr__(self, name: str) -> Callable[..., SymbolicArray]:
        if name.startswith("__"):
            raise AttributeError(name)
        if name not in UNARY and name not in BINARY:
            known = [*UNARY, *BINARY, *_SHAPING]
            raise TaskError(f"dynamics and signals may not call {name!r} of the array API: {nearest(name, known)}")
        return functools.partial(self.map, functools.partial(self.apply, name))

    def clip(self, x: Any, low: Any = None, high: Any = None) -> Any:
        """Elementwise; None for no bound."""
        x = x if low is None else self.maximum(x, low)
        return x if high is None else self.minimum(x, high)

    def where(self, condition: Any, x: Any, y: Any) -> SymbolicArray:
        """Elementwise; the condition is 1 or 0."""
        return condition * x + (1.0 - condition) * y

    def step(self, x: Any, gentle: float, sharp: float) -> SymbolicArray:
        """Elementwise; not of the array API: found by `tasks.benchmarks.steps.step`."""

        def of(item: Symbol) -> Symbol:
            if isinstance(item, Unknown):
                return self.unit_step(item, gentle, sharp)
            return float(0.5 + 0.5 * np.tanh(sharp * item))

        return self.map(of, x)

    def stack(self, arrays: Sequence[Any], axis: int = 0) -> SymbolicArray:
        """Arrays along a new axis."""
        return self.wrap(np.stack(np.broadcast_arrays(*(_items(x) for x in arrays)), axis=axis))

    def concat(self, arrays: Sequence[Any], axis: int = 0) -> SymbolicArray:
        """Arrays along an axis they have."""
        return self.wrap(np.concatenate([_items(x) for x in arrays], axis=axis))

    def matmul(self, x: Any, y: Any) -> SymbolicArray:
        """Matrix product."""
        return self.wrap(np.matmul(_items(x), _items(y)))

    def sum(self, x: Any, axis: int) -> SymbolicArray:
        """Sum along an axis."""
        return self.wrap(_items(x).sum(axis=axis))

    def amin(self, x: SymbolicArray, axis: int) -> SymbolicArray:
        """Smallest along an axis."""
        return functools.reduce(self.minimum, x.slices(axis))

    def amax(self, x: SymbolicArray, axis: int) -> SymbolicArray:
        """Largest along an axis."""
        return functools.reduce(self.maximum, x.slices(axis))

    min, max = amin, amax


class SmoothNamespace(Namespace):
    """One that follows gradients."""

    @abstractmethod
    def soft_extreme(self, x: Symbol, y: Symbol, temperature: float, largest: bool) -> Symbol:
        """The larger or the smaller of two, smooth: log-sum-exp, or its negative."""


_SHAPING = ("amin", "amax", "clip", "where", "stack", "concat", "matmul", "sum", "asarray")


def _items(x: Any) -> np.ndarray:
    return x.items if isinstance(x, SymbolicArray) else np.asarray(x).astype(object)


def _operator(name: str, reflected: bool = False) -> Callable[[SymbolicArray, Any], SymbolicArray]:
    def apply(self: SymbolicArray, other: Any) -> SymbolicArray:
        pair = (other, self) if reflected else (self, other)
        return self.namespace.map(functools.partial(self.namespace.apply, name), *pair)

    return apply


class SymbolicArray:
    """An array whose elements are symbols; arithmetic and comparisons are elementwise.

    Attributes:
        items: numpy array of objects.
        namespace: Its functions, what `array_api_compat.array_namespace` returns of it.
    """

    __array_ufunc__ = None  # numpy leaves mixed operators to this class
    dtype, device = "symbolic", "cpu"

    def __init__(self, items: np.ndarray, namespace: Namespace) -> None:
        self.items, self.namespace = items, namespace

    def __array_namespace__(self, api_version: str | None = None) -> Namespace:
        return self.namespace

    @property
    def shape(self) -> tuple[int, ...]:
        """As of any array."""
        return self.items.shape

    def __getitem__(self, key: Any) -> SymbolicArray:
        # A single element comes back as an array of no dimensions.
        return self.namespace.wrap(self.items[key])

    def slices(self, axis: int) -> list[SymbolicArray]:
        """All slices along an axis."""
        return [self.namespace.wrap(np.take(self.items, i, axis=axis)) for i in range(self.shape[axis])]

    def sum(self, axis: int) -> SymbolicArray:
        """Sum along an axis."""
        return self.namespace.sum(self, axis)

    def __neg__(self) -> SymbolicArray:
        return self.namespace.map(functools.partial(self.namespace.apply, "negative"), self)

    __add__, __radd__ = _operator("add"), _operator("add", True)
    __sub__, __rsub__ = _operator("subtract"), _operator("subtract", True)
    __mul__, __rmul__ = _operator("multiply"), _operator("multiply", True)
    __truediv__, __rtruediv__ = _operator("divide"), _operator("divide", True)
    __pow__ = _operator("pow")
    __ge__, __le__ = _operator("greater_equal"), _operator("greater_equal", True)
    __gt__, __lt__ = _operator("greater"), _operator("greater", True)


def scalar(x: Any) -> Symbol:
    """The one element of what a task returned for a single state."""
    return x.items[()] if isinstance(x, SymbolicArray) else float(x)
