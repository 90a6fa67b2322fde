"""The tree of a formula, its parser and its printer. Pure Python: neither numpy nor torch at import.

Text becomes a checked tree and nothing else: there is no `eval`, names are looked up in fixed tables, and
length and depth are limited, so text from anywhere may be parsed. `docs/stl.md` is the language reference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from robo.core.errors import SpecError, nearest

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tasks.stl.monitor import Monitor
    from tasks.stl.smooth import Smoothing

MAX_LENGTH = 100_000
"""Longest text that is parsed [characters]."""
MAX_DEPTH = 100
"""Deepest tree, and deepest nesting of parentheses."""

Array: TypeAlias = Any  # numpy.ndarray or torch.Tensor
Library: TypeAlias = Mapping[str, Callable[..., Array]]
"""How a kind of array computes the functions of `FUNCTIONS`."""

FUNCTIONS: dict[str, tuple[int, int | None]] = {
    "abs": (1, 1),
    "sqrt": (1, 1),
    "exp": (1, 1),
    "tanh": (1, 1),
    "min": (2, None),
    "max": (2, None),
    "norm": (1, None),
}
"""Functions of arithmetic → fewest and most arguments."""

_LARGEST_EXPONENT = math.log(1.7976931348623157e308)


def _exp(x: float) -> float:
    # As arrays have it: infinite where math.exp raises.
    return math.exp(x) if not x > _LARGEST_EXPONENT else math.inf


SCALAR_LIBRARY: Library = {
    "abs": abs,
    "sqrt": math.sqrt,
    "exp": _exp,
    "tanh": math.tanh,
    "min": min,
    "max": max,
    "norm": math.hypot,
}


# ---- the tree ----------------------------------------------------------------


class Node:
    """A node of the tree; equal nodes have equal text."""

    depth: int

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return ()

    def __post_init__(self) -> None:
        depth = 1 + max((child.depth for child in self.children), default=0)
        if depth > MAX_DEPTH:
            raise SpecError(f"formula is nested deeper than {MAX_DEPTH} levels; split it or write it flatter")
        object.__setattr__(self, "depth", depth)

    def walk(self) -> Iterator[Node]:
        """This node and all below, from left to right."""
        stack: list[Node] = [self]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(reversed(node.children))


@dataclass(frozen=True)
class Number(Node):
    """A number without sign."""

    value: float


@dataclass(frozen=True)
class Variable(Node):
    """A signal, by name; or one component of a vector signal, counted from 0.

    Attributes:
        name: Name of the signal.
        index: Component; None for a scalar signal.
    """

    name: str
    index: int | None = None

    @property
    def channel(self) -> str:
        """What is looked up: ``name`` or ``name[index]``."""
        return self.name if self.index is None else f"{self.name}[{self.index}]"


@dataclass(frozen=True)
class Parameter(Node):
    """A number that is named now and given later (`Formula.bind`)."""

    name: str


@dataclass(frozen=True)
class Apply(Node):
    """An operator (``+ - * / ^ neg``; ``^`` has a Number on the right) or a function of `FUNCTIONS`, with arguments."""

    op: str
    args: tuple[Expr, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return self.args


Expr: TypeAlias = Number | Variable | Parameter | Apply


def evaluate(expr: Expr, signals: Mapping[str, Array], library: Library) -> Array:
    """Value of an arithmetic expression over signals of any one kind of array (or plain floats)."""
    if isinstance(expr, Number):
        return expr.value
    if isinstance(expr, Variable):
        return signals[expr.channel]
    if isinstance(expr, Parameter):
        raise SpecError(_unbound([expr.name]))
    args = [evaluate(arg, signals, library) for arg in expr.args]
    match expr.op:
        case "+":
            return args[0] + args[1]
        case "-":
            return args[0] - args[1]
        case "*":
            return args[0] * args[1]
        case "/":
            return args[0] / args[1]
        case "^":
            return args[0] ** args[1]
        case "neg":
            return -args[0]
    if all(isinstance(arg, float) for arg in args):
        return float(SCALAR_LIBRARY[expr.op](*args))
    return library[expr.op](*args)


@dataclass(frozen=True)
class TimeInterval:
    """Times relative to now, both ends included.

    Attributes:
        start, end: Ends, in seconds or in steps; `end` is inf where the operator is unbounded.
        steps: Whether the ends count samples instead of seconds.
    """

    start: float | Parameter = 0.0
    end: float | Parameter = math.inf
    steps: bool = False

    def __str__(self) -> str:
        if self.start == 0.0 and self.end == math.inf:
            return ""
        return f"[{self._end(self.start)},{self._end(self.end)}]"

    def _end(self, value: float | Parameter) -> str:
        unit = " steps" if self.steps and value not in (0.0, math.inf) else ""
        return f"${value.name}{unit}" if isinstance(value, Parameter) else f"{_number(value)}{unit}"

    @property
    def parameters(self) -> tuple[str, ...]:
        """Names of the ends that are not given yet."""
        return tuple(value.name for value in (self.start, self.end) if isinstance(value, Parameter))

    def numbers(self) -> tuple[float, float]:
        """Both ends.

        Raises:
            SpecError: One is a parameter that is not bound.
        """
        if isinstance(self.start, Parameter) or isinstance(self.end, Parameter):
            raise SpecError(_unbound(self.parameters))
        return self.start, self.end


def _unbound(names: Sequence[str]) -> str:
    wanted = ", ".join(f"{name}=..." for name in names)
    return (
        f"formula has the unbound parameter{'s' * (len(names) > 1)} {', '.join(f'${n}' for n in names)}; bind({wanted})"
    )


@dataclass(frozen=True)
class Formula(Node):
    """A formula of signal temporal logic; made by `parse`.

    ``str(formula)`` is canonical text that parses to an equal formula.
    """

    @cached_property
    def signals(self) -> tuple[str, ...]:
        """Names of the signals used, in order of appearance."""
        return tuple(dict.fromkeys(node.name for node in self.walk() if isinstance(node, Variable)))

    @cached_property
    def channels(self) -> tuple[Variable, ...]:
        """The signals used and the components of vector signals, each once, in order of appearance."""
        return tuple(dict.fromkeys(node for node in self.walk() if isinstance(node, Variable)))

    @cached_property
    def parameters(self) -> tuple[str, ...]:
        """Names of the parameters that are not bound yet, in order of appearance."""
        names: list[str] = []
        for node in self.walk():
            if isinstance(node, Window | Until):
                names += node.interval.parameters
            elif isinstance(node, Parameter):
                names.append(node.name)
        return tuple(dict.fromkeys(names))

    def bind(self, **values: float) -> Formula:
        """The formula with numbers for some or all of its parameters.

        Raises:
            SpecError: There is no such parameter, a number is not finite, or an interval ends before it starts.
        """
        for name, value in values.items():
            if name not in self.parameters:
                raise SpecError(f"formula has no parameter {'$' + name!r}: {nearest(name, self.parameters)}")
            if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
                raise SpecError(f"parameter {'$' + name!r} must be a finite number, not {value!r}")
        return _bind(self, {name: float(value) for name, value in values.items()})

    @cached_property
    def predicates(self) -> tuple[Predicate, ...]:
        """The comparisons in the formula, each once, in order of appearance."""
        return tuple(dict.fromkeys(node for node in self.walk() if isinstance(node, Predicate)))

    @property
    def conjuncts(self) -> tuple[Formula, ...]:
        """What the formula is the top-level ``and`` of; itself alone otherwise."""
        return self.args if isinstance(self, And) else (self,)

    @cached_property
    def horizon_s(self) -> float:
        """How far beyond a moment its value looks [s]; inf when unbounded.

        Raises:
            SpecError: Some interval counts steps (then `horizon` knows), or has an unbound parameter.
        """
        if any(isinstance(node, Window | Until) and node.interval.steps for node in self.walk()):
            raise SpecError(f"formula {str(self)[:60]!r} counts in steps; how far it looks depends on dt: horizon(dt)")
        return self.horizon(1.0)

    def horizon(self, dt: float) -> float:
        """How far beyond a moment its value looks [s] where samples are dt apart; inf when unbounded."""
        return _horizon(self, dt)

    @cached_property
    def _cache(self) -> dict[Any, Any]:
        # Compiled programs; owned by tasks.stl.program.
        return {}

    def robustness(
        self, signals: Mapping[str, Array], dt: float, smooth: float | Smoothing | None = None
    ) -> torch.Tensor:
        """Robustness at every sample; the formula holds where it is positive.

        Args:
            signals: Name → (batch, time), or (time,) for a batch of one; a component axis comes last where the
                formula asks for components. torch or numpy. Never changed.
            dt: Distance of samples [s].
            smooth: None for the exact value; else one of `tasks.stl.smooth`. A number k is ``LogSumExp(k)``.

        Returns:
            (batch, time), in the signals' dtype and on their device; differentiable.

        Raises:
            SpecError: A signal is missing, shapes differ, or an interval is no multiple of dt.
        """
        from tasks.stl import robustness

        return robustness.robustness(self, signals, dt, smooth)

    def robustness_at_start(
        self, signals: Mapping[str, Array], dt: float, smooth: float | Smoothing | None = None
    ) -> torch.Tensor:
        """Robustness at sample 0, (batch,): ``robustness(...)[:, 0]``, computing only what that needs.

        Arguments and errors as for `robustness`.
        """
        from tasks.stl import robustness

        return robustness.robustness_at_start(self, signals, dt, smooth)

    def bounds_at_start(
        self, signals: Mapping[str, Array], dt: float, known: int | torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Between what the robustness at sample 0 can end up, whatever the unknown samples turn out to be.

        Args:
            signals: As for `robustness`; samples from `known` on are not looked at (they may be NaN), only counted.
            dt: Distance of samples [s].
            known: How many samples are known, int or (batch,) integers.

        Returns:
            ``lo, hi``, (batch,) each; equal once decided.

        Raises:
            SpecError: As for `robustness`.
        """
        from tasks.stl import robustness

        return robustness.bounds_at_start(self, signals, dt, known)

    def rho(self, signals: Mapping[str, np.ndarray], dt: float) -> np.ndarray:
        """Exact robustness with numpy alone: signals (T,) or (batch, T), dt [s] → the same shape.

        Raises:
            SpecError: As for `robustness`.
        """
        from tasks.stl import exact

        return exact.rho(self, signals, dt)

    def verdict(self, signals: Mapping[str, Array], dt: float) -> np.ndarray:
        """Whether the formula holds at every sample, with numpy alone: signals as for `rho` → bool, the same shape.

        Apart from `rho` because at ``rho == 0`` the number does not say: there ``a > 0`` is false and ``a >= 0`` true.

        Raises:
            NonFiniteError: A signal is NaN where it is looked at.
            SpecError: As for `robustness`.
        """
        from tasks.stl import exact

        return exact.verdict(self, signals, dt)

    def monitor(self, dt: float) -> Monitor:
        """An online monitor of the robustness at time 0, fed one sample every dt [s]; needs numpy alone.

        Raises:
            SpecError: An interval is no multiple of dt, or the formula cannot be monitored in bounded memory.
        """
        from tasks.stl.monitor import Monitor

        return Monitor(self, dt)

    def __str__(self) -> str:
        return _print(self, 0)


