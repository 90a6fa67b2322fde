"""Robustness in torch and numpy against the definition, against rtamt and stlcgpp, smooth, and its gradients."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import numpy as np
import pytest
import rtamt
import stlcgpp.formula as stlcgpp
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from robo.core.errors import NonFiniteError, SpecError
from tasks.stl import Formula, parse, robustness
from tasks.stl.conventions import from_stlcgpp
from tasks.stl.smooth import Dgmsr, LogSumExp, Softmax, bound
from tasks.stl.syntax import (
    And,
    Apply,
    Iff,
    Implies,
    Not,
    Number,
    Or,
    Predicate,
    Truth,
    Until,
    Variable,
    Window,
    map_tree,
)
from tests.stl.formulas import DT, NAMES, by_definition, formulas, plain_predicates, predicates, traces

torch.set_num_threads(1)

seeds = st.integers(0, 2**31)
lengths = st.integers(1, 12)


def tensors(signals: dict[str, np.ndarray], grad: bool = False) -> dict[str, torch.Tensor]:
    return {name: torch.tensor(value, requires_grad=grad) for name, value in signals.items()}


def has_signal(formula: Formula) -> bool:
    return bool(formula.signals)


def close(a: object, b: object, tolerance: float = 1e-9) -> None:
    np.testing.assert_allclose(np.asarray(a), np.asarray(b), rtol=tolerance, atol=tolerance)


@settings(max_examples=200, deadline=None)
@given(formulas(leaves=predicates, max_leaves=8).filter(has_signal), seeds, lengths)
def test_exact_is_the_definition(formula: Formula, seed: int, samples: int) -> None:
    signals = traces(samples, seed, batch=2)
    wanted = [by_definition(formula, {n: list(v[row]) for n, v in signals.items()}, DT) for row in range(2)]
    close(formula.rho(signals, DT), wanted)
    close(formula.robustness(tensors(signals), DT), wanted)
    close(formula.robustness_at_start(tensors(signals), DT), [row[0] for row in wanted])
    # The same numbers come out where a gradient is wanted, by another way.
    close(formula.robustness(tensors(signals, grad=True), DT).detach(), wanted)
    close(formula.robustness_at_start(tensors(signals, grad=True), DT).detach(), [row[0] for row in wanted])


@pytest.fixture
def by_torch(monkeypatch: pytest.MonkeyPatch):
    """Runs something on torch's own path, the one that GPUs take."""

    def run(work):
        with monkeypatch.context() as patch:
            patch.setattr(robustness, "_is_compiled", lambda leaves: False)
            return work()

    return run


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    formulas(leaves=predicates, max_leaves=8).filter(has_signal),
    seeds,
    lengths,
    st.sampled_from([torch.float32, torch.float64]),
)
def test_compiled_and_torch_give_the_same_bits(by_torch, formula: Formula, seed: int, samples: int, dtype) -> None:
    """Values, and which sample each gradient goes to, ties included."""

    def work() -> list[torch.Tensor]:
        signals = {n: torch.tensor(v, dtype=dtype) for n, v in traces(samples, seed, batch=3).items()}
        plain = formula.robustness(signals, DT)
        tracked = {n: v.clone().requires_grad_(True) for n, v in signals.items()}
        value = formula.robustness(tracked, DT)
        weights = torch.arange(1.0, value.numel() + 1, dtype=dtype).reshape(value.shape)
        value.backward(torch.where(value.isfinite(), weights, 0.0))
        bounds = formula.bounds_at_start(signals, DT, samples // 2)
        zero = torch.zeros(3, samples, dtype=dtype)
        return [plain, value.detach(), *bounds, *(zero if v.grad is None else v.grad for v in tracked.values())]

    for ours, theirs in zip(work(), by_torch(work), strict=True):
        assert ours.dtype == theirs.dtype == dtype
        assert torch.equal(ours, theirs) or torch.allclose(ours, theirs, rtol=1e-6, equal_nan=True)


def test_a_long_bank_keeps_its_columns(by_torch) -> None:
    """Columns beyond what two bytes hold."""
    formula = parse("F[0,20](a > 0) and G[0,5](b > 0)")

    def work() -> torch.Tensor:
        signals = {n: torch.tensor(v, requires_grad=True) for n, v in traces(40_000, 1, batch=2).items()}
        formula.robustness(signals, DT).sum().backward()
        return torch.stack([signals["a"].grad, signals["b"].grad])  # type: ignore[arg-type]

    assert torch.equal(work(), by_torch(work))


def longer_windows() -> st.SearchStrategy[Formula]:
    """Windows wider than those that smooth robustness unfolds, and windows beyond the trace."""
    texts = [
        "G[0,10](F[1,12](a > 0))",
        "F[2,30](a > 0 and G[0,9](b < 1))",
        "a > 0 U[3,17] b > 0",
        "not (a < 1 S[1,15] G[0,11](b > 0))",
        "G(a > 0 implies F[0,10](O[0,13](c > 0)))",
        "H[2,20](a > 0 or b > 0) iff F[5,inf](c > 0)",
    ]
    return st.sampled_from(texts).map(parse)


@settings(max_examples=40, deadline=None)
@given(longer_windows(), seeds, st.integers(1, 60))
def test_long_windows_are_the_definition(formula: Formula, seed: int, samples: int) -> None:
    signals = traces(samples, seed)
    wanted = by_definition(formula, {n: list(v) for n, v in signals.items()}, DT)
    close(formula.rho(signals, DT), wanted)
    close(formula.robustness(tensors(signals, grad=True), DT).detach()[0], wanted)
    smooth = formula.robustness(tensors(signals), DT, smooth=1e5)[0]
    close(smooth, wanted, 1e-3)


# ---- other libraries -------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(formulas(dt=1.0, constants=False, iff=False, steps=False, until="USW"), seeds, st.integers(2, 9))
def test_agrees_with_rtamt(formula: Formula, seed: int, samples: int) -> None:
    assume("inf" not in str(formula))  # rtamt has endless operators only from now on
    assume(" W " not in str(formula))  # and fails on an unless without an interval
    signals = traces(samples, seed)
    monitor = rtamt.StlDiscreteTimeSpecification()
    for name in formula.signals:
        monitor.declare_var(name, "float")
    monitor.spec = str(formula)
    monitor.parse()
    data = {"time": list(range(samples)), **{name: list(map(float, signals[name])) for name in formula.signals}}
    theirs = monitor.evaluate(copy.deepcopy(data))  # it changes the lists it is given
    close(formula.rho(signals, 1.0), [value for _, value in theirs])
    close(formula.robustness(signals, 1.0)[0], [value for _, value in theirs])


def as_stlcgpp(formula: Formula) -> stlcgpp.STLFormula:
    """The same formula built of stlcgpp's parts. Its until wants the left side at the right side's moment as well."""
    if isinstance(formula, Predicate):
        assert isinstance(formula.left, Variable)
        column, name = NAMES.index(formula.left.name), formula.left.name
        predicate = stlcgpp.Predicate(name, lambda signal: signal[:, column])
        level = torch.tensor(formula.right.value)  # type: ignore[union-attr]
        return predicate > level if formula.op.startswith(">") else predicate < level
    if isinstance(formula, Not):
        return stlcgpp.Negation(as_stlcgpp(formula.arg))
    if isinstance(formula, And | Or):
        build = stlcgpp.And if isinstance(formula, And) else stlcgpp.Or
        result = as_stlcgpp(formula.args[0])
        for arg in formula.args[1:]:
            result = build(result, as_stlcgpp(arg))
        return result
    if isinstance(formula, Implies):
        return stlcgpp.Implies(as_stlcgpp(formula.left), as_stlcgpp(formula.right))
    steps = [end if end == math.inf else round(end / DT) for end in formula.interval.numbers()]
    if isinstance(formula, Window):
        build = stlcgpp.Always if formula.op == "G" else stlcgpp.Eventually
        return build(as_stlcgpp(formula.arg), steps)
    assert isinstance(formula, Until)
    return stlcgpp.Until(as_stlcgpp(formula.left), as_stlcgpp(formula.right), steps)


def known_to_stlcgpp(formula: Formula) -> bool:
    """Neither past operators nor others that stlcgpp lacks."""
    nodes = list(formula.walk())
    lacks = any(getattr(node, "op", "") in ("H", "O", "S", "W", "R", "X", "Y") for node in nodes)
    return not lacks and not any(isinstance(node, Iff | Truth) for node in nodes)


@settings(max_examples=100, deadline=None)
@given(
    formulas(constants=False, iff=False, steps=False, until="U", max_leaves=4).filter(known_to_stlcgpp),
    seeds,
    st.integers(2, 14),
)
def test_agrees_with_stlcgpp_to_the_end_of_the_trace(formula: Formula, seed: int, samples: int) -> None:
    # Its until without an end fails where the trace is too short for the start of the interval.
    endless = [n.interval for n in formula.walk() if isinstance(n, Until) and n.interval.end == math.inf]
    assume(all(interval.start / DT < samples for interval in endless))
    signals = traces(samples, seed)
    stacked = torch.tensor(np.stack([signals[name] for name in NAMES], axis=1), dtype=torch.float32)
    theirs = as_stlcgpp(formula)(stacked)
    ours = from_stlcgpp(formula)
    close(ours.rho(signals, DT).clip(-1e9, 1e9), theirs, 1e-5)
    close(ours.robustness(signals, DT)[0].clip(-1e9, 1e9), theirs, 1e-5)


def test_conventions_differ_where_they_say() -> None:
    ends, until = parse("G[0,1](a > 0)"), parse("a > 0 U[0,1] b > 0")
    signals = {"a": np.array([1.0, 2.0, -3.0]), "b": np.array([-1.0, -1.0, 4.0])}
    close(ends.rho(signals, DT), [-3.0, -3.0, -3.0])
    close(from_stlcgpp(ends).rho(signals, DT), [-3.0, -math.inf, -math.inf])
    close(until.rho(signals, DT), [1.0, 2.0, 4.0])
    close(from_stlcgpp(until).rho(signals, DT), [-1.0, -1.0, -3.0])


# ---- smooth ----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(formulas(leaves=predicates).filter(has_signal), seeds, lengths)
def test_smooth_tends_to_exact_as_fast_as_its_bound(formula: Formula, seed: int, samples: int) -> None:
    signals = traces(samples, seed, batch=2)
    exact = formula.rho(signals, DT)
    finite = np.isfinite(exact)
    for kind in (LogSumExp, Softmax):
        for temperature in (10.0, 1e3, 1e5):
            how = kind(temperature)
            smooth = formula.robustness(tensors(signals), DT, smooth=how).numpy()
            assert not np.isnan(smooth).any()
            np.testing.assert_array_equal(smooth[~finite], exact[~finite])
            allowed = bound(formula, DT, samples, how)
            assert allowed < 60 / temperature
            # Large values round.
            assert (np.abs(smooth[finite] - exact[finite]) <= allowed + 1e-9 + 1e-12 * np.abs(exact[finite])).all()
            # At the start alone an until may be split otherwise, so its smooth value differs; the bound is the same.
            at_start = formula.robustness_at_start(tensors(signals, grad=True), DT, smooth=how).detach().numpy()
            inside = finite[:, 0]
            np.testing.assert_array_equal(at_start[~inside], exact[~inside, 0])
            if not any(isinstance(node, Until) for node in formula.walk()):
                close(at_start, smooth[:, 0], 1e-7)
            off = np.abs(at_start[inside] - exact[inside, 0])
            assert (off <= allowed + 1e-9 + 1e-12 * np.abs(exact[inside, 0])).all()
    plain = formula.robustness(tensors(signals), DT, smooth=10.0)
    assert torch.equal(plain, formula.robustness(tensors(signals), DT, smooth=LogSumExp(10.0)))


def test_which_side_a_smooth_max_is_off() -> None:
    signals = {"a": torch.tensor([[0.0, 1.0, 1.0, 0.9]])}
    formula = parse("F[0,1.5](a > 0)")
    above, below = (formula.robustness_at_start(signals, DT, how).item() for how in (LogSumExp(5.0), Softmax(5.0)))
    assert 0.5 < below < 1.0 < above < 1.0 + math.log(4) / 5
    assert above - below < bound(formula, DT, 4, LogSumExp(5.0)) == pytest.approx(math.log(4) / 5)


@settings(max_examples=200, deadline=None)
@given(formulas().filter(has_signal), seeds, lengths, st.sampled_from([Dgmsr(), Dgmsr(1e-3), Dgmsr(power=3.0)]))
def test_dgmsr_is_sound(formula: Formula, seed: int, samples: int, how: Dgmsr) -> None:
    signals = {name: value + 0.1 for name, value in traces(samples, seed, batch=2).items()}  # no zero, a 0.1 at least
    exact = formula.rho(signals, DT)
    smooth = formula.robustness(tensors(signals, grad=True), DT, smooth=how).detach().numpy()
    # Never the other sign; 0 only where nested means have become smaller than rounding.
    assert (smooth * exact >= 0).all() and not np.isnan(smooth).any()
    np.testing.assert_array_equal(np.isinf(smooth), np.isinf(exact))


def test_dgmsr_masks_no_gradient() -> None:
    """Exact robustness moves one sample; this one moves all that keep the formula from holding, or all that hold it."""
    formula = parse("G[0,3](a > 0) and F[0,3](b > 0)")
    for level in (-0.5, 0.5):
        signals = {n: (torch.full((1, 7), level) - 0.01 * torch.arange(7)).requires_grad_(True) for n in "ab"}
        formula.robustness_at_start(signals, DT, Dgmsr()).sum().backward()
        assert all((s.grad[0] != 0).sum() == 7 for s in signals.values())  # type: ignore[index]
        for signal in signals.values():
            signal.grad = None
        formula.robustness_at_start(signals, DT).sum().backward()
        assert sum(int((s.grad[0] != 0).sum()) for s in signals.values() if s.grad is not None) == 1


def test_dgmsr_of_a_min_is_its_formula() -> None:
    how = Dgmsr(epsilon=0.01, power=2.0)
    for values in ([0.5, 0.2, 0.9], [0.5, -0.2, -0.9], [-0.5, -0.2, -0.9]):
        z = np.array(values)
        product = (0.01**3 + np.prod(z.clip(0) ** 2)) ** (1 / 3)
        power = (0.01**2 + np.mean((-z).clip(0) ** 4)) ** (1 / 2)
        wanted = math.sqrt(product) - math.sqrt(power)
        found = parse("G[0,1](a > 0)").robustness_at_start(
            {"a": torch.tensor([values], dtype=torch.float64)}, DT, smooth=how
        )
        assert found.item() == pytest.approx(wanted, rel=1e-9)
        flipped = parse("F[0,1](a < 0)").robustness_at_start(
            {"a": torch.tensor([values], dtype=torch.float64)}, DT, smooth=how
        )
        assert flipped.item() == pytest.approx(-wanted, rel=1e-9)


@settings(max_examples=60, deadline=None)
@given(
    formulas(constants=False, max_leaves=5),
    seeds,
    st.integers(2, 9),
    st.sampled_from([None, 3.0, Softmax(3.0), Dgmsr(epsilon=0.05)]),
)
def test_gradient_is_the_difference_quotient(formula: Formula, seed: int, samples: int, smooth) -> None:
    rng = np.random.default_rng(seed)
    # No ties: the exact robustness is differentiable there.
    signals = {name: rng.permutation(samples * 2).reshape(2, samples) * 0.37 + 0.011 for name in NAMES}
    if smooth is None:
        signals = {name: value + 0.1 * index for index, (name, value) in enumerate(signals.items())}
    inputs = tensors(signals, grad=True)
    weights = torch.tensor(rng.normal(size=(2, samples)))

    def total(given: dict[str, torch.Tensor]) -> torch.Tensor:
        value = formula.robustness(given, DT, smooth)
        return torch.where(value.isfinite(), value * weights, 0.0).sum()

    total(inputs).backward()
    step = 1e-5
    for name in formula.signals:
        gradient = inputs[name].grad
        for row in range(2):
            for t in range(samples):
                ends = []
                for sign in (1, -1):
                    moved = {n: v.copy() for n, v in signals.items()}
                    moved[name][row, t] += sign * step
                    ends.append(total(tensors(moved)).item())
                quotient = (ends[0] - ends[1]) / (2 * step)
                close(0.0 if gradient is None else gradient[row, t].item(), quotient, 1e-4)


@pytest.mark.parametrize("smooth", [None, 20.0, Softmax(20.0), Dgmsr()])
@pytest.mark.parametrize(
    "text", ["G[0,20](a > 0)", "F[0,9](G[0,10](a > 0 or b > 0))", "a > 0 U[2,18] b > 0", "norm(a, b) < 1"]
)
def test_gradient_at_start_is_the_gradient_of_the_first_sample(text: str, smooth) -> None:
    formula = parse(text)
    first, whole = (tensors(traces(60, 5, batch=3), grad=True) for _ in range(2))
    formula.robustness_at_start(first, DT, smooth).sum().backward()
    formula.robustness(whole, DT, smooth)[:, 0].sum().backward()
    for name in formula.signals:
        close(first[name].grad, whole[name].grad)


def test_ties_pass_one_whole_gradient() -> None:
    signals = {"a": torch.ones(1, 5, requires_grad=True)}
    parse("G[0,2](a > 0)").robustness_at_start(signals, DT).backward()
    assert signals["a"].grad is not None and signals["a"].grad.sum() == 1


def test_gradients_are_finite_where_roots_and_windows_end() -> None:
    for smooth in (None, 50.0, Softmax(50.0), Dgmsr()):
        signals = {name: torch.zeros(2, 12, requires_grad=True) for name in NAMES}
        value = parse("G[1,4](norm(a, b) < 1) and F[4,9](c > 0) and (a > 0 U[1,3] b > 0)").robustness(
            signals, DT, smooth
        )
        value[value.isfinite()].sum().backward()
        for signal in signals.values():
            assert signal.grad is not None and signal.grad.isfinite().all()


# ---- true or false ---------------------------------------------------------------


def holds(formula: Formula, trace: dict[str, np.ndarray], dt: float) -> list[bool]:
    """The verdict straight from robustness where that is not 0; there, by moving the comparisons by a hair.

    Traces are multiples of a quarter, so nothing but an equality is nearer to 0 than this.
    """
    hair = 1e-3

    def nudge(node):
        if not isinstance(node, Predicate):
            return node
        down = node.op in (">", "<=")  # what is strict must be clear by a hair, what is not may fail by one
        return replace(node, right=Apply("+" if down else "-", (node.right, Number(hair))))

    return [rho > 0 for rho in by_definition(map_tree(formula, nudge), {n: list(v) for n, v in trace.items()}, dt)]


@settings(max_examples=200, deadline=None)
@given(formulas().filter(has_signal), seeds, lengths)
def test_the_verdict_is_right_where_robustness_is_zero_too(formula: Formula, seed: int, samples: int) -> None:
    signals = traces(samples, seed)
    verdict, rho = formula.verdict(signals, DT), formula.rho(signals, DT)
    assert verdict.dtype == bool and verdict.shape == rho.shape
    assert verdict[rho > 0].all() and not verdict[rho < 0].any()
    assert verdict.tolist() == holds(formula, signals, DT)
    assert (formula.verdict({n: np.stack([v, v]) for n, v in signals.items()}, DT) == verdict).all()


def test_components_of_vector_signals() -> None:
    rng = np.random.default_rng(0)
    arm, level = rng.normal(size=(2, 9, 3)), rng.normal(size=(2, 9))
    formula = parse("G[0,1](ee[2] > level) and F[0,2](norm(ee[0], ee[1]) < 1)")
    plain = parse("G[0,1](z > level) and F[0,2](norm(x, y) < 1)")
    vectors, scalars = (
        {"ee": arm, "level": level},
        dict(zip("xyz", np.moveaxis(arm, -1, 0), strict=True)) | {"level": level},
    )
    close(formula.rho(vectors, DT), plain.rho(scalars, DT))
    close(formula.rho({"ee": arm[0], "level": level[0]}, DT), plain.rho(scalars, DT)[0])
    ee = torch.tensor(arm, requires_grad=True)
    formula.robustness_at_start({"ee": ee, "level": torch.tensor(level)}, DT).sum().backward()
    assert ee.grad is not None and ee.grad.shape == arm.shape and (ee.grad != 0).any()
    monitor = formula.monitor(DT)
    for k in range(9):
        interval = monitor.update({"ee": arm[0, k], "level": level[0, k]})
    close(interval, [plain.rho(scalars, DT)[0, 0]] * 2)
    assert formula.predicates[0].value({"ee": arm[0, 0], "level": 0.5}) == arm[0, 0, 2] - 0.5


# ---- bounds ----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(formulas(leaves=predicates).filter(has_signal), seeds, lengths)
def test_bounds_hold_the_value_and_shrink(formula: Formula, seed: int, samples: int) -> None:
    signals = tensors(traces(samples, seed, batch=2))
    value = formula.robustness_at_start(signals, DT)
    lo, hi = torch.full((2,), -math.inf), torch.full((2,), math.inf)
    for known in range(samples + 1):
        hidden = {n: torch.where(torch.arange(samples) < known, v, math.nan) for n, v in signals.items()}
        new_lo, new_hi = formula.bounds_at_start(hidden, DT, known)
        assert (new_lo >= lo).all() and (new_hi <= hi).all()
        assert (new_lo <= value).all() and (value <= new_hi).all()
        lo, hi = new_lo, new_hi
    assert torch.equal(lo, value) and torch.equal(hi, value)
    counts = torch.tensor([0, samples])
    each = formula.bounds_at_start(signals, DT, counts)
    for row, known in enumerate(counts.tolist()):
        one = formula.bounds_at_start(signals, DT, known)
        assert [end[row] for end in each] == [end[row] for end in one]


def test_bounds_are_tight() -> None:
    signals = {"a": torch.tensor([[1.0, 3.0, 2.0]])}
    lo, hi = parse("F[0,1](a > 0)").bounds_at_start(signals, DT, 1)
    assert lo.item() == 1.0 and hi.item() == math.inf
    lo, hi = parse("G[0,1](a > 0)").bounds_at_start(signals, DT, 2)
    assert lo.item() == -math.inf and hi.item() == 1.0
    lo, hi = parse("F[0,0.5](a > 0)").bounds_at_start(signals, DT, 2)
    assert lo.item() == hi.item() == 3.0


# ---- what goes in ----------------------------------------------------------------


def test_shapes_kinds_and_dtypes() -> None:
    formula = parse("G[0,1](a > b)")
    a, b = np.arange(5.0), torch.ones(3, 5)
    assert formula.robustness({"a": a, "b": b.double()}, DT).shape == (3, 5)
    assert formula.robustness({"a": a, "b": a}, DT).shape == (1, 5)
    assert formula.rho({"a": a, "b": a}, DT).shape == (5,)
    assert formula.rho({"a": a, "b": b.numpy()}, DT).shape == (3, 5)
    for dtype in (torch.float32, torch.float64):
        for smooth in (None, 10.0):
            value = formula.robustness_at_start({"a": b.to(dtype), "b": b.to(dtype)}, DT, smooth)
            assert value.dtype == dtype and value.shape == (3,)
    assert formula.robustness({"a": a, "b": b}, DT).dtype == torch.float64
    read_only = np.broadcast_to(a[::-1], (3, 5))
    assert formula.robustness({"a": read_only, "b": b, "unused": torch.ones(7)}, DT).shape == (3, 5)
    assert formula.robustness({"a": torch.arange(5), "b": torch.arange(5)}, DT).dtype == torch.float32
    with pytest.raises(SpecError, match="float32 or float64"):
        formula.robustness({"a": b.half(), "b": b.half()}, DT)


@pytest.mark.parametrize("text", ["a > 0", "F[0.5,0.5](a > 0)", "G[0,1](a > 0)", "a > 0 U[0,2] b > 0", "a >= b"])
def test_inputs_are_never_changed(text: str) -> None:
    formula = parse(text)
    for grad in (False, True):
        signals = tensors(traces(8, 3, batch=2), grad)
        before = {name: value.detach().clone() for name, value in signals.items()}
        with torch.no_grad():
            formula.robustness(signals, DT).add_(1.0)
        for smooth in (None, 5.0, Softmax(5.0), Dgmsr()):
            formula.robustness(signals, DT, smooth).add_(1.0).mul_(0.0)
            formula.robustness_at_start(signals, DT, smooth).add_(1.0)
        for name, value in signals.items():
            assert torch.equal(value.detach(), before[name])
    arrays = traces(8, 3)
    kept = copy.deepcopy(arrays)
    formula.rho(arrays, DT)[:] = 0
    np.testing.assert_equal(arrays, kept)


def test_predicate_values_and_strictness() -> None:
    formula = parse("a > b and a <= 2 and norm(a, b) >= 5")
    values = [p.value({"a": np.array([3.0, 1.0]), "b": np.array([4.0, 1.0])}) for p in formula.predicates]
    close(values, [[-1.0, 0.0], [-1.0, 1.0], [0.0, math.sqrt(2) - 5]])
    assert parse("a > 0").predicates[0].value({"a": 2.0}) == 2.0
    for strict, loose in (("a > b", "a >= b"), ("a < b", "a <= b")):
        signals = traces(5, 1)
        close(parse(strict).rho(signals, DT), parse(loose).rho(signals, DT))


def test_nan_is_not_hidden() -> None:
    signals = {"a": torch.tensor([[1.0, math.nan, 2.0]]), "b": torch.ones(1, 3)}
    for text in ("G[0,1](a > 0)", "F[0,1](a > 0) or b > 0", "b > 0 U[0,1] a > 0"):
        for grad in (False, True):
            inputs = {name: value.clone().requires_grad_(grad) for name, value in signals.items()}
            assert parse(text).robustness_at_start(inputs, DT).isnan().all()
        assert np.isnan(parse(text).rho({n: v[0].numpy() for n, v in signals.items()}, DT)[0])
        for smooth in (10.0, Softmax(10.0), Dgmsr()):
            assert parse(text).robustness_at_start(signals, DT, smooth).isnan().all()
        with pytest.raises(NonFiniteError, match="neither true nor false"):
            parse(text).verdict({n: v[0].numpy() for n, v in signals.items()}, DT)


@pytest.mark.parametrize(
    ("call", "parts"),
    [
        (lambda f: f.robustness({"b": torch.ones(1, 4)}, DT), ("'a'", "not given", "available: b")),
        (lambda f: f.robustness({"a": torch.ones(1, 4), "b": torch.ones(1, 5)}, DT), ("'b' has 5", "'a' has 4")),
        (lambda f: f.robustness({"a": torch.ones(2, 4), "b": torch.ones(3, 4)}, DT), ("batch of 3", "have 2")),
        (lambda f: f.robustness({"a": torch.ones(2, 4, 1), "b": torch.ones(2, 4)}, DT), ("(batch, time)",)),
        (lambda f: f.robustness({"a": torch.ones(2, 0), "b": torch.ones(2, 0)}, DT), ("no samples",)),
        (lambda f: f.rho({"a": np.ones(4)}, DT), ("'b'", "not given")),
        (lambda f: f.robustness({"a": np.ones(4), "b": np.ones(4)}, 0.3), ("no multiple of dt 0.3 s", "0.9 or 1.2")),
        (lambda f: f.robustness({"a": np.ones(4), "b": np.ones(4)}, 0.0), ("positive",)),
        (lambda f: f.monitor(-1.0), ("positive",)),
        (lambda f: f.robustness({"a": np.ones(4), "b": np.ones(4)}, DT, smooth=0.0), ("temperature",)),
        (lambda f: f.bounds_at_start({"a": np.ones(4), "b": np.ones(4)}, DT, torch.tensor([1, 2])), ("known has 2",)),
        (lambda f: Softmax(-1.0), ("temperature", "positive")),
        (lambda f: Dgmsr(power=math.inf), ("power", "positive")),
        (lambda f: parse("a[3] > 0").rho({"a": np.ones((4, 3))}, DT), ("'a' has shape (4, 3)", "no component 3")),
        (lambda f: parse("true").verdict({"a": np.ones(4)}, DT), ("no signal",)),
        (lambda f: parse("true").robustness({"a": np.ones(4)}, DT), ("no signal",)),
        (lambda f: parse("true").rho({"a": np.ones(4)}, DT), ("no signal",)),
    ],
)
def test_what_does_not_fit_is_refused(call, parts: tuple[str, ...]) -> None:
    formula = parse("G[0,1](a > b)")
    with pytest.raises(SpecError) as caught:
        call(formula)
    for part in parts:
        assert part in str(caught.value)


@settings(max_examples=50, deadline=None)
@given(formulas(leaves=plain_predicates).filter(has_signal), seeds)
def test_formulas_survive_copying(formula: Formula, seed: int) -> None:
    signals = traces(6, seed)
    wanted = formula.rho(signals, DT)
    np.testing.assert_array_equal(copy.deepcopy(formula).rho(signals, DT), wanted)
