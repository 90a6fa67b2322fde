"""Tasks of an arm with a gripper among things it moves. Neither torch nor mujoco at import."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace

from hardware.robots.commands import angle, inverse, turn
from robo.core.errors import TaskError
from tasks.arm import Camera, SceneTask
from tasks.tabletop.mechanisms import Mechanism, mechanisms
from tasks.tabletop.turns import down, yaw_quat
from tasks.task import Array, Arrays, Signal, Source, Task

if TYPE_CHECKING:
    from tasks.stl import Formula

Look = Callable[[], Arrays]
"""The newest observation."""

CAMERAS = (
    Camera(name="front", position=(1.30, 0.0, 0.70), target=(0.38, 0.0, 0.16), fovy_deg=45),
    Camera(name="left", position=(0.45, 0.95, 0.60), target=(0.40, 0.0, 0.14), fovy_deg=45),
    Camera(name="right", position=(0.45, -0.95, 0.60), target=(0.40, 0.0, 0.14), fovy_deg=45),
    Camera(name="wrist", position=(0.07, 0.0, 0.02), target=(0.02, 0.0, 0.16), fovy_deg=70, body="hand"),
    Camera(name="overhead", position=(0.45, 0.0, 1.15), target=(0.46, 0.0, 0.0), fovy_deg=45),
)
FARTHEST_M = 0.62
"""Far end of the workspace that the cameras are set for; those that stand come nearer to a smaller one."""
COMMON = {
    "gripper_width_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="width between the jaws"),
    "held_n": Signal(unit="N", source=Source.SIMULATOR, text="force with which both jaws press on anything"),
    "link_contacts": Signal(unit="1", source=Source.SIMULATOR, text="links of the arm, without jaws, that touch"),
    "joint_margin_rad": Signal(unit="rad", source=Source.PROPRIOCEPTION, text="distance from the joint limits"),
    "speed_margin_rad_s": Signal(
        unit="rad/s", source=Source.PROPRIOCEPTION, text="distance from the joint velocity limits"
    ),
}
"""Signals that every such task has."""
RELEASED = "held_n < 0.1"
"""State formula: nothing is grasped."""
START_NOISE_RAD = 0.03
NEAR_M, NEAR_RAD, PACES = 0.005, 0.05, 5
"""So near inverse kinematics has to come for a pose to be in reach, in so many paces."""
CLEAR_RAD, GAP_M, MOST_RAD = 0.05, 0.003, 2.9
"""So far from the joint limits, so far apart the links; turned by less: half a turn might go round the other way."""


def truth(unit: str, text: str) -> Signal:
    """A signal of where things are: the simulator's truth, until something estimates it."""
    return Signal(unit=unit, source=Source.SIMULATOR, text=text)


@dataclass(frozen=True, kw_only=True)
class Waypoint:
    """Where a scripted expert takes the tool next, along a straight line.

    Attributes:
        pos: Tool centre point, (3,) [m].
        rot: Orientation of the tool, (3, 3).
        width_m: Width between the jaws on the way and there.
        speed_m_s: Fastest on the way; turning takes its share of it.
        near_m: So close the tool has to come before the next.
        wait_s: Stays there for so long.
        free: Nothing is near, so that another way there would do as well.
    """

    pos: np.ndarray
    rot: np.ndarray
    width_m: float
    speed_m_s: float = 0.35
    near_m: float = 0.004
    wait_s: float = 0.0
    free: bool = False


