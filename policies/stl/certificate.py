"""The certificate: a plan is committed only if braking from it ends safely, whatever the mover does.

A plan is followed up to a *switch* and then braked to rest. Certified means that, at every
instant from the first sample to rest and for ever after, every safety signal stays above a margin
for all positions the servos' tracking error, the trackers' errors and the movers' stated motion bounds allow.
The argument is written down in docs/safety.md. numpy only: no network is asked.

After the gatekeeper scheme (Agrawal, Chen & Panagou, arXiv 2211.14361; 2508.09963).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from robo.core.errors import ConfigError
from robo.core.protocols import Obs, hermite
from tasks.arm import ArmTask
from tasks.dynamics.arm import ArmMotion


@dataclass(frozen=True, kw_only=True)
class CertificateConfig:
    """Settings of the certificate."""

    margin: float = 0.002
    """Robustness of the safety part that must remain after all bounds are subtracted."""
    substeps: int = 5
    """Samples per control period; what lies between two samples is covered by a bound on speed."""
    switches: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 11, 15, 20)
    """Control periods after which a plan may be switched to braking; the longest certified is taken."""

    def __post_init__(self) -> None:
        if self.margin < 0 or self.substeps < 1 or not self.switches or self.switches[0] != 1:
            raise ConfigError("certificate: margin >= 0, substeps >= 1 and switches starting with 1 are needed")
        if list(self.switches) != sorted(set(self.switches)):
            raise ConfigError(f"certificate: switches must increase, not {self.switches}")


@dataclass(frozen=True)
class Verdict:
    """Outcome for one plan.

    Attributes:
        switch: Longest certified switch [control periods]; 0 if none is.
        stops: All certified switches, shortest first.
        rho: Least margin-free safety robustness up to rest for that switch (or for the shortest, if none is).
    """

    switch: int
    rho: float
    stops: tuple[int, ...] = ()


class Certificate:
    """Checks plans of one task on one arm."""

    def __init__(self, task: ArmTask, motion: ArmMotion, config: CertificateConfig) -> None:
        self.task, self.motion, self.config = task, motion, config
        self.kinematics = task.kinematics
        self.bounds = {name: signal.error_bound for name, signal in task.signals.items()}
        servo = task.robot.servo
        self._tracking_rad, self._tracking_rad_s = servo.tracking_error_rad, servo.velocity_error_rad_s

    def check(self, q: np.ndarray, v: np.ndarray, obs: Obs, lead_s: float) -> Verdict:
        """Find the longest switch after which braking is certified.

        Args:
            q, v: Plan at control ticks, (N + 1, J) [rad], [rad/s]; sample 0 lies `lead_s` after `obs`.
            obs: Newest observation.
            lead_s: Time from the observation to sample 0 [s].
        """
        switches = [s for s in self.config.switches if s < len(q)] or [0]
        if not self._feasible(q[: switches[-1] + 1], v[: switches[-1] + 1]):
            switches = [s for s in switches if self._feasible(q[: s + 1], v[: s + 1])]
            if not switches:
                return Verdict(0, -np.inf)
        dt, m = self.motion.dt_s, self.config.substeps
        longest, n_brake = switches[-1], self.motion.brake_ticks
        # All samples at once: the plan up to the longest switch, braking from every switch, rest for ever.
        qn, vn = _refine(q[: longest + 1], v[: longest + 1], m, dt)
        qb, vb = self.motion.brake(q[switches], v[switches])
        qb, vb = _refine(qb, vb, m, dt)
        rest = qb[:, -1]
        tau_n = lead_s + np.arange(len(qn)) * dt / m
        tau_b = lead_s + np.array(switches)[:, None] * dt + np.arange(n_brake * m + 1) * dt / m
        joint = np.concatenate([qn, qb.reshape(-1, q.shape[1]), rest])
        speed = np.concatenate([_peak(vn), _peak(vb).reshape(-1, q.shape[1]), np.zeros_like(rest)])
        tau = np.concatenate([tau_n, tau_b.ravel(), np.full(len(rest), np.inf)])
        rho = self.robustness(joint, speed, tau, obs, half_step_s=0.5 * dt / m)
        along = np.minimum.accumulate(rho[: len(qn)])[np.array(switches) * m]
        braking = rho[len(qn) : -len(rest)].reshape(len(switches), -1).min(1)
        total = np.minimum(np.minimum(along, braking), rho[-len(rest) :])
        good = np.flatnonzero(total >= self.config.margin)
        if len(good) == 0:
            return Verdict(0, float(total[0]))
        return Verdict(switches[good[-1]], float(total[good[-1]]), tuple(switches[i] for i in good))

    def robustness(
        self, q: np.ndarray, speed: np.ndarray, tau_s: np.ndarray, obs: Obs, half_step_s: float
    ) -> np.ndarray:
        """Safety robustness (n,) of reference samples, at its worst over all bounds.

        Args:
            q: Reference samples (n, J) [rad].
            speed: Largest reference velocity within half a step of each sample (n, J) [rad/s].
            tau_s: Time of each sample after `obs` (n,); inf: for all time.
            obs: Newest observation.
            half_step_s: Half the distance of samples in time.
        """
        state = {
            "joint_pos": q,
            "joint_vel": speed + self._tracking_rad_s,
            "points": self.kinematics.points(q),
            # No joint is ever further from its sample than this.
            "slack_rad": half_step_s * speed + self._tracking_rad,
        }
        state |= self.task.forecast(obs, tau_s + half_step_s)
        signals = self.task.measure(state, obs)
        signals = {name: value - self.bounds[name] for name, value in signals.items()}
        return self.task.safety_formula.rho(signals, self.motion.dt_s)

    def _feasible(self, q: np.ndarray, v: np.ndarray) -> bool:
        """Finite, within planning velocity and acceleration limits."""
        if not (np.all(np.isfinite(q)) and np.all(np.isfinite(v))):
            return False
        acceleration = np.abs(np.diff(v, axis=0)) / self.motion.dt_s
        return bool(
            np.all(np.abs(v) <= self.motion.velocity_rad_s * (1 + 1e-6))
            and np.all(acceleration <= self.motion.acceleration_rad_s2)
        )


def _refine(q: np.ndarray, v: np.ndarray, m: int, dt_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Hermite samples, m per tick: (..., n + 1, J) → (..., n m + 1, J)."""
    u = (np.arange(m) / m)[:, None]
    q0, q1, v0, v1 = (x[..., None, :] for x in (q[..., :-1, :], q[..., 1:, :], v[..., :-1, :], v[..., 1:, :]))
    pos, vel = hermite(q0, v0, q1, v1, u, dt_s)
    shape = (*q.shape[:-2], -1, q.shape[-1])
    return (
        np.concatenate([pos.reshape(shape), q[..., -1:, :]], axis=-2),
        np.concatenate([vel.reshape(shape), v[..., -1:, :]], axis=-2),
    )


def _peak(v: np.ndarray) -> np.ndarray:
    """Largest |v| of a sample and its neighbours, (..., n, J): velocity is linear in between."""
    a = np.abs(v)
    peak = a.copy()
    peak[..., 1:, :] = np.maximum(peak[..., 1:, :], a[..., :-1, :])
    peak[..., :-1, :] = np.maximum(peak[..., :-1, :], a[..., 1:, :])
    return peak
