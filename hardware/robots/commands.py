"""Ways to command an arm with a gripper: from an action to the joint reference of the next control step. numpy only.

Every way keeps the reference within the joint limits and slows it down to what the joints can do; what an action asks
for beyond that is reached later. Frames: the base's; rotations are turned about the tool centre point.
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from hardware.robots.kinematics import Kinematics
from hardware.robots.robot import Gripper, Robot
from robo.core.errors import NonFiniteError, RobotError, UnknownNameError

JOINT_SPEED_SHARE = 0.6
"""References use this share of the velocity limits over a step; within it they may be half as fast again."""
LIMIT_MARGIN_RAD = 0.01
"""References keep this far from the joint limits."""
REACH_M_S, TURN_RAD_S = 0.5, 1.5
"""What 1 means in an action of `EeDelta`: speed of the tool centre point along each axis, and of turning about it."""
DAMPING = 0.02
"""Of least squares: how much accuracy is given up near singular poses."""
ROUNDS = 8


class Command(ABC):
    """One way to command an arm; `low` and `high` bound its actions (n,).

    Args:
        robot: An arm with a gripper.
        dt_s: Control period.
    """

    text: str
    """What the numbers of an action are, with frames and units."""

    def __init__(self, robot: Robot, dt_s: float) -> None:
        if robot.gripper is None:
            raise RobotError(f"robot {robot.name} has no gripper to command; take one with, such as panda_hand")
        self.robot, self.dt_s, self.gripper = robot, dt_s, robot.gripper
        self.kinematics = Kinematics(robot)
        self.low, self.high = self._bounds(robot, robot.gripper)

    @abstractmethod
    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]: ...

    @abstractmethod
    def _aim(self, action: np.ndarray, joint_pos: np.ndarray, width_m: float) -> tuple[np.ndarray, float]:
        """Joint angles (J,) [rad] and width [m] that an action aims at, from the reference that is due now."""

    def reference(self, action: np.ndarray, joint_pos: np.ndarray, width_m: float) -> tuple[np.ndarray, float]:
        """Joint angles (J,) [rad] and width [m] to be reached at the end of the control step.

        Args:
            action: (n,).
            joint_pos, width_m: The reference that is due now.

        Raises:
            RobotError: The action has another shape or is not numeric.
            NonFiniteError: It holds NaN or infinity.
        """
        try:
            action = np.array(action, dtype=float)
        except (TypeError, ValueError) as error:
            raise RobotError(f"an action is {self.low.shape} numbers ({self.text}), not {action!r}") from error
        if action.shape != self.low.shape:
            raise RobotError(f"an action has shape {self.low.shape} ({self.text}), not {action.shape}")
        if not np.isfinite(action).all():
            raise NonFiniteError(f"action holds NaN or infinity: {action}; nothing of it is executed")
        aim, width = self._aim(np.clip(action, self.low, self.high), joint_pos, width_m)
        return self.slowed(aim, joint_pos), self.slowed_width(width, width_m)

    def slowed(self, aim: np.ndarray, joint_pos: np.ndarray) -> np.ndarray:
        """As far towards joint angles as one control step allows; all joints alike, so that a path stays a path."""
        limits = self.robot.limits
        aim = np.clip(aim, limits.lower_rad + LIMIT_MARGIN_RAD, limits.upper_rad - LIMIT_MARGIN_RAD)
        way = aim - joint_pos
        most = np.max(np.abs(way) / (JOINT_SPEED_SHARE * self.dt_s * limits.velocity_rad_s))
        return joint_pos + way / max(most, 1.0)

    def slowed_width(self, aim: float, width_m: float) -> float:
        """As far towards a width as one control step allows."""
        most = self.gripper.speed_m_s * self.dt_s
        return float(np.clip(np.clip(aim, 0.0, self.gripper.open_m), width_m - most, width_m + most))


class JointPos(Command):
    """Joint angles."""

    text = "joint angles [rad], then width of the gripper [m]"

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        return np.append(robot.limits.lower_rad, 0.0), np.append(robot.limits.upper_rad, gripper.open_m)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray, width_m: float) -> tuple[np.ndarray, float]:
        return action[:-1], action[-1]


class JointDelta(Command):
    """Changes of the joint angles."""

    text = "change of every joint angle, 1: as fast as allowed; then gripper, -1 closed .. 1 open"

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        return -np.ones(robot.dof + 1), np.ones(robot.dof + 1)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray, width_m: float) -> tuple[np.ndarray, float]:
        most = JOINT_SPEED_SHARE * self.dt_s * self.robot.limits.velocity_rad_s
        return joint_pos + action[:-1] * most, (action[-1] + 1) / 2 * self.gripper.open_m


class EePose(Command):
    """Pose of the tool."""

    text = "tool centre point x, y, z [m], orientation wxyz, in the frame of the base; then width of the gripper [m]"
    reach_m = 2.0

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        high = np.array([*[self.reach_m] * 3, *[1.0] * 4])
        return np.append(-high, 0.0), np.append(high, gripper.open_m)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray, width_m: float) -> tuple[np.ndarray, float]:
        length = np.linalg.norm(action[3:7])
        if length < 1e-6:
            raise RobotError("the orientation of an action is the quaternion 0, which is none")
        w, x, y, z = action[3:7] / length
        rot = np.array(
            [
                [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
                [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
                [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
            ]
        )
        return inverse(self.kinematics, joint_pos, action[:3], rot), action[7]


class EeDelta(Command):
    """Motion of the tool."""

    text = (
        f"velocity of the tool centre point x, y, z (1: {REACH_M_S:g} m/s) and of turning about x, y, z "
        f"(1: {TURN_RAD_S:g} rad/s), in the frame of the base; then gripper, -1 closed .. 1 open"
    )

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        return -np.ones(7), np.ones(7)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray, width_m: float) -> tuple[np.ndarray, float]:
        pose = self.kinematics.ee_pose(joint_pos)
        pos = pose[:3, 3] + action[:3] * REACH_M_S * self.dt_s
        rot = turn(action[3:6] * TURN_RAD_S * self.dt_s) @ pose[:3, :3]
        return inverse(self.kinematics, joint_pos, pos, rot), (action[6] + 1) / 2 * self.gripper.open_m


COMMANDS: dict[str, type[Command]] = {
    "joint_pos": JointPos,
    "joint_delta": JointDelta,
    "ee_pose": EePose,
    "ee_delta": EeDelta,
}


def command(name: str, robot: Robot, dt_s: float) -> Command:
    """A way to command an arm by its name.

    Raises:
        UnknownNameError: There is none of that name.
        RobotError: The arm has no gripper.
    """
    if name not in COMMANDS:
        raise UnknownNameError("way to command an arm", name, COMMANDS)
    return COMMANDS[name](robot, dt_s)


def inverse(kinematics: Kinematics, joint_pos: np.ndarray, pos: np.ndarray, rot: np.ndarray) -> np.ndarray:
    """Joint angles (J,) near given ones that bring the tool to a pose, as near as they can.

    Damped least squares (Wampler 1986) with a pull of the redundant motion towards the arm's rest pose.

    Args:
        kinematics: Of the arm.
        joint_pos: (J,) [rad] to begin with.
        pos: (3,) [m].
        rot: (3, 3).
    """
    q, limits = np.array(joint_pos), kinematics.robot.limits
    for _ in range(ROUNDS):
        pose = kinematics.ee_pose(q)
        error = np.concatenate([pos - pose[:3, 3], angle(rot @ pose[:3, :3].T)])
        if np.linalg.norm(error[:3]) < 1e-5 and np.linalg.norm(error[3:]) < 1e-4:
            break
        jacobian = kinematics.jacobian(q)
        size = np.linalg.norm(error)
        damped = jacobian.T @ np.linalg.inv(jacobian @ jacobian.T + (DAMPING**2 * min(size, 1.0)) * np.eye(6))
        null = 0.05 * (np.eye(len(q)) - damped @ jacobian) @ (kinematics.robot.home_rad - q)
        q = np.clip(q + damped @ error + null, limits.lower_rad, limits.upper_rad)
    return q


def turn(vector: np.ndarray) -> np.ndarray:
    """Rotation (3, 3) about a vector (3,) by its length [rad] (Rodrigues)."""
    size = np.linalg.norm(vector)
    if size < 1e-12:
        return np.eye(3)
    x, y, z = vector / size
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(size) * cross + (1 - np.cos(size)) * cross @ cross


def angle(rot: np.ndarray) -> np.ndarray:
    """The vector (3,) of `turn` that makes a rotation (3, 3); its length is at most pi [rad]."""
    axis = np.array([rot[2, 1] - rot[1, 2], rot[0, 2] - rot[2, 0], rot[1, 0] - rot[0, 1]])
    sine, cosine = np.linalg.norm(axis) / 2, (np.trace(rot) - 1) / 2
    size = np.arctan2(sine, cosine)
    if sine > 1e-6:
        return axis * (size / (2 * sine))
    if cosine > 0:
        return axis / 2
    column = np.argmax(np.diag(rot))  # half a turn: the axis is a column of rot + 1
    half = rot[:, column] + np.eye(3)[:, column]
    return np.pi * half / np.linalg.norm(half)
