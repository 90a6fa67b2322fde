"""A ship on a river, past two obstacles."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robo.core.errors import TaskError
from tasks.benchmarks import ship
from tasks.benchmarks.steps import join, split
from tasks.system import SystemTask
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

SPACING_M = 7.5
"""Distance of the obstacles along the river."""


class ShipSafe(SystemTask):
    """Keep clear of two obstacles and of the banks."""

    name = "bench/ship_safe"
    instruction = "sail on, clear of the obstacles and the banks"
    ctrl_dt_s = 0.15
    horizon_s = 3.0
    state = {
        "x": "m", "y": "m", "heading": "rad", "surge": "m/s", "sway": "m/s", "turn": "rad/s",
        "x1": "m", "y1": "m", "radius1": "m", "x2": "m", "y2": "m", "radius2": "m",
    }  # fmt: skip
    control = {"thrust": "m/s^2", "rudder": "1"}
    control_low, control_high = (-ship.THRUST, -ship.RUDDER), (ship.THRUST, ship.RUDDER)
    signals = {
        "first_m": Signal(unit="m", source=Source.TRACKER, text="distance from the first obstacle"),
        "second_m": Signal(unit="m", source=Source.TRACKER, text="distance from the second obstacle"),
        "y_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance from the middle of the river"),
        "x_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="way along the river"),
    }
    mission = "F[0,3](x_m > 7)"
    safety = "first_m > 0 and second_m > 0 and abs(y_m) < 2"
    stages = (Stage(name="under way", condition="x_m > 7"),)

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A ship that keeps some distance from the first obstacle and does not head straight into it.

        The mission, 7 m of way, any ship fulfils (the slowest makes 7.4 m). Not every start is satisfiable: the banks
        may be too near for the heading.
        """
        for _ in range(10_000):
            start = ship.draw_start(rng)
            x1 = rng.uniform(0.0, SPACING_M)
            y1, y2 = rng.uniform(-ship.RIVER_M, ship.RIVER_M, 2)
            ray = start[:2] + np.outer(0.05 * np.arange(100), [np.cos(start[2]), np.sin(start[2])])
            gap = np.hypot(ray[:, 0] - x1, ray[:, 1] - y1)
            if gap[0] > 2.5 and gap.min() > 1.0 and abs(ray[-1, 1]) < ship.RIVER_M:
                return {"state": np.array([*start, x1, y1, 1.0, x1 + SPACING_M, y2, 1.0])}
        raise TaskError("bench/ship_safe: found no start in 10,000 tries; check the sizes in the task file")

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`."""
        own = split(state)
        return join(*ship.sail(own[:6], control, self.ctrl_dt_s), *own[6:])

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        own = split(state)
        first, second = ship.clearance(own, own[6:9]), ship.clearance(own, own[9:12])
        return {"first_m": first, "second_m": second, "y_m": own[1], "x_m": own[0]}

    def features(self, state: Array) -> Array:
        """See `SystemTask`: obstacles relative to the ship."""
        x, y, *_ = own = split(state)
        ahead = [(own[6] - x) / 5, own[7] - y, (own[9] - x) / 5, own[10] - y]
        return join(*ship.ship_features(own[:6]), *ahead)

    def success(self, trace: Arrays) -> bool:
        """Touched nothing."""
        return bool(min(trace["first_m"].min(), trace["second_m"].min(), 2 - np.abs(trace["y_m"]).max()) > 0)

    def position(self, state: Array) -> Array:
        """See `SystemTask`."""
        return ship.stern(state)

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        ship.draw_river(axes, state[:6], state[6:].reshape(2, 3))
