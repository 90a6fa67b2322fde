"""The tasks' code on symbols: tapes give the numbers and gradients of torch, and say what they cannot do."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from policies.prediction import Course, Prediction
from policies.symbolic.arrays import BINARY, UNARY
from policies.symbolic.blocks import BlockMargins
from policies.symbolic.tape import BLOCK, Node, Trace
from policies.system_model import SystemModel
from robo.core.errors import TaskError
from tasks.registry import load_task
from tasks.stl import Formula
from tasks.stl.program import plan
from tasks.system import SystemTask, system_task
from tests.stl.formulas import DT, formulas, traces

torch.set_num_threads(1)
TASKS = ["car", "maze", "ship_safe", "ship_track", "rover", "panda"]
_INSIDE = {"sqrt": (0.1, 3.0), "log": (0.1, 3.0), "asin": (-0.9, 0.9), "acos": (-0.9, 0.9), "tan": (-1.0, 1.0)}
"""Where a function has a value and a bounded slope."""


def _episodes(task: SystemTask, tick: int, batch: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Past signals (tick, S) and state (n,) of one episode after `tick` random steps, and raw controls (B, P, m)."""
    random = np.random.default_rng([3, tick])
    state, past = task.sample(random)["state"], []
    for _ in range(tick):
        past.append([float(x) for x in task.measure(state).values()])
        state = task.advance(state, task.squash(random.normal(size=task.control_size)))
    raw = random.normal(size=(batch, task.steps - tick, task.control_size))
    return np.array(past).reshape(tick, len(task.signals)), state, raw


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("share", [0.0, 0.4])
def test_the_compiled_prediction_is_that_of_torch(name: str, share: float) -> None:
    task = system_task(load_task(f"bench/{name}"))
    model, tick, batch = SystemModel(task), round(share * task.steps), BLOCK + 3
    past, state, raw = _episodes(task, tick, batch)
    ahead = Prediction(task, model, Course(task, tick), smooth=20.0)
    shared = np.concatenate([past.ravel(), state])

    wanted = torch.from_numpy(raw).requires_grad_(True)
    states = task.roll_out(torch.from_numpy(state).expand(batch, -1), task.squash(wanted))
    padded = np.zeros((task.steps + 1, len(task.signals)))
    padded[:tick] = past
    prefix = {n: torch.from_numpy(padded[:, i]).expand(batch, -1) for i, n in enumerate(task.signals)}
    trace = model.trace(prefix, torch.full((batch,), tick), task.measure(states))
    exact, smooth = model.part_rhos(trace), model.part_rhos(trace, smooth=20.0)
    torch.relu(0.1 - smooth).sum().backward()
    assert wanted.grad is not None

    parts, predicted = ahead.outcome(shared, raw)
    np.testing.assert_allclose(predicted, states.detach().numpy(), atol=1e-9)
    np.testing.assert_allclose(parts, exact.detach().numpy(), atol=1e-9)
    np.testing.assert_array_equal(ahead.rhos(shared, raw), parts)
    again, gradient = ahead.slopes(shared, raw, aim=0.1)
    np.testing.assert_array_equal(again, parts)
    scale = np.abs(wanted.grad.numpy()).max()
    assert scale > 0
    np.testing.assert_allclose(gradient, wanted.grad.numpy(), atol=1e-7 * scale)
    # What training asks is the same, with a past and a state of its own in every row.
    rows = np.hstack([np.tile(shared, (batch, 1)), raw.reshape(batch, -1)])
    lesson = ahead.lesson(rows, aim=0.1)
    np.testing.assert_allclose(lesson.parts, parts, atol=1e-12)
    np.testing.assert_allclose(lesson.gradient, gradient, atol=1e-12 * scale)
    np.testing.assert_allclose(lesson.lack, torch.relu(0.1 - smooth).sum(-1).detach().numpy(), atol=1e-9)
    for i, n in enumerate(task.signals):
        np.testing.assert_allclose(lesson.signals[:, :, i], task.measure(states)[n].detach().numpy(), atol=1e-9)
    # And what the network is shown.
    one = {n: value[:1] for n, value in prefix.items()}
    seen = model.features(torch.from_numpy(state)[None], torch.tensor([tick]), one)
    np.testing.assert_allclose(ahead.features(shared), seen[0].numpy(), atol=1e-9)
    np.testing.assert_allclose(ahead.measure(shared), [float(x) for x in task.measure(state).values()], atol=1e-12)


