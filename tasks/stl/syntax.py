"""The tree of a formula, its parser and its printer. Pure Python: neither numpy nor torch at import.

Text becomes a checked tree and nothing else: there is no `eval`, names are looked up in fixed tables, and
length and depth are limited, so text from anywhere may be parsed. `docs/stl.md` is the language reference.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, NoReturn, TypeAlias

from robo.core.errors import SpecError, nearest

if TYPE_CHECKING:
    import numpy as np
    import torch

    from tasks.stl.monitor import Monitor

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
    "min": (2, None),
    "max": (2, None),
    "norm": (1, None),
}
"""Functions of arithmetic → fewest and most arguments."""

SCALAR_LIBRARY: Library = {
    "abs": abs,
    "sqrt": math.sqrt,
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
    """A signal, by name."""

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


Expr: TypeAlias = Number | Variable | Apply


def evaluate(expr: Expr, signals: Mapping[str, Array], library: Library) -> Array:
    """Value of an arithmetic expression over signals of any one kind of array (or plain floats)."""
    if isinstance(expr, Number):
        return expr.value
    if isinstance(expr, Variable):
        return signals[expr.name]
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
        start_s, end_s: Ends [s]; `end_s` is inf where the operator is unbounded.
    """

    start_s: float = 0.0
    end_s: float = math.inf

    def __str__(self) -> str:
        if self.start_s == 0.0 and self.end_s == math.inf:
            return ""
        return f"[{_number(self.start_s)},{_number(self.end_s)}]"


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
    def predicates(self) -> tuple[Predicate, ...]:
        """The comparisons in the formula, each once, in order of appearance."""
        return tuple(dict.fromkeys(node for node in self.walk() if isinstance(node, Predicate)))

    @property
    def conjuncts(self) -> tuple[Formula, ...]:
        """What the formula is the top-level ``and`` of; itself alone otherwise."""
        return self.args if isinstance(self, And) else (self,)

    @cached_property
    def horizon_s(self) -> float:
        """How far beyond a moment its value looks [s]; inf when unbounded."""
        return _horizon(self)

    @cached_property
    def _cache(self) -> dict[Any, Any]:
        # Compiled programs; owned by tasks.stl.program.
        return {}

    def robustness(self, signals: Mapping[str, Array], dt: float, smooth: float | None = None) -> torch.Tensor:
        """Robustness at every sample; the formula holds where it is positive.

        Args:
            signals: Name → (batch, time), or (time,) for a batch of one; torch or numpy. Never changed.
            dt: Distance of samples [s].
            smooth: None for the exact value; else temperature k > 0 of log-sum-exp smoothing, in 1 over
                the unit of the predicates: every max over n values is at most ``log(n) / k`` too large,
                every min as much too small.

        Returns:
            (batch, time), in the signals' dtype and on their device; differentiable.

        Raises:
            SpecError: A signal is missing, shapes differ, or an interval is no multiple of dt.
        """
        from tasks.stl import robustness

        return robustness.robustness(self, signals, dt, smooth)

    def robustness_at_start(self, signals: Mapping[str, Array], dt: float, smooth: float | None = None) -> torch.Tensor:
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

        return margin(self, {name: signals[name] for name in self.signals}, exact.LIBRARY)


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
    """``G F`` (future) or ``H O`` (past) over an interval."""

    op: str
    interval: TimeInterval
    arg: Formula

    @property
    def children(self) -> tuple[Node, ...]:
        """The nodes directly below."""
        return (self.arg,)


@dataclass(frozen=True)
class Until(Formula):
    """``left U right``, or ``left S right`` (past), over an interval."""

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


def _horizon(formula: Formula) -> float:
    inner = [_horizon(child) for child in formula.children if isinstance(child, Formula)]
    if isinstance(formula, Window) and formula.op in "GF":
        return formula.interval.end_s + inner[0]
    if isinstance(formula, Window):
        return max(0.0, inner[0] - formula.interval.start_s)
    if isinstance(formula, Until) and formula.op == "U":
        return formula.interval.end_s + max(inner)
    if isinstance(formula, Until):
        return max(inner[0], inner[1] - formula.interval.start_s)
    return max(inner, default=0.0)


# ---- the printer ---------------------------------------------------------------

_EXPR_LEVEL = {"+": 1, "-": 1, "*": 2, "/": 2, "neg": 3, "^": 4}


def _number(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) and abs(value) < 1e16 else repr(value)


