"""Motion of an arm's joint reference: velocity knots in, reference trajectory out, and braking.

The reference is what servos follow within a calibrated bound; it is piecewise of constant
acceleration with kinks on control ticks, so position, velocity and acceleration limits can be kept
by construction, and the cubic Hermite interpolation of an `ActionChunk` reproduces it exactly.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from array_api_compat import array_namespace

from hardware.robots import Robot

Array = Any  # numpy.ndarray or torch.Tensor

VELOCITY_SHARE = 0.5
"""Share of the maker's velocity limit that plans use: the rest is for braking in time."""
BRAKE_SHARE = 0.6
"""Share of the maker's acceleration limit that braking uses."""


def planning_velocity(robot: Robot) -> np.ndarray:
    """(J,) bound on planned joint velocities [rad/s]."""
    return VELOCITY_SHARE * robot.limits.velocity_rad_s


class ArmMotion:
    """Velocity knots, one every `knot_ticks` control ticks, joined linearly.

    Args:
        robot: The arm.
        dt_s: Control period.
        ticks: Length N of a rollout in control periods.
        knot_ticks: Control periods between knots. From one end of the velocity range to the
            other takes one knot interval, so knots more than `4 * v / a` apart cannot exceed the
            acceleration limits, whatever a network puts out.
    """

    def __init__(self, robot: Robot, dt_s: float, ticks: int, knot_ticks: int = 5) -> None:
        self.dt_s, self.ticks, self.knot_ticks = dt_s, ticks, knot_ticks
        self.velocity_rad_s = planning_velocity(robot)
        self.acceleration_rad_s2 = robot.limits.acceleration_rad_s2
        self.knots = -(-ticks // knot_ticks)
        # Hat functions: velocity at tick n as weights of v0 and the knots.
        tick = np.arange(ticks + 1)[:, None] / knot_ticks
        self.hat = np.maximum(0.0, 1.0 - np.abs(tick - np.arange(self.knots + 1)[None, :]))
        slowest = np.max(self.velocity_rad_s / (BRAKE_SHARE * self.acceleration_rad_s2))
        self.brake_ticks = int(np.ceil(slowest / dt_s))

    def rollout(self, q: Array, v: Array, knots: Array) -> tuple[Array, Array]:
        """Reference from a state and velocity knots.

        Args:
            q, v: Joint positions and velocities at tick 0, (..., J) [rad], [rad/s].
            knots: Velocities at the knots, (..., K, J) [rad/s].

        Returns:
            Positions and velocities at ticks 0..N, (..., N + 1, J).
        """
        xp = array_namespace(q)
        weights = xp.asarray(self.hat, dtype=q.dtype, device=q.device)
        velocity = xp.matmul(weights, xp.concat([v[..., None, :], knots], axis=-2))
        return self.integrate(q, velocity), velocity

    def integrate(self, q: Array, velocity: Array) -> Array:
        """Positions at ticks from velocities at ticks, trapezoidal, exact here: (..., N + 1, J) [rad]."""
        xp = array_namespace(q)
        middle = 0.5 * self.dt_s * (velocity[..., 1:, :] + velocity[..., :-1, :])
        travelled = xp.cumulative_sum(middle, axis=-2) if hasattr(xp, "cumulative_sum") else middle.cumsum(-2)
        return xp.concat([q[..., None, :], q[..., None, :] + travelled], axis=-2)

    def brake(self, q: Array, v: Array) -> tuple[Array, Array]:
        """Straight to rest with constant deceleration, all joints together.

        Args:
            q, v: State at which braking starts, (..., J).

        Returns:
            Positions and velocities at ticks 0..brake_ticks after it, (..., brake_ticks + 1, J).
        """
        xp = array_namespace(q)
        ramp = np.linspace(1.0, 0.0, self.brake_ticks + 1)[:, None]
        velocity = xp.asarray(ramp, dtype=q.dtype, device=q.device) * v[..., None, :]
        return self.integrate(q, velocity), velocity
