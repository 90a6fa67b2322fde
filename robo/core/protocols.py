"""What passes between the rooms: observations, action chunks, plans' bookkeeping. numpy only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from robo.core.errors import NonFiniteError

Obs = Mapping[str, np.ndarray]
"""One observation: float64 arrays by name; always holds ``joint_pos`` (J,), ``joint_vel`` (J,), ``time_s`` (1,)."""

Controller = Literal["policy", "refinement", "backup"]
"""Who made the motion that is being executed."""


@dataclass(frozen=True, kw_only=True)
class ActionChunk:
    """A timed joint reference that ends at rest.

    Between samples the reference is a cubic Hermite polynomial (exact for piecewise
    constant acceleration whose kinks lie on samples); after the last sample it holds.
    The samples from `tail` on are the backup that comes with the chunk: a
    receiver that gets no newer chunk simply plays it out and stands still, safely.

    Attributes:
        start_s: Time of sample 0 since the start of the episode [s].
        dt_s: Distance of samples [s].
        joint_pos: (n, J) [rad].
        joint_vel: (n, J) [rad/s]; zero in the last row.
        tail: Index of the first sample of the backup, 0..n.
        controller: Who made the samples before `tail`.
        gripper_width_m: (n,) width between the jaws at the samples [m], linear in between; None for arms without.
        stops: Samples, in order, at which leaving for a straight braking to rest (`tasks.dynamics.arm.ArmMotion.brake`)
            is certified as well.
        info: Numbers for recordings (robustness, planning time, predicted plan ...).
    """

    start_s: float
    dt_s: float
    joint_pos: np.ndarray
    joint_vel: np.ndarray
    tail: int
    controller: Controller
    stops: tuple[int, ...] = ()
    gripper_width_m: np.ndarray | None = None
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not (np.all(np.isfinite(self.joint_pos)) and np.all(np.isfinite(self.joint_vel))):
            raise NonFiniteError("action chunk holds NaN or infinity; nothing of it is executed")

    def at(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """Reference at a time: joint positions (J,) [rad] and velocities (J,) [rad/s]."""
        pos, vel = self.sample(np.array([time_s]))
        return pos[0], vel[0]

    def sample(self, times_s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Reference at many times (m,): positions (m, J) [rad], velocities (m, J) [rad/s]."""
        n, dt = len(self.joint_pos), self.dt_s
        phase = np.clip((np.asarray(times_s, float) - self.start_s) / dt, 0.0, n - 1)
        i = np.minimum(phase.astype(int), max(n - 2, 0))
        u = (phase - i)[:, None]
        j = np.minimum(i + 1, n - 1)
        return hermite(self.joint_pos[i], self.joint_vel[i], self.joint_pos[j], self.joint_vel[j], u, dt)


def hermite(
    p0: np.ndarray, v0: np.ndarray, p1: np.ndarray, v1: np.ndarray, u: np.ndarray | float, dt_s: float
) -> tuple[np.ndarray, np.ndarray]:
    """Cubic Hermite interpolation at phase `u` in [0, 1] of a segment of `dt_s`: position and velocity."""
    u2, u3 = u * u, u * u * u
    pos = (2 * u3 - 3 * u2 + 1) * p0 + (u3 - 2 * u2 + u) * dt_s * v0
    pos = pos + (3 * u2 - 2 * u3) * p1 + (u3 - u2) * dt_s * v1
    vel = (6 * u2 - 6 * u) / dt_s * (p0 - p1) + (3 * u2 - 4 * u + 1) * v0 + (3 * u2 - 2 * u) * v1
    return pos, vel