def _print_expr(expr: Expr, level: int) -> str:
    if isinstance(expr, Number):
        return _number(expr.value)
    if isinstance(expr, Variable):
        return expr.name
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
        return f"{formula.op}{formula.interval}({_print(formula.arg, 0)})"
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
    "always": "G",
    "eventually": "F",
    "until": "U",
    "historically": "H",
    "once": "O",
    "since": "S",
    "alw": "G",
    "ev": "F",
    "hist": "H",
}
_TEMPORAL = ("G", "F", "U", "H", "O", "S")
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
_TOKEN = re.compile(
    r"(?P<space>\s+)"
    r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)"
    r"|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
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
    kind: str  # "number", "name", "symbol" or "end"
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


def parse(text: str, signals: Iterable[str] | None = None) -> Formula:
    """Parse a formula; `docs/stl.md` describes the language.

    Args:
        text: Formula text, in our own, rtamt's or Breach's spelling.
        signals: Names that exist; None to accept every name.

    Raises:
        SpecError: One line with the column, what was expected, and the nearest name.
    """
    if not isinstance(text, str):
        raise SpecError(f"formula: expected text, got {type(text).__name__}")
    if len(text) > MAX_LENGTH:
        raise SpecError(f"formula has {len(text)} characters, at most {MAX_LENGTH} are read")
    names = None if signals is None else tuple(signals)
    for name in names or ():
        if not is_signal_name(name):
            raise SpecError(f"signal name {name!r} cannot stand in a formula: it is a word of the language or no name")
    return _Parser(text, names).parse()


class _Parser:
    """Operator precedence ("Pratt") parser; arithmetic and formulas share one loop and are told apart by type."""

    def __init__(self, text: str, signals: tuple[str, ...] | None) -> None:
        self.text, self.signals = text, signals
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
        if isinstance(node, Number | Variable | Apply):
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
            if not any(isinstance(node, Variable) for side in (a, b) for node in side.walk()):
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
        constant = [not any(isinstance(part, Variable) for part in arg.walk()) for arg in args]
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
        if token.op in ("G", "F", "H", "O"):
            interval = self.interval()
            start = self.token
            return Window(token.op, interval, self.formula(self.expression(_UNARY), start))
        if token.kind == "name" and not token.op:
            return self.name(token)
        self.index -= token.kind != "end"
        self.fail(token, f"expected a formula, signal or number, got {self.got()}")

    def name(self, token: _Token) -> Node:
        if self.token.text == "(":
            return self.call(token)
        if self.token.text == "[":
            if [following.text for following in self.tokens[self.index : self.index + 3]] != ["[", "t", "]"]:
                if token.text in (self.signals or ()):
                    self.fail(self.tokens[self.index + 1], f"a signal is written {token.text} or {token.text}[t]")
                known = [word for word in _WORDS if _WORDS[word] in _TEMPORAL]
                self.fail(token, f"unknown operator {token.text!r}: {nearest(token.text, known)}")
            self.index += 3
        if token.text in FUNCTIONS or token.text == "pow":
            self.fail(self.token, f"expected '(' after the function {token.text!r}, got {self.got()}")
        if self.signals is not None and token.text not in self.signals:
            self.fail(token, f"unknown signal {token.text!r}: {nearest(token.text, self.signals)}")
        return Variable(token.text)

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
        start = self.time("start")
        if self.token.text not in (",", ":"):
            self.fail(self.token, f"expected ',' or ':' between the ends of the interval, got {self.got()}")
        self.next()
        end = self.time("end")
        self.expect("]", "after the interval")
        if start == math.inf:
            self.fail(opening, "an interval cannot start at inf")
        if end < start:
            self.fail(opening, f"interval ends at {_number(end)} s, before its start at {_number(start)} s")
        return TimeInterval(start, end)

    def time(self, which: str) -> float:
        token = self.next()
        if token.text == "-":
            self.fail(token, "an interval has no negative ends; for the past use H, O or S")
        if token.text == "inf":
            return math.inf
        if token.kind != "number":
            self.index -= token.kind != "end"
            self.fail(token, f"expected a time in seconds as the {which} of the interval, got {self.got()}")
        value = self.literal(token)
        if self.token.kind == "name":
            unit = self.next()
            if unit.text not in _UNITS:
                self.fail(unit, f"unknown unit {unit.text!r}: {nearest(unit.text, _UNITS)}")
            value /= _UNITS[unit.text]
        return value