@dataclass(frozen=True)
class Truth(Formula):
    """``true`` or ``false``."""

    value: bool


@dataclass(frozen=True)
class Predicate(Formula):
    """A comparison ``left op right``, `op` one of ``> >= < <=``; its robustness is the greater side less the other."""

    left: Expr
    op: str
    right: Expr

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.left, self.right)

    def value(self, signals: Mapping[str, Array]) -> np.ndarray:
        """Robustness of the comparison, elementwise: numpy arrays (...) or floats → (...)."""
        from tasks.stl import exact

        return margin(self, {v.channel: channel(v, signals) for v in self.channels}, exact.LIBRARY)


def channel(variable: Variable, signals: Mapping[str, Any]) -> Any:
    """The values of a channel: a signal, or a component (last axis) of a vector signal.

    Raises:
        SpecError: The signal is not given, or has no such component.
    """
    if variable.channel in signals:
        return signals[variable.channel]
    if variable.name not in signals:
        raise SpecError(
            f"formula needs signal {variable.name!r}, which is not given: {nearest(variable.name, signals)}"
        )
    value = signals[variable.name]
    if not hasattr(value, "shape"):
        import numpy as np  # lazily: this file needs it nowhere else

        value = np.asarray(value)
    if len(value.shape) == 0 or variable.index >= value.shape[-1]:
        raise SpecError(
            f"signal {variable.name!r} has shape {tuple(value.shape)}, there is no component {variable.index} "
            "(counted from 0, on the last axis)"
        )
    return value[..., variable.index]


