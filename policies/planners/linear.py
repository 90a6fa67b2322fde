"""Mixed-integer linear programs written down by running ordinary code on unknowns; solved by SciPy's HiGHS.

Unknowns are bounded, so every bound of a sum is known, and with it the constants that switch constraints on and off
("big M", as tight as intervals make them). What depends on no unknown stays a plain number.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from policies.symbolic.arrays import UNARY, Namespace, Symbol, Unknown
from robo.core.errors import RoboError

if TYPE_CHECKING:
    from scipy.optimize import OptimizeResult

BAND = 0.01
"""A step function counts as 0 or 1 this far from its edge; nearer it is something between."""
TOLERANCE = 1e-6
"""Of HiGHS, on constraints."""
_GRID, _TANGENTS = 257, 17
_STEEPEST: dict[str, Callable[[float, float], float]] = {
    "sin": lambda low, high: 1.0,
    "cos": lambda low, high: 1.0,
    "tanh": lambda low, high: 1.0,
    "atan": lambda low, high: 1.0,
    "exp": lambda low, high: float(np.exp(high)),
}
"""Functions → most they change per unit between two bounds."""
_RANGES = {"asin": (-np.pi / 2, np.pi / 2), "acos": (0.0, np.pi)}
Truth: TypeAlias = "bool | Affine"
"""Known, or an unknown in 0..1 that is positive only where something holds."""


class NotLinear(RoboError):
    """Something cannot be written as a mixed-integer linear program."""


class Mode(Enum):
    """Which way what is not exactly linear is rounded."""

    PLAN = "plan"
    """Every solution is one of the true problem."""
    PROOF = "proof"
    """Every solution of the true problem is one: without any, there is none."""


class Affine(Unknown):
    """``constant + sum of coefficients times unknowns``, with bounds.

    Attributes:
        model: Whose unknowns they are.
        constant, terms: Its numbers; `terms` by number of the unknown, none of them 0.
        low, high: Between what it lies.
    """

    def __init__(self, model: Model, constant: float, terms: Mapping[int, float], low: float, high: float) -> None:
        super().__init__(model)
        self.model, self.constant, self.terms, self.low, self.high = model, constant, terms, low, high

    @property
    def binary(self) -> bool:
        """Whether it can be nothing but 0 or 1."""
        if len(self.terms) != 1:
            return False
        ((unknown, coefficient),) = self.terms.items()
        ends = {self.constant, self.constant + coefficient}
        return self.model.whole[unknown] and (self.model.low[unknown], self.model.high[unknown]) == (0, 1) == (
            min(ends),
            max(ends),
        )


class Model(Namespace):
    """The unknowns and constraints of a program; and the functions that tasks call on arrays of unknowns.

    Args:
        mode: Which way things are rounded that are not linear.
    """

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.low: list[float] = []
        self.high: list[float] = []
        self.whole: list[bool] = []
        self._rows: list[tuple[float, Mapping[int, float]]] = []
        self.impossible = False

    # ---- unknowns and constraints --------------------------------------------

    def unknown(self, low: float, high: float, whole: bool = False) -> Affine:
        """A new unknown between two bounds."""
        self.low.append(low)
        self.high.append(high)
        self.whole.append(whole)
        return Affine(self, 0.0, {len(self.low) - 1: 1.0}, low, high)

    def affine(self, constant: float, terms: Mapping[int, float]) -> Symbol:
        """A sum; a plain number when no unknown is left in it."""
        terms = {k: v for k, v in terms.items() if v != 0.0}
        if not terms:
            return constant
        low = constant + sum(v * (self.low[k] if v > 0 else self.high[k]) for k, v in terms.items())
        high = constant + sum(v * (self.high[k] if v > 0 else self.low[k]) for k, v in terms.items())
        return Affine(self, constant, terms, low, high)

    def require(self, value: Symbol) -> None:
        """The value must not be negative."""
        if not isinstance(value, Affine):
            self.impossible |= value < -TOLERANCE
        elif value.low < 0:
            self._rows.append((value.constant, value.terms))

    def indicator(self, value: Symbol) -> Symbol:
        """1 where a value is at least 0, else 0."""
        if not isinstance(value, Affine):
            return float(value >= 0)
        if value.low >= 0 or value.high < 0:
            return float(value.low >= 0)
        flag = self.unknown(0, 1, whole=True)
        self.require(value - value.low * (1 - flag))
        self.require(value.high * flag - value)
        return flag

    def product(self, a: Affine, b: Affine) -> Affine:
        """The product of two unknowns: exact where one is 0 or 1, else (for proofs) its envelope (McCormick 1976).

        Raises:
            NotLinear: It is neither.
        """
        if self.mode is Mode.PLAN and not (a.binary or b.binary):
            raise NotLinear("a product of two unknowns is not linear")
        if a is b:
            return self._square(a)
        corners = [x * y for x in (a.low, a.high) for y in (b.low, b.high)]
        made = self.unknown(min(corners), max(corners))
        self.require(made - (a.low * b + b.low * a - a.low * b.low))
        self.require(made - (a.high * b + b.high * a - a.high * b.high))
        self.require((a.low * b + b.high * a - a.low * b.high) - made)
        self.require((a.high * b + b.low * a - a.high * b.low) - made)
        return made

    def _root(self, x: Affine) -> Affine:
        """Below tangents, above the secant; where the argument is negative there is no number, and no plan."""
        low, high = max(x.low, 0.0), max(x.high, 0.0)
        made = self.unknown(np.sqrt(low), np.sqrt(high))
        for at in np.linspace(np.sqrt(low), np.sqrt(high), _TANGENTS):
            if at > 1e-3:  # steeper ones would only hurt the solver's arithmetic
                self.require((x + at**2) * (0.5 / at) - made)
        if high > low:
            self.require(made - np.sqrt(low) - (x - low) / (np.sqrt(low) + np.sqrt(high)))
        return made

    def _square(self, x: Affine) -> Affine:
        """Above tangents, below the secant."""
        ends = (x.low**2, x.high**2)
        made = self.unknown(0.0 if x.low <= 0 <= x.high else min(ends), max(ends))
        for at in np.linspace(x.low, x.high, _TANGENTS):
            self.require(made - (2 * at * x - at**2))
        self.require((x.low + x.high) * x - x.low * x.high - made)
        return made

    # ---- Namespace -------------------------------------------------------------

    def unary(self, name: str, x: Unknown) -> Symbol:
        """See `Namespace`; of unknowns only the absolute value is piecewise linear, the rest for proofs alone."""
        assert isinstance(x, Affine)
        if name == "negative":
            return self._scaled(x, -1.0)
        if name == "abs":
            return self._larger(x, -x)
        if self.mode is Mode.PLAN:
            raise NotLinear(f"{name} of an unknown is not piecewise linear")
        return self._envelope(name, x)

    def _envelope(self, name: str, x: Affine) -> Affine:
        """An unknown that may be whatever a function may be: between two parallel lines, and between its extremes."""
        low, high = x.low, x.high
        if name == "sqrt":
            return self._root(x)
        grid = np.linspace(low, high, _GRID)
        with np.errstate(all="ignore"):
            values = np.array([UNARY[name](float(at)) for at in grid])
        if not np.isfinite(values).all() or name not in _STEEPEST:
            if name not in _RANGES:
                raise NotLinear(f"nothing is known of {name} between {low:g} and {high:g}")
            return self.unknown(*_RANGES[name])
        # Between grid points a function strays from them by no more than its steepest slope allows.
        stray = _STEEPEST[name](low, high) * (high - low) / (_GRID - 1) / 2
        slope = (values[-1] - values[0]) / (high - low) if high > low else 0.0
        rest = values - slope * grid
        stray_rest = stray + abs(slope) * (high - low) / (_GRID - 1) / 2
        made = self.unknown(float(values.min() - stray), float(values.max() + stray))
        self.require(made - x * slope - float(rest.min() - stray_rest))
        self.require(x * slope + float(rest.max() + stray_rest) - made)
        return made

    def binary(self, name: str, x: Symbol, y: Symbol) -> Symbol:
        """See `Namespace`; equality is a matter of rounding, so ``>`` is ``>=``."""
        match name:
            case "add":
                return self._sum(x, y)
            case "subtract":
                return self._sum(x, -y)
            case "multiply" if isinstance(x, Affine) and isinstance(y, Affine):
                return self.product(x, y)
            case "multiply":
                return self._scaled(x, y) if isinstance(x, Affine) else self._scaled(y, x)
            case "divide" if not isinstance(y, Affine):
                return self._scaled(x, 1.0 / y)
            case "pow" if y == 2:
                return self.product(x, x)
            case "maximum":
                return self._larger(x, y)
            case "minimum":
                return -self._larger(-x, -y)
            case "greater_equal" | "greater":
                return self.indicator(x - y)
            case "atan2" if self.mode is Mode.PROOF:
                return self.unknown(-np.pi, np.pi)
        raise NotLinear(f"{name} of unknowns is not piecewise linear")

    def _sum(self, x: Symbol, y: Symbol) -> Symbol:
        terms: dict[int, float] = {}
        constant = 0.0
        for part in (x, y):
            if isinstance(part, Affine):
                constant += part.constant
                for unknown, coefficient in part.terms.items():
                    terms[unknown] = terms.get(unknown, 0.0) + coefficient
            else:
                constant += float(part)
        return self.affine(constant, terms)

    def _scaled(self, x: Any, factor: Any) -> Symbol:
        factor = float(factor)
        return self.affine(factor * x.constant, {k: factor * v for k, v in x.terms.items()})

    def _larger(self, x: Symbol, y: Symbol) -> Symbol:
        difference = x - y
        if not isinstance(difference, Affine):
            return x if difference >= 0 else y
        if difference.low >= 0 or difference.high <= 0:
            return x if difference.low >= 0 else y
        flag = self.unknown(0, 1, whole=True)
        excess = self.unknown(0.0, difference.high)
        # The positive part of the difference: the difference where the flag is set, else nothing.
        self.require(excess - difference)
        self.require(difference - difference.low * (1 - flag) - excess)
        self.require(difference.high * flag - excess)
        return y + excess

    def unit_step(self, x: Unknown, gentle: float, sharp: float) -> Symbol:
        """See `Namespace`: plans keep off the edge by `BAND`, proofs allow anything between 0 and 1 there."""
        assert isinstance(x, Affine)
        if x.low >= BAND or x.high <= -BAND:
            return float(x.low >= BAND)
        flag = self.unknown(0, 1, whole=True)
        if self.mode is Mode.PLAN:
            self.require(x - BAND - (x.low - BAND) * (1 - flag))
            self.require((x.high + BAND) * flag - x - BAND)
            return flag
        surely, value = self.unknown(0, 1, whole=True), self.unknown(0.0, 1.0)
        self.require(x + BAND - (x.low + BAND) * (1 - flag))  # flag: not surely below
        self.require((x.high - BAND) * surely + BAND - x)  # not `surely`: not surely above
        self.require(flag - value)
        self.require(value - surely)
        return value

    # ---- logic -----------------------------------------------------------------

    def implied(self, value: Symbol) -> Truth:
        """Positive only where a value is at least 0."""
        if not isinstance(value, Affine):
            return bool(value >= 0)
        if value.low >= 0 or value.high < 0:
            return value.low >= 0
        flag = self.unknown(0, 1, whole=True)
        self.require(value - value.low * (1 - flag))
        return flag

    def all_of(self, truths: Sequence[Truth]) -> Truth:
        """Positive only where all are."""
        if any(truth is False for truth in truths):
            return False
        left = [truth for truth in truths if isinstance(truth, Affine)]
        if len(left) <= 1:
            return left[0] if left else True
        made = self.unknown(0.0, 1.0)
        for truth in left:
            self.require(truth - made)
        return made

    def any_of(self, truths: Sequence[Truth]) -> Truth:
        """Positive only where one is."""
        if any(truth is True for truth in truths):
            return True
        left = [truth for truth in truths if isinstance(truth, Affine)]
        if len(left) <= 1:
            return left[0] if left else False
        made = self.unknown(0.0, 1.0)
        self.require(sum(left[1:], left[0]) - made)
        return made

    # ---- solving -----------------------------------------------------------------

    def solve(self, time_limit_s: float) -> np.ndarray | bool | None:
        """Any solution.

        Returns:
            Values of all unknowns; False when there is none; None when the time was not enough to know.
        """
        from scipy.optimize import Bounds, LinearConstraint, milp  # lazily: slow to import
        from scipy.sparse import csr_array

        if self.impossible:
            return False
        if not self.low:
            return np.zeros(0)
        data = [v for _, terms in self._rows for v in terms.values()]
        column = [k for _, terms in self._rows for k in terms]
        row = [i for i, (_, terms) in enumerate(self._rows) for _ in terms]
        matrix = csr_array((data, (row, column)), shape=(len(self._rows), len(self.low)))
        least = np.array([-constant for constant, _ in self._rows])
        found: OptimizeResult = milp(
            np.zeros(len(self.low)),
            integrality=np.array(self.whole, int),
            bounds=Bounds(np.array(self.low), np.array(self.high)),  # type: ignore[arg-type]
            constraints=[LinearConstraint(matrix, least, np.inf)] if len(self._rows) else [],  # type: ignore[arg-type]
            options={"time_limit": time_limit_s},
        )
        if found.x is not None:
            return found.x
        return False if found.status == 2 else None

    def value(self, symbol: Symbol, solution: np.ndarray) -> float:
        """A symbol's value in a solution."""
        if not isinstance(symbol, Affine):
            return float(symbol)
        return symbol.constant + sum(v * solution[k] for k, v in symbol.terms.items())
