"""The task: scene, instance distribution, named signals, STL specification, stages.

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

from hardware.robots import ROBOTS
from hardware.robots.kinematics import Kinematics
from robo.core.errors import RoboError, TaskError

if TYPE_CHECKING:
    import mujoco

    from tasks.stl import Formula

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
    """A step of a task, in order: reached when its condition (a state formula over the signals) holds."""

    name: str
    condition: str


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera.

    Attributes:
        name: Name, unique within the task.
        position, target: Where it is and what it looks at [m]; in the world, or in the frame of `body`.
        fovy_deg: Vertical field of view.
        body: Body it is mounted on; None for the world.
    """

    name: str
    position: tuple[float, float, float]
    target: tuple[float, float, float]
    fovy_deg: float = 45.0
    body: str | None = None


class Task(ABC):
    """One task. Subclasses set the class attributes and write the methods below.

    Three kinds of mappings of float64 arrays go through it:
    the *instance* (drawn at reset, constant for an episode, holds ``joint_pos`` (J,), the start),
    the *world* (what moves by itself) and the *state* (``joint_pos`` (..., J), ``joint_vel`` (..., J),
    ``points`` (..., P, 3) of `hardware.robots.kinematics.Kinematics.points`, optionally ``slack_rad`` (..., J),
    by which each joint may be off: signals are then lower bounds; plus what `occupied` returns).
    """

    name: ClassVar[str]
    instruction: ClassVar[str]
    robot_name: ClassVar[str]
    ctrl_dt_s: ClassVar[float]
    horizon_s: ClassVar[float]
    signals: ClassVar[Mapping[str, Signal]]
    mission: ClassVar[str]
    """STL text of what is to be reached."""
    safety: ClassVar[str]
    """State formula that must hold at every moment; the part the certificate guarantees."""
    stages: ClassVar[tuple[Stage, ...]]
    cameras: ClassVar[tuple[Camera, ...]]
    observation: ClassVar[Mapping[str, tuple[int, ...]]]
    """Observation keys → shapes, besides ``joint_pos``, ``joint_vel``, ``time_s``."""

    # ---- the specification -------------------------------------------------

    @property
    def spec(self) -> str:
        """The whole specification as STL text: the mission, and safety at every moment of the episode."""
        return f"({self.mission}) and always[0,{self.horizon_s:g}]({self.safety})"

    @cached_property
    def formula(self) -> Formula:
        """The parsed specification."""
        return self._parse(self.spec)

    @cached_property
    def safety_formula(self) -> Formula:
        """The parsed safety part, a state formula."""
        return self._parse(self.safety)

    @cached_property
    def mission_formula(self) -> Formula:
        """The parsed mission part."""
        return self._parse(self.mission)

    def _parse(self, text: str) -> Formula:
        from tasks.stl import parse

        return parse(text, signals=self.signals)

    @property
    def steps(self) -> int:
        """Control steps of an episode; a full trace has ``steps + 1`` samples."""
        return round(self.horizon_s / self.ctrl_dt_s)

    @cached_property
    def robot(self):
        """The arm."""
        return ROBOTS.make(self.robot_name)

    @cached_property
    def kinematics(self) -> Kinematics:
        """numpy kinematics of the arm."""
        return Kinematics(self.robot)

    # ---- the scene ---------------------------------------------------------

    @abstractmethod
    def build(self, scene: mujoco.MjSpec) -> None:
        """Add the task's bodies to a scene that has arm, floor and light; what moves or varies is a mocap body."""

    @abstractmethod
    def poses(self, instance: Arrays, world: Arrays) -> dict[str, np.ndarray]:
        """Positions (3,) [m] of the mocap bodies of `build`, by body name."""

    # ---- instances and what moves by itself ----------------------------------

    @abstractmethod
    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw an instance. It must be satisfiable; the task file says why it is."""

    @abstractmethod
    def start_world(self, instance: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """State of what moves by itself at the start of an episode."""

    @abstractmethod
    def advance(self, instance: Arrays, world: Arrays, dt_s: float, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """What moves by itself, `dt_s` later; stays within the motion bounds the task states."""

    @abstractmethod
    def observe(self, instance: Arrays, world: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The keys of `observation`, with measurement errors within the signals' error bounds."""

    # ---- signals -------------------------------------------------------------

    @abstractmethod
    def occupied(self, instance: Arrays, world: Arrays) -> dict[str, np.ndarray]:
        """The part of the state that `measure` needs of the world as it truly is."""

    @abstractmethod
    def forecast(self, obs: Arrays, tau_s: Array) -> dict[str, Array]:
        """The same part, `tau_s` (T,) after an observation, at its worst under the stated motion bounds.

        Observations are batched (B, ...) or single; results are (B, T, ...) or (T, ...).
        ``tau_s = inf`` gives everything that can ever be reached.
        """

    @abstractmethod
    def measure(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """All signals of a state, (...) each; numpy or torch. Leading axes broadcast (instances get them as needed)."""

    @abstractmethod
    def success(self, trace: Arrays) -> bool:
        """Whether an executed trace (signals (T,), truth) succeeded, apart from any specification or reward."""

    # ---- the contract --------------------------------------------------------

    def validate(self) -> None:
        """Check the task against the contract every task keeps.

        Raises:
            TaskError: Names the first thing that is wrong, and where.
        """
        try:
            for part in (self.formula, self.safety_formula, self.mission_formula):
                if part.horizon_s > self.horizon_s + 1e-9:
                    raise TaskError(
                        f"task {self.name}: the specification looks {part.horizon_s:g} s ahead, "
                        f"the episode lasts {self.horizon_s:g} s; raise horizon_s or shorten the windows"
                    )
            states = {"safety": self.safety} | {f"stage {s.name}": s.condition for s in self.stages}
            for where, text in states.items():
                if self._parse(text).horizon_s != 0.0:
                    raise TaskError(
                        f"task {self.name}: {where} must speak of one moment only, without temporal operators: {text}"
                    )
        except TaskError:
            raise
        except RoboError as error:
            raise TaskError(f"task {self.name}: {error}") from error
        if abs(self.steps * self.ctrl_dt_s - self.horizon_s) > 1e-9:
            raise TaskError(
                f"task {self.name}: horizon_s {self.horizon_s} is no multiple of ctrl_dt_s {self.ctrl_dt_s}"
            )
