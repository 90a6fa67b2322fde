"""The online monitor against the whole trace."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from robo.bench.monitor import FORMULAS, monitor_bench
from robo.core.errors import ConfigError, NonFiniteError, SpecError
from tasks.stl import Formula, parse
from tasks.stl.monitor import Interval
from tests.stl.formulas import DT, formulas, predicates, traces

torch.set_num_threads(1)

seeds = st.integers(0, 2**31)


def has_signal(formula: Formula) -> bool:
    return bool(formula.signals)


def feed(formula: Formula, signals: dict[str, np.ndarray], dt: float = DT) -> list[Interval]:
    """Intervals before the first and after every sample."""
    monitor = formula.monitor(dt)
    result = [monitor.interval]
    for t in range(len(next(iter(signals.values())))):
        result.append(monitor.update({name: float(value[t]) for name, value in signals.items()}))
    return result


def assert_nested(intervals: list[Interval]) -> None:
    for before, after in itertools.pairwise(intervals):
        assert before.lo <= after.lo <= after.hi <= before.hi


@settings(max_examples=150, deadline=None)
@given(formulas(leaves=predicates, unbounded=False, max_leaves=8).filter(has_signal), seeds)
def test_bounded_formulas_end_at_the_offline_value(formula: Formula, seed: int) -> None:
    samples = round(formula.horizon(DT) / DT) + 3
    signals = traces(samples, seed)
    intervals = feed(formula, signals)
    assert_nested(intervals)
    value = formula.rho(signals, DT)[0]
    assert math.isclose(intervals[-1].lo, value, abs_tol=1e-9) and intervals[-1].lo == intervals[-1].hi
    # Sample by sample the same as the bounds of the whole trace.
    whole = {name: torch.tensor(value) for name, value in signals.items()}
    for known, interval in enumerate(intervals):
        lo, hi = (end.item() for end in formula.bounds_at_start(whole, DT, known))
        assert interval.lo == pytest.approx(lo, rel=1e-14, abs=1e-9) and interval.hi == pytest.approx(
            hi, rel=1e-14, abs=1e-9
        )


@settings(max_examples=150, deadline=None)
@given(formulas(max_leaves=6).filter(has_signal), seeds, st.integers(1, 40))
@example(parse("G[0,0.5](b > 0.5) U[0,0.5] G[0,inf](b > 0.5)"), 0, 20)  # an endless window over a changed stretch
def test_any_formula_is_bounded_from_both_sides(formula: Formula, seed: int, samples: int) -> None:
    try:
        formula.monitor(DT)
    except SpecError as error:
        assume("bounded memory" not in str(error))
    signals = traces(samples, seed)
    intervals = feed(formula, signals)
    assert_nested(intervals)
    # Any way on from here stays within: two ways, long enough for every window.
    for more in (0, 1):
        longer = {n: np.concatenate((v, traces(120, seed + more)[n])) for n, v in signals.items()}
        value = formula.rho(longer, DT)[0]
        if formula.horizon(DT) < math.inf:
            assert intervals[-1].lo - 1e-9 <= value <= intervals[-1].hi + 1e-9


ENDLESS = [
    ("G(a > -1)", lambda s: (-math.inf, min(s["a"]) + 1)),
    ("F(a > 1)", lambda s: (max(s["a"]) - 1, math.inf)),
    ("not G(a > 0)", lambda s: (max(-s["a"]), math.inf)),
    ("G[2,inf](a > 0)", lambda s: (-math.inf, min(s["a"][4:]))),
    ("F(G[0,1](a > 0))", lambda s: (max(min(s["a"][t : t + 3]) for t in range(len(s["a"]) - 2)), math.inf)),
    ("G(F[0,1](a > 0))", lambda s: (-math.inf, min(max(s["a"][t : t + 3]) for t in range(len(s["a"]) - 2)))),
    ("G(O(a > 0))", lambda s: (-math.inf, s["a"][0])),
    (
        "G(a > 0 implies O[0,1](b > 0))",
        lambda s: (-math.inf, min(max(-s["a"][t], max(s["b"][max(t - 2, 0) : t + 1])) for t in range(len(s["a"])))),
    ),
    (
        "a > 0 U b > 0",
        lambda s: (
            max(min([s["b"][t], *s["a"][:t]]) for t in range(len(s["a"]))),
            max([min(s["a"]), *(min([s["b"][t], *s["a"][:t]]) for t in range(len(s["a"])))]),
        ),
    ),
    ("G(F(a > 0))", lambda s: (-math.inf, math.inf)),
]


@pytest.mark.parametrize(("text", "wanted"), ENDLESS, ids=[row[0] for row in ENDLESS])
@pytest.mark.parametrize("samples", [7, 400])
def test_endless_formulas(text: str, wanted, samples: int) -> None:
    signals = {name: np.random.default_rng(4).normal(size=samples) for name in "ab"}
    intervals = feed(parse(text), signals)
    assert_nested(intervals)
    assert intervals[-1] == pytest.approx(wanted(signals))


@pytest.mark.parametrize(
    "text", ["G(a > 0 or F[0,3](G[0,2](b > 0)))", "F(a > 0 S[1,2] b > 0)", "F(H(a > 0) and b > 0)"]
)
def test_memory_is_bounded(text: str) -> None:
    monitor = parse(text).monitor(DT)
    rng = np.random.default_rng(0)

    def held() -> int:
        return sum(track.data.size for end in monitor._ends for track in end.tracks)

    before = held()
    for _ in range(3000):
        monitor.update({"a": rng.normal(), "b": rng.normal()})
    assert held() == before < 2000


@pytest.mark.parametrize("text", ["G(a > 0 or G(b > 0))", "F(a > 0 and F(b > 0))", "G(a > 0 U b > 0)"])
def test_what_needs_endless_memory_is_refused(text: str) -> None:
    with pytest.raises(SpecError, match="give the inner one an interval"):
        parse(text).monitor(DT)


def test_too_long_windows_are_refused() -> None:
    for text in ("G[0,1e9](a > 0)", "G(O[0,1e9](a > 0))"):
        with pytest.raises(SpecError, match="shorten its intervals"):
            parse(text).monitor(DT)


def test_decided_early() -> None:
    intervals = feed(parse("F[0,1](a > 0) or true"), {"a": np.zeros(1)})
    assert intervals[0] == (math.inf, math.inf)
    monitor = parse("G[0,4](a > 0)").monitor(1.0)
    assert monitor.interval == (-math.inf, math.inf)
    assert monitor.update({"a": 2.0}) == (-math.inf, 2.0)
    for value in (3.0, 1.0, 5.0):
        monitor.update({"a": value})
    assert monitor.update({"a": 4.0}) == (1.0, 1.0)
    assert monitor.update({"a": -7.0}) == (1.0, 1.0)


def test_predicates_and_bad_samples() -> None:
    monitor = parse("G[0,1](a > b and sqrt(a) < 3 and b / a > 0)").monitor(DT)
    assert monitor.predicates() == {}
    first = monitor.update({"a": 4.0, "b": 1.0, "unused": math.nan})
    assert monitor.predicates() == {"a > b": 3.0, "sqrt(a) < 3": 1.0, "b / a > 0": 0.25}
    for sample in ({"a": math.nan, "b": 1.0}, {"a": -1.0, "b": 1.0}, {"a": 0.0, "b": 1.0}, {"a": 1.0, "b": math.nan}):
        with pytest.raises(NonFiniteError, match="sample 1"):
            monitor.update(sample)
    with pytest.raises(SpecError, match=r"'b'.*not given"):
        monitor.update({"a": 1.0})
    assert monitor.interval == first
    monitor.update({"a": 4.0, "b": 2.0})
    last = monitor.update({"a": 4.0, "b": 3.0})
    assert last.lo == last.hi == 0.25


def test_dt_must_divide_the_intervals() -> None:
    with pytest.raises(SpecError, match=r"write 0\.9 or 1\.2"):
        parse("F[0,1](a > 0)").monitor(0.3)


def test_the_benchmark_checks_what_it_times() -> None:
    report = monitor_bench(windows=[3])
    assert len(report.rows) == len(FORMULAS) and all(row["rtamt, mean [us]"] > 0 for row in report.rows)
    assert all(row["ours, mean [us]"] > 0 and row["samples"] >= 1 for row in report.rows)
    with pytest.raises(ConfigError, match="positive whole numbers"):
        monitor_bench(windows=[0])
