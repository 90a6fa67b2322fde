"""A car that comes to a stop sign or a traffic light, perhaps behind another car."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.benchmarks.steps import join, split, step
from tasks.system import SystemTask
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

STOP_M = -1.0
"""The stop zone, or the crossing, lies between here and 0."""
CYCLE_S, RED_S = 8.0, 4.0
"""A light is red in the first seconds of every cycle."""
STOP_S = 1.0
"""How long a car has to wait at a stop sign."""
NO_LEAD = -1.0
"""Gap of a car with nobody ahead [m]."""
BRAKE_M_S2, FASTEST_M_S = 10.0, 10.0


class Car(SystemTask):
    """Wait a second at the stop sign (and give way when asked), never be inside on red, keep a metre's distance."""

    name = "bench/car"
    instruction = "wait at the stop sign, do not enter on red, keep your distance"
    ctrl_dt_s = 0.1
    horizon_s = 2.5
    state = {"x": "m", "speed": "m/s", "light": "1", "clock": "s", "gap": "m", "lead_speed": "m/s", "yield": "1"}
    control = {"acceleration": "m/s^2"}
    control_low, control_high = (-BRAKE_M_S2,), (BRAKE_M_S2,)
    signals = {
        "x_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="position along the lane; the crossing begins at 0"),
        "light": Signal(unit="1", source=Source.TRACKER, text="1 at a traffic light, 0 at a stop sign"),
        "clock_s": Signal(unit="s", source=Source.TRACKER, text="stop sign: waited so far; light: time of its cycle"),
        "gap_m": Signal(unit="m", source=Source.TRACKER, text="distance to the car ahead, -1 without one"),
        "must_yield": Signal(unit="1", source=Source.TRACKER, text="1 when others go first at the stop sign"),
    }
    mission = "light < 0.5 implies (F[0,2.5](clock_s > 0.999) and (must_yield > 0.5 implies G[0,2.5](x_m < -0.5)))"
    safety = "(light > 0.5 implies (clock_s > 4 or x_m < -1 or x_m > 0)) and (gap_m > -0.5 implies gap_m > 1)"
    stages = (Stage(name="waited", condition="light > 0.5 or clock_s > 0.999"),)

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """A quarter approach a stop sign, a quarter stand in its zone, half approach a light.

        Speeds let the car still stop before the line, and before the car ahead. Not every start at a stop
        sign can be satisfied: from far away there is no time to wait a second within the episode.
        """
        kind = rng.choice(3, p=(0.25, 0.25, 0.5))
        if kind == 1:
            state = [rng.uniform(STOP_M, 0), rng.uniform(0, 1), 0.0, rng.uniform(0, 1.1), NO_LEAD, 0.0, 0.0]
            return {"state": np.array(state)}
        x = rng.uniform(-10.0, STOP_M)
        speed = rng.uniform() * min(np.sqrt(2 * BRAKE_M_S2 * (STOP_M - x)), FASTEST_M_S)
        gap, lead = NO_LEAD, 0.0
        if rng.uniform() < 0.5:
            gap = rng.uniform(1.0, 10.0)
            slowest = np.sqrt(max(2 * BRAKE_M_S2 * (1.0 - gap) + speed**2, 0.0))
            lead = rng.uniform(slowest, max(slowest, FASTEST_M_S))
        if kind == 0:
            return {"state": np.array([x, speed, 0.0, 0.0, gap, lead, float(rng.integers(2))])}
        return {"state": np.array([x, speed, 1.0, rng.uniform(0, CYCLE_S), gap, lead, 0.0])}

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: Euler; a stop sign's clock runs inside its zone and is reset beyond the line."""
        xp, dt = array_namespace(state), self.ctrl_dt_s
        x, v, light, clock, gap, lead, must_yield = split(state)
        faster = xp.clip(v + dt * control[..., 0], -0.01, FASTEST_M_S)
        waited = (clock + dt * step(x - STOP_M, gentle=3.0)) * step(-x, gentle=3.0)
        cycle = clock + dt - CYCLE_S * (clock + dt >= CYCLE_S)
        closer = gap + dt * (lead - v) * (gap >= 0)
        return join(x + dt * v, faster, light, (1 - light) * waited + light * cycle, closer, lead, must_yield)

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        x, _, light, clock, gap, _, must_yield = split(state)
        return {"x_m": x, "light": light, "clock_s": clock, "gap_m": gap, "must_yield": must_yield}

    def features(self, state: Array) -> Array:
        """See `SystemTask`."""
        x, v, light, clock, gap, lead, must_yield = split(state)
        return join(x / 5, v / 5, light, clock / 4, gap / 5, (lead - v) / 5, must_yield, (gap >= 0) * 1.0 + 0 * gap)

    def success(self, trace: Arrays) -> bool:
        """Waited where it had to, did not run a red light, did not come too near."""
        if trace["light"][0] < 0.5:
            waited = trace["clock_s"].max() > STOP_S - 1e-3
            return bool(waited and (trace["must_yield"][0] < 0.5 or trace["x_m"].max() < STOP_M / 2))
        inside = (trace["x_m"] >= STOP_M) & (trace["x_m"] <= 0)
        return not (inside & (trace["clock_s"] <= RED_S)).any()

    def position(self, state: Array) -> Array:
        """See `SystemTask`."""
        return join(state[..., 0], 0 * state[..., 0])

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        x, _, light, clock, gap, _, must_yield = state
        axes.set_xlim(-11, 8)
        axes.set_ylim(-5, 5)
        axes.set_aspect("equal")
        road = "0.85" if must_yield < 0.5 else "mistyrose"
        axes.add_patch(_rectangle(-11, -2, 19, 4, road))
        zone = "0.6" if light < 0.5 else ("tomato" if clock <= RED_S else "mediumseagreen")
        axes.add_patch(_rectangle(STOP_M, -2, -STOP_M, 4, zone))
        axes.add_patch(_rectangle(x - 2, -0.8, 2, 1.6, "royalblue"))
        if gap >= 0:
            axes.add_patch(_rectangle(x + gap, -0.8, 2, 1.6, "saddlebrown"))
        what = f"stop sign, waited {clock:.1f} s" if light < 0.5 else f"light, {clock:.1f} s of {CYCLE_S:g}"
        axes.text(-10.5, 3.2, what + (", gives way" if must_yield > 0.5 else ""), fontsize=11)


def _rectangle(x: float, y: float, width: float, height: float, colour: str):
    from matplotlib.patches import Rectangle  # lazily: pictures alone need it

    return Rectangle((x, y), width, height, facecolor=colour, edgecolor="none", alpha=0.8)