def margin(predicate: Predicate, signals: Mapping[str, Array], library: Library, negated: bool = False) -> Array:
    """Robustness of a comparison (or of its negation) over signals of any one kind of array."""
    upper, lower = predicate.left, predicate.right
    if predicate.op.startswith("<") != negated:
        upper, lower = lower, upper
    if lower == _ZERO:
        return evaluate(upper, signals, library)
    if upper == _ZERO:
        return -evaluate(lower, signals, library)
    return evaluate(upper, signals, library) - evaluate(lower, signals, library)


@dataclass(frozen=True)
class Not(Formula):
    """``not arg``."""

    arg: Formula

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.arg,)


@dataclass(frozen=True)
class And(Formula):
    """``args[0] and args[1] and ...``, flat: no argument is an `And`."""

    args: tuple[Formula, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return self.args


@dataclass(frozen=True)
class Or(Formula):
    """``args[0] or args[1] or ...``, flat: no argument is an `Or`."""

    args: tuple[Formula, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return self.args


@dataclass(frozen=True)
class Implies(Formula):
    """``left implies right``: ``not left or right``."""

    left: Formula
    right: Formula

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.left, self.right)


@dataclass(frozen=True)
class Iff(Formula):
    """``left iff right``: each implies the other."""

    left: Formula
    right: Formula

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.left, self.right)


