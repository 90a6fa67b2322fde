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
from robo.core.geometry import segment_distance

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
        origins, axes = self._chain(xp, q)
        origin = xp.stack(origins, axis=0)  # (J + 1, 3, ...)
        rotation = xp.stack([xp.stack(xyz, axis=1) for xyz in axes], axis=0)  # (J + 1, 3 rows, 3 columns, ...)
        return xp.moveaxis(origin, (0, 1), (-2, -1)), xp.moveaxis(rotation, (0, 1, 2), (-3, -2, -1))

    def points(self, q: Array) -> Array:
        """Capsule ends and tool centre point in the base frame: (..., J) → (..., P, 3) [m].

        In memory the components come first; ``moveaxis(points, (-1, -2), (0, 1))`` is contiguous.
        """
        xp = array_namespace(q)
        origins, axes = self._chain(xp, q)
        return xp.moveaxis(self._attach(xp, origins, axes, q), (0, 1), (-1, -2))

    def _chain(self, xp: Any, q: Array) -> tuple[list[Array], list[tuple[Array, Array, Array]]]:
        """Origin (3, ...) and axes x, y, z (3, ...) of every link; component-first rows keep this fast."""
        shape, dof = q.shape[:-1], self.robot.dof
        one = _as(xp, np.eye(3), q)
        fill = xp.zeros((3, *shape), dtype=q.dtype, device=q.device)
        x, y, z = (one[:, k].reshape((3,) + (1,) * len(shape)) + fill for k in range(3))
        origin = fill
        angles = xp.moveaxis(q, -1, 0)
        cos, sin = xp.cos(angles), xp.sin(angles)
        origins, axes = [origin], [(x, y, z)]
        for j in range(dof):
            fixed = self.robot.joint_frames[j]
            origin = _combine(fixed[:3, 3], (x, y, z), origin)
            # The fixed rotation turns the axes, then the joint turns x and y about z.
            fx, fy, fz = (_combine(fixed[:3, k], (x, y, z), None) for k in range(3))
            c, s = cos[j], sin[j]
            x, y, z = c * fx + s * fy, c * fy - s * fx, fz
            origins.append(origin)
            axes.append((x, y, z))
        return origins, axes

    def _attach(self, xp: Any, origins: list[Array], axes: list[tuple[Array, Array, Array]], q: Array) -> Array:
        """All points, (3, P, ...): link by link, then in their order."""
        tail = (1,) * (q.ndim - 1)
        parts = []
        for link, local in self._by_link:
            point = origins[link][:, None]
            for k, axis in enumerate(axes[link]):
                if local[:, k].any():
                    point = point + _as(xp, local[:, k], q).reshape((-1, *tail)) * axis[:, None]
            parts.append(point if point.shape[1] == len(local) else xp.concat([point] * len(local), axis=1))
        return xp.concat(parts, axis=1)[:, self._in_order]

    @cached_property
    def _by_link(self) -> list[tuple[int, np.ndarray]]:
        """Links that carry points, and those points in the link's frame (n, 3)."""
        links = np.unique(self.point_links).tolist()
        return [(link, self.points_local[self.point_links == link]) for link in links]

    @cached_property
    def _in_order(self) -> list[int]:
        """Where every point stands when they are sorted by link."""
        return np.argsort(np.argsort(self.point_links, kind="stable")).tolist()

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
        """Geometric Jacobian of the tool centre point: (..., J) → (..., 6, J), linear [m], then angular; numpy only."""
        return self.pose_and_jacobian(q)[2]

    def pose_and_jacobian(self, q: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Tool's position (..., 3), orientation (..., 3, 3) and `jacobian` at once; numpy only.

        By products of matrices: several times faster than `frames` for a few arms.
        """
        robot = self.robot
        turns = np.zeros((*q.shape, 4, 4))
        turns[..., 0, 0] = turns[..., 1, 1] = np.cos(q)
        turns[..., 1, 0] = np.sin(q)
        turns[..., 0, 1] = -turns[..., 1, 0]
        turns[..., 2, 2] = turns[..., 3, 3] = 1.0
        links = robot.joint_frames @ turns
        frames = [links[..., 0, :, :]]
        for j in range(1, robot.dof):
            frames.append(frames[-1] @ links[..., j, :, :])
        tool, chain = frames[-1] @ robot.tool, np.stack(frames, axis=-3)
        pos, axes = tool[..., :3, 3], chain[..., :3, 2]
        arm = pos[..., None, :] - chain[..., :3, 3]
        x, y, z = (axes[..., i] for i in range(3))
        u, v, w = (arm[..., i] for i in range(3))
        return pos, tool[..., :3, :3], np.stack([y * w - z * v, z * u - x * w, x * v - y * u, x, y, z], axis=-2)

    def self_gap_m(self, q: np.ndarray) -> np.ndarray:
        """Smallest gap between capsules that can touch: (..., J) → (...) [m], infinite without any; numpy only."""
        pairs, c = np.array(self.robot.self_pairs, int).reshape(-1, 2), len(self.robot.capsules)
        points = np.moveaxis(self.points(q), -1, 0)
        first, second = pairs[:, 0], pairs[:, 1]
        apart = segment_distance(
            points[..., first], points[..., c + first], points[..., second], points[..., c + second]
        )
        return (apart - self.radii_m[first] - self.radii_m[second]).min(axis=-1, initial=np.inf)

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
                    lever[j - 1, c] = max(np.hypot(*capsule.start[:2]), np.hypot(*capsule.end[:2])) + capsule.radius_m
                else:
                    lever[j - 1, c] = offsets[j : capsule.link].sum() + reach
        return lever

    @cached_property
    def pair_lever_m(self) -> np.ndarray:
        """(J, n) upper bounds for the robot's self pairs: how far a joint's turn by 1 rad moves one towards the other.

        Seen from the nearer link only the joints between the two move the farther capsule; the others move both alike.
        """
        lever = np.zeros((self.robot.dof, len(self.robot.self_pairs)))
        for n, pair in enumerate(self.robot.self_pairs):
            near, far = sorted(pair, key=lambda c: self.robot.capsules[c].link)
            first = self.robot.capsules[near].link
            lever[first:, n] = self.lever_m[first:, far]
        return lever


def _combine(coefficients: np.ndarray, axes: tuple[Array, Array, Array], offset: Array | None) -> Array:
    """``offset + sum_k coefficients[k] * axes[k]``, leaving out zeros (most of a DH frame's entries)."""
    total = offset
    for value, axis in zip(coefficients.tolist(), axes, strict=True):
        if abs(value) < 1e-12:
            continue
        term = axis if value == 1.0 else value * axis
        total = term if total is None else total + term
    return 0.0 * axes[0] if total is None else total


def _as(xp: Any, value: np.ndarray, like: Array) -> Array:
    if xp is np or "numpy" in xp.__name__:
        return np.asarray(value, dtype=like.dtype)
    return xp.asarray(value, dtype=like.dtype, device=like.device)
