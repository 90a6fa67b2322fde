"""The compiled prediction: what a plan leads to, from one tick of an episode on, as tapes of scalars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from policies.spec_model import SpecModel
from policies.symbolic.arrays import Symbol, scalar
from policies.symbolic.blocks import BlockMargins
from policies.symbolic.formulas import Margins, open_constants
from policies.symbolic.tape import Node, Tape, Trace
from tasks.stl import Formula
from tasks.stl.program import Algebra, Leaf, plan
from tasks.system import SystemTask

ALREADY, FACTOR = 0.1, 10.0
"""What is certain of a part of the mission is shown to the network up to this robustness, times this factor."""


class Course:
    """How a system goes on from one tick, whatever is wanted of it: states and signals for controls, on a tape.

    Args:
        task: The task; its specification does not matter.
        tick: Samples before it are known.
        constants: Parameters of specifications that are given later, behind the state.
    """

    def __init__(self, task: SystemTask, tick: int, constants: Sequence[str] = ()) -> None:
        self.tick, self.left, self.names = tick, task.steps - tick, list(task.signals)
        self.trace = trace = Trace()
        past, state = trace.inputs(tick, len(self.names)), trace.inputs(task.state_size)
        given = trace.inputs(len(constants))
        self.known = past.size + state.size + given.size
        """Inputs before the controls."""
        raw = trace.inputs(self.left, task.control_size)
        self.state, states = trace.wrap(state), [trace.wrap(state)]
        for k in range(self.left):
            states.append(task.advance(states[-1], task.squash(trace.wrap(raw[k]))))
        measured = [task.measure(state) for state in states]
        self.states = [x for state in states for x in state.items]
        self.later = {name: [scalar(m[name]) for m in measured] for name in self.names}
        self.past = {name: list(past[:, i]) for i, name in enumerate(self.names)}
        self.fixed = {f"${name}": [node] * (task.steps + 1) for name, node in zip(constants, given, strict=True)}
        signals = self.fixed | {name: [*self.past[name], *self.later[name]] for name in self.names}
        self.places = {name: np.array([trace.place(x) for x in values]) for name, values in signals.items()}


class Prediction:
    """Plans of one task from one tick on; numpy and compiled tapes alone.

    The same functions of the task and the same formulas as anywhere else, run once on symbols: the numbers are those of
    `SystemModel` up to the last bits, some 100 times sooner for a handful of plans. Tapes are written when they are
    first asked for; `warm_up` writes all that planning needs.

    Args:
        task: The task.
        model: Its specification.
        course: How its system goes on from a tick.
        smooth: Temperature of the smooth robustness that `slopes` climbs.
    """

    def __init__(self, task: SystemTask, model: SpecModel, course: Course, smooth: float) -> None:
        self.tick, self.left, self.names, self.course = course.tick, course.left, course.names, course
        self.controls, self.states, self.parts = task.control_size, task.state_size, len(model.parts)
        self._task, self._model, self._smooth, self._trace = task, model, smooth, course.trace

    # ---- tapes -----------------------------------------------------------------------

    def _values(self, margins: Algebra[Any], parts: Sequence[Formula]) -> list[Any]:
        """Robustness of parts at the start."""
        parts = [open_constants(part) for part in parts] if self.course.fixed else parts
        plans = [plan(part, self._task.ctrl_dt_s, self._task.steps + 1, whole=False) for part in parts]
        return [made.run(margins)[0] for made in plans]

    def _robustness(self, smooth: bool = False) -> list[Symbol]:
        """Of every part, exact; then smooth, if that is asked for."""
        exact = BlockMargins(self.course.places, self._trace)
        kinds = (exact, exact.smooth(self._smooth)) if smooth else (exact,)
        places = [int(place) for kind in kinds for place in self._values(kind, self._model.parts)]
        return [Node(self._trace, place) - self._model.conformal for place in places]

    @cached_property
    def _measure(self) -> Tape:
        return self._trace.finish([self.course.later[name][0] for name in self.names], self.course.known)

    @cached_property
    def _features(self) -> Tape:
        course, trace = self.course, self._trace
        known = course.fixed | {name: [*course.past[name], *[None] * (self.left + 1)] for name in self.names}
        with trace.aside():
            certain = self._values(_Known(known, trace), self._model.mission)
            progress = [scalar(trace.clip(trace.wrap(x), -ALREADY, ALREADY) * FACTOR) for x in certain]
            seen = [*self._task.features(course.state).items, self.tick / self._task.steps, *progress]
            return trace.finish(seen, course.known)

    @cached_property
    def _rhos(self) -> Tape:
        with self._trace.aside():
            return self._trace.finish(self._robustness())

    @cached_property
    def _outcome(self) -> Tape:
        with self._trace.aside():
            return self._trace.finish([*self._robustness(), *self.course.states])

    @cached_property
    def _slopes(self) -> Tape:
        with self._trace.aside():
            return self._trace.finish(self._robustness(smooth=True))

    @cached_property
    def _lesson(self) -> Tape:
        later = [self.course.later[name][k] for k in range(self.left + 1) for name in self.names]
        with self._trace.aside():
            return self._trace.finish([*self._robustness(smooth=True), *self.course.states, *later])

    # ---- what they say -------------------------------------------------------------

    def warm_up(self, everything: bool = True) -> None:
        """Write what judging plans needs, and `everything` that searching needs too, so that no plan waits for it."""
        shared = np.zeros(self.tick * len(self.names) + self.states)
        raw = np.zeros((1, self.left, self.controls))
        self.measure(shared)
        self.outcome(shared, raw)
        if everything:
            self.features(shared)
            self.rhos(shared, raw)
            self.slopes(shared, raw, 0.0)

    def measure(self, shared: np.ndarray) -> np.ndarray:
        """Signals (S,) of the state at the tick, in the order of `names`.

        Args:
            shared: Signals (tick, S) of the samples before, then the state (n,), flat: what all plans start from.
        """
        return self._measure.run(shared, _NOTHING)[0]

    def features(self, shared: np.ndarray) -> np.ndarray:
        """Input of the network, (F,): see `SystemModel.features`."""
        return self._features.run(shared, _NOTHING)[0]

    def rhos(self, shared: np.ndarray, raw: np.ndarray) -> np.ndarray:
        """Exact robustness (B, parts) of raw controls (B, P, m)."""
        return _comparable(self._rhos.run(shared, raw.reshape(len(raw), -1)))

    def outcome(self, shared: np.ndarray, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Exact robustness (B, parts) of raw controls (B, P, m), and the states (B, P + 1, n) they lead to."""
        made = self._outcome.run(shared, raw.reshape(len(raw), -1))
        return _comparable(made[:, : self.parts]), made[:, self.parts :].reshape(len(raw), self.left + 1, self.states)

    def slopes(self, shared: np.ndarray, raw: np.ndarray, aim: float) -> tuple[np.ndarray, np.ndarray]:
        """Exact robustness (B, parts), and the gradient (B, P, m) of what the smooth one lacks to an aim, summed."""
        weigh = np.zeros((2 * self.parts, 3))
        weigh[:, 1:] = -np.inf, aim
        weigh[self.parts :, 0] = -1.0
        made, gradient = self._slopes.run_gradient(shared, raw.reshape(len(raw), -1), weigh)
        return _comparable(made[:, : self.parts]), gradient.reshape(raw.shape)

    def lesson(self, rows: np.ndarray, aim: float) -> Lesson:
        """What training wants to know of episodes that share nothing but the tick.

        Args:
            rows: Past signals (tick, S), state (n,) and raw controls (P, m) of each, flat: (B, ...).
            aim: Smooth robustness up to which every part is pushed.
        """
        b, k, n = len(rows), self.parts, self.states
        weigh = np.zeros((len(self._lesson.outputs), 3))
        weigh[:, 1:] = -np.inf, aim
        weigh[k : 2 * k, 0] = -1.0
        made, gradient = self._lesson.run_gradient(_NOTHING[0], rows, weigh)
        parts, smooth, states, signals = np.split(made, [k, 2 * k, 2 * k + n * (self.left + 1)], axis=1)
        return Lesson(
            parts=_comparable(parts),
            lack=np.maximum(aim - smooth, 0.0).sum(-1),
            gradient=gradient[:, -self.left * self.controls :].reshape(b, self.left, self.controls),
            states=states.reshape(b, self.left + 1, n),
            signals=signals.reshape(b, self.left + 1, len(self.names)),
        )

    def look(self, rows: np.ndarray) -> np.ndarray:
        """Input of the network, (B, F), of episodes that share nothing but the tick: past signals and state, flat."""
        return self._features.run(_NOTHING[0], rows)


@dataclass(frozen=True)
class Lesson:
    """Plans of a batch of episodes.

    Attributes:
        parts: Exact robustness of every part, (B, parts).
        lack: What the smooth robustness of the parts lacks to the aim, summed, (B,).
        gradient: Of `lack` by the raw controls, (B, P, m).
        states, signals: From the tick on, (B, P + 1, n) and (B, P + 1, S).
    """

    parts: np.ndarray
    lack: np.ndarray
    gradient: np.ndarray
    states: np.ndarray
    signals: np.ndarray


class _Known(Margins):
    """The least that robustness can become: samples that are None count as minus infinity."""

    def at(self, signals: Mapping[str, Symbol], leaf: Leaf) -> Symbol:
        """See `Lists`."""
        if any(value is None for value in signals.values()):
            return -math.inf
        return super().at(signals, leaf)


def _comparable(rhos: np.ndarray) -> np.ndarray:
    """A plan whose robustness is no number is worth nothing."""
    return np.where(np.isnan(rhos), -np.inf, rhos)


_NOTHING = np.zeros((1, 0))
