"""A ship on a river that may leave its track for a while, to pass an obstacle."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from robo.core.errors import TaskError
from tasks.benchmarks import ship
from tasks.benchmarks.steps import join, split, step
from tasks.system import SystemTask
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TRACK_M = 0.3
"""Half the width of the track in the middle of the river."""
NOWHERE_M = -5.0
"""Where an obstacle is that is not there."""


class ShipTrack(SystemTask):
    """Pass the obstacle, stay in the river, and be back on the track, for good, before the time off it is used up.

    "Time left until the track is kept" is ``(time_left_s >= 0) U G (on track)``. Time runs only off the track, so
    this is the same as: there is time left at every moment, and the last one is on the track. It runs in sub-steps of
    0.075 s, so "not below 0" is written as "above -0.03", which rounding cannot turn round.
    """

    name = "bench/ship_track"
    instruction = "pass the obstacle and return to the track in time"
    ctrl_dt_s = 0.15
    horizon_s = 3.0
    state = {
        "x": "m", "y": "m", "heading": "rad", "surge": "m/s", "sway": "m/s", "turn": "rad/s",
        "x1": "m", "y1": "m", "radius1": "m", "time_left": "s",
    }  # fmt: skip
    control = {"thrust": "m/s^2", "rudder": "1"}
    control_low, control_high = (-ship.THRUST, -ship.RUDDER), (ship.THRUST, ship.RUDDER)
    signals = {
        "clearance_m": Signal(unit="m", source=Source.TRACKER, text="distance from the obstacle"),
        "y_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance from the middle of the river"),
        "time_left_s": Signal(unit="s", source=Source.PROPRIOCEPTION, text="time that is left off the track"),
    }
    mission = "G[0,3](time_left_s > -0.03) and F[3,3](abs(y_m) < 0.3)"
    safety = "clearance_m > 0 and abs(y_m) < 2"
    stages = (Stage(name="on the track", condition="abs(y_m) < 0.3"),)

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """No obstacle, one far ahead, one near ahead, or one that was just passed; each with its own time left.

        Not every start is satisfiable: the time may be too short for the way back.
        """
        scenes = ((None, 1, 9), ((5.0, 8.0), 10, 25), ((0.0, 5.0), 8, 14), ((-1.0, 0.0), 5, 11))
        for _ in range(10_000):
            start = ship.draw_start(rng)
            where, least, most = scenes[rng.integers(4)]
            x1 = NOWHERE_M if where is None else rng.uniform(*where)
            radius, left = rng.uniform(0.6, 1.2), self.ctrl_dt_s * rng.integers(least, most + 1)
            _, y, heading, *_ = start
            outward = abs(y) > 1.5 and heading * y > 0
            blocked = 0 < x1 < radius + 0.5 and abs(y) < radius
            too_late = left < 0.75 and abs(y) > 1.5
            head_on = 0 < x1 < radius + 1.5 and abs(y) < TRACK_M
            if np.hypot(x1, y) > radius and not (outward or blocked or too_late or head_on):
                return {"state": np.array([*start, x1, 0.0, radius, left])}
        raise TaskError("bench/ship_track: found no start in 10,000 tries; check the sizes in the task file")

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: time off the track runs with the ship's two sub-steps."""
        own = split(state)
        h, left, moving = self.ctrl_dt_s / ship.SUBSTEPS, own[9], own[:6]
        middle = ship.sail(moving, control, self.ctrl_dt_s)
        # Sub-steps of the ship's y: at the start, and after one of two Euler steps.
        half = moving[1] + h * _drift(moving)
        for y in (moving[1], half):
            left = left - h * step(y * y - TRACK_M**2, gentle=1.5)
        return join(*middle, *own[6:9], left)

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        own = split(state)
        return {"clearance_m": ship.clearance(own, own[6:9]), "y_m": own[1], "time_left_s": own[9]}

    def features(self, state: Array) -> Array:
        """See `SystemTask`: the obstacle relative to the ship."""
        x, y, *_ = own = split(state)
        ahead = [(own[6] - x) / 5, own[7] - y, 2 * (own[8] - 0.9), own[9] / 2]
        return join(*ship.ship_features(own[:6]), *ahead)

    def success(self, trace: Arrays) -> bool:
        """Touched nothing, was never late, and ended on the track."""
        late = trace["time_left_s"].min() < -0.03 or abs(trace["y_m"][-1]) >= TRACK_M
        return bool(not late and min(trace["clearance_m"].min(), 2 - np.abs(trace["y_m"]).max()) > 0)

    def position(self, state: Array) -> Array:
        """See `SystemTask`."""
        return ship.stern(state)

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        ship.draw_river(axes, state[:6], state[None, 6:9])
        axes.axhspan(-TRACK_M, TRACK_M, color="gold", alpha=0.35, lw=0)
        axes.text(-1.5, 5.5, f"time left off the track: {state[9]:.2f} s", fontsize=11)


def _drift(own: list[Array]) -> Array:
    """Rate of y [m/s]."""
    from array_api_compat import array_namespace

    xp = array_namespace(own[0])
    return own[3] * xp.sin(own[2]) + own[4] * xp.cos(own[2])
