"""The supervisor: between policy and arm, and it trusts neither. numpy only.

It holds the reference in force, takes a new chunk only when that chunk fits, lets the tail
of the old one (the certified backup) run when none comes, keeps what is sent within the limits
whatever was asked, and watches state, tracking error and specification. See docs/safety.md.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, replace

import numpy as np

from hardware.driver import DriverInfo, JointState
from hardware.robots import JointLimits
from robo.core.errors import ConfigError, RobotError
from robo.core.protocols import ActionChunk, Obs
from tasks.arm import ArmTask
from tasks.dynamics.arm import ArmMotion

STOP_S = 1.5
"""A certified way to rest that takes longer is not waited for when somebody wants the arm to stop [s]."""


@dataclass(frozen=True, kw_only=True)
class SupervisorConfig:
    """Thresholds of the supervisor."""

    stale_s: float = 0.1
    """A state older than this stops the arm [s]."""
    tracking_allowance_rad: float = 0.003
    """Added to the servos' calibrated tracking error, for what the arm makes of commands between two of them;
    beyond it the arm is stopped: something holds or pushes it."""
    jump_rad: float = 0.02
    """The first command may lie this far from where the arm stands."""
    seam_rad: float = 1e-3
    """A new chunk must meet the reference in force within this, far less than the certificate's margins ..."""
    seam_rad_s: float = 1e-2
    """... and this in velocity."""
    least_rate: float = 0.5
    """A loop that keeps less than this share of its ticks over a second stops the arm."""

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if not (np.isfinite(value) and value >= 0):
                raise ConfigError(f"supervisor: {name} must be finite and not negative, not {value!r}")
        if self.least_rate > 1:
            raise ConfigError(f"supervisor: least_rate is a share of the ticks, at most 1, not {self.least_rate!r}")


class Shield:
    """Keeps a stream of commands within position, velocity and acceleration limits, whatever is asked.

    Every command it passes can be braked within the position limits at the acceleration limit, so
    there always is a next one. Commands that keep the limits pass unchanged; others are followed as
    closely as the limits allow.

    Args:
        limits: Limits of the arm.
        dt_s: Distance of commands [s].
    """

    FOLLOW_PER_S = 10.0
    """Rate at which a command that was held back closes up with what is asked."""

    def __init__(self, limits: JointLimits, dt_s: float) -> None:
        self.limits, self.dt_s = limits, dt_s
        self.pos = np.zeros_like(limits.lower_rad)
        self.vel = np.zeros_like(limits.lower_rad)

    def start(self, pos: np.ndarray) -> None:
        """Begin at rest at a position (J,) [rad], cut to the limits."""
        self.pos = np.clip(pos, self.limits.lower_rad, self.limits.upper_rad)
        self.vel = np.zeros_like(self.pos)

    def apply(
        self, pos: np.ndarray, vel: np.ndarray, elapsed_s: float | None = None
    ) -> tuple[np.ndarray, np.ndarray, bool]:
        """The command that goes out for a reference, and whether it was limited.

        Args:
            pos, vel: Finite reference, (J,) [rad] and (J,) [rad/s].
            elapsed_s: Time since the last command [s], longer than `dt_s` after ticks that were missed.
        """
        limits, dt, p, v = self.limits, elapsed_s or self.dt_s, self.pos, self.vel
        step = limits.acceleration_rad_s2 * dt
        fastest = limits.velocity_rad_s
        if (
            (np.abs(vel) <= fastest).all()
            and (np.abs(vel - v) <= step).all()
            and (np.abs(pos - p - 0.5 * (vel + v) * dt) <= 0.5 * step * dt).all()
            and self._can_stop(pos, vel)
        ):
            self.pos, self.vel = pos, vel
            return pos, vel, False
        # Velocity that follows the reference, then the range of velocities that keep the limits.
        wish = vel + self.FOLLOW_PER_S * (pos - p - 0.5 * (vel + v) * dt)
        room_up = self._braking_velocity(limits.upper_rad - p - 0.5 * v * dt, dt)
        room_down = self._braking_velocity(p + 0.5 * v * dt - limits.lower_rad, dt)
        high = np.minimum(np.minimum(v + step, fastest), room_up)
        low = np.maximum(np.maximum(v - step, -fastest), -room_down)
        # Rounding may cross them by an ulp: braking at the acceleration limit is always one of the two.
        new = np.where(low <= high, np.clip(wish, low, high), v - np.clip(v, -step, step))
        self.pos = np.clip(p + 0.5 * (v + new) * dt, limits.lower_rad, limits.upper_rad)
        self.vel = new
        return self.pos, self.vel, True

    def brake(self) -> tuple[np.ndarray, np.ndarray]:
        """The command that goes out when the arm is to stop where it is, as fast as the limits allow."""
        step = self.limits.acceleration_rad_s2 * self.dt_s
        new = self.vel - np.clip(self.vel, -step, step)
        self.pos = np.clip(self.pos + 0.5 * (self.vel + new) * self.dt_s, self.limits.lower_rad, self.limits.upper_rad)
        self.vel = new
        return self.pos, self.vel

    def _can_stop(self, pos: np.ndarray, vel: np.ndarray) -> bool:
        ahead = pos + 0.5 * vel * np.abs(vel) / self.limits.acceleration_rad_s2
        low, high = self.limits.lower_rad, self.limits.upper_rad
        return bool((np.minimum(pos, ahead) >= low).all() and (np.maximum(pos, ahead) <= high).all())

    def _braking_velocity(self, room: np.ndarray, dt: float) -> np.ndarray:
        """Largest v with ``v dt / 2 + v² / (2 a) <= room``: one more period at it, and the arm still stops in time."""
        a = self.limits.acceleration_rad_s2
        return a * (np.sqrt(np.maximum(0.25 * dt * dt + 2.0 * room / a, 0.0)) - 0.5 * dt)


