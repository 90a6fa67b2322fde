"""What the two ship benchmarks share: a six-state ship on a river, obstacles, pictures."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.benchmarks.steps import join

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from tasks.task import Array

RIVER_M = 2.0
"""Half the width of the river."""
THRUST, RUDDER = 0.5, 3.0
"""Bounds of the controls, of either sign."""
HEADING_RAD, SPEED_M_S, SWAY_M_S, TURN_RAD_S = 0.5, (3.0, 5.0), 0.3, 0.5
"""Bounds that the ship's own state is held to."""
SUBSTEPS = 2


def sail(ship: list[Array], control: Array, dt_s: float) -> list[Array]:
    """One step of x, y, heading, surge, sway and turn rate, (...) each: Euler in two sub-steps."""
    xp, h = array_namespace(ship[0]), dt_s / SUBSTEPS
    x, y, heading, surge, sway, turn = ship
    thrust, rudder = control[..., 0], control[..., 1]
    for _ in range(SUBSTEPS):
        cos, sin = xp.cos(heading), xp.sin(heading)
        x, y = x + h * (surge * cos - sway * sin), y + h * (surge * sin + sway * cos)
        heading = xp.clip(heading + h * turn, -HEADING_RAD, HEADING_RAD)
        surge = xp.clip(surge + h * thrust, *SPEED_M_S)
        sway = xp.clip(sway + h * 0.01 * rudder, -SWAY_M_S, SWAY_M_S)
        turn = xp.clip(turn + h * 0.5 * rudder, -TURN_RAD_S, TURN_RAD_S)
    return [x, y, heading, surge, sway, turn]


def clearance(ship: list[Array], obstacle: list[Array]) -> Array:
    """Distance of a ship from an obstacle x, y, radius [m], negative inside."""
    xp = array_namespace(ship[0])
    dx, dy, radius = ship[0] - obstacle[0], ship[1] - obstacle[1], obstacle[2]
    # The root has no gradient at zero, where no ship should be anyway.
    return xp.sqrt(dx * dx + dy * dy + 1e-12) - radius


def draw_start(rng: np.random.Generator) -> np.ndarray:
    """A ship at x = 0, (6,)."""
    low = (0.0, -RIVER_M, -HEADING_RAD, SPEED_M_S[0], -SWAY_M_S, -TURN_RAD_S)
    high = (0.0, RIVER_M, HEADING_RAD, SPEED_M_S[1], SWAY_M_S, TURN_RAD_S)
    return rng.uniform(low, high)


def ship_features(ship: list[Array]) -> list[Array]:
    """A ship's own state, of order one."""
    _, y, heading, surge, sway, turn = ship
    return [y / 2, heading * 2, surge - 4.0, sway * 3, turn * 2]


def draw_river(axes: Axes, ship: np.ndarray, obstacles: np.ndarray) -> None:
    """River, obstacles (k, 3) and a ship (6,)."""
    from matplotlib.patches import Circle, Polygon, Rectangle

    axes.set_xlim(-2, 18)
    axes.set_ylim(-7.5, 7.5)
    axes.set_aspect("equal")
    axes.add_patch(Rectangle((-2, -RIVER_M), 20, 2 * RIVER_M, facecolor="lightsteelblue", alpha=0.6))
    for x, y, radius in obstacles:
        axes.add_patch(Circle((x, y), radius, facecolor="0.45"))
    cos, sin = np.cos(ship[2]), np.sin(ship[2])
    hull = 0.4 * np.array([(1, 0), (0, 0.707), (-0.707, 0.707), (-0.707, -0.707), (0, -0.707)])
    axes.add_patch(Polygon(hull @ np.array([[cos, sin], [-sin, cos]]) + ship[:2], facecolor="royalblue"))


def stern(state: Array) -> Array:
    """Position (..., 2) of a ship."""
    return join(state[..., 0], state[..., 1])
