"""The compiled prediction: what a plan leads to, from one tick of an episode on, as tapes of scalars."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from policies.spec_model import SpecModel
from policies.symbolic.arrays import Symbol, scalar
from policies.symbolic.formulas import Margins
from policies.symbolic.tape import SmoothMargins, Trace
from tasks.stl import Formula
from tasks.stl.program import Leaf, plan
from tasks.system import SystemTask

ALREADY, FACTOR = 0.1, 10.0
"""What is certain of a part of the mission is shown to the network up to this robustness, times this factor."""


class Prediction:
    """Plans of one task from one tick on; numpy and compiled tapes alone.

    The same functions of the task and the same formulas as anywhere else, run once on symbols: the numbers are those of
    `SystemModel` up to the last bits, some 100 times sooner for a handful of plans.

    Args:
        task: The task.
        model: Its specification.
        tick: Samples before it are known.
        smooth: Temperature of the smooth robustness that `slopes` climbs.
    """

    def __init__(self, task: SystemTask, model: SpecModel, tick: int, smooth: float) -> None:
        self.tick, self.left = tick, task.steps - tick
        self.controls, self.states = task.control_size, task.state_size
        self.parts = len(model.parts)
        trace, names = Trace(), list(task.signals)
        past, state = trace.inputs(tick, len(names)), trace.inputs(self.states)

        def values(margins: Margins, parts: Sequence[Formula]) -> list[Symbol]:
            plans = [plan(part, task.ctrl_dt_s, task.steps + 1, whole=False) for part in parts]
            return [made.run(margins)[0] for made in plans]

        known = {name: [*past[:, i], *[None] * (self.left + 1)] for i, name in enumerate(names)}
        certain = values(_Known(known, trace), model.mission)
        progress = [trace.clip(trace.wrap(x), -ALREADY, ALREADY) * FACTOR for x in certain]
        features = [*task.features(trace.wrap(state)).items, tick / task.steps, *(scalar(x) for x in progress)]
        self._measure = trace.finish([scalar(task.measure(trace.wrap(state))[name]) for name in names])
        self._features = trace.finish(features)

        raw = trace.inputs(self.left, self.controls)
        states = [trace.wrap(state)]
        for k in range(self.left):
            states.append(task.advance(states[-1], task.squash(trace.wrap(raw[k]))))
        measured = [task.measure(state) for state in states]
        signals = {name: [*past[:, i], *(scalar(m[name]) for m in measured)] for i, name in enumerate(names)}
        parts = values(Margins(signals, trace), model.parts)
        self._outcome = trace.finish([*parts, *(x for state in states for x in state.items)])
        self._rhos = trace.finish(parts)
        slopes = [*parts, *values(SmoothMargins(signals, trace, smooth), model.parts)]
        self._slopes = trace.finish(slopes)
        later = [x for k in range(tick, task.steps + 1) for x in (signals[name][k] for name in names)]
        self._lesson = trace.finish([*slopes, *(x for state in states for x in state.items), *later])
        self.names = names

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
