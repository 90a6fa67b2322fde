"""Shapes of formulas over regions and obstacles, and constants that make a given way satisfy them.

A shape is what stays when the constants of a formula are left open: which operators, which intervals, which balls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

Ball: TypeAlias = tuple[np.ndarray, float]
"""Centre and radius."""
CLEAR_M = 0.05
"""A way lies this deep in its regions and this far from its obstacles, at the least."""


@dataclass(frozen=True)
class Clause:
    """A part of a mission.

    Attributes:
        kind: One of `KINDS`.
        start, end, hold: Steps; what they are depends on the kind.
    """

    kind: str
    start: int
    end: int
    hold: int


@dataclass(frozen=True)
class Shape:
    """Clauses of a mission, and how many obstacles there are."""

    clauses: tuple[Clause, ...]
    obstacles: int

    def text(self, space: Sequence[str], dt: float) -> tuple[str, str]:
        """Mission and safety (perhaps empty) as STL text, with parameters ``$c0 ..`` for centres and radii in turn."""
        count = 0

        def ball(outside: bool = False) -> str:
            nonlocal count
            names = [f"$c{count + i}" for i in range(len(space) + 1)]
            count += len(names)
            inside = ", ".join(f"{axis} - {name}" for axis, name in zip(space, names, strict=False))
            return f"norm({inside}) {'>' if outside else '<'} {names[-1]}"

        def window(first: int, last: int) -> str:
            return f"[{first * dt:.6g},{last * dt:.6g}]"

        parts = [KINDS[clause.kind].text(clause, ball, window) for clause in self.clauses]
        mission = " and ".join(f"({part})" for part in parts)
        return mission, " and ".join(ball(outside=True) for _ in range(self.obstacles))


@dataclass(frozen=True)
class Kind:
    """A kind of clause: its text, and balls with which a way (T + 1, d) satisfies it (None: this way will not do)."""

    text: Callable[[Clause, Callable[..., str], Callable[[int, int], str]], str]
    balls: Callable[[Clause, np.ndarray, _Places], list[Ball] | None]


@dataclass(frozen=True)
class _Places:
    """What balls are drawn with."""

    radius: tuple[float, float]
    rng: np.random.Generator

    def at(self, point: np.ndarray) -> Ball:
        """A ball that holds a point."""
        radius = float(self.rng.uniform(*self.radius))
        way = self.rng.normal(size=point.shape)
        depth = self.rng.uniform(0.0, radius - CLEAR_M)
        return point + depth * way / np.linalg.norm(way), radius

    def round(self, points: np.ndarray) -> Ball | None:
        """A ball that holds all points; None where it would be too large."""
        centre = (points.min(0) + points.max(0)) / 2
        reach = float(np.linalg.norm(points - centre, axis=1).max()) + CLEAR_M
        if reach > self.radius[1]:
            return None
        return centre, float(self.rng.uniform(max(reach, self.radius[0]), self.radius[1]))

    def elsewhere(self, points: np.ndarray, clear: np.ndarray) -> Ball | None:
        """A ball near one of the points that leaves out all the points that must be clear of it."""
        for _ in range(20):
            centre = points[self.rng.integers(len(points))] + self.rng.normal(size=points.shape[1]) * self.radius[1]
            room = float(np.linalg.norm(clear - centre, axis=1).min()) - CLEAR_M if len(clear) else np.inf
            if room >= self.radius[0]:
                return centre, float(self.rng.uniform(self.radius[0], min(room, self.radius[1])))
        return None


def _reach(c: Clause, way: np.ndarray, places: _Places) -> list[Ball] | None:
    return [places.at(way[places.rng.integers(c.start, c.end + 1)])]


def _stay(c: Clause, way: np.ndarray, places: _Places) -> list[Ball] | None:
    begins = places.rng.permutation(np.arange(c.start, c.end + 1))
    found = (places.round(way[k : k + c.hold + 1]) for k in begins)
    ball = next((ball for ball in found if ball is not None), None)
    return None if ball is None else [ball]


def _sequence(c: Clause, way: np.ndarray, places: _Places) -> list[Ball] | None:
    first = places.rng.integers(c.start, c.end + 1)
    return [places.at(way[first]), places.at(way[first + places.rng.integers(c.hold + 1)])]


def _until(c: Clause, way: np.ndarray, places: _Places) -> list[Ball] | None:
    key = places.rng.integers(max(c.start, 1), c.end + 1)
    door = places.elsewhere(way[key:], way[:key])
    return None if door is None else [door, places.at(way[key])]


def _choice(c: Clause, way: np.ndarray, places: _Places) -> list[Ball] | None:
    good, other = places.at(way[places.rng.integers(c.start, c.end + 1)]), places.at(way[places.rng.integers(len(way))])
    other = (other[0] + places.rng.normal(size=way.shape[1]), other[1])
    return [good, other] if places.rng.integers(2) else [other, good]


def _respond(c: Clause, way: np.ndarray, places: _Places) -> list[Ball] | None:
    cause = places.at(way[places.rng.integers(c.start, c.end + 1)])
    inside = c.start + np.flatnonzero(np.linalg.norm(way[c.start : c.end + 1] - cause[0], axis=1) < cause[1] + CLEAR_M)
    first, last = int(inside[0]), int(inside[-1])
    if last > first + c.hold:
        return None
    return [cause, places.at(way[places.rng.integers(last, first + c.hold + 1)])]


KINDS = {
    "reach": Kind(lambda c, ball, window: f"F{window(c.start, c.end)}({ball()})", _reach),
    "stay": Kind(lambda c, ball, window: f"F{window(c.start, c.end)}(G{window(0, c.hold)}({ball()}))", _stay),
    "sequence": Kind(
        lambda c, ball, window: f"F{window(c.start, c.end)}({ball()} and F{window(0, c.hold)}({ball()}))", _sequence
    ),
    "until": Kind(lambda c, ball, window: f"({ball(outside=True)}) U{window(c.start, c.end)} ({ball()})", _until),
    "choice": Kind(lambda c, ball, window: f"F{window(c.start, c.end)}({ball()} or {ball()})", _choice),
    "respond": Kind(
        lambda c, ball, window: f"G{window(c.start, c.end)}({ball()} implies F{window(0, c.hold)}({ball()}))", _respond
    ),
}
"""Kinds of clauses by name."""


def draw_shape(steps: int, rng: np.random.Generator) -> Shape:
    """A shape at random whose formula looks at most `steps` steps ahead; intervals are multiples of a tenth of that."""
    grid = max(steps // 10, 1)
    clauses = []
    for _ in range(rng.choice(3, p=(0.4, 0.4, 0.2)) + 1):
        kind = list(KINDS)[rng.integers(len(KINDS))]
        hold = 0 if kind in ("reach", "until", "choice") else grid * int(rng.integers(1, 5 if kind != "stay" else 4))
        last = (steps - hold) // grid
        end = int(rng.integers(max(last // 2, 1), last + 1))
        start = int(rng.integers(0, end)) if rng.uniform() < 0.5 and kind != "until" else 0
        clauses.append(Clause(kind, start * grid, end * grid, hold))
    return Shape(tuple(clauses), int(rng.integers(4)))


def fill(
    shape: Shape,
    way: np.ndarray,
    region: tuple[float, float],
    obstacle: tuple[float, float],
    rng: np.random.Generator,
) -> dict[str, float] | None:
    """Constants ``c0 ..`` with which a way (T + 1, d) satisfies a shape's formula; None where it cannot."""
    places, balls = _Places(region, rng), []
    for clause in shape.clauses:
        made = KINDS[clause.kind].balls(clause, way, places)
        if made is None:
            return None
        balls += made
    for _ in range(shape.obstacles):
        ball = _Places(obstacle, rng).elsewhere(way, way)
        if ball is None:
            return None
        balls.append(ball)
    numbers = [float(x) for centre, radius in balls for x in (*centre, radius)]
    return {f"c{i}": round(x, 4) for i, x in enumerate(numbers)}
