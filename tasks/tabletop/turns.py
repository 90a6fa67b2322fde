"""Rotations: matrices (3, 3) and quaternions wxyz (4,), for numpy arrays and torch tensors alike."""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

Array = Any  # numpy.ndarray or torch.Tensor


def yaw_quat(angle: float) -> np.ndarray:
    """A turn about the vertical by an angle [rad], as a quaternion wxyz (4,)."""
    return np.array([np.cos(angle / 2), 0.0, 0.0, np.sin(angle / 2)])


def axis_quat(axis: Any, angle: float) -> np.ndarray:
    """A turn about an axis (3,) of length one by an angle [rad], as a quaternion wxyz (4,)."""
    return np.array([np.cos(angle / 2), *(np.sin(angle / 2) * np.asarray(axis, float))])


def quat_times(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """First the turn `b`, then `a`: quaternions wxyz (4,)."""
    w, x, y, z = a
    return np.array([[w, -x, -y, -z], [x, w, -z, y], [y, z, w, -x], [z, -y, x, w]]) @ b


def turned(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    """Quaternions wxyz (..., 4) of bodies that turn about vectors (..., 3) of theirs, by their length [rad]."""
    half = np.linalg.norm(vector, axis=-1, keepdims=True) / 2
    turn = np.concatenate([np.cos(half), np.sinc(half / np.pi) / 2 * vector], axis=-1)
    (w, x, y, z), (a, b, c, d) = np.moveaxis(quat, -1, 0), np.moveaxis(turn, -1, 0)
    rows = (
        w * a - x * b - y * c - z * d,
        w * b + x * a + y * d - z * c,
        w * c - x * d + y * a + z * b,
        w * d + x * c - y * b + z * a,
    )
    return np.stack(rows, axis=-1)


def matrix(quat: Array) -> Array:
    """Quaternions wxyz (..., 4) of length one as rotation matrices (..., 3, 3)."""
    xp = array_namespace(quat)
    w, x, y, z = (quat[..., i] for i in range(4))
    rows = (
        (1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)),
        (2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)),
        (2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)),
    )
    return xp.stack([xp.stack(row, axis=-1) for row in rows], axis=-2)


def axis_of(quat: Array, index: int) -> Array:
    """The body's x, y or z axis (0, 1, 2) in the world, (..., 3)."""
    return matrix(quat)[..., :, index]


def into(quat: Array, vector: Array) -> Array:
    """Vectors (..., 3) of the world in the body's frame."""
    return (matrix(quat) * vector[..., :, None]).sum(-2)


def out_of(quat: Array, vector: Array) -> Array:
    """Vectors (..., 3) of the body's frame in the world."""
    return (matrix(quat) * vector[..., None, :]).sum(-1)


def down(yaw: float) -> np.ndarray:
    """Orientation (3, 3) of a tool that points down, turned by `yaw` [rad] from where its x axis points forward."""
    return facing((0.0, 0.0, -1.0), (np.sin(yaw), -np.cos(yaw), 0.0))


def facing(ahead: Any, jaws: Any) -> np.ndarray:
    """Orientation (3, 3) of a tool that points along `ahead`, its jaws moving along `jaws`: both (3,), at right angles.

    The arm at rest points down with ``jaws = (0, -1, 0)``: of two ways to say the same take the one nearer to that.
    """
    z = np.asarray(ahead, float) / np.linalg.norm(ahead)
    y = np.asarray(jaws, float) - z * np.dot(jaws, z)
    y /= np.linalg.norm(y)
    return np.stack([np.cross(y, z), y, z], axis=1)


def nearest_half_turn(yaw: float) -> float:
    """The same direction of jaws within ±90°: they have no front."""
    return (yaw + np.pi / 2) % np.pi - np.pi / 2


def yaw_of(quat: np.ndarray) -> float:
    """Heading [rad] of a body's x axis on the table."""
    x = axis_of(quat, 0)
    return float(np.arctan2(x[1], x[0]))