@pytest.mark.parametrize("name", sorted(UNARY))
@given(st.floats(0.01, 0.99))
@settings(max_examples=20, deadline=None)
def test_functions_of_one_number(name: str, share: float) -> None:
    low, high = _INSIDE.get(name, (-3.0, 3.0))
    x = low + share * (high - low)
    trace = Trace()
    (node,) = trace.inputs(1)
    tape = trace.finish([trace.apply(name, node)])
    value, slope = _run(tape, [x])
    assert value == pytest.approx(float(UNARY[name](x)), rel=1e-12, abs=1e-12)
    if name != "floor" and not (name == "abs" and abs(x) < 1e-3):
        h = 1e-6
        assert slope[0] == pytest.approx(float(UNARY[name](x + h) - UNARY[name](x - h)) / (2 * h), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", sorted(BINARY))
@given(st.floats(0.2, 3.0), st.floats(0.2, 3.0))
@settings(max_examples=20, deadline=None)
def test_functions_of_two_numbers(name: str, x: float, y: float) -> None:
    trace = Trace()
    a, b = trace.inputs(2)
    tape = trace.finish([trace.apply(name, a, b)])
    value, slope = _run(tape, [x, y])
    assert value == pytest.approx(float(BINARY[name](x, y)), rel=1e-12)
    if abs(x - y) < 1e-3:
        return  # an edge
    h = 1e-6
    for i, (dx, dy) in enumerate(((h, 0), (0, h))):
        wanted = float(BINARY[name](x + dx, y + dy) - BINARY[name](x - dx, y - dy)) / (2 * h)
        assert slope[i] == pytest.approx(wanted, rel=1e-4, abs=1e-6)


def test_a_step_is_sharp_and_its_gradient_gentle() -> None:
    trace = Trace()
    (x,) = trace.inputs(1)
    tape = trace.finish([trace.step(trace.wrap(x), 2.0, 500.0).items[()]])
    assert _run(tape, [0.3])[0] == 1.0 and _run(tape, [-0.3])[0] == 0.0 and _run(tape, [0.0])[0] == 0.5
    assert _run(tape, [0.3])[1][0] == pytest.approx(1.0 - np.tanh(0.6) ** 2)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_nan_stays_nan(name: str) -> None:
    trace = Trace()
    a, b = trace.inputs(2)
    tape = trace.finish([trace.apply(name, a, b)])
    assert np.isnan(_run(tape, [np.nan, 1.0])[0]) and np.isnan(_run(tape, [1.0, np.nan])[0])


def test_what_is_known_or_done_already_is_not_written_again() -> None:
    trace = Trace()
    a, b = trace.inputs(2)
    trace.apply("sin", a)  # nobody asks for it
    same = [a * b + 1.0, a * b + 1.0]
    tape = trace.finish([*same, 2.0 * 3.0, a * 1.0])
    assert len(tape.code) == 2
    np.testing.assert_array_equal(tape.run(np.array([2.0]), np.array([[5.0]])), [[11.0, 11.0, 6.0, 2.0]])


@given(formulas(), st.integers(0, 2**31))
@settings(max_examples=200, deadline=None)
def test_a_formula_written_in_blocks_is_the_formula(formula: Formula, seed: int) -> None:
    assume(formula.channels)  # else nothing says how long a trace is
    signals = traces(samples=14, seed=seed)
    trace, flat = Trace(), np.concatenate(list(signals.values()))
    places = {name: np.array([trace.place(x) for x in trace.inputs(14)]) for name in signals}
    wanted = {}
    with trace.aside():
        exact = BlockMargins(places, trace)
        for name, kind in (("exact", exact), ("smooth", exact.smooth(1e4))):
            (place,) = plan(formula, DT, 14, whole=False).run(kind)
            wanted[name] = trace.finish([Node(trace, int(place))])
    values = {name: tape.run(np.zeros(0), flat[None])[0, 0] for name, tape in wanted.items()}
    assert values["exact"] == formula.rho(signals, DT)[0]
    assert values["smooth"] == pytest.approx(values["exact"], abs=0.02)
    assert trace.finish([]).code.size == 0 and len(trace._code) == 0, "what is written aside is forgotten"


def test_a_function_that_no_tape_knows_is_named() -> None:
    class Odd(type(load_task("bench/maze"))):  # type: ignore[misc]
        def advance(self, state, control):
            xp = state.__array_namespace__()
            return super().advance(xp.sinn(state), control)

    task = Odd()
    with pytest.raises(TaskError, match="may not call 'sinn' of the array API: did you mean 'sin'"):
        Course(task, 0)


def _run(tape, inputs: list[float]) -> tuple[float, np.ndarray]:
    """The one output, and its gradient."""
    weigh = np.array([[1.0, -np.inf, np.inf]])
    made, gradient = tape.run_gradient(np.zeros(0), np.array([inputs]), weigh)
    np.testing.assert_array_equal(made, tape.run(np.zeros(0), np.array([inputs])))
    return float(made[0, 0]), gradient[0]
