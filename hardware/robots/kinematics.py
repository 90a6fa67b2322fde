"""Forward kinematics of an arm for numpy arrays and torch tensors alike.

`kinematics_torch.py` wraps this with a gradient of its own; this file never
imports torch, so that a control process can use it.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from array_api_compat import array_namespace

from hardware.robots.robot import Robot

Array = Any  # numpy.ndarray or torch.Tensor


class Kinematics:
    """Points of an arm as a function of its joint angles.

    Args:
        robot: The arm.

    The points are, in order: the start of every capsule (C), the end of every
    capsule (C), the tool centre point (1); P = 2 C + 1.
    """

    def __init__(self, robot: Robot) -> None:
        self.robot = robot
        c = robot.capsules
        self.radii_m = np.array([k.radius_m for k in c])
        self.point_links = np.array([k.link for k in c] * 2 + [robot.dof])
        self.points_local = np.array([k.start for k in c] + [k.end for k in c] + [robot.tool[:3, 3]])
        self.point_radii_m = np.concatenate([self.radii_m, self.radii_m, [0.0]])

    def frames(self, q: Array) -> tuple[Array, Array]:
        """Origins and rotations of all links in the base frame.

        Args:
            q: Joint angles (..., J) [rad].

        Returns:
            Origins (..., J + 1, 3) [m] and rotations (..., J + 1, 3, 3); index 0 is the base.
        """
        xp = array_namespace(q)
        fixed = _as(xp, self.robot.joint_frames, q)
        batch = q.shape[:-1]
        cos, sin = xp.cos(q)[..., None], xp.sin(q)[..., None]
        # Fixed rotation times a rotation about z: the columns x and y mix, z stays.
        fx, fy, fz = fixed[:, :3, 0], fixed[:, :3, 1], fixed[:, :3, 2]
        local = xp.stack([cos * fx + sin * fy, cos * fy - sin * fx, 0.0 * cos + fz], axis=-1)
        origin = xp.zeros((*batch, 3), dtype=q.dtype, device=q.device)
        rotation = xp.broadcast_to(_as(xp, np.eye(3), q), (*batch, 3, 3))
        origins, rotations = [origin], [rotation]
        for j in range(self.robot.dof):
            origin = origin + xp.matmul(rotation, fixed[j, :3, 3:])[..., 0]
            rotation = xp.matmul(rotation, local[..., j, :, :])
            origins.append(origin)
            rotations.append(rotation)
        return xp.stack(origins, axis=-2), xp.stack(rotations, axis=-3)

    def points(self, q: Array) -> Array:
        """Capsule ends and tool centre point in the base frame: (..., J) → (..., P, 3) [m]."""
        xp = array_namespace(q)
        origins, rotations = self.frames(q)
        return self._attach(xp, origins, rotations, q)

    def _attach(self, xp: Any, origins: Array, rotations: Array, q: Array) -> Array:
        # One small matmul per link instead of gathering a rotation per point.
        parts, order = [], []
        for link in range(self.robot.dof + 1):
            index = np.flatnonzero(self.point_links == link)
            if len(index):
                local = _as(xp, self.points_local[index].T.copy(), q)
                moved = xp.matmul(rotations[..., link, :, :], local)
                parts.append(xp.swapaxes(moved, -1, -2) + origins[..., link, None, :])
                order.append(index)
        inverse = np.argsort(np.concatenate(order))
        stacked = xp.concat(parts, axis=-2)
        return stacked[..., inverse.tolist(), :]

    def ee_pos(self, q: Array) -> Array:
        """Tool centre point in the base frame: (..., J) → (..., 3) [m]."""
        return self.points(q)[..., -1, :]

    def ee_pose(self, q: np.ndarray) -> np.ndarray:
        """Tool frame in the base frame: (..., J) → (..., 4, 4); numpy only."""
        origins, rotations = self.frames(q)
        tool = self.robot.tool
        pose = np.zeros((*q.shape[:-1], 4, 4))
        pose[..., :3, :3] = rotations[..., -1, :, :] @ tool[:3, :3]
        pose[..., :3, 3] = (rotations[..., -1, :, :] @ tool[:3, 3]) + origins[..., -1, :]
        pose[..., 3, 3] = 1.0
        return pose

    def jacobian(self, q: np.ndarray) -> np.ndarray:
        """Geometric Jacobian of the tool centre point: (J,) → (6, J), rows linear [m] then angular; numpy only."""
        origins, rotations = self.frames(q)
        axes, base = rotations[1:, :, 2], origins[1:]
        tip = rotations[-1] @ self.robot.tool[:3, 3] + origins[-1]
        return np.concatenate([np.cross(axes, tip - base), axes], axis=-1).T

    @cached_property
    def lever_m(self) -> np.ndarray:
        """(J, C) upper bound on the distance of any point of capsule c from the axis of joint j.

        Zero where the capsule does not move with the joint. The bound adds up the
        lengths of the chain between the two, so it holds for every configuration; the
        speed of any point of capsule c is at most ``sum_j lever[j, c] |v_j|``.
        """
        robot = self.robot
        offsets = np.linalg.norm(robot.joint_frames[:, :3, 3], axis=-1)
        lever = np.zeros((robot.dof, len(robot.capsules)))
        for c, capsule in enumerate(robot.capsules):
            reach = max(np.linalg.norm(capsule.start), np.linalg.norm(capsule.end)) + capsule.radius_m
            for j in range(1, capsule.link + 1):
                if j == capsule.link:  # distance from this link's own z axis
                    lever[j - 1, c] = (
                        max(np.hypot(*capsule.start[:2]), np.hypot(*capsule.end[:2])) + capsule.radius_m
                    )
                else:
                    lever[j - 1, c] = offsets[j : capsule.link].sum() + reach
        return lever


def _as(xp: Any, value: np.ndarray, like: Array) -> Array:
    if xp is np or "numpy" in xp.__name__:
        return np.asarray(value, dtype=like.dtype)
    return xp.asarray(value, dtype=like.dtype, device=like.device)
