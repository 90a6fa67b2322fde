"""What a robot arm is: joints, limits, kinematic chain, collision capsules, servos."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robo.core.errors import RobotError

if TYPE_CHECKING:
    import mujoco


SCENE_BIT, ARM_BIT, FLOOR_BIT = 1, 2, 4
"""Collision bits (contype, conaffinity) in MuJoCo. The scene keeps MuJoCo's default 1, so that a task's
geoms meet the arm unasked; capsules of the arm meet the scene, those that may not stand on the floor
meet the floor, and each other only where `Robot.self_pairs` lists them (as explicit pairs)."""


@dataclass(frozen=True, kw_only=True)
class JointLimits:
    """Limits of every joint, each an array (J,). All are required and finite, without exception."""

    lower_rad: np.ndarray
    upper_rad: np.ndarray
    velocity_rad_s: np.ndarray
    acceleration_rad_s2: np.ndarray
    jerk_rad_s3: np.ndarray
    torque_n_m: np.ndarray

    def __post_init__(self) -> None:
        shape = np.shape(self.lower_rad)
        for name, value in vars(self).items():
            if np.shape(value) != shape or not np.all(np.isfinite(value)):
                raise RobotError(f"joint limit {name} must be {shape} finite numbers, not {value!r}")
        if not np.all(self.lower_rad < self.upper_rad):
            raise RobotError(f"joint limits are empty: {self.lower_rad} .. {self.upper_rad}")


@dataclass(frozen=True, kw_only=True)
class Servo:
    """Joint servo: torque = kp (q_ref - q) + kd (v_ref - v), gravity compensated, clipped to the torque limit.

    Attributes:
        kp_n_m_rad, kd_n_m_s_rad: Gains, (J,).
        tracking_error_rad: (J,) bound on |q - q_ref| for references within the
            planning limits, calibrated with payload and gain mismatch; see docs/safety.md.
        velocity_error_rad_s: (J,) the same for |v - v_ref|.
    """

    kp_n_m_rad: np.ndarray
    kd_n_m_s_rad: np.ndarray
    tracking_error_rad: np.ndarray
    velocity_error_rad_s: np.ndarray


@dataclass(frozen=True, kw_only=True)
class Gripper:
    """Two jaws, commanded and reported by one number, the width between them; both move alike, or one stands still.

    Attributes:
        joints: Joints of the jaws in the MJCF, (F,).
        width_per_joint_m: (F,): the width is their sum weighted by these, plus `offset_m`.
        offset_m: Width where all joints are at zero.
        open_m: Largest width; the smallest is 0.
        speed_m_s: How fast the width may be commanded to change.
        force_n: Largest force of each jaw.
        jaws: Names of the two bodies; what both touch is held.
        meet_m: Where they meet when closed, along y from the tool centre point; 0 where both move alike.
    """

    joints: tuple[str, ...]
    width_per_joint_m: np.ndarray
    open_m: float
    speed_m_s: float
    force_n: float
    jaws: tuple[str, str]
    offset_m: float = 0.0
    meet_m: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Workspace:
    """Where an arm reaches comfortably from above, on the plane its base stands on.

    Attributes:
        centre_m, half_m: Of a rectangle, (x, y) each; x forward, y left.
        height_m: Up to here.
        reach_m: Only what is at most so far from the axis of the first joint.
    """

    centre_m: tuple[float, float]
    half_m: tuple[float, float]
    height_m: float
    reach_m: float = np.inf


@dataclass(frozen=True)
class Capsule:
    """A collision capsule in the frame of a link.

    Attributes:
        link: Index of the link: 0 is the base, j moves with joint j (1-based).
        start, end: Ends of its segment in the link's frame, (3,) [m].
        radius_m: Radius.
        name: Name, also that of its geom in the MJCF.
    """

    name: str
    link: int
    start: tuple[float, float, float]
    end: tuple[float, float, float]
    radius_m: float


@dataclass(frozen=True, kw_only=True)
class Robot:
    """A serial arm of revolute joints.

    Attributes:
        name: Registered name.
        joints: Joint names, base to tip, (J,).
        limits: Published limits of the maker.
        joint_frames: (J, 4, 4), frame of joint j in the frame of link j - 1 at zero angle; axis z.
        tool: (4, 4), tool centre point in the frame of the last link.
        capsules: Collision capsules of all links.
        self_pairs: Pairs of indices into `capsules` that can touch within the joint limits.
        floor_capsules: Indices of capsules that could touch the floor z = 0.
        servo: Joint servos.
        home_rad: (J,) rest pose.
        build: Builds the MuJoCo model of such an arm, see `mjcf`; lazily imports mujoco.
        gripper: None: there is none, or it stays closed. With one, the tool's z axis points away from the wrist, the
            jaws move along its y axis, and at `home_rad` the tool points down, its x axis forward.
        workspace: Needed for tasks on a tabletop.
    """

    name: str
    joints: tuple[str, ...]
    limits: JointLimits
    joint_frames: np.ndarray
    tool: np.ndarray
    capsules: tuple[Capsule, ...]
    self_pairs: tuple[tuple[int, int], ...]
    floor_capsules: tuple[int, ...]
    servo: Servo
    home_rad: np.ndarray
    build: Callable[[Robot], mujoco.MjSpec]
    gripper: Gripper | None = None
    workspace: Workspace | None = None

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return len(self.joints)

    def mjcf(self) -> mujoco.MjSpec:
        """The arm's MuJoCo model, its base at the origin.

        Bodies ``link0`` .. ``linkJ``, ``hand``, ``payload`` (massless, at the tool); site ``tcp``; actuators
        ``<joint>_pos``, ``<joint>_vel`` and, of the gripper, ``gripper``, whose control is the width [m].
        """
        return self.build(self)


def craig_frame(a_m: float, d_m: float, alpha_rad: float) -> np.ndarray:
    """Frame (4, 4) of joint i at zero angle in the frame of link i - 1: Rot_x(alpha) Trans_x(a) Trans_z(d).

    These are Denavit and Hartenberg's parameters in the convention of Craig (*Introduction to Robotics*, 1986).
    """
    c, s = np.cos(alpha_rad), np.sin(alpha_rad)
    return np.array([[1, 0, 0, a_m], [0, c, -s, -s * d_m], [0, s, c, c * d_m], [0, 0, 0, 1.0]])
