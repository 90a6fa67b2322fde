"""The Panda's joints and its flange, for formulas that nobody knew at training."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from hardware.robots import ROBOTS
from robo.core.errors import TaskError
from tasks.benchmarks.panda import Panda
from tasks.specs.task import SpecTask
from tasks.task import Array, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FASTEST_RAD_S = 2.0
KNOT_STEPS = 5
"""A random way changes its mind this often."""
CLEAR_RAD = 0.05


class PandaFlange(SpecTask):
    """Joint velocities move the flange; whatever is wanted of it, the joints keep their limits."""

    name = "spec/panda"
    instruction = "satisfy the formula, keep the joint limits"
    ctrl_dt_s = 0.1
    horizon_s = 2.0
    state = {f"joint{i}": "rad" for i in range(1, 8)}
    control = {f"joint{i}": "rad/s" for i in range(1, 8)}
    control_low, control_high = (-FASTEST_RAD_S,) * 7, (FASTEST_RAD_S,) * 7
    signals = {
        **{
            f"{axis}_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text=f"flange, along {axis} of the base")
            for axis in "xyz"
        },
        "joint_margin_rad": Signal(unit="rad", source=Source.PROPRIOCEPTION, text="distance from the joint limits"),
    }
    mission = "F[0,2](norm(x_m - 0.4, y_m, z_m - 0.5) < 0.1)"
    safety = "joint_margin_rad > 0"
    stages = (Stage(name="moving", condition="joint_margin_rad > 0"),)
    space = ("x_m", "y_m", "z_m")
    region_m, obstacle_m = (0.08, 0.2), (0.08, 0.25)

    def __init__(self) -> None:
        self._arm = Panda()
        self._limits = ROBOTS.make("panda").limits

    def wander(self, rng: np.random.Generator) -> np.ndarray:
        """Joint velocities at random that change now and then; half the ways stand still for a while."""
        low, high = self._limits.lower_rad + CLEAR_RAD, self._limits.upper_rad - CLEAR_RAD
        for _ in range(10_000):
            speeds = rng.uniform(-1, 1, (self.steps // KNOT_STEPS + 1, 7)) * FASTEST_RAD_S * rng.uniform(0.3, 1.0)
            steps = np.repeat(speeds, KNOT_STEPS, axis=0)[: self.steps]
            if rng.uniform() < 0.5:
                first, last = np.sort(rng.integers(0, self.steps + 1, 2))
                steps[first:last] = 0.0
            offsets = np.concatenate([np.zeros((1, 7)), self.ctrl_dt_s * np.cumsum(steps, axis=0)])
            room = low - offsets.min(0), high - offsets.max(0)
            if (room[0] < room[1]).all():
                return rng.uniform(*room) + offsets
        raise TaskError("spec/panda: no way keeps the joint limits in 10,000 tries; check the sizes in the task file")

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: joints move with the commanded velocities."""
        return state + self.ctrl_dt_s * control

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        xp = array_namespace(state)
        lower, upper = (
            xp.asarray(bound, dtype=state.dtype, device=state.device)
            for bound in (self._limits.lower_rad, self._limits.upper_rad)
        )
        flange = self._arm.flange(state)
        margin = xp.amin(xp.minimum(state - lower, upper - state), axis=-1)
        return {"x_m": flange[..., 0], "y_m": flange[..., 1], "z_m": flange[..., 2], "joint_margin_rad": margin}

    def features(self, state: Array) -> Array:
        """See `SystemTask`: angles, their sines and cosines, and the flange."""
        xp = array_namespace(state)
        return xp.concat([state / 2, xp.cos(state), xp.sin(state), 2 * self._arm.flange(state)], axis=-1)

    def position(self, state: Array) -> Array:
        """See `SystemTask`: the flange from above."""
        return self._arm.flange(state)[..., :2]

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        axes.set_xlim(-1.33, 1.33)
        axes.set_ylim(-1, 1)
        axes.set_aspect("equal")
        axes.plot(0, 0, "s", color="0.3", ms=12)
        self.draw_regions(axes)
        axes.text(-1.3, 0.9, f"from above; flange at {self._arm.flange(state)[2]:.2f} m", fontsize=10)
