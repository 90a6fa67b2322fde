"""The scene and motions as the tool sees them: the same wherever on the table something is, and however it lies.

From fifty demonstrations a network does not learn that only differences of places count; told from the tool it need
not. All arrays are numpy, rows are moments.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from policies.observed import around
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.mechanisms import Mechanism
from tasks.tabletop.turns import into, matrix, out_of

PLACE, QUAT = "_pos", "_quat_wxyz"
LEAST = {PLACE: 0.02, QUAT: 0.3}
"""Deviations of `scene` that are reckoned with where demonstrations differ less: things are pushed and tipped."""
TINY = 1e-9
"""What is shorter has no direction."""
OWN = 8
"""Numbers of `own`."""


class Part(NamedTuple):
    """Something around the arm that pictures show.

    Attributes:
        name: Of what is observed.
        kind: `PLACE`, `QUAT`, or empty.
        fold: Of an orientation, how often it looks the same in a turn; 0: always.
        rows: Where it is in ``observation.environment_state``.
        first: Where it begins in `scene`.
        size: Numbers of it there.
    """

    name: str
    kind: str
    fold: int
    rows: slice
    first: int
    size: int


class Handle(NamedTuple):
    """Where the body of a joint is taken; `place`, `turn` and `value` say where in `scene` its fixture's place and
    orientation begin, and where the joint is."""

    joint: Mechanism
    place: int
    turn: int
    value: int

    def at(self, scene: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Where it is in the frame of the base, (T, G, 3) [m], if in scenes (T, K) the joint is at values (T, G)."""
        ahead, across = (scene[:, self.turn + i : self.turn + i + 3] for i in (0, 3))
        ahead = _direction(ahead)
        across = _direction(across - (across * ahead).sum(axis=1, keepdims=True) * ahead)
        axes = np.stack([ahead, across, np.cross(ahead, across)], axis=1)  # rows: the fixture's
        return scene[:, None, self.place : self.place + 3] + self.joint.at(values) @ axes


def turned(state: np.ndarray) -> np.ndarray:
    """Orientation of the tool, (T, 3, 3), of ``observation.state`` (T, J + 8)."""
    return matrix(_unit(state[:, -4:]))


def own(state: np.ndarray) -> np.ndarray:
    """Of the arm itself, (T, 8): width between the jaws [m], height of the tool [m], which way is up, and which way is
    ahead, seen from it: an arm that turns about itself gets to the end of its joints."""
    return np.concatenate([state[:, -8:-7], state[:, -5:-4], turned(state)[:, 2], turned(state)[:, 0]], axis=1)


def count(task: TabletopTask) -> int:
    """Numbers of `around_it`."""
    return sum(4 if part.kind == PLACE else part.size for part in _parts(task))


def known(task: TabletopTask) -> int:
    """Numbers of `scene`."""
    return sum(part.size for part in _parts(task))


def least(task: TabletopTask) -> np.ndarray:
    """`LEAST` of each number of `scene`, (K,); 0 for others than places and orientations."""
    return np.concatenate([np.zeros(0), *(np.full(part.size, LEAST.get(part.kind, 0.0)) for part in _parts(task))])


def lengths(task: TabletopTask, value: float) -> list[float]:
    """For each number of `around_it` a value if it is a length, else 0."""
    found: list[float] = []
    for part in _parts(task):
        found += [value] * 4 if part.kind == PLACE else [0.0] * part.size
    return found


def places(task: TabletopTask) -> list[int]:
    """Where in ``observation.environment_state`` each place begins, of three numbers."""
    return [part.rows.start for part in _parts(task) if part.kind == PLACE]


def placed(task: TabletopTask) -> list[int]:
    """Where in `scene` each place begins."""
    return [part.first for part in _parts(task) if part.kind == PLACE]


def orientations(task: TabletopTask) -> list[int]:
    """Where in ``observation.environment_state`` each orientation begins, of four numbers."""
    return [part.rows.start for part in _parts(task) if part.kind == QUAT]


def joints(task: TabletopTask) -> list[int]:
    """Where in ``observation.environment_state`` joints of fixtures are."""
    return [row for part in _parts(task) if not part.kind for row in range(part.rows.start, part.rows.stop)]


def handles(task: TabletopTask) -> list[Handle]:
    """Of each joint of a fixture."""
    first = {part.name: part.first for part in _parts(task)}
    return [
        Handle(joint, first[joint.fixture + PLACE], first[joint.fixture + QUAT], first[name])
        for name, joint in task.mechanisms.items()
    ]


