"""The scene and motions as the tool sees them: the same wherever on the table something is, and however it lies.

From fifty demonstrations a network does not learn that only differences of places count; told from the tool it need
not. All arrays are numpy, rows are moments.
"""

from __future__ import annotations

import numpy as np

from policies.observed import around
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.turns import into, matrix, out_of

PLACE, QUAT = "_pos", "_quat_wxyz"
SIZES = {PLACE: 4, QUAT: 6}
"""Numbers of `around_it` for what so ends."""
OWN = 5
"""Numbers of `own`."""


def turned(state: np.ndarray) -> np.ndarray:
    """Orientation of the tool, (T, 3, 3), of ``observation.state`` (T, J + 8)."""
    return matrix(_unit(state[:, -4:]))


def own(state: np.ndarray) -> np.ndarray:
    """Of the arm itself, (T, 5): width between the jaws [m], height of the tool [m], which way is up, seen from it."""
    return np.concatenate([state[:, -8:-7], state[:, -5:-4], turned(state)[:, 2]], axis=1)


def count(task: TabletopTask) -> int:
    """Numbers of `around_it`."""
    return sum(SIZES.get(_kind(name), size) for name, size in around(task).items())


def around_it(task: TabletopTask, state: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """What is around the arm, seen from the tool, (T, R).

    Args:
        task: The task.
        state: ``observation.state``, (T, J + 8).
        scene: ``observation.environment_state``, the true or an estimated one, (T, E).

    Returns:
        Of places where they are, and how high [m]; of orientations the first two columns of their matrices; the rest as
        it is.
    """
    tool, parts, first = _unit(state[:, -4:]), [np.zeros((len(state), 0))], 0
    for name, size in around(task).items():
        values = scene[:, first : first + size]
        first += size
        if _kind(name) == PLACE:
            parts += [into(tool, values - state[:, -7:-4]), values[:, 2:]]
        elif _kind(name) == QUAT:
            columns = matrix(_unit(values))[:, :, :2].transpose(0, 2, 1)
            parts.append(into(tool[:, None], columns).reshape(-1, 6))
        else:
            parts.append(values)
    return np.concatenate(parts, axis=1)


def seen_from(state: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Motions (T, 7) of ``control="ee_delta"``, in the frame of the base, as the tool sees them."""
    tool = _unit(state[:, -4:])
    return np.concatenate([into(tool, motions[:, :3]), into(tool, motions[:, 3:6]), motions[:, 6:]], axis=1)


def seen_by_base(state: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """The other way round."""
    tool = _unit(state[:, -4:])
    return np.concatenate([out_of(tool, motions[:, :3]), out_of(tool, motions[:, 3:6]), motions[:, 6:]], axis=1)


def _kind(name: str) -> str:
    return next((end for end in SIZES if name.endswith(end)), "")


def _unit(quat: np.ndarray) -> np.ndarray:
    """Quaternions wxyz (T, 4) of length one; an estimate may be anything."""
    length = np.linalg.norm(quat, axis=1, keepdims=True)
    return np.where(length > 1e-6, quat / np.maximum(length, 1e-6), [1.0, 0.0, 0.0, 0.0])