class Watch:
    """Measured signals, the state's safety, and the online monitor of the whole specification.

    Signals are computed from measured values at their worst (`ArmTask.forecast` at once), less their error bounds.

    Args:
        task: The task.
    """

    def __init__(self, task: ArmTask) -> None:
        self.task = task
        self.start()

    def start(self) -> None:
        """A new episode."""
        self._monitor = self.task.formula.monitor(self.task.ctrl_dt_s)

    def update(self, obs: Obs) -> tuple[dict[str, float], float, float, float]:
        """One sample, every ``ctrl_dt_s``: signals, robustness of safety now, bounds of the specification's."""
        task = self.task
        state = {"joint_pos": obs["joint_pos"][None], "joint_vel": obs["joint_vel"][None]}
        state["points"] = task.kinematics.points(state["joint_pos"])
        state |= task.forecast(obs, np.zeros(1))
        measured = task.measure(state, obs)
        signals = {k: np.asarray(v, float).reshape(1) - task.signals[k].error_bound for k, v in measured.items()}
        safety = float(task.safety_formula.rho(signals, task.ctrl_dt_s)[0])
        values = {name: float(value[0]) for name, value in signals.items()}
        bounds = self._monitor.update(values)
        return values, safety, float(bounds.lo), float(bounds.hi)


