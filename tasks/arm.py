"""Tasks of an arm: scene, cameras, kinematics, what moves by itself. Neither torch nor mujoco at import."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from hardware.robots import Robot, open_robot
from hardware.robots.kinematics import Kinematics
from robo.core.errors import TaskError
from tasks.task import Array, Arrays, Task

if TYPE_CHECKING:
    import mujoco


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

    def axes(self) -> np.ndarray:
        """Its orientation (3, 3) in its parent's frame: columns point right, up and backwards in the picture.

        Upright means that the parent's z axis points up in the picture; its x axis where the camera looks along z.

        Raises:
            TaskError: It looks at the place where it is.
        """
        forward = np.subtract(self.target, self.position)
        length = np.linalg.norm(forward)
        if length < 1e-9:
            raise TaskError(f"camera {self.name!r} looks at the place where it is; give it another target")
        back = -forward / length
        up = np.array([0.0, 0.0, 1.0]) if abs(back[2]) < 0.999 else np.array([1.0, 0.0, 0.0])
        right = np.cross(up, back)
        right /= np.linalg.norm(right)
        return np.stack([right, np.cross(back, right), back], axis=1)


class SceneTask(Task):
    """A task of an arm in a scene: the robot, what stands around it, cameras."""

    robot_name: str
    cameras: ClassVar[tuple[Camera, ...]]
    observation: Mapping[str, tuple[int, ...]]
    """Observation keys → shapes, besides ``joint_pos``, ``joint_vel``, ``time_s``."""

    @cached_property
    def robot(self) -> Robot:
        """The arm."""
        return open_robot(self.robot_name)

    @cached_property
    def kinematics(self) -> Kinematics:
        """numpy kinematics of the arm."""
        return Kinematics(self.robot)

    @abstractmethod
    def build(self, scene: mujoco.MjSpec) -> None:
        """Add the task's bodies to a scene that has arm, floor and light."""


class ArmTask(SceneTask):
    """An arm among things that move by themselves and must not be touched. Subclasses write the methods below.

    Three kinds of mappings of float64 arrays go through it:
    the *instance* (drawn at reset, constant for an episode, holds ``joint_pos`` (J,), the start),
    the *world* (what moves by itself) and the *state* (``joint_pos`` (..., J), ``joint_vel`` (..., J),
    ``points`` (..., P, 3) of `hardware.robots.kinematics.Kinematics.points`, optionally ``slack_rad`` (..., J),
    by which each joint may be off: signals are then lower bounds; plus what `occupied` returns).
    """

    policy = "stl"

    # ---- the scene ---------------------------------------------------------

    @abstractmethod
    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; what moves or varies is a mocap body."""

    @abstractmethod
    def poses(self, instance: Arrays, world: Arrays) -> dict[str, np.ndarray]:
        """Positions (3,) [m] of the mocap bodies of `build`, by body name."""

    # ---- instances and what moves by itself ----------------------------------

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


def arm_task(task: Task) -> ArmTask:
    """The task, if it is one of an arm.

    Raises:
        TaskError: It is of another kind.
    """
    if not isinstance(task, ArmTask):
        raise TaskError(f"task {task.name} moves no arm; this needs a task of an arm, such as reach_avoid")
    return task