class TabletopTask(SceneTask):
    """An arm with a gripper among things it moves. Subclasses set the class attributes and write the methods below.

    Three mappings of float64 arrays go through it. The *instance* is drawn at reset and constant for an episode:
    ``joint_pos`` (J,), of things and fixtures ``<name>_pos`` (3,) and ``<name>_quat_wxyz`` (4,), of joints ``<name>``
    (1,) where they do not start at 0, and what `variation` lists. The *state* is the simulator's truth, (...) by
    sample: ``joint_pos`` (..., J), ``joint_vel`` (..., J), ``gripper_width_m`` (...), ``ee_pos`` (..., 3),
    ``ee_quat_wxyz`` (..., 4), ``link_contacts`` (...); of things ``<name>_pos``, ``<name>_quat_wxyz`` and
    ``<name>_held_n`` (...), how hard both jaws press on it; of joints ``<name>`` (...). The *observation* holds what
    a policy sees of both.

    Args:
        robot: The arm, one with a gripper and a workspace; see `hardware.robots.open_robot`.

    Raises:
        TaskError: The arm has none.
    """

    robot_name = "panda_hand"
    ctrl_dt_s = 0.05
    policy = "expert"
    cameras = CAMERAS
    safety = "link_contacts < 0.5 and joint_margin_rad > 0 and speed_margin_rad_s > 0"
    goal: ClassVar[str]
    """State formula: success, once all stages were reached."""
    things: ClassVar[tuple[str, ...]] = ()
    """Bodies that lie about freely."""
    fixtures: ClassVar[tuple[str, ...]] = ()
    """Bodies that stand where the instance puts them."""
    joints: ClassVar[tuple[str, ...]] = ()
    """Joints of fixtures; `build` says where the body of each is taken (`tasks.tabletop.parts.handle`)."""
    symmetry: ClassVar[Mapping[str, int]] = {}
    """Bodies that look the same after an n-th of a turn about their own z axis → n; 0: after any turn."""
    variation: ClassVar[Mapping[str, tuple[int, ...]]] = {}
    """Further keys of the instance that a policy is told → shapes."""
    phrases: ClassVar[tuple[str, ...]] = ()
    """Other ways to say the instruction."""

    def __init__(self, robot: str = "panda_hand") -> None:
        self.robot_name = robot
        if self.robot.gripper is None or self.robot.workspace is None:
            raise TaskError(f"task {type(self).name}: robot {robot} has no gripper or no workspace; take panda_hand")
        if robot != type(self).robot_name:
            scale = (self.robot.workspace.centre_m[0] + self.robot.workspace.half_m[0]) / FARTHEST_M
            self.cameras = tuple(_nearer(camera, scale) for camera in self.cameras)  # type: ignore[misc]
            self.name = f"{type(self).name}@{self.robot.name}"  # type: ignore[misc]

    @cached_property
    def observation(self) -> Mapping[str, tuple[int, ...]]:  # type: ignore[override]
        """See `SceneTask`."""
        shapes: dict[str, tuple[int, ...]] = {"gripper_width_m": (1,), "ee_pos": (3,), "ee_quat_wxyz": (4,)}
        for name in (*self.things, *self.fixtures):
            shapes |= {f"{name}_pos": (3,), f"{name}_quat_wxyz": (4,)}
        return shapes | {name: (1,) for name in self.joints} | dict(self.variation)

    @cached_property
    def mechanisms(self) -> dict[str, Mechanism]:
        """How each of `joints` moves."""
        if not self.joints:
            return {}
        import mujoco  # lazily: the control process knows tasks

        scene = mujoco.MjSpec()
        self.build(scene)
        return mechanisms(scene, self.joints)

    # ---- what a task says ----------------------------------------------------

    @abstractmethod
    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw where things and fixtures are, and the variation."""

    @abstractmethod
    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """The task's own signals of a state, (...) each; numpy or torch."""

    @abstractmethod
    def script(self, look: Look) -> Iterator[Waypoint]:
        """What a scripted expert does, waypoint by waypoint; it may look before each."""

    def instruct(self, instance: Arrays) -> str:
        """The instruction of an instance."""
        return self.instruction

    def paint(self, instance: Arrays) -> dict[str, tuple[float, ...]]:
        """Colours (4,) of geoms that the variation decides, by name."""
        return {}

    # ---- what follows ----------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `Task.sample`: `arrange`, and the arm near its rest pose."""
        home = self.robot.home_rad + rng.uniform(-START_NOISE_RAD, START_NOISE_RAD, self.robot.dof)
        return {"joint_pos": home} | {name: np.asarray(value, float) for name, value in self.arrange(rng).items()}

    def measure(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """All signals of a state, (...) each; numpy or torch. Arrays of the instance broadcast against the state's."""
        xp = array_namespace(state["joint_pos"])
        limits, q, v = self.robot.limits, state["joint_pos"], state["joint_vel"]
        lower, upper, fastest = (
            xp.asarray(x, dtype=q.dtype, device=q.device)
            for x in (limits.lower_rad, limits.upper_rad, limits.velocity_rad_s)
        )
        held = [state[f"{name}_held_n"] for name in self.things]
        return {
            "gripper_width_m": state["gripper_width_m"],
            "held_n": xp.amax(xp.stack(held, axis=-1), axis=-1) if held else 0.0 * state["gripper_width_m"],
            "link_contacts": state["link_contacts"],
            "joint_margin_rad": xp.amin(xp.minimum(q - lower, upper - q), axis=-1),
            "speed_margin_rad_s": xp.amin(fastest - xp.abs(v), axis=-1),
            **self.derive(state, instance),
        }

    def success(self, trace: Arrays) -> bool:
        """The goal holds at the end, and all stages were reached on the way."""
        last = {name: value[-1:] for name, value in trace.items()}
        done = self.stages_reached(trace) == len(self.stages)
        return done and bool(self.goal_formula.verdict(last, self.ctrl_dt_s)[0])

    @cached_property
    def goal_formula(self) -> Formula:
        """The parsed goal, a state formula."""
        return self.parsed(self.goal)

    def validate_formulas(self) -> None:
        """See `Task.validate_formulas`; the goal is a state formula as well."""
        super().validate_formulas()
        if self.goal_formula.horizon(self.ctrl_dt_s) != 0.0:
            raise TaskError(f"task {self.name}: the goal must speak of one moment only: {self.goal}")

    # ---- for arranging -----------------------------------------------------------

    def spots(
        self, rng: np.random.Generator, count: int, apart_m: float, z_m: float = 0.0, inset_m: float = 0.0
    ) -> np.ndarray:
        """Places (count, 3) [m] in the workspace that keep apart.

        Raises:
            TaskError: It is too small for them.
        """
        area = self.robot.workspace
        assert area is not None
        centre, half = np.array(area.centre_m), np.array(area.half_m) - inset_m
        axis = self.robot.joint_frames[0, :2, 3]
        for _ in range(10_000):
            found = centre + rng.uniform(-1, 1, (count, 2)) * half
            gaps = np.linalg.norm(found[:, None] - found[None], axis=-1)[np.triu_indices(count, 1)]
            far = np.linalg.norm(found - axis, axis=-1) + inset_m
            if (gaps >= apart_m).all() and (far <= area.reach_m).all():
                return np.column_stack([found, np.full(count, z_m)])
        raise TaskError(f"task {self.name}: no room for {count} things {apart_m} m apart on the workspace")

    # ---- for scripts ---------------------------------------------------------------

    def low(self, height_m: float) -> float:
        """A height for the tool: this one, or the upper end of the workspace where that is lower."""
        assert self.robot.workspace is not None
        return min(height_m, self.robot.workspace.height_m)

    def room_over(self, place: np.ndarray, most_m: float) -> float:
        """How far the tool can go up from a place (3,) within the workspace, at most `most_m`."""
        assert self.robot.workspace is not None
        return min(most_m, self.robot.workspace.height_m - place[2])

    def quarter_turned(self, yaw: float, *places: np.ndarray, aside_m: float = 0.0) -> np.ndarray:
        """Orientation (3, 3) of a tool that points down at all of some places (3,), for what four sides make alike.

        It is turned by `yaw` or by quarter turns more: whichever comes first with which the arm gets everywhere. Of the
        tool it is not the centre point that goes there, but what lies `aside_m` from it along y.
        """
        turns = [down(yaw + quarter * np.pi / 2) for quarter in (0, 1, -1, 2)]
        fits = (rot for rot in turns if all(self.reaches(place - aside_m * rot[:, 1], rot) for place in places))
        return next(fits, turns[0])

    def reaches(self, pos: np.ndarray, rot: np.ndarray) -> bool:
        """Whether the arm takes the tool straight from its rest pose to a pose, clear of joint limits and of itself."""
        limits, q, kinematics = self.robot.limits, self.robot.home_rad, self.kinematics
        start, was, _ = kinematics.pose_and_jacobian(q)
        way, turning = pos - start, angle(rot @ was.T)
        if np.linalg.norm(turning) > MOST_RAD:
            return False
        for share in np.linspace(0, 1, PACES + 1)[1:]:
            there, facing = start + share * way, turn(share * turning) @ was
            q = inverse(kinematics, q, there, facing)
            here, turned, _ = kinematics.pose_and_jacobian(q)
            near = np.linalg.norm(here - there) < NEAR_M and np.linalg.norm(angle(turned @ facing.T)) < NEAR_RAD
            clear = np.minimum(q - limits.lower_rad, limits.upper_rad - q).min() > CLEAR_RAD
            if not (near and clear and kinematics.self_gap_m(q) > GAP_M):
                return False
        return True

    @staticmethod
    def heading(rng: np.random.Generator, most_rad: float = np.pi / 4) -> np.ndarray:
        """A turn about the vertical, at random, (4,) wxyz."""
        return yaw_quat(rng.uniform(-most_rad, most_rad))


def _nearer(camera: Camera, scale: float) -> Camera:
    """A camera that stands, all its distances scaled."""
    if camera.body is not None:
        return camera
    x, y, z = (scale * value for value in camera.position)
    u, v, w = (scale * value for value in camera.target)
    return replace(camera, position=(x, y, z), target=(u, v, w))


def tabletop_task(task: Task) -> TabletopTask:
    """The task, if it is one of this kind.

    Raises:
        TaskError: It is of another kind.
    """
    if not isinstance(task, TabletopTask):
        raise TaskError(f"task {task.name} is none on a tabletop; this needs one, such as pick_and_place")
    return task
