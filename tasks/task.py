"""The task: instance distribution, named signals, STL specification, stages.

A task file holds one subclass of `Task`. Nothing here imports torch or mujoco:
signals are written once, for numpy arrays and torch tensors alike, so the same text is
trained on, planned with, monitored at run time and scored.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from robo.core.errors import RoboError, SpecError, TaskError

if TYPE_CHECKING:
    from tasks.stl import Formula
    from tasks.stl.syntax import Predicate

Array = Any  # numpy.ndarray or torch.Tensor
Arrays = Mapping[str, Array]


class Source(StrEnum):
    """Where the value of a signal comes from on a robot."""

    PROPRIOCEPTION = "proprioception"
    """The arm's own encoders and the known, static scene."""
    TRACKER = "tracker"
    """A tracker of moving things, with an error bound."""
    LEARNED = "learned"
    """An estimator from pictures, with an error bound."""
    SIMULATOR = "simulator"
    """Simulator truth: exists in simulation only."""


@dataclass(frozen=True, kw_only=True)
class Signal:
    """A named scalar function of the state.

    Attributes:
        unit: SI unit, ``"1"`` for none.
        source: Where it comes from; deployment refuses a spec whose signals have no source on the robot.
        error_bound: The signal, computed from measured values, is at most this much
            above the truth; the monitor and the certificate subtract it [unit].
        text: What it is, in words.
    """

    unit: str
    source: Source
    error_bound: float = 0.0
    text: str = ""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A step of a task, in order.

    Attributes:
        name: What it is called.
        condition: State formula over the signals: the stage is reached when it holds.
        distance: Expression over the signals, 0 or more, that shrinks to 0 on the way there; dense rewards are made of
            it. Empty: none.
        scale: Distance from which on there is most to gain.
        shaping: Expression over the signals, in [0, 1], that grows on the way there and is paid in place of the
            distance. Empty: ``1 - tanh(distance / scale)``.
        weight: Its share of the reward, relative to the other stages.
    """

    name: str
    condition: str
    distance: str = ""
    scale: float = 0.1
    shaping: str = ""
    weight: float = 1.0


class Task(ABC):
    """What is wanted, of whatever moves: signals, a specification over them, when an episode has succeeded.

    Subclasses are `tasks.arm.ArmTask` (an arm in a scene) and `tasks.system.SystemTask` (any system with known
    dynamics); a task file holds one subclass of one of these.
    """

    name: ClassVar[str]
    instruction: ClassVar[str]
    ctrl_dt_s: ClassVar[float]
    horizon_s: ClassVar[float]
    signals: ClassVar[Mapping[str, Signal]]
    mission: ClassVar[str]
    """STL text of what is to be reached."""
    safety: ClassVar[str]
    """State formula that must hold at every moment; the part the certificate guarantees."""
    stages: ClassVar[tuple[Stage, ...]]
    policy: ClassVar[str]
    """Kind of policy that is trained when none is named."""

    # ---- the specification -------------------------------------------------

    @property
    def spec(self) -> str:
        """The whole specification as STL text: the mission, and safety at every moment of the episode."""
        return f"({self.mission}) and always[0,{self.horizon_s:g}]({self.safety})"

    @cached_property
    def formula(self) -> Formula:
        """The parsed specification."""
        return self.parsed(self.spec)

    @cached_property
    def safety_formula(self) -> Formula:
        """The parsed safety part, a state formula."""
        return self.parsed(self.safety)

    @cached_property
    def mission_formula(self) -> Formula:
        """The parsed mission part."""
        return self.parsed(self.mission)

    def parsed(self, text: str) -> Formula:
        """A formula over the task's signals.

        Raises:
            SpecError: It is none, or names another signal; says where.
        """
        from tasks.stl import parse

        return parse(text, signals=self.signals)

    def staged_reward(self, signals: Mapping[str, Array], stage: int) -> Array:
        """Dense reward in [0, 1] of a moment, or of moments (...), of an episode that has reached `stage` stages.

        It is their share, and on the way to the next its `shaping` of its share: reaching a stage never pays less than
        approaching it.
        """
        if stage >= len(self.stages):
            return 1.0
        weights = [s.weight for s in self.stages]
        near = np.clip(self.shaping(signals, stage), 0.0, 1.0)
        return (sum(weights[:stage]) + weights[stage] * near) / sum(weights)

    def shaping(self, signals: Mapping[str, Array], stage: int) -> Array:
        """What is paid on the way to a stage, as its text says it: in [0, 1] if the text is right."""
        said, distance, scale = self._shapings[stage], self._distances[stage], self.stages[stage].scale
        if said is not None:
            return said.value(signals)
        return 0.0 if distance is None else 1.0 - np.tanh(np.maximum(distance.value(signals), 0.0) / scale)

    def verdict(self, condition: str, trace: Arrays) -> np.ndarray:
        """Whether a formula over the signals holds, at every sample of a trace (signals (T,)): (T,) bool."""
        return self.parsed(condition).verdict(trace, self.ctrl_dt_s)

    def stages_reached(self, trace: Arrays) -> int:
        """How many stages an executed trace (signals (T,), truth) reached, one after the other."""
        return len(self.stage_samples(trace))

    def stage_samples(self, trace: Arrays) -> list[int]:
        """The samples at which an executed trace (signals (T,), truth) reached its stages, of those that it did."""
        found, at = [], 0
        for stage in self.stages:
            later = np.flatnonzero(self.verdict(stage.condition, trace)[at:])
            if not len(later):
                break
            at += int(later[0])  # one sample may reach several
            found.append(at)
        return found

    @cached_property
    def _distances(self) -> tuple[Predicate | None, ...]:
        """Of every stage the predicate whose value is its distance."""
        return tuple(self.expression(s.distance) if s.distance else None for s in self.stages)

    @cached_property
    def _shapings(self) -> tuple[Predicate | None, ...]:
        """Of every stage the predicate whose value is its shaping."""
        return tuple(self.expression(s.shaping) if s.shaping else None for s in self.stages)

    def expression(self, text: str) -> Predicate:
        """An expression over the signals, as the predicate whose value it is.

        Raises:
            SpecError: It is none, or holds no signal.
        """
        from tasks.stl.syntax import Predicate

        found = self.parsed(f"{text} > 0")
        if not isinstance(found, Predicate):
            raise SpecError(f"expected an expression over the signals, one number at every moment, got: {text}")
        return found

    @property
    def steps(self) -> int:
        """Control steps of an episode; a full trace has ``steps + 1`` samples."""
        return round(self.horizon_s / self.ctrl_dt_s)

    # ---- episodes ------------------------------------------------------------

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw an instance. It must be satisfiable; the task file says why it is."""

    @abstractmethod
    def success(self, trace: Arrays) -> bool:
        """Whether an executed trace (signals (T,), truth) succeeded, apart from any specification or reward."""

    # ---- the contract --------------------------------------------------------

    def validate(self) -> None:
        """Check the task against the contract every task keeps.

        Raises:
            TaskError: Names the first thing that is wrong, and where.
        """
        self.validate_formulas()
        if abs(self.steps * self.ctrl_dt_s - self.horizon_s) > 1e-9:
            raise TaskError(
                f"task {self.name}: horizon_s {self.horizon_s} is no multiple of ctrl_dt_s {self.ctrl_dt_s}"
            )

    def validate_formulas(self) -> None:
        """Check specification and stages.

        Raises:
            TaskError: Names the first thing that is wrong, and where.
        """
        try:
            from tasks.stl.program import lower

            for part in (self.formula, self.safety_formula, self.mission_formula):
                lower(part, self.ctrl_dt_s)  # intervals are multiples of the control period
                if part.horizon(self.ctrl_dt_s) > self.horizon_s + 1e-9:
                    raise TaskError(
                        f"task {self.name}: the specification looks {part.horizon(self.ctrl_dt_s):g} s ahead, "
                        f"the episode lasts {self.horizon_s:g} s; raise horizon_s or shorten the windows"
                    )
            states = {"safety": self.safety} | {f"stage {s.name}": s.condition for s in self.stages}
            for where, text in states.items():
                if self.parsed(text).horizon(self.ctrl_dt_s) != 0.0:
                    raise TaskError(
                        f"task {self.name}: {where} must speak of one moment only, without temporal operators: {text}"
                    )
            for stage in self.stages:
                for text in filter(None, (stage.distance, stage.shaping)):
                    self.expression(text)
                if not (stage.scale > 0 and stage.weight > 0):
                    raise TaskError(
                        f"task {self.name}: stage {stage.name} needs a scale and a weight above 0, "
                        f"not {stage.scale:g} and {stage.weight:g}"
                    )
        except TaskError:
            raise
        except RoboError as error:
            raise TaskError(f"task {self.name}: {error}") from error
