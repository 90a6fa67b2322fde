"""Robustness in torch and numpy against the definition, against rtamt and stlcgpp, smooth, and its gradients."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import rtamt
import stlcgpp.formula as stlcgpp
import torch
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from robo.core.errors import SpecError
from tasks.stl import Formula, parse, robustness
from tasks.stl.syntax import And, Iff, Implies, Not, Or, Predicate, Truth, Until, Variable, Window
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
@given(formulas(dt=1.0, constants=False, iff=False), seeds, st.integers(2, 9))
def test_agrees_with_rtamt(formula: Formula, seed: int, samples: int) -> None:
    assume("inf" not in str(formula))  # rtamt has endless operators only from now on
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
    if isinstance(formula, Window):
        build = stlcgpp.Always if formula.op == "G" else stlcgpp.Eventually
        steps = [round(formula.interval.start_s / DT), round(formula.interval.end_s / DT)]
        return build(as_stlcgpp(formula.arg), steps)
    assert isinstance(formula, Until)
    steps = [round(formula.interval.start_s / DT), round(formula.interval.end_s / DT)]
    return stlcgpp.Until(as_stlcgpp(formula.left), as_stlcgpp(formula.right), steps)


def future_only(formula: Formula) -> bool:
    """Neither past operators nor what stlcgpp lacks."""
    nodes = list(formula.walk())
    past = any(getattr(node, "op", "") in ("H", "O", "S") for node in nodes)
    return not past and not any(isinstance(node, Iff | Truth) for node in nodes)


def inclusive(formula: Formula) -> Formula:
    """Our formula for stlcgpp's meaning: the right side of an until holds together with the left one."""
    if isinstance(formula, Until):
        left, right = inclusive(formula.left), inclusive(formula.right)
        return Until(formula.op, formula.interval, left, And((left, right)))
    if isinstance(formula, Not):
        return Not(inclusive(formula.arg))
    if isinstance(formula, And | Or):
        return type(formula)(tuple(map(inclusive, formula.args)))
    if isinstance(formula, Implies):
        return Implies(inclusive(formula.left), inclusive(formula.right))
    if isinstance(formula, Window):
        return Window(formula.op, formula.interval, inclusive(formula.arg))
    return formula


@settings(max_examples=60, deadline=None)
@given(formulas(unbounded=False, constants=False, iff=False, max_leaves=4).filter(future_only), seeds)
def test_agrees_with_stlcgpp_inside_the_trace(formula: Formula, seed: int) -> None:
    needed = round(formula.horizon_s / DT) + 1
    assume(needed <= 25)
    samples = needed + 3
    signals = traces(samples, seed)
    stacked = torch.tensor(np.stack([signals[name] for name in NAMES], axis=1), dtype=torch.float32)
    theirs = as_stlcgpp(formula)(stacked)
    # Beyond its end stlcgpp pads in its own way; every value before does not look there.
    close(inclusive(formula).rho(signals, DT)[:4], theirs[:4], 1e-5)


# ---- smooth ----------------------------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(formulas(leaves=predicates).filter(has_signal), seeds, lengths)
def test_smooth_tends_to_exact(formula: Formula, seed: int, samples: int) -> None:
    signals = traces(samples, seed, batch=2)
    exact = formula.rho(signals, DT)
    for temperature in (10.0, 1e3, 1e5):
        smooth = formula.robustness(tensors(signals), DT, smooth=temperature).numpy()
        assert not np.isnan(smooth).any()
        finite = np.isfinite(exact)
        np.testing.assert_array_equal(smooth[~finite], exact[~finite])
        # A max over n values is at most log(n) / k off, levels of a formula add up; large values round.
        allowed = 40 / temperature + 1e-12 * np.abs(exact[finite])
        assert (np.abs(smooth[finite] - exact[finite]) <= allowed).all()
        with_gradient = formula.robustness_at_start(tensors(signals, grad=True), DT, smooth=temperature)
        close(with_gradient.detach(), smooth[:, 0], 1e-7)


@settings(max_examples=60, deadline=None)
@given(formulas(constants=False, max_leaves=5), seeds, st.integers(2, 9), st.sampled_from([None, 3.0]))
def test_gradient_is_the_difference_quotient(formula: Formula, seed: int, samples: int, smooth: float | None) -> None:
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


@pytest.mark.parametrize("smooth", [None, 20.0])
@pytest.mark.parametrize(
    "text", ["G[0,20](a > 0)", "F[0,9](G[0,10](a > 0 or b > 0))", "a > 0 U[2,18] b > 0", "norm(a, b) < 1"]
)
def test_gradient_at_start_is_the_gradient_of_the_first_sample(text: str, smooth: float | None) -> None:
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
    for smooth in (None, 50.0):
        signals = {name: torch.zeros(2, 12, requires_grad=True) for name in NAMES}
        value = parse("G[1,4](norm(a, b) < 1) and F[4,9](c > 0) and (a > 0 U[1,3] b > 0)").robustness(
            signals, DT, smooth
        )
        value[value.isfinite()].sum().backward()
        for signal in signals.values():
            assert signal.grad is not None and signal.grad.isfinite().all()


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
        for smooth in (None, 5.0):
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
        assert parse(text).robustness_at_start(signals, DT, smooth=10.0).isnan().all()


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
