"""The scene and motions as the tool sees them: the same wherever on the table something is, and however it lies.

From fifty demonstrations a network does not learn that only differences of places count; told from the tool it need
not. All arrays are numpy, rows are moments.
"""

from __future__ import annotations

import numpy as np
from scipy.spatial.transform import Rotation

from policies.observed import around
from tasks.tabletop.base import TabletopTask

PLACE, QUAT = "_pos", "_quat_wxyz"
OWN = 5
"""Numbers of `own`."""


def turned(state: np.ndarray) -> np.ndarray:
    """Orientation of the tool, (T, 3, 3), of ``observation.state`` (T, J + 8)."""
    return _matrices(state[:, -4:])


def own(state: np.ndarray) -> np.ndarray:
    """Of the arm itself, (T, 5): width between the jaws [m], height of the tool [m], which way is up, seen from it."""
    return np.concatenate([state[:, -8:-7], state[:, -5:-4], turned(state)[:, 2]], axis=1)


def count(task: TabletopTask) -> int:
    """Numbers of `around_it`."""
    return sum(_sizes(name, size) for name, size in around(task).items())


def around_it(task: TabletopTask, state: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """What is around the arm, seen from the tool, (T, R).

    Args:
        task: The task.
        state: ``observation.state``, (T, J + 8).
        scene: ``observation.environment_state``, the true or an estimated one, (T, E).

    Returns:
        Of places where they are, and how high; of orientations the first two columns of their matrices; the rest as is.
    """
    tool, base = turned(state), state[:, -7:-4]
    parts, first = [np.zeros((len(state), 0))], 0
    for name, size in around(task).items():
        values = scene[:, first : first + size]
        first += size
        if name.endswith(PLACE):
            parts += [np.einsum("tji,tj->ti", tool, values - base), values[:, 2:]]
        elif name.endswith(QUAT):
            parts.append((tool.transpose(0, 2, 1) @ _matrices(values))[:, :, :2].reshape(-1, 6))
        else:
            parts.append(values)
    return np.concatenate(parts, axis=1)


def seen_from(state: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Motions (T, 7) of ``control="ee_delta"``, in the frame of the base, as the tool sees them."""
    return _both(turned(state).transpose(0, 2, 1), motions)


def seen_by_base(state: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """The other way round."""
    return _both(turned(state), motions)


def _both(matrices: np.ndarray, motions: np.ndarray) -> np.ndarray:
    moved, spun = (np.einsum("tij,tj->ti", matrices, part) for part in (motions[:, :3], motions[:, 3:6]))
    return np.concatenate([moved, spun, motions[:, 6:]], axis=1)


def _matrices(quat: np.ndarray) -> np.ndarray:
    """Of wxyz (T, 4), not necessarily of length 1."""
    length = np.linalg.norm(quat, axis=1, keepdims=True)
    safe = np.where(length > 1e-6, quat, [1.0, 0.0, 0.0, 0.0])  # an estimate may be anything
    return Rotation.from_quat(safe, scalar_first=True).as_matrix()


def _sizes(name: str, size: int) -> int:
    return 4 if name.endswith(PLACE) else 6 if name.endswith(QUAT) else size
