"""A point that climbs at constant speed through rows with a wall each; some rows have a goal beside the wall."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from tasks.benchmarks.steps import join, split
from tasks.system import SystemTask
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WIDTH_M, LEVEL_M, WALL_M = 5.0, 2.5, 0.5
"""Width of the maze, distance of rows, thickness of a wall, whose upper edge lies at the level."""
GOAL_RADIUS_M = 0.4
CLIMB_M_S, FASTEST_M_S = 1.0, 5.0
NO_GOAL = -1.0


class Maze(SystemTask):
    """Steer sideways: past the walls of two rows, through the goals where there are some."""

    name = "bench/maze"
    instruction = "pass the walls and touch the goals"
    ctrl_dt_s = 0.2
    horizon_s = 5.0
    state = {
        "x": "m", "speed": "m/s", "y": "m",
        "left1": "m", "width1": "m", "goal1": "m", "left2": "m", "width2": "m", "goal2": "m",
    }  # fmt: skip
    control = {"acceleration": "m/s^2"}
    control_low, control_high = (-40.0,), (40.0,)
    signals = {
        "x_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="position across"),
        "y_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="height, 0 at the first row's level"),
        **{
            f"{what}{row}_m": Signal(unit="m", source=Source.TRACKER, text=f"{text} of row {row}")
            for row in (1, 2)
            for what, text in (("left", "left edge of the wall"), ("right", "right edge of the wall"), ("goal", "goal"))
        },
    }
    mission = (
        "(goal1_m > 0 implies F[0,5](norm(x_m - goal1_m, y_m + 0.25) < 0.4)) "
        "and (goal2_m > 0 implies F[0,5](norm(x_m - goal2_m, y_m - 2.25) < 0.4))"
    )
    safety = (
        "(y_m < -0.5 or y_m > 0 or x_m < left1_m or x_m > right1_m) "
        "and (y_m < 2 or y_m > 2.5 or x_m < left2_m or x_m > right2_m)"
    )
    stages = (Stage(name="past the first row", condition="y_m > 0"), Stage(name="past both", condition="y_m > 2.5"))

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Rows at random; a start from which the first row's goal, or one side of its wall, can be reached.

        Not every start can be satisfied: the second row's goal may be too far, or the first one's already passed.
        """
        for _ in range(10_000):
            rows = [*self._row(rng), *self._row(rng)]
            left, width, goal = rows[:3]
            v, y = rng.uniform(-FASTEST_M_S, FASTEST_M_S), rng.uniform(-LEVEL_M, 0.0)
            n = np.floor((-y - WALL_M) / CLIMB_M_S / self.ctrl_dt_s) - 1
            low = -self.ctrl_dt_s * v - n * FASTEST_M_S * self.ctrl_dt_s
            high = -self.ctrl_dt_s * v + n * FASTEST_M_S * self.ctrl_dt_s
            a, b = np.clip([0 + low, left + high], 0, WIDTH_M)
            c, d = np.clip([left + width + low, WIDTH_M + high], 0, WIDTH_M)
            right = bool(rng.integers(2)) or (a == 0 and b == 0) or left == 0
            if (c == WIDTH_M and d == WIDTH_M) or left == WIDTH_M - width:
                right = False
            ends = (c, d) if right else (a, b)
            if goal > 0:
                ends = np.clip([goal - GOAL_RADIUS_M + low, goal + GOAL_RADIUS_M + high], 0, WIDTH_M)
            share = rng.uniform()
            x = share * ends[0] + (1 - share) * ends[1]
            soon = x + self.ctrl_dt_s * v
            hit = y >= -WALL_M and left <= x <= left + width
            hit_soon = y + self.ctrl_dt_s * CLIMB_M_S >= -WALL_M and left <= soon <= left + width
            if not hit and not hit_soon:
                return {"state": np.array([x, v, y, *rows])}
        raise TaskError("bench/maze: found no start in 10,000 tries; check the sizes in the task file")

    @staticmethod
    def _row(rng: np.random.Generator) -> tuple[float, float, float]:
        """Left edge and width of a wall, and a goal or none."""
        width = rng.uniform(2.0, 4.0)
        left = rng.uniform(0.0, WIDTH_M - width)
        if left < 0.1:
            left = 0.0
        if WIDTH_M - width - left < 0.1:
            left = WIDTH_M - width
        side, along = rng.integers(3), rng.uniform(0.3, 0.7)
        room = WIDTH_M - width - left
        goal = (left * along, left + width + room * along, NO_GOAL)[side]
        edges = ((0.0, left), (left + width, WIDTH_M), (-np.inf, np.inf))[side]
        fits = goal - edges[0] >= GOAL_RADIUS_M and edges[1] - goal >= GOAL_RADIUS_M
        return left, width, goal if fits else NO_GOAL

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: Euler; the side walls stop the point, not its speed."""
        xp, dt = array_namespace(state), self.ctrl_dt_s
        x, v, y, *rows = split(state)
        aside = xp.clip(x + dt * v, 0.1, WIDTH_M - 0.1)
        faster = xp.clip(v + dt * control[..., 0], -FASTEST_M_S, FASTEST_M_S)
        return join(aside, faster, y + dt * CLIMB_M_S, *rows)

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        x, _, y, left1, width1, goal1, left2, width2, goal2 = split(state)
        first = {"left1_m": left1, "right1_m": left1 + width1, "goal1_m": goal1}
        return {"x_m": x, "y_m": y} | first | {"left2_m": left2, "right2_m": left2 + width2, "goal2_m": goal2}

    def features(self, state: Array) -> Array:
        """See `SystemTask`: also relative to the point, and whether there are goals."""
        x, v, y, left1, width1, goal1, left2, width2, goal2 = split(state)
        has1, has2 = (goal1 > 0) * 1.0, (goal2 > 0) * 1.0
        edges = [edge - x for edge in (left1, left1 + width1, left2, left2 + width2)]
        return join(x / 2, v / 5, y, *edges, has1 * (goal1 - x), has2 * (goal2 - x), has1 + 0 * x, has2 + 0 * x)

    def success(self, trace: Arrays) -> bool:
        """Touched every goal and no wall."""
        x, y = trace["x_m"], trace["y_m"]
        for row, level in ((1, 0.0), (2, LEVEL_M)):
            goal = trace[f"goal{row}_m"][0]
            if goal > 0 and np.hypot(x - goal, y - level + WALL_M / 2).min() >= GOAL_RADIUS_M:
                return False
            inside = (y >= level - WALL_M) & (y <= level)
            if (inside & (x >= trace[f"left{row}_m"]) & (x <= trace[f"right{row}_m"])).any():
                return False
        return True

    def position(self, state: Array) -> Array:
        """See `SystemTask`."""
        return join(state[..., 0], state[..., 2])

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        from matplotlib.patches import Circle, Rectangle

        axes.set_xlim(-1.5, 6.5)
        axes.set_ylim(-2.8, 5.2)
        axes.set_aspect("equal")
        for x in (0.0, WIDTH_M):
            axes.axvline(x, color="0.5", ls="--", lw=1)
        for level, (left, width, goal) in ((0.0, state[3:6]), (LEVEL_M, state[6:9])):
            axes.add_patch(Rectangle((left, level - WALL_M), width, WALL_M, facecolor="peru"))
            if goal > 0:
                axes.add_patch(Circle((goal, level - WALL_M / 2), GOAL_RADIUS_M, facecolor="orange", alpha=0.8))
