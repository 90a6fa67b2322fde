"""Random formulas and traces, and robustness straight from its definition."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np
from hypothesis import strategies as st

from tasks.stl import syntax
from tasks.stl.syntax import (
    And,
    Apply,
    Expr,
    Formula,
    Iff,
    Implies,
    Not,
    Number,
    Or,
    Predicate,
    TimeInterval,
    Truth,
    Until,
    Variable,
    Window,
)

NAMES = ("a", "b", "c")
DT = 0.5
COMPARISONS = (">", ">=", "<", "<=")

_numbers = st.one_of(st.integers(0, 3).map(float), st.sampled_from([0.25, 0.5, 1.5, 1e-7, 12345.678])).map(Number)
_variables = st.sampled_from(NAMES).map(Variable)


def _has_signal(*exprs: Expr) -> bool:
    return any(isinstance(node, Variable) for expr in exprs for node in expr.walk())


def _arithmetic(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    def apply(op: str, *args: Expr) -> Apply:
        return Apply(op, args)

    return st.one_of(
        st.builds(apply, st.sampled_from("+-*"), inner, inner),
        st.builds(apply, st.sampled_from(["neg", "abs"]), inner),
        st.builds(apply, st.sampled_from(["min", "max"]), inner, inner, inner),
        st.builds(apply, st.just("norm"), inner, inner),
        st.builds(lambda x: Apply("sqrt", (Apply("abs", (x,)),)), inner),
        st.builds(lambda x, y: Apply("/", (x, Apply("+", (Number(1.0), Apply("^", (y, Number(2.0))))))), inner, inner),
        st.builds(apply, st.just("^"), inner, st.sampled_from([Number(2.0), Number(3.0)])),
    )


expressions = st.recursive(st.one_of(_variables, _numbers), _arithmetic, max_leaves=5)
predicates = st.builds(Predicate, expressions, st.sampled_from(COMPARISONS), expressions).filter(
    lambda p: _has_signal(p.left, p.right)
)
plain_predicates = st.builds(
    lambda name, op, level: Predicate(Variable(name), op, Number(level)),
    st.sampled_from(NAMES),
    st.sampled_from(COMPARISONS),
    st.sampled_from([0.0, 0.5, 1.0]),
)


def intervals(
    dt: float, unbounded: bool = True, longest: int = 4, steps: bool = True
) -> st.SearchStrategy[TimeInterval]:
    """Intervals of whole steps, some without an end."""
    bounded = st.builds(
        lambda start, length, steps: TimeInterval(
            *(float(end) if steps else end * dt for end in (start, start + length)), steps=steps and start + length > 0
        ),
        st.integers(0, 3),
        st.integers(0, longest),
        st.booleans() if steps else st.just(False),
    )
    if not unbounded:
        return bounded
    endless = st.builds(lambda start: TimeInterval(start * dt, math.inf), st.integers(0, 2))
    return st.one_of(bounded, bounded, endless)


def formulas(
    leaves: st.SearchStrategy[Formula] = plain_predicates,
    dt: float = DT,
    unbounded: bool = True,
    constants: bool = True,
    iff: bool = True,
    steps: bool = True,
    until: str = "USWR",
    max_leaves: int = 6,
) -> st.SearchStrategy[Formula]:
    """Random formulas; And and Or are flat, as the parser makes them."""
    times = intervals(dt, unbounded, steps=steps)
    if constants:
        leaves = st.one_of(leaves, leaves, leaves, st.booleans().map(Truth))

    def grow(inner: st.SearchStrategy[Formula]) -> st.SearchStrategy[Formula]:
        several = st.lists(inner, min_size=2, max_size=3)
        kinds = [
            st.builds(Not, inner),
            several.map(syntax.conjunction),
            several.map(syntax.disjunction),
            st.builds(Implies, inner, inner),
            st.builds(Window, st.sampled_from("GFHO"), times, inner),
            st.builds(Window, st.sampled_from("GF"), times, inner),
            st.builds(Until, st.sampled_from(until), times, inner, inner),
            st.builds(Window, st.sampled_from("XY"), st.just(syntax.STEP), inner),
        ]
        return st.one_of(*kinds, *([st.builds(Iff, inner, inner)] if iff else []))

    return st.recursive(leaves, grow, max_leaves=max_leaves)


def traces(samples: int, seed: int, batch: int | None = None) -> dict[str, np.ndarray]:
    """Random signals with ties: multiples of a quarter."""
    rng = np.random.default_rng(seed)
    shape = (samples,) if batch is None else (batch, samples)
    return {name: np.round(rng.normal(size=shape) * 4) / 4 for name in NAMES}


def by_definition(formula: Formula, trace: Mapping[str, Sequence[float]], dt: float) -> list[float]:
    """Robustness at every sample, written down as the definition says, without any cleverness."""
    samples = len(next(iter(trace.values())))
    times = range(samples)

    def window(interval: TimeInterval, t: int, past: bool) -> list[int]:
        start, end = interval.numbers()
        unit = 1.0 if interval.steps else dt
        return [u for u in times if start - 1e-9 <= ((t - u) if past else (u - t)) * unit <= end + 1e-9]

    def rho(f: Formula) -> list[float]:
        if isinstance(f, Truth):
            return [math.inf if f.value else -math.inf for _ in times]
        if isinstance(f, Predicate):
            values = []
            for t in times:
                now = {name: float(trace[name][t]) for name in trace}
                left = syntax.evaluate(f.left, now, syntax.SCALAR_LIBRARY)
                right = syntax.evaluate(f.right, now, syntax.SCALAR_LIBRARY)
                values.append(left - right if f.op in (">", ">=") else right - left)
            return values
        if isinstance(f, Not):
            return [-v for v in rho(f.arg)]
        if isinstance(f, And):
            return [min(vs) for vs in zip(*map(rho, f.args), strict=True)]
        if isinstance(f, Or):
            return [max(vs) for vs in zip(*map(rho, f.args), strict=True)]
        if isinstance(f, Implies):
            return [max(-x, y) for x, y in zip(rho(f.left), rho(f.right), strict=True)]
        if isinstance(f, Iff):
            return [min(max(-x, y), max(-y, x)) for x, y in zip(rho(f.left), rho(f.right), strict=True)]
        if isinstance(f, Window):
            inner, past = rho(f.arg), f.op in "HOY"
            if f.op in "GHXY":
                return [min((inner[u] for u in window(f.interval, t, past)), default=math.inf) for t in times]
            return [max((inner[u] for u in window(f.interval, t, past)), default=-math.inf) for t in times]
        assert isinstance(f, Until)
        if f.op == "W":
            always = Window("G", TimeInterval(0.0, f.interval.end, f.interval.steps), f.left)
            return rho(Or((Until("U", f.interval, f.left, f.right), always)))
        if f.op == "R":
            return rho(Not(Until("U", f.interval, Not(f.left), Not(f.right))))
        left, right, past = rho(f.left), rho(f.right), f.op == "S"
        result = []
        for t in times:
            best = -math.inf
            for u in window(f.interval, t, past):
                held = left[u + 1 : t + 1] if past else left[t:u]
                best = max(best, min([right[u], *held]))
            result.append(best)
        return result

    return rho(formula)