def scene(task: TabletopTask, state: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``observation.environment_state`` (T, E) as pictures tell it, without jumps, (T, K).

    Quaternions have two signs, and what looks alike is told alike (`TabletopTask.symmetry`), or who tells them from
    pictures would have to guess. A body of its own kind of orientation: the first two columns of its matrix. One that
    looks the same after an n-th of a turn: its z axis as the tool sees it, and cosine and sine of n times the angle by
    which it is turned about that, from the tool. A round one: the axis.

    Args:
        task: The task.
        state: ``observation.state``, (T, J + 8).
        values: (T, E).
    """
    tool, found = turned(state), [np.zeros((len(values), 0))]
    for part in _parts(task):
        numbers = values[:, part.rows]
        if part.kind == QUAT:
            turn = matrix(_unit(numbers))
            whole = turn[:, :, :2].transpose(0, 2, 1).reshape(-1, 6)
            numbers = whole if part.fold == 1 else _alike(tool, turn, part.fold)
        found.append(numbers)
    return np.concatenate(found, axis=1)


def around_it(task: TabletopTask, state: np.ndarray, scene: np.ndarray) -> np.ndarray:
    """What is around the arm, seen from the tool, (T, R).

    Args:
        task: The task.
        state: ``observation.state``, (T, J + 8).
        scene: See `scene`; the true or an estimated one, (T, K).

    Returns:
        Of places where they are, and how high [m]; of orientations their columns; the rest as it is.
    """
    tool, found = _unit(state[:, -4:]), [np.zeros((len(state), 0))]
    for part in _parts(task):
        values = scene[:, part.first : part.first + part.size]
        if part.kind == PLACE:
            found += [into(tool, values - state[:, -7:-4]), values[:, 2:]]
        elif part.kind == QUAT and part.fold == 1:
            found.append(into(tool[:, None], values.reshape(-1, 2, 3)).reshape(-1, 6))
        else:
            found.append(values)
    return np.concatenate(found, axis=1)


def seen_from(state: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """Motions (T, 7) of ``control="ee_delta"``, in the frame of the base, as the tool sees them."""
    tool = _unit(state[:, -4:])
    return np.concatenate([into(tool, motions[:, :3]), into(tool, motions[:, 3:6]), motions[:, 6:]], axis=1)


def seen_by_base(state: np.ndarray, motions: np.ndarray) -> np.ndarray:
    """The other way round."""
    tool = _unit(state[:, -4:])
    return np.concatenate([out_of(tool, motions[:, :3]), out_of(tool, motions[:, 3:6]), motions[:, 6:]], axis=1)


def _parts(task: TabletopTask) -> list[Part]:
    """Of what is around, without what only words tell (`TabletopTask.variation`): no picture shows that."""
    found, row, first = list[Part](), 0, 0
    for name, size in around(task).items():
        rows = slice(row, row + size)
        row += size
        kind = next((end for end in (PLACE, QUAT) if name.endswith(end)), "")
        fold = task.symmetry.get(name.removesuffix(QUAT), 1) if kind == QUAT else 1
        if name not in task.variation:
            part = Part(name, kind, fold, rows, first, {0: 3, 1: 6}.get(fold, 5) if kind == QUAT else size)
            found.append(part)
            first += part.size
    return found


def _alike(tool: np.ndarray, turn: np.ndarray, fold: int) -> np.ndarray:
    """Orientations (T, 3, 3) of bodies that look the same `fold` times in a turn, as a tool (T, 3, 3) sees them."""
    seen = tool.transpose(0, 2, 1) @ turn
    axis = seen[:, :, 2]
    if not fold:
        return axis
    # The tool's x axis, as far as it lies across the body's axis, seen from the body.
    across = seen[:, 0, :2]
    length = np.linalg.norm(across, axis=1)
    angle = -fold * np.arctan2(across[:, 1], across[:, 0])
    return np.concatenate([axis, (length * np.array([np.cos(angle), np.sin(angle)])).T], axis=1)


def _direction(vector: np.ndarray) -> np.ndarray:
    """Vectors (T, 3) of length one; an estimate may be anything."""
    return vector / np.maximum(np.linalg.norm(vector, axis=1, keepdims=True), TINY)


def _unit(quat: np.ndarray) -> np.ndarray:
    """Quaternions wxyz (T, 4) of length one; an estimate may be anything."""
    length = np.linalg.norm(quat, axis=1, keepdims=True)
    return np.where(length > 1e-6, quat / np.maximum(length, 1e-6), [1.0, 0.0, 0.0, 0.0])
