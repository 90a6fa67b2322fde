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
SCENE = {PLACE: 3, QUAT: 6}
"""Those of `scene`."""
LEAST = {PLACE: 0.02, QUAT: 0.3}
"""Deviations of `scene` that are reckoned with where demonstrations differ less: things are pushed and tipped."""
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


def known(task: TabletopTask) -> int:
    """Numbers of `scene`."""
    return sum(SCENE.get(_kind(name), size) for name, size in around(task).items())


def least(task: TabletopTask) -> np.ndarray:
    """`LEAST` of each number of `scene`, (K,); 0 for others than places and orientations."""
    sizes = [(_kind(name), size) for name, size in around(task).items()]
    return np.concatenate(
        [np.zeros(0), *(np.full(SCENE.get(kind, size), LEAST.get(kind, 0.0)) for kind, size in sizes)]
    )


def places(task: TabletopTask) -> list[int]:
    """Where in `scene` the three numbers of each place begin."""
    return _starts(task, PLACE)


def orientations(task: TabletopTask) -> list[int]:
    """Where in `scene` the six numbers of each orientation begin."""
    return _starts(task, QUAT)


def lengths(task: TabletopTask, value: float) -> list[float]:
    """For each number of `around_it` a value if it is a length, else 0."""
    found: list[float] = []
    for name, size in around(task).items():
        found += [value if _kind(name) == PLACE else 0.0] * SIZES.get(_kind(name), size)
    return found


def scene(task: TabletopTask, values: np.ndarray) -> np.ndarray:
    """``observation.environment_state`` (T, E) without jumps, (T, K): orientations as first two columns of matrices.

    Quaternions have two signs, so that who tells them from pictures would have to guess.
    """
    parts, first = [np.zeros((len(values), 0))], 0
    for name, size in around(task).items():
        part = values[:, first : first + size]
        first += size
        parts.append(matrix(_unit(part))[:, :, :2].transpose(0, 2, 1).reshape(-1, 6) if _kind(name) == QUAT else part)
    return np.concatenate(parts, axis=1)


def around_it(task: TabletopTask, state: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """What is around the arm, seen from the tool, (T, R).

    Args:
        task: The task.
        state: ``observation.state``, (T, J + 8).
        scene: See `scene`; the true or an estimated one, (T, K).

    Returns:
        Of places where they are, and how high [m]; of orientations their columns; the rest as it is.
    """
    tool, parts, first = _unit(state[:, -4:]), [np.zeros((len(state), 0))], 0
    for name, size in around(task).items():
        values = scene[:, first : first + SCENE.get(_kind(name), size)]
        first += values.shape[1]
        if _kind(name) == PLACE:
            parts += [into(tool, values - state[:, -7:-4]), values[:, 2:]]
        elif _kind(name) == QUAT:
            parts.append(into(tool[:, None], values.reshape(-1, 2, 3)).reshape(-1, 6))
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


def _starts(task: TabletopTask, kind: str) -> list[int]:
    found, first = [], 0
    for name, size in around(task).items():
        found += [first] * (_kind(name) == kind)
        first += SCENE.get(_kind(name), size)
    return found


def _kind(name: str) -> str:
    return next((end for end in SIZES if name.endswith(end)), "")


def _unit(quat: np.ndarray) -> np.ndarray:
    """Quaternions wxyz (T, 4) of length one; an estimate may be anything."""
    length = np.linalg.norm(quat, axis=1, keepdims=True)
    return np.where(length > 1e-6, quat / np.maximum(length, 1e-6), [1.0, 0.0, 0.0, 0.0])