@dataclass(frozen=True)
class Window(Formula):
    """``G F`` (future) or ``H O`` (past) over an interval; ``X Y``: the next, the previous sample (`STEP`)."""

    op: str
    interval: TimeInterval
    arg: Formula

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.arg,)


@dataclass(frozen=True)
class Until(Formula):
    """``left U right``, ``left S right`` (past), ``left W right`` (weak) or ``left R right``, over an interval."""

    op: str
    interval: TimeInterval
    left: Formula
    right: Formula

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.left, self.right)


def conjunction(args: Iterable[Formula]) -> Formula:
    """The flat ``and`` of formulas."""
    return And(tuple(part for arg in args for part in (arg.args if isinstance(arg, And) else (arg,))))


def disjunction(args: Iterable[Formula]) -> Formula:
    """The flat ``or`` of formulas."""
    return Or(tuple(part for arg in args for part in (arg.args if isinstance(arg, Or) else (arg,))))


_ZERO = Number(0.0)
STEP = TimeInterval(1.0, 1.0, steps=True)
"""The interval of ``X`` and ``Y``."""


def _horizon(formula: Formula, dt: float) -> float:
    inner = [_horizon(child, dt) for child in formula.children if isinstance(child, Formula)]
    if not isinstance(formula, Window | Until):
        return max(inner, default=0.0)
    start, end = (time * (dt if formula.interval.steps else 1.0) for time in formula.interval.numbers())
    if formula.op == "S":
        return max(inner[0], inner[1] - start)
    if formula.op in ("H", "O", "Y"):
        return max(0.0, inner[0] - start)
    return end + max(inner)


def rebuild(node: Any, children: Mapping[str, Any]) -> Any:
    """The node with other children, by field name."""
    if isinstance(node, And | Or):
        return (conjunction if isinstance(node, And) else disjunction)(children["args"])
    return replace(node, **children)


def map_tree(node: Any, change: Callable[[Any], Any]) -> Any:
    """The tree with `change` applied to every node, children first."""
    children: dict[str, Any] = {}
    for field in fields(node):
        value = getattr(node, field.name)
        if isinstance(value, Node):
            children[field.name] = map_tree(value, change)
        elif isinstance(value, tuple):
            children[field.name] = tuple(map_tree(part, change) for part in value)
    return change(rebuild(node, children) if children else node)


def _bind(formula: Formula, values: Mapping[str, float]) -> Formula:
    def end(value: float | Parameter) -> float | Parameter:
        return values.get(value.name, value) if isinstance(value, Parameter) else value

    def change(node: Any) -> Any:
        if isinstance(node, Parameter) and node.name in values:
            number = Number(abs(values[node.name]))
            return Apply("neg", (number,)) if values[node.name] < 0 else number
        if isinstance(node, Window | Until) and node.interval.parameters:
            interval = replace(node.interval, start=end(node.interval.start), end=end(node.interval.end))
            if reason := _impossible(interval):
                raise SpecError(f"{node.op}{interval}: {reason}")
            return replace(node, interval=interval)
        if isinstance(node, Apply) and node.op == "/" and not _varies(node.args[1]) and not _open(node.args[1]):
            try:
                evaluate(Apply("/", (Number(1.0), node.args[1])), {}, SCALAR_LIBRARY)
            except (ArithmeticError, ValueError):
                raise SpecError(f"{_print_expr(node, 0)!r} divides by zero; bind another number") from None
        return node

    return map_tree(formula, change)


def _impossible(interval: TimeInterval) -> str:
    """Why an interval cannot be meant; empty when it can."""
    if interval.parameters:
        return ""
    start, end = interval.numbers()
    unit = "steps" if interval.steps else "s"
    if start < 0 or end < 0:
        return "an interval has no negative ends; for the past use H, O or S"
    if start == math.inf:
        return "an interval cannot start at inf"
    if end < start:
        return f"interval ends at {_number(end)} {unit}, before its start at {_number(start)} {unit}"
    if interval.steps and any(math.isfinite(time) and time != int(time) for time in (start, end)):
        return "steps are whole numbers"
    return ""


# ---- the printer ---------------------------------------------------------------

_EXPR_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e16 else repr(value)


def _print_expr(expr: Expr, level: int) -> str:
    if isinstance(expr, Number):
        return _number(expr.value)
    if isinstance(expr, Variable):
        return expr.channel
    if isinstance(expr, Parameter):
        return f"${expr.name}"
    own = _EXPR_LEVEL.get(expr.op)
    if own is None:
        return f"{expr.op}({', '.join(_print_expr(arg, 0) for arg in expr.args)})"
    if expr.op == "neg":
        text = "-" + _print_expr(expr.args[0], own)
    elif expr.op == "^":
        text = f"{_print_expr(expr.args[0], own + 1)}^{_print_expr(expr.args[1], 0)}"
    else:
        text = f"{_print_expr(expr.args[0], own)} {expr.op} {_print_expr(expr.args[1], own + 1)}"
    return f"({text})" if own < level else text


