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
REST_PULL = 0.05
"""Of the way to the arm's rest pose, every time, as far as the tool does not notice."""
NEAR_M, NEAR_RAD = 5e-5, 2e-4
"""So near is near enough."""
ROUNDS = 8


class Command(ABC):
    """One way to command an arm; `low` and `high` bound its actions (n,).

    All functions take one arm or many alike: leading axes (...) are the same for all arguments.

    Args:
        robot: An arm with a gripper.
        dt_s: Control period.

    Raises:
        RobotError: It has none.
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
    def _aim(self, action: np.ndarray, joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Joint angles (..., J) [rad] and width (...) [m] that an action aims at, from the reference due now."""

    def reference(
        self, action: np.ndarray, joint_pos: np.ndarray, width_m: np.ndarray | float
    ) -> tuple[np.ndarray, np.ndarray]:
        """Joint angles (..., J) [rad] and width (...) [m] to be reached at the end of the control step.

        Args:
            action: (..., n).
            joint_pos, width_m: The reference that is due now, (..., J) and (...).

        Raises:
            RobotError: The action has another shape or is not numeric.
            NonFiniteError: It holds NaN or infinity.
        """
        shape = (*np.shape(joint_pos)[:-1], len(self.low))
        try:
            action = np.array(action, dtype=float)
        except (TypeError, ValueError) as error:
            raise RobotError(f"an action is {shape} numbers ({self.text}), not {action!r}") from error
        if action.shape != shape:
            raise RobotError(f"an action has shape {shape} ({self.text}), not {action.shape}")
        if not np.isfinite(action).all():
            raise NonFiniteError(f"action holds NaN or infinity: {action}; nothing of it is executed")
        aim, width = self._aim(np.clip(action, self.low, self.high), joint_pos)
        return self.slowed(aim, joint_pos), self.slowed_width(width, width_m)

    def slowed(self, aim: np.ndarray, joint_pos: np.ndarray) -> np.ndarray:
        """As far towards joint angles as one control step allows; all joints alike, so that a path stays a path."""
        limits = self.robot.limits
        aim = np.clip(aim, limits.lower_rad + LIMIT_MARGIN_RAD, limits.upper_rad - LIMIT_MARGIN_RAD)
        way = aim - joint_pos
        most = np.max(np.abs(way) / (JOINT_SPEED_SHARE * self.dt_s * limits.velocity_rad_s), axis=-1, keepdims=True)
        return joint_pos + way / np.maximum(most, 1.0)

    def slowed_width(self, aim: np.ndarray, width_m: np.ndarray | float) -> np.ndarray:
        """As far towards a width as one control step allows."""
        most = self.gripper.speed_m_s * self.dt_s
        return np.clip(np.clip(aim, 0.0, self.gripper.open_m), width_m - most, width_m + most)


class JointPos(Command):
    """Joint angles."""

    text = "joint angles [rad], then width of the gripper [m]"

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        return np.append(robot.limits.lower_rad, 0.0), np.append(robot.limits.upper_rad, gripper.open_m)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return action[..., :-1], action[..., -1]


class JointDelta(Command):
    """Changes of the joint angles."""

    text = "change of every joint angle, 1: as fast as allowed; then gripper, -1 closed .. 1 open"

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        return -np.ones(robot.dof + 1), np.ones(robot.dof + 1)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        most = JOINT_SPEED_SHARE * self.dt_s * self.robot.limits.velocity_rad_s
        return joint_pos + action[..., :-1] * most, (action[..., -1] + 1) / 2 * self.gripper.open_m


