"""A point with mass on a square, for formulas that nobody knew at training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from tasks.benchmarks.steps import join, split
from tasks.specs.task import SpecTask
from tasks.task import Array, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ARENA_M, FASTEST_M_S = 5.0, 3.0
"""Half the side of the square; the speed along each axis."""
KNOT_STEPS = 5
"""A random way changes its mind this often."""


class Point(SpecTask):
    """Accelerations move a point; whatever is wanted of it, it stays on the square."""

    name = "spec/point"
    instruction = "satisfy the formula, stay on the square"
    ctrl_dt_s = 0.2
    horizon_s = 6.0
    state = {"x": "m", "y": "m", "speed_x": "m/s", "speed_y": "m/s"}
    control = {"acceleration_x": "m/s^2", "acceleration_y": "m/s^2"}
    control_low, control_high = (-4.0, -4.0), (4.0, 4.0)
    signals = {
        "x_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="position, 0 in the middle"),
        "y_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="position, 0 in the middle"),
        "speed_m_s": Signal(unit="m/s", source=Source.PROPRIOCEPTION, text="speed"),
    }
    mission = "F[0,6](norm(x_m - 2, y_m - 2) < 0.5)"
    safety = "abs(x_m) < 5 and abs(y_m) < 5"
    stages = (Stage(name="moving", condition="speed_m_s > 0"),)
    space = ("x_m", "y_m")
    region_m, obstacle_m = (0.3, 0.8), (0.3, 1.0)

    def wander(self, rng: np.random.Generator) -> np.ndarray:
        """Accelerations at random that change now and then; half the ways dwell somewhere."""
        for _ in range(10_000):
            start = np.concatenate([rng.uniform(-4, 4, 2), rng.uniform(-1, 1, 2)])
            knots = rng.uniform(-4, 4, (self.steps // KNOT_STEPS + 1, 2)) * rng.uniform(0.2, 1.0)
            states, dwell = [start], rng.integers(0, self.steps, 2) if rng.uniform() < 0.5 else None
            for k in range(self.steps):
                push = knots[k // KNOT_STEPS]
                if dwell is not None and dwell.min() <= k <= dwell.max():
                    push = -states[-1][2:] / self.ctrl_dt_s  # brake, then stand
                states.append(self.advance(states[-1], np.clip(push, -4.0, 4.0)))
            way = np.stack(states)
            if np.abs(way[:, :2]).max() < ARENA_M - 0.1:
                return way
        raise TaskError("spec/point: no way stays on the square in 10,000 tries; check the sizes in the task file")

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: exact for a constant acceleration, up to the bound of the speed."""
        xp, dt = array_namespace(state), self.ctrl_dt_s
        x, y, vx, vy = split(state)
        new = [xp.clip(v + dt * control[..., i], -FASTEST_M_S, FASTEST_M_S) for i, v in enumerate((vx, vy))]
        return join(x + dt * (vx + new[0]) / 2, y + dt * (vy + new[1]) / 2, *new)

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        xp = array_namespace(state)
        x, y, vx, vy = split(state)
        return {"x_m": x, "y_m": y, "speed_m_s": xp.sqrt(vx * vx + vy * vy + 1e-12)}

    def features(self, state: Array) -> Array:
        """See `SystemTask`."""
        x, y, vx, vy = split(state)
        return join(x / 3, y / 3, vx / 2, vy / 2)

    def position(self, state: Array) -> Array:
        """See `SystemTask`."""
        return join(state[..., 0], state[..., 1])

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        from matplotlib.patches import Rectangle

        axes.set_xlim(-7.2, 7.2)
        axes.set_ylim(-5.4, 5.4)
        axes.set_aspect("equal")
        axes.add_patch(Rectangle((-5, -5), 10, 10, facecolor="none", edgecolor="0.4"))
        self.draw_regions(axes)