def expression_text(expr: Expr) -> str:
    """Canonical text of an expression."""
    return _print_expr(expr, 0)


def _print(formula: Formula, level: int) -> str:
    # Levels as in the parser's table; chains that readers could take two ways always get parentheses.
    if isinstance(formula, Truth):
        return "true" if formula.value else "false"
    if isinstance(formula, Predicate):
        return f"{_print_expr(formula.left, 0)} {formula.op} {_print_expr(formula.right, 0)}"
    if isinstance(formula, Not):
        inner = _print(formula.arg, _UNARY)
        return f"not ({inner})" if isinstance(formula.arg, Predicate) else f"not {inner}"
    if isinstance(formula, Window):
        interval = "" if formula.op in ("X", "Y") else formula.interval
        return f"{formula.op}{interval}({_print(formula.arg, 0)})"
    if isinstance(formula, And):
        own, text = _AND, " and ".join(_print(arg, _AND + 1) for arg in formula.args)
    elif isinstance(formula, Or):
        own, text = _OR, " or ".join(_print(arg, _OR + 1) for arg in formula.args)
    elif isinstance(formula, Implies):
        own, text = _IMPLIES, f"{_print(formula.left, _IMPLIES + 1)} implies {_print(formula.right, _IMPLIES + 1)}"
    elif isinstance(formula, Iff):
        own, text = _IFF, f"{_print(formula.left, _IFF + 1)} iff {_print(formula.right, _IFF + 1)}"
    elif isinstance(formula, Until):
        word = f"{formula.op}{formula.interval}"
        own, text = _UNTIL, f"{_print(formula.left, _UNTIL + 1)} {word} {_print(formula.right, _UNTIL + 1)}"
    else:
        raise TypeError(f"not a formula: {type(formula).__name__}")
    return f"({text})" if own < level else text


# ---- the parser ------------------------------------------------------------------

_WORDS = {
    "not": "not",
    "and": "and",
    "or": "or",
    "implies": "->",
    "iff": "<->",
    "true": "true",
    "false": "false",
    "G": "G",
    "F": "F",
    "U": "U",
    "H": "H",
    "O": "O",
    "S": "S",
    "W": "W",
    "R": "R",
    "X": "X",
    "Y": "Y",
    "always": "G",
    "eventually": "F",
    "until": "U",
    "historically": "H",
    "once": "O",
    "since": "S",
    "unless": "W",
    "release": "R",
    "next": "X",
    "prev": "Y",
    "alw": "G",
    "ev": "F",
    "hist": "H",
}
_TEMPORAL = ("G", "F", "U", "H", "O", "S", "W", "R", "X", "Y")
_SYMBOLS = {
    "!": "not",
    "~": "not",
    "&": "and",
    "&&": "and",
    "|": "or",
    "||": "or",
    "=>": "->",
    "<=>": "<->",
    "**": "^",
}
_UNITS = {"s": 1.0, "ms": 1000.0}
_STEPS = ("step", "steps")
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<parameter>\$[A-Za-z_]\w*)"
    r"|(?P<symbol><->|<=>|->|=>|<=|>=|==|!=|&&|\|\||\*\*|[-+*/^<>=!~&|()\[\],:])",
    re.ASCII,
)

# Binding strengths, weakest first.
_IFF, _IMPLIES, _OR, _AND, _UNTIL, _UNARY, _COMPARE, _SUM, _PRODUCT, _SIGN, _POWER = range(1, 12)
_STRENGTH = {
    "<->": _IFF,
    "->": _IMPLIES,
    "or": _OR,
    "and": _AND,
    "U": _UNTIL,
    "S": _UNTIL,
    "W": _UNTIL,
    "R": _UNTIL,
    ">": _COMPARE,
    ">=": _COMPARE,
    "<": _COMPARE,
    "<=": _COMPARE,
    "+": _SUM,
    "-": _SUM,
    "*": _PRODUCT,
    "/": _PRODUCT,
    "^": _POWER,
}


@dataclass(frozen=True)
class _Token:
    kind: str  # "number", "name", "parameter", "symbol" or "end"
    text: str
    start: int
    op: str  # what the text means as an operator or word; "" for none


def is_signal_name(name: str) -> bool:
    """Whether a name can stand for a signal: an identifier (dots allowed) that is no word of the language."""
    match = _TOKEN.fullmatch(name)
    return match is not None and match.lastgroup == "name" and _word(name) == "" and name not in FUNCTIONS


def _word(name: str) -> str:
    word = _WORDS.get(name.removesuffix("_"), "")
    return word if name in _WORDS or word in _TEMPORAL else ""


