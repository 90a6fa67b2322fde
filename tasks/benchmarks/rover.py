"""A rover that reaches its destination if the battery allows, else charges first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from tasks.benchmarks.steps import join, split, step
from tasks.system import SystemTask
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MAP_M, SPEED_M_S = 10.0, 10.0
NEAR_M = 0.8
"""This near counts as being at a place."""
BATTERY_S, ENOUGH_S, HOLD_S = 5.0, 1.9, 0.6
"""A full battery, what a trip needs, how long charging takes."""
BOXES_M = ((0.0, 0.0, 3.0, 3.0), (3.5, 7.0, 6.5, 10.0), (7.0, 0.0, 10.0, 3.0), (4.25, 4.25, 5.75, 5.75))
"""Obstacles: left, bottom, right, top."""
SEGMENT_POINTS = 9
"""Points of every step's straight way that are checked against the obstacles."""


class Rover(SystemTask):
    """Reach the destination, or the charger when the battery is low, stay there while charging, hit nothing.

    Battery and hold are multiples of 0.2 s; thresholds lie between these, where rounding cannot turn a verdict round.
    The state holds, besides the paper's eight components, where the rover was a step ago (its way counts, not only its
    stops) and where the episode began (to stay there while charging).
    """

    name = "bench/rover"
    instruction = "reach the destination, charge when the battery is low, hit nothing"
    ctrl_dt_s = 0.2
    horizon_s = 2.0
    state = {
        "x": "m", "y": "m", "destination_x": "m", "destination_y": "m", "charger_x": "m", "charger_y": "m",
        "battery": "s", "hold": "s", "before_x": "m", "before_y": "m", "start_x": "m", "start_y": "m",
    }  # fmt: skip
    control = {"speed": "1", "heading": "rad"}
    control_low, control_high = (0.0, -float(np.pi)), (1.0, float(np.pi))
    signals = {
        "destination_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance from the destination"),
        "charger_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance from the charger"),
        "battery_s": Signal(unit="s", source=Source.PROPRIOCEPTION, text="time the battery lasts"),
        "hold_s": Signal(unit="s", source=Source.PROPRIOCEPTION, text="time still to stay at the charger"),
        "moved_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance from the start of the episode"),
        "map_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance from the edge of the map"),
        "clearance_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance of the last step from obstacles"),
    }
    mission = (
        "(battery_s > 1.9 implies F[0,2](destination_m < 0.8)) and (battery_s < 1.9 implies F[0,2](charger_m < 0.8)) "
        "and (charger_m < 0.8 implies G[0,0.4](moved_m < 0.1 or hold_s < 0.1))"
    )
    safety = "map_m > 0 and clearance_m > 0 and battery_s > -0.1"
    stages = (Stage(name="there", condition="destination_m < 0.8 or charger_m < 0.8"),)

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Places clear of the obstacles; a quarter of the rovers stand at their charger.

        Not every start is satisfiable: the battery may be empty, or the way around an obstacle too long.
        """
        for _ in range(10_000):
            charger, destination = rng.uniform(0, MAP_M, (2, 2))
            battery, hold = 0.2 * rng.integers(26), HOLD_S
            reach = np.clip(rng.uniform() * battery * SPEED_M_S, NEAR_M, 14.14)
            if rng.uniform() > 0.75:
                reach, battery, hold = rng.uniform(0, NEAR_M), BATTERY_S, 0.2 * rng.integers(4)
            angle = rng.uniform(-np.pi, np.pi)
            rover = charger + reach * np.array([np.cos(angle), np.sin(angle)])
            places = np.stack([rover, destination, charger])
            if (places > 0).all() and (places < MAP_M).all() and not any(_hits_a_box(*place) for place in places):
                state = np.concatenate([rover, destination, charger, [battery, hold], rover, rover])
                return {"state": state}
        raise TaskError("bench/rover: found no start in 10,000 tries; check the sizes in the task file")

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: a charger fills the battery at once; the hold runs down beside it."""
        xp, dt = array_namespace(state), self.ctrl_dt_s
        x, y, dx, dy, cx, cy, battery, hold, _, _, sx, sy = split(state)
        far = _norm(x - cx, y - cy)
        near = step(NEAR_M - far, gentle=25.0, sharp=1e9)
        way = dt * SPEED_M_S * control[..., 0]
        new_x, new_y = x + way * xp.cos(control[..., 1]), y + way * xp.sin(control[..., 1])
        battery = (battery - dt) * (1 - near) + BATTERY_S * near
        return join(new_x, new_y, dx, dy, cx, cy, battery, hold - dt * near, x, y, sx, sy)

    def squash(self, raw: Array) -> Array:
        """See `SystemTask`: the numbers are a velocity, so that headings have no seam."""
        xp = array_namespace(raw)
        length = _norm(raw[..., 0], raw[..., 1])
        return join(xp.tanh(length), xp.atan2(raw[..., 1], raw[..., 0] + 1e-9))

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        xp = array_namespace(state)
        x, y, dx, dy, cx, cy, battery, hold, bx, by, sx, sy = split(state)
        edge = xp.minimum(xp.minimum(x, MAP_M - x), xp.minimum(y, MAP_M - y))
        shares = [k / (SEGMENT_POINTS - 1) for k in range(SEGMENT_POINTS)]
        way_x = xp.stack([bx + share * (x - bx) for share in shares], axis=-1)
        way_y = xp.stack([by + share * (y - by) for share in shares], axis=-1)
        return {
            "destination_m": _norm(x - dx, y - dy),
            "charger_m": _norm(x - cx, y - cy),
            "battery_s": battery,
            "hold_s": hold,
            "moved_m": _norm(x - sx, y - sy),
            "map_m": edge,
            "clearance_m": xp.amin(_box_distance(way_x, way_y), axis=-1),
        }

    def features(self, state: Array) -> Array:
        """See `SystemTask`: places also relative to the rover."""
        xp = array_namespace(state)
        x, y, dx, dy, cx, cy, battery, hold, _, _, sx, sy = split(state)
        low = (battery < ENOUGH_S) * 1.0 + 0 * x
        at_charger = (_norm(sx - cx, sy - cy) < NEAR_M) * 1.0 + 0 * x
        offsets = [(dx - x) / 5, (dy - y) / 5, (cx - x) / 5, (cy - y) / 5, sx - x, sy - y]
        places = [(place - 5) / 5 for place in (x, y, dx, dy, cx, cy)]
        return xp.concat([join(*places, *offsets, battery / 5, 2 * hold, low, at_charger)], axis=-1)

    def success(self, trace: Arrays) -> bool:
        """Came where it had to, with battery left, and hit nothing."""
        goal = "destination_m" if trace["battery_s"][0] >= ENOUGH_S else "charger_m"
        safe = min(trace["map_m"].min(), trace["clearance_m"].min()) > 0 and trace["battery_s"].min() > -0.1
        return bool(safe and trace[goal].min() < NEAR_M)

    def position(self, state: Array) -> Array:
        """See `SystemTask`."""
        return join(state[..., 0], state[..., 1])

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        from matplotlib.patches import Circle, Rectangle

        axes.set_xlim(-3.6, 13.6)
        axes.set_ylim(-1.4, 11.4)
        axes.set_aspect("equal")
        axes.add_patch(Rectangle((0, 0), MAP_M, MAP_M, facecolor="none", edgecolor="0.4"))
        for left, bottom, right, top in BOXES_M:
            axes.add_patch(Rectangle((left, bottom), right - left, top - bottom, facecolor="0.75"))
        for (x, y), colour in ((state[2:4], "mediumseagreen"), (state[4:6], "orange")):
            axes.add_patch(Circle((x, y), NEAR_M, facecolor=colour, alpha=0.6))
        axes.text(-3.4, 10.6, f"battery {state[6]:.1f} s, hold {max(state[7], 0):.1f} s", fontsize=11)


def _norm(x: Array, y: Array) -> Array:
    xp = array_namespace(x)
    return xp.sqrt(x * x + y * y + 1e-12)


def _hits_a_box(x: float, y: float) -> bool:
    """Whether a point is in a box or on its edge."""
    return any(left <= x <= right and bottom <= y <= top for left, bottom, right, top in BOXES_M)


def _box_distance(x: Array, y: Array) -> Array:
    """Signed distance of points (...) from the nearest box, negative inside."""
    xp = array_namespace(x)
    nearest = None
    for left, bottom, right, top in BOXES_M:
        dx = xp.maximum(left - x, x - right)
        dy = xp.maximum(bottom - y, y - top)
        outside = xp.sqrt(xp.clip(dx, 0.0, None) ** 2 + xp.clip(dy, 0.0, None) ** 2 + 1e-12)
        distance = outside + xp.clip(xp.maximum(dx, dy), None, 0.0)
        nearest = distance if nearest is None else xp.minimum(nearest, distance)
    return nearest
