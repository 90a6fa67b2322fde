"""The Panda's joints as a system of their own: end effector to a goal, around a ball."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from hardware.robots import ROBOTS
from robo.core.errors import TaskError
from tasks.benchmarks.steps import join
from tasks.system import SystemTask
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FLANGE_M = 0.107
GOAL_RADIUS_M, BALL_M, BALL_RADIUS_M = 0.1, (0.3, 0.3, 0.5), 0.2
FASTEST_RAD_S = 4.0


class Panda(SystemTask):
    """Be at the goal at the end of a second, keep the flange out of the ball and the joints within their limits."""

    name = "bench/panda"
    instruction = "reach the goal and stay there, around the ball"
    ctrl_dt_s = 0.1
    horizon_s = 1.0
    state = {f"joint{i}": "rad" for i in range(1, 8)} | {f"goal_{axis}": "m" for axis in "xyz"}
    control = {f"joint{i}": "rad/s" for i in range(1, 8)}
    control_low, control_high = (-FASTEST_RAD_S,) * 7, (FASTEST_RAD_S,) * 7
    signals = {
        "goal_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance of the flange from the goal"),
        "clearance_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance of the flange from the ball"),
        "joint_margin_rad": Signal(unit="rad", source=Source.PROPRIOCEPTION, text="distance from the joint limits"),
    }
    mission = "G[0.9,1](goal_m < 0.1)"
    safety = "clearance_m > 0 and joint_margin_rad > 0"
    stages = (Stage(name="there", condition="goal_m < 0.1"),)

    @cached_property
    def _robot(self):
        return ROBOTS.make("panda")

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Joint angles and a goal near the arm, both clear of the ball; some goals are out of reach in a second."""
        limits = self._robot.limits
        for _ in range(10_000):
            q = rng.uniform(limits.lower_rad, limits.upper_rad)
            goal = rng.uniform((-0.5, -0.5, 0.2), (0.5, 0.5, 0.8))
            if all(np.linalg.norm(p - np.array(BALL_M)) > BALL_RADIUS_M for p in (self.flange(q), goal)):
                return {"state": np.concatenate([q, goal])}
        raise TaskError("bench/panda: found no start in 10,000 tries; check the sizes in the task file")

    def flange(self, q: Array) -> Array:
        """Position (..., 3) of the flange [m] for joint angles (..., 7), in the base frame; Craig's DH convention."""
        xp = array_namespace(q)
        frames = xp.asarray(self._robot.joint_frames, dtype=q.dtype, device=q.device)
        zero = 0.0 * q[..., 0]
        point = join(zero, zero, zero + FLANGE_M)
        for j in range(6, -1, -1):
            cos, sin = xp.cos(q[..., j]), xp.sin(q[..., j])
            x, y, z = point[..., 0], point[..., 1], point[..., 2]
            turned = join(cos * x - sin * y, sin * x + cos * y, z)
            point = xp.matmul(turned, frames[j, :3, :3].T) + frames[j, :3, 3]
        return point

    def advance(self, state: Array, control: Array) -> Array:
        """See `SystemTask`: joints move with the commanded velocities."""
        xp = array_namespace(state)
        return xp.concat([state[..., :7] + self.ctrl_dt_s * control, state[..., 7:]], axis=-1)

    def measure(self, state: Array) -> dict[str, Array]:
        """See `SystemTask`."""
        xp, limits = array_namespace(state), self._robot.limits
        q, goal = state[..., :7], state[..., 7:]
        lower, upper, ball = (
            xp.asarray(v, dtype=q.dtype, device=q.device)
            for v in (limits.lower_rad, limits.upper_rad, np.array(BALL_M))
        )
        flange = self.flange(q)
        return {
            "goal_m": xp.sqrt(((flange - goal) ** 2).sum(-1) + 1e-12),
            "clearance_m": xp.sqrt(((flange - ball) ** 2).sum(-1) + 1e-12) - BALL_RADIUS_M,
            "joint_margin_rad": xp.amin(xp.minimum(q - lower, upper - q), axis=-1),
        }

    def features(self, state: Array) -> Array:
        """See `SystemTask`: angles, their sines and cosines, the flange and the goal relative to it."""
        xp = array_namespace(state)
        q, goal = state[..., :7], state[..., 7:]
        flange = self.flange(q)
        return xp.concat([q / 2, xp.cos(q), xp.sin(q), 2 * flange, 2 * goal, 2 * (goal - flange)], axis=-1)

    def success(self, trace: Arrays) -> bool:
        """At the goal in the end, having touched nothing."""
        safe = min(trace["clearance_m"].min(), trace["joint_margin_rad"].min()) > 0
        return bool(safe and trace["goal_m"][-1] < GOAL_RADIUS_M)

    def position(self, state: Array) -> Array:
        """See `SystemTask`: the flange from above."""
        return self.flange(state[..., :7])[..., :2]

    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """See `SystemTask`."""
        from matplotlib.patches import Circle

        axes.set_xlim(-1.33, 1.33)
        axes.set_ylim(-1, 1)
        axes.set_aspect("equal")
        axes.add_patch(Circle(BALL_M[:2], BALL_RADIUS_M, facecolor="0.6"))
        axes.add_patch(Circle((state[7], state[8]), GOAL_RADIUS_M, facecolor="mediumseagreen", alpha=0.7))
        axes.plot(0, 0, "s", color="0.3", ms=12)
        axes.text(
            -1.3, 0.9, f"from above; goal at {state[9]:.2f} m, flange at {self.flange(state[:7])[2]:.2f} m", fontsize=10
        )