class EePose(Command):
    """Pose of the tool."""

    text = "tool centre point x, y, z [m], orientation wxyz, in the frame of the base; then width of the gripper [m]"
    reach_m = 2.0

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        high = np.array([*[self.reach_m] * 3, *[1.0] * 4])
        return np.append(-high, 0.0), np.append(high, gripper.open_m)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        length = np.linalg.norm(action[..., 3:7], axis=-1, keepdims=True)
        if (length < 1e-6).any():
            raise RobotError("the orientation of an action is the quaternion 0, which is none")
        w, x, y, z = np.moveaxis(action[..., 3:7] / length, -1, 0)
        rot = np.stack(
            [
                *(1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
                *(2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
                *(2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
            ],
            axis=-1,
        ).reshape(*w.shape, 3, 3)
        return inverse(self.kinematics, joint_pos, action[..., :3], rot), action[..., 7]


class EeDelta(Command):
    """Motion of the tool."""

    text = (
        f"velocity of the tool centre point x, y, z (1: {REACH_M_S:g} m/s) and of turning about x, y, z "
        f"(1: {TURN_RAD_S:g} rad/s), in the frame of the base; then gripper, -1 closed .. 1 open"
    )

    def _bounds(self, robot: Robot, gripper: Gripper) -> tuple[np.ndarray, np.ndarray]:
        return -np.ones(7), np.ones(7)

    def _aim(self, action: np.ndarray, joint_pos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        here, turned, _ = self.kinematics.pose_and_jacobian(joint_pos)
        pos = here + action[..., :3] * REACH_M_S * self.dt_s
        rot = turn(action[..., 3:6] * TURN_RAD_S * self.dt_s) @ turned
        return inverse(self.kinematics, joint_pos, pos, rot), (action[..., 6] + 1) / 2 * self.gripper.open_m


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
    """Joint angles (..., J) near given ones that bring the tool to a pose, as near as they can.

    Damped least squares (Wampler 1986) with a pull of the redundant motion towards the arm's rest pose. Every arm of a
    batch gets the numbers that it would get alone.

    Args:
        kinematics: Of the arm.
        joint_pos: (..., J) [rad] to begin with.
        pos: (..., 3) [m].
        rot: (..., 3, 3).
    """
    robot = kinematics.robot
    shape = np.shape(joint_pos)
    q = np.array(joint_pos, float).reshape(-1, robot.dof)
    pos, rot = pos.reshape(-1, 3), rot.reshape(-1, 3, 3)
    left = np.arange(len(q))
    for k in range(ROUNDS):
        here, turned, jacobian = kinematics.pose_and_jacobian(q[left])
        error = np.concatenate([pos[left] - here, angle(rot[left] @ turned.swapaxes(-1, -2))], axis=-1)
        off = (np.linalg.norm(error[:, :3], axis=-1) > NEAR_M) | (np.linalg.norm(error[:, 3:], axis=-1) > NEAR_RAD)
        left, error, jacobian = left[off], error[off], jacobian[off]
        if not len(left):
            break
        across = jacobian.swapaxes(-1, -2)
        damping = DAMPING**2 * np.minimum(np.linalg.norm(error, axis=-1), 1.0)
        damped = across @ np.linalg.inv(jacobian @ across + damping[:, None, None] * np.eye(6))
        step = damped @ error[..., None]
        if k == 0:
            rest = REST_PULL * (robot.home_rad - q[left])[..., None]
            step = step + rest - damped @ (jacobian @ rest)
        q[left] = np.clip(q[left] + step[..., 0], robot.limits.lower_rad, robot.limits.upper_rad)
    return q.reshape(shape)


def turn(vector: np.ndarray) -> np.ndarray:
    """Rotations (..., 3, 3) about vectors (..., 3) by their length [rad] (Rodrigues)."""
    size = np.linalg.norm(vector, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vector / np.maximum(size[..., 0], 1e-12), -1, 0)
    o = np.zeros_like(x)
    cross = np.stack([o, -z, y, z, o, -x, -y, x, o], axis=-1).reshape(*x.shape, 3, 3)
    return np.eye(3) + np.sin(size) * cross + (1 - np.cos(size)) * cross @ cross


def angle(rot: np.ndarray) -> np.ndarray:
    """The vectors (..., 3) of `turn` that make rotations (..., 3, 3); their length is at most pi [rad]."""
    axis = np.stack(
        [rot[..., 2, 1] - rot[..., 1, 2], rot[..., 0, 2] - rot[..., 2, 0], rot[..., 1, 0] - rot[..., 0, 1]], axis=-1
    )
    sine, cosine = np.linalg.norm(axis, axis=-1) / 2, (np.trace(rot, axis1=-2, axis2=-1) - 1) / 2
    size = np.arctan2(sine, cosine)
    found = axis * np.where(sine > 1e-6, size / np.maximum(2 * sine, 1e-12), 0.5)[..., None]
    # At half a turn the axis is a column of rot + 1, whichever is longest.
    half = np.take_along_axis(
        rot + np.eye(3), np.argmax(np.diagonal(rot, axis1=-2, axis2=-1), -1)[..., None, None], axis=-1
    )[..., 0]
    half = np.pi * half / np.maximum(np.linalg.norm(half, axis=-1, keepdims=True), 1e-12)
    return np.where(((sine <= 1e-6) & (cosine < 0))[..., None], half, found)