class Supervisor:
    """The reference in force, and every check around it.

    Args:
        task: The task.
        info: What the driver says about itself.
        config: Thresholds.
    """

    def __init__(self, task: ArmTask, info: DriverInfo, config: SupervisorConfig) -> None:
        self.task, self.config = task, config
        self.joints, self.carry_s = info.joints, info.carry_s
        self.shield = Shield(info.limits, 1.0 / info.rate_hz)
        self.tracking_rad = task.robot.servo.tracking_error_rad + config.tracking_allowance_rad
        self.rate_hz = info.rate_hz
        self._braking = ArmMotion(task.robot, task.ctrl_dt_s, task.steps).brake
        self._planning_dof = (task.robot.dof,)
        self._ticks: deque[float] = deque()
        self._sent: list[tuple[float, np.ndarray, np.ndarray]] = []
        self.start(np.zeros(task.robot.dof))

    # ---- the reference -------------------------------------------------------

    def start(self, pos: np.ndarray) -> None:
        """Hold a position (J,) [rad]: the start of an episode, and after a fault."""
        self.shield.start(pos)
        self.chunk: ActionChunk | None = None
        self._next: ActionChunk | None = None
        self._rest = self.shield.pos
        self._sent.clear()
        self._ticks.clear()

    def offer(self, chunk: ActionChunk, time_s: float) -> str:
        """Take a new chunk, or say in words why not.

        Args:
            chunk: What inference made; finite.
            time_s: Time of the episode now [s].
        """
        config, limits = self.config, self.shield.limits
        n = len(chunk.joint_pos)
        if n < 1 or chunk.joint_pos.shape[1:] != self._planning_dof or chunk.joint_vel.shape != chunk.joint_pos.shape:
            return f"has shape {chunk.joint_pos.shape}"
        if not (np.isfinite(chunk.start_s) and np.isfinite(chunk.dt_s) and chunk.dt_s > 0 and 0 <= chunk.tail <= n):
            return "has no valid times"
        if np.abs(chunk.joint_vel[-1]).max() > 1e-6:
            return "does not end at rest"
        if not all(0 <= i < n for i in chunk.stops):
            return "has no valid stops"
        if (chunk.joint_pos < limits.lower_rad).any() or (chunk.joint_pos > limits.upper_rad).any():
            return "leaves the joint limits"
        if (np.abs(chunk.joint_vel) > limits.velocity_rad_s).any():
            return "exceeds the velocity limits"
        # A late chunk is as good as any, if what was executed meanwhile leads into it.
        seam_s = max(chunk.start_s, time_s)
        (pos, vel), (new_pos, new_vel) = self._plan(seam_s), chunk.at(seam_s)
        gap, gap_s = np.abs(new_pos - pos).max(), np.abs(new_vel - vel).max()
        if gap > config.seam_rad or gap_s > config.seam_rad_s:
            late = f", {1e3 * (time_s - chunk.start_s):.0f} ms late" if time_s > chunk.start_s else ""
            return f"does not meet the reference in force (by {gap:.4f} rad, {gap_s:.4f} rad/s{late})"
        self._next = chunk
        return ""

    def drop_pending(self) -> None:
        """Forget a chunk that was taken but has not started: the backup of the one in force runs."""
        self._next = None

    def leave(self, time_s: float) -> bool:
        """Leave the chunk in force for rest, as early as that is certified; whether there is a way within `STOP_S`.

        The way is straight braking from the first certified stop, else the chunk's own end.
        """
        self._next = None
        chunk = self.chunk
        if chunk is None:
            return True
        ahead = (i for i in chunk.stops if chunk.start_s + i * chunk.dt_s >= time_s - 1e-9)
        if (stop := next(ahead, None)) is not None:
            pos, vel = self._braking(chunk.joint_pos[stop], chunk.joint_vel[stop])
            self.chunk = chunk = replace(
                chunk,
                joint_pos=np.concatenate([chunk.joint_pos[: stop + 1], pos[1:]]),
                joint_vel=np.concatenate([chunk.joint_vel[: stop + 1], vel[1:]]),
                tail=stop + 1,
                stops=(),
            )
        return chunk.start_s + (len(chunk.joint_pos) - 1) * chunk.dt_s <= time_s + STOP_S

    def reference(self, time_s: float) -> tuple[np.ndarray, np.ndarray, str]:
        """Reference at a time of the episode: (J,) [rad], (J,) [rad/s], and who made it."""
        if self._next is not None and time_s >= self._next.start_s - 1e-9:
            self.chunk, self._next = self._next, None
        chunk = self.chunk
        if chunk is None:
            return self._rest, np.zeros_like(self._rest), "hold"
        pos, vel = chunk.at(time_s)
        phase = (time_s - chunk.start_s) / chunk.dt_s
        # A segment belongs to whoever made the sample that it leads to.
        leads_to = int(np.ceil(phase - 1e-6))
        if leads_to > len(chunk.joint_pos) - 1:
            return pos, vel, "hold"
        return pos, vel, chunk.controller if leads_to < chunk.tail else "backup"

    def at_rest(self, time_s: float) -> bool:
        """Whether the reference in force has ended, and no other waits."""
        chunk = self.chunk
        ended = chunk is None or time_s >= chunk.start_s + (len(chunk.joint_pos) - 1) * chunk.dt_s
        return ended and self._next is None

    def _plan(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        """The reference that will be in force at a time from now on."""
        chunk = self._next if self._next is not None and time_s >= self._next.start_s - 1e-9 else self.chunk
        return chunk.at(time_s) if chunk else (self._rest, np.zeros_like(self._rest))

    # ---- checks ----------------------------------------------------------------

    def check_state(self, state: JointState, now_s: float) -> None:
        """Stale state, and an arm that is not where it was sent.

        Raises:
            RobotError: The arm must be stopped; names the joints.
        """
        age = now_s - state.time_s
        if age > self.config.stale_s:
            raise RobotError(f"the arm's state is {age * 1e3:.0f} ms old (limit {self.config.stale_s * 1e3:.0f} ms)")
        if not self._sent:
            return
        # What the servos were to follow at the moment of the measurement.
        time_s, pos, vel = next((s for s in reversed(self._sent) if s[0] <= state.time_s), self._sent[0])
        ahead = min(max(state.time_s - time_s, 0.0), self.carry_s)
        self._complain(np.abs(state.joint_pos - pos - vel * ahead), self.tracking_rad, "does not follow its reference")

    def check_rate(self, due_s: float) -> None:
        """Count a tick, due at a time on the monotonic clock [s].

        Raises:
            RobotError: The loop has kept too few of its ticks over the last second; the arm must be stopped.
        """
        ticks = self._ticks
        ticks.append(due_s)
        if due_s - ticks[0] < 1.0:
            return
        while due_s - ticks[0] >= 1.0:
            ticks.popleft()
        if len(ticks) < self.config.least_rate * self.rate_hz:
            raise RobotError(
                f"the control loop kept {len(ticks)} of {self.rate_hz:g} ticks over the last second (at least "
                f"{self.config.least_rate:.0%} are needed): something else takes the processor"
            )

    def first_frame(self, state: JointState) -> None:
        """Before the first command: it must lie where the arm stands.

        Raises:
            RobotError: It does not; names the joints.
        """
        jump = np.abs(state.joint_pos - self.shield.pos)
        self._complain(jump, np.full_like(jump, self.config.jump_rad), "would jump at the first command")

    def sent(self, time_s: float, pos: np.ndarray, vel: np.ndarray) -> None:
        """Remember what went out, for the check of the tracking error."""
        self._sent.append((time_s, pos, vel))
        if len(self._sent) > 20:
            del self._sent[0]

    def _complain(self, error: np.ndarray, bound: np.ndarray, text: str) -> None:
        if (error > bound).any():
            over = ", ".join(
                f"{self.joints[j]} by {error[j]:.3f} rad (limit {bound[j]:.3f})" for j in np.flatnonzero(error > bound)
            )
            raise RobotError(f"the arm {text}: {over}")


def check_sources(task: ArmTask, info: DriverInfo) -> None:
    """Refuse a task whose specification needs what the robot does not offer.

    Raises:
        RobotError: Another arm is needed, or a signal of the specification has no source on this one.
    """
    if info.robot != task.robot_name:
        raise RobotError(f"task {task.name} is for the arm {task.robot_name!r}, {info.uri} is {info.robot!r}")
    for name in task.formula.signals:
        source = task.signals[name].source
        if source not in info.sources:
            raise RobotError(
                f"task {task.name}: signal {name!r} needs the source {source.value!r}, which {info.uri} does not offer "
                f"(it offers: {', '.join(sorted(info.sources))}); the specification could not be watched there"
            )