def parse(text: str, signals: Iterable[str] | None = None, components: Mapping[str, int] | None = None) -> Formula:
    """Parse a formula; `docs/stl.md` describes the language.

    Args:
        text: Formula text, in our own, rtamt's or Breach's spelling.
        signals: Names of the scalar signals that exist; None to accept every name.
        components: Vector signals that exist, with how many components each has.

    Raises:
        SpecError: One line with the column, what was expected, and the nearest name.
    """
    if not isinstance(text, str):
        raise SpecError(f"formula: expected text, got {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise SpecError(f"formula has {len(text)} characters, at most {MAX_LENGTH} are read")
    vectors = dict(components or {})
    names = None if signals is None else (*signals, *vectors)
    for name in (*(names or ()), *vectors):
        if not is_signal_name(name):
            raise SpecError(f"signal name {name!r} cannot stand in a formula: it is a word of the language or no name")
    return _Parser(text, names, vectors).parse()


def _varies(expr: Expr) -> bool:
    """Whether an expression holds a signal."""
    return any(isinstance(part, Variable) for part in expr.walk())


def _open(expr: Expr) -> bool:
    """Whether an expression holds a parameter."""
    return any(isinstance(part, Parameter) for part in expr.walk())


class _Parser:
    """Operator precedence ("Pratt") parser; arithmetic and formulas share one loop and are told apart by type."""

    def __init__(self, text: str, signals: tuple[str, ...] | None, vectors: Mapping[str, int]) -> None:
        self.text, self.signals, self.vectors = text, signals, vectors
        self.scalar: dict[str, bool] = dict.fromkeys(vectors, False)
        self.tokens = list(self._tokenize())
        self.index = 0
        self.nesting = 0

    def _tokenize(self) -> Iterator[_Token]:
        position = 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                character = _Token("symbol", self.text[position], position, "")
                self.fail(character, f"unexpected character {self.text[position]!r}")
            kind, word = str(match.lastgroup), match.group()
            if kind != "space":
                op = _word(word) if kind == "name" else _SYMBOLS.get(word, word) if kind == "symbol" else ""
                yield _Token(kind, word, position, op)
            position = match.end()
        yield _Token("end", "", len(self.text), "")

    @property
    def token(self) -> _Token:
        return self.tokens[self.index]

    def next(self) -> _Token:
        token = self.token
        self.index = min(self.index + 1, len(self.tokens) - 1)
        return token

    def fail(self, token: _Token, message: str) -> NoReturn:
        start, end = token.start, token.start + len(token.text)
        before, after = self.text[max(0, start - 25) : start], self.text[end : end + 15]
        head, tail = "..." if start > 25 else "", "..." if end + 15 < len(self.text) else ""
        shown = " ".join(f"{head}{before} -->{token.text}<-- {after}{tail}".split())
        raise SpecError(f"formula column {start + 1}: {message}; at: {shown}")

    def got(self) -> str:
        return "the end of the text" if self.token.kind == "end" else repr(self.token.text)

    def expect(self, symbol: str, where: str) -> _Token:
        if self.token.text != symbol:
            self.fail(self.token, f"expected {symbol!r} {where}, got {self.got()}")
        return self.next()

    def parse(self) -> Formula:
        if self.token.kind == "end":
            self.fail(self.token, "expected a formula, got empty text")
        first = self.token
        result = self.expression(0)
        if self.token.kind != "end":
            self.unexpected()
        return self.formula(result, first)

    def unexpected(self) -> NoReturn:
        token = self.token
        if token.text in ("==", "=", "!="):
            self.fail(token, f"{token.text!r} has no robustness; write a tolerance, as in abs(a - b) < 0.01")
        if token.text == ")":
            self.fail(token, "')' without '('")
        if token.kind == "name" and not token.op:
            words = [word for word in _WORDS if _WORDS[word] in _STRENGTH]
            self.fail(token, f"expected an operator, got {token.text!r}: {nearest(token.text, words)}")
        self.fail(token, f"expected an operator or the end, got {self.got()}")

    def formula(self, node: Node, at: _Token) -> Formula:
        if isinstance(node, Formula):
            return node
        text = _print_expr(self.number(node, at, ""), 0)
        self.fail(at, f"expected a formula, got the number-valued {text!r}; compare it, as in {text} > 0")

    def number(self, node: Node, at: _Token, operator: str) -> Expr:
        if isinstance(node, Number | Variable | Parameter | Apply):
            return node
        if isinstance(node, Predicate) and operator in (">", ">=", "<", "<="):
            self.fail(at, "comparisons cannot be chained; write a < b and b < c")
        self.fail(at, f"{operator!r} needs a number-valued side, got the formula {str(node)!r}; parentheses?")

    def expression(self, strength: int) -> Node:
        """Read one operand and all operators that bind at least as strongly as `strength`."""
        self.nesting += 1
        if self.nesting > MAX_DEPTH:
            self.fail(self.token, f"nested deeper than {MAX_DEPTH} levels")
        first = self.token
        left = self.operand()
        while True:
            operator = self.token
            own = _STRENGTH.get(operator.op, -1)
            if own < 0 or own < strength:
                break
            self.next()
            left = self.binary(operator, own, left, first)
        self.nesting -= 1
        return left

    def binary(self, operator: _Token, own: int, left: Node, first: _Token) -> Node:
        op = operator.op
        if op == "^":
            power = self.apply(operator, "^", (self.number(left, first, op), Number(self.exponent())))
            if self.token.op == "^":
                self.fail(self.token, "powers in a row can be read two ways; add parentheses")
            return power
        if op in ("and", "or"):
            parts = [self.formula(left, first)]
            while True:
                start = self.token
                parts.append(self.formula(self.expression(own + 1), start))
                if self.token.op != op:
                    return conjunction(parts) if op == "and" else disjunction(parts)
                self.next()
        interval = self.interval() if own == _UNTIL else TimeInterval()
        start = self.token
        right = self.expression(own + 1)
        if own in (_SUM, _PRODUCT):
            return self.apply(operator, op, (self.number(left, first, op), self.number(right, start, op)))
        if own == _COMPARE:
            a, b = self.number(left, first, op), self.number(right, start, op)
            if not _varies(a) and not _varies(b):
                self.fail(first, "comparison of numbers alone; write true or false")
            node: Formula = Predicate(a, op, b)
        else:
            a, b = self.formula(left, first), self.formula(right, start)
            node = Iff(a, b) if op == "<->" else Implies(a, b) if op == "->" else Until(op, interval, a, b)
        if _STRENGTH.get(self.token.op) == own:
            if own == _COMPARE:
                self.fail(self.token, "comparisons cannot be chained; write a < b and b < c")
            both = f"{operator.text!r} and {self.token.text!r}"
            self.fail(self.token, f"{both} in a row can be read two ways; add parentheses")
        return node

    def exponent(self) -> float:
        parenthesis = self.token.text == "("
        if parenthesis:
            self.next()
        sign = 1.0
        if self.token.text == "-":
            sign = -1.0
            self.next()
        if self.token.kind != "number":
            self.fail(self.token, f"expected a constant number as the power, got {self.got()}")
        value = sign * self.literal(self.next())
        if parenthesis:
            self.expect(")", "after the power")
        return value

    def literal(self, token: _Token) -> float:
        value = float(token.text)
        if not math.isfinite(value):
            self.fail(token, "number too large")
        return value

    def apply(self, at: _Token, op: str, args: tuple[Expr, ...]) -> Expr:
        node = Apply(op, args)
        constant = [not _varies(arg) and not _open(arg) for arg in args]
        try:
            if op == "/" and constant[1] and evaluate(args[1], {}, SCALAR_LIBRARY) == 0:
                raise ZeroDivisionError
            if all(constant):
                value = evaluate(node, {}, SCALAR_LIBRARY)
                if isinstance(value, complex) or not math.isfinite(value):
                    raise ValueError
        except (ArithmeticError, ValueError):
            self.fail(at, f"{_print_expr(node, 0)!r} is no finite number")
        return node

    def operand(self) -> Node:
        token = self.next()
        if token.kind == "number":
            return Number(self.literal(token))
        if token.kind == "parameter":
            return Parameter(token.text[1:])
        if token.text == "(":
            inner = self.expression(0)
            if self.token.text != ")":
                if self.token.kind == "end":
                    self.fail(token, "'(' is never closed")
                self.unexpected()
            self.next()
            return inner
        if token.op == "-":
            start = self.token
            return self.apply(token, "neg", (self.number(self.expression(_SIGN), start, "-"),))
        if token.op == "+":
            self.fail(token, "expected a number or signal, got the sign '+'; leave it away")
        if token.op == "not":
            start = self.token
            return Not(self.formula(self.expression(_UNARY), start))
        if token.op in ("true", "false"):
            return Truth(token.op == "true")
        if token.op in ("G", "F", "H", "O", "X", "Y"):
            single = token.op in ("X", "Y")
            if single and self.token.text == "[":
                self.fail(self.token, f"{token.text!r} means one sample and takes no interval; use G or H")
            interval = STEP if single else self.interval()
            start = self.token
            return Window(token.op, interval, self.formula(self.expression(_UNARY), start))
        if token.kind == "name" and not token.op:
            return self.name(token)
        self.index -= token.kind != "end"
        self.fail(token, f"expected a formula, signal or number, got {self.got()}")

    def name(self, token: _Token) -> Node:
        if self.token.text == "(":
            return self.call(token)
        index: int | None = None
        if self.token.text == "[":
            _, inside, closing, *_ = [*self.tokens[self.index : self.index + 3], self.token, self.token]
            if closing.text != "]" or not (inside.text == "t" or inside.kind == "number"):
                if token.text in (self.signals or ()):
                    forms = f"{token.text}, {token.text}[t], or {token.text}[0] for a component of a vector"
                    self.fail(self.tokens[self.index + 1], f"a signal is written {forms}")
                known = [word for word in _WORDS if _WORDS[word] in _TEMPORAL]
                self.fail(token, f"unknown operator {token.text!r}: {nearest(token.text, known)}")
            if inside.kind == "number":
                if not inside.text.isdecimal():
                    self.fail(inside, "a component is a whole number, counted from 0")
                index = int(inside.text)
            self.index += 3
        if token.text in FUNCTIONS or token.text == "pow":
            self.fail(self.token, f"expected '(' after the function {token.text!r}, got {self.got()}")
        if self.signals is not None and token.text not in self.signals:
            self.fail(token, f"unknown signal {token.text!r}: {nearest(token.text, self.signals)}")
        vector = self.vectors.get(token.text)
        if vector is not None and index is not None and index >= vector:
            self.fail(token, f"signal {token.text!r} has {vector} components, 0 .. {vector - 1}; got {index}")
        known_scalar = self.signals is not None and vector is None
        if self.scalar.setdefault(token.text, known_scalar or index is None) != (index is None):
            if index is None:
                self.fail(token, f"signal {token.text!r} is a vector; a component is written {token.text}[0]")
            at = self.tokens[self.index - 2]
            self.fail(at, f"signal {token.text!r} is no vector; it is written {token.text} or {token.text}[t]")
        return Variable(token.text, index)

    def call(self, token: _Token) -> Expr:
        if token.text not in FUNCTIONS and token.text != "pow":
            known = [*FUNCTIONS, "pow", *(word for word in _WORDS if len(word) > 1)]
            self.fail(token, f"unknown function {token.text!r}: {nearest(token.text, known)}")
        self.next()
        args: list[Expr] = []
        while True:
            start = self.token
            args.append(self.number(self.expression(0), start, token.text))
            if self.token.text != ",":
                break
            self.next()
            if token.text == "pow" and len(args) == 1:
                args.append(Number(self.exponent()))
                break
        self.expect(")", f"or ',' in the arguments of {token.text!r}")
        fewest, most = FUNCTIONS.get(token.text, (2, 2))
        if len(args) < fewest or (most is not None and len(args) > most):
            needed = f"{fewest}" if fewest == most else f"at least {fewest}"
            self.fail(token, f"{token.text!r} takes {needed} argument{'s' if needed != '1' else ''}, got {len(args)}")
        return self.apply(token, "^" if token.text == "pow" else token.text, tuple(args))

    def interval(self) -> TimeInterval:
        if self.token.text != "[":
            return TimeInterval()
        opening = self.next()
        start, start_unit = self.time("start")
        if self.token.text not in (",", ":"):
            self.fail(self.token, f"expected ',' or ':' between the ends of the interval, got {self.got()}")
        self.next()
        end, end_unit = self.time("end")
        self.expect("]", "after the interval")
        # 0 and inf are the same in every unit.
        units = {unit for time, unit in ((start, start_unit), (end, end_unit)) if time not in (0.0, math.inf)}
        if len({unit in _STEPS for unit in units}) > 1:
            self.fail(opening, "one end of the interval is in steps, the other in seconds; give both the same unit")
        interval = TimeInterval(start, end, steps=any(unit in _STEPS for unit in units))
        if reason := _impossible(interval):
            self.fail(opening, reason)
        return interval

    def time(self, which: str) -> tuple[float | Parameter, str]:
        """An end of an interval and its unit: in seconds, or a number of steps."""
        token = self.next()
        if token.text == "-":
            self.fail(token, "an interval has no negative ends; for the past use H, O or S")
        if token.text == "inf":
            return math.inf, "s"
        if token.kind not in ("number", "parameter"):
            self.index -= token.kind != "end"
            self.fail(token, f"expected a time in seconds as the {which} of the interval, got {self.got()}")
        value = Parameter(token.text[1:]) if token.kind == "parameter" else self.literal(token)
        if self.token.kind != "name":
            return value, "s"
        unit = self.next()
        if unit.text in _STEPS:
            return value, unit.text
        if unit.text not in _UNITS:
            self.fail(unit, f"unknown unit {unit.text!r}: {nearest(unit.text, (*_UNITS, *_STEPS))}")
        if isinstance(value, Parameter):
            if unit.text != "s":
                self.fail(unit, "a parameter is given in seconds, or in steps")
            return value, unit.text
        return value / _UNITS[unit.text], unit.text
