"""The one interface between our software and an arm, simulated or real.

A driver is a thin thing: it reads joints, takes joint references, stops. It trusts
nobody: whatever it is told to send it checks against finite limits itself, and a
fault latches until a person acknowledges it. Everything is in SI units.

Lifecycle::

    unconfigured ── connect() ──► inactive ── first send() ──► active
          ▲                          ▲  │                        │
          └────── disconnect() ──────┼──┘◄─────── stop() ────────┘
                                acknowledge()
                                     └──────── fault ◄── anything that goes wrong
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING

import numpy as np

from hardware.robots import JointLimits, Robot
from robo.core.errors import FaultError, RobotError

if TYPE_CHECKING:
    from hardware.plant import PlantScene


CLOCK_S = 0.5
"""A command's time may differ this much from the clock [s]."""
STEP_S = 0.1
"""A step is never longer than what the velocity limit allows in this time [s], however long nothing was sent."""


class Lifecycle(StrEnum):
    """Where a driver stands."""

    UNCONFIGURED = "unconfigured"
    """Not connected; only `Driver.info` can be read."""
    INACTIVE = "inactive"
    """Connected; the arm stands by itself and can be read."""
    ACTIVE = "active"
    """The arm follows what is sent."""
    FAULT = "fault"
    """Something went wrong; nothing moves before `Driver.acknowledge`."""


@dataclass(frozen=True, kw_only=True)
class DriverInfo:
    """What a driver and the arm behind it are; known without connecting.

    Attributes:
        uri: What opens it, for example ``sim://panda``.
        robot: Registered name of the arm.
        joints: Joint names, base to tip.
        rate_hz: Rate at which it wants to be read and sent to.
        modes: Ways of commanding it, for example ``("joint_pos_vel",)``.
        limits: Finite limits; nothing beyond them is ever sent.
        stop_categories: IEC 60204-1 stop categories it can do (0 power off, 1 stop then off, 2 stop and hold).
        sources: Sources of signals (values of `tasks.task.Source`) that exist on it.
        carry_s: How long the arm carries a command on with its velocity while no newer one comes [s].
        simulated: No metal moves; its world can be put back to a start (`Driver.rewind`).
    """

    uri: str
    robot: str
    joints: tuple[str, ...]
    rate_hz: float
    modes: tuple[str, ...]
    limits: JointLimits
    stop_categories: tuple[int, ...]
    sources: frozenset[str]
    carry_s: float = 0.0
    simulated: bool = False


@dataclass(frozen=True, kw_only=True)
class JointState:
    """What was measured.

    Attributes:
        time_s: When, on this machine's monotonic clock (``time.monotonic``) [s].
        joint_pos: (J,) [rad].
        joint_vel: (J,) [rad/s].
        extra: Further observations by name (a tracker's values), float64 arrays.
        episode: Which start the world was last put back to (`Driver.rewind`); -1 for none.
    """

    time_s: float
    joint_pos: np.ndarray
    joint_vel: np.ndarray
    extra: Mapping[str, np.ndarray] = field(default_factory=dict)
    episode: int = -1


@dataclass(frozen=True, kw_only=True)
class JointCommand:
    """A joint reference.

    Attributes:
        time_s: When it holds, on this machine's monotonic clock [s].
        joint_pos: (J,) [rad].
        joint_vel: (J,) [rad/s].
    """

    time_s: float
    joint_pos: np.ndarray
    joint_vel: np.ndarray


class Driver(ABC):
    """An arm behind a wire, a bus or a socket.

    Subclasses write the methods with an underscore; the checks that must never be
    left out live here, once. A subclass reports trouble by raising any `RobotError`:
    the driver then stands in `Lifecycle.FAULT` and every call that could move the arm
    raises `FaultError` until `acknowledge`.

    Args:
        robot: The arm.
        limits: Limits that every command is held to; required, finite.
    """

    def __init__(self, robot: Robot, limits: JointLimits) -> None:
        self.robot = robot
        self.limits = limits
        self._lifecycle = Lifecycle.UNCONFIGURED
        self._fault = ""
        self._last: JointCommand | None = None

    @classmethod
    @abstractmethod
    def from_uri(cls, robot: Robot, options: Mapping[str, str], scene: PlantScene | None) -> Driver:
        """A driver from what stands behind the scheme of its URI; see `hardware.drivers.open_driver`.

        Raises:
            ConfigError: An option that it does not have, or a value that does not fit.
        """

    # ---- what can be asked at any time -------------------------------------

    @property
    @abstractmethod
    def info(self) -> DriverInfo:
        """What it is; readable while disconnected."""

    @property
    def lifecycle(self) -> Lifecycle:
        """Where it stands."""
        return self._lifecycle

    @property
    def fault(self) -> str:
        """Why it is in fault; empty when it is not."""
        return self._fault

    # ---- what moves the arm or could ---------------------------------------

    def connect(self) -> None:
        """Open the connection; the arm does not move.

        Raises:
            RobotError: It is connected already, or the arm cannot be reached.
        """
        if self._lifecycle is not Lifecycle.UNCONFIGURED:
            raise RobotError(f"{self.info.uri} is {self._lifecycle}; disconnect() before connecting again")
        self._connect()
        self._fault = ""
        self._lifecycle = Lifecycle.INACTIVE

    def read(self) -> JointState:
        """The newest measurement; possible in a fault too, where the arm still answers.

        Raises:
            RobotError: Not connected, or the arm no longer answers (a fault).
        """
        if self._lifecycle is Lifecycle.UNCONFIGURED:
            raise RobotError(f"{self.info.uri} is not connected; call connect() first")
        with _Latch(self):
            state = self._read()
            if self._lifecycle is not Lifecycle.FAULT and not _finite(state.joint_pos, state.joint_vel):
                raise RobotError(f"the arm reports NaN or infinity: joint_pos {state.joint_pos}")
        return state

    def send(self, command: JointCommand) -> JointCommand:
        """Send a reference, held to the limits, and return what was really sent.

        Positions and velocities beyond a limit are cut to it, and so is a step from the command
        before (at first: from where the arm stands) that would need more than the velocity limit. NaN, infinity
        and times that run backwards or away from the clock are a fault, for a caller that
        computes them cannot be trusted with the next command.

        Raises:
            FaultError: A fault is latched, or this command caused one.
            RobotError: Not connected.
        """
        self._require_movable()
        with _Latch(self):
            pos, vel = np.asarray(command.joint_pos, float), np.asarray(command.joint_vel, float)
            dof = (self.robot.dof,)
            if pos.shape != dof or vel.shape != dof:
                raise RobotError(f"command needs {dof} positions and velocities, got {pos.shape} and {vel.shape}")
            if not _finite(pos, vel, command.time_s):
                raise RobotError(f"command holds NaN or infinity: joint_pos {pos}, joint_vel {vel}")
            limits, before = self.limits, self._before(command.time_s)
            elapsed = command.time_s - before.time_s
            if elapsed <= 0 or abs(command.time_s - time.monotonic()) > CLOCK_S:
                raise RobotError(
                    f"command of time {command.time_s:.3f} s after one of {before.time_s:.3f} s, it is now "
                    f"{time.monotonic():.3f} s; times must increase and follow time.monotonic()"
                )
            step = limits.velocity_rad_s * min(elapsed, STEP_S)
            near = np.clip(pos, before.joint_pos - step, before.joint_pos + step)
            held = JointCommand(
                time_s=command.time_s,
                joint_pos=np.clip(near, limits.lower_rad, limits.upper_rad),
                joint_vel=np.clip(vel, -limits.velocity_rad_s, limits.velocity_rad_s),
            )
            sent = self._last = self._send(held)
        self._lifecycle = Lifecycle.ACTIVE
        return sent

    def _before(self, time_s: float) -> JointCommand:
        """The command before, or one period ago the arm where it stands."""
        if self._lifecycle is Lifecycle.ACTIVE and self._last is not None:
            return self._last
        state = self._read()
        return JointCommand(
            time_s=time_s - 1.0 / self.info.rate_hz, joint_pos=state.joint_pos, joint_vel=state.joint_vel
        )

    def stop(self) -> None:
        """Brake along the limits, hold, then ramp the servos down; returns when the arm has said that it is done.

        Works in every state, twice too; after it the driver is inactive, or still in its fault.

        Raises:
            FaultError: The arm did not confirm the stop.
        """
        if self._lifecycle is Lifecycle.UNCONFIGURED:
            return
        with _Latch(self):
            self._stop()
        if self._lifecycle is Lifecycle.ACTIVE:
            self._lifecycle = Lifecycle.INACTIVE

    def acknowledge(self) -> None:
        """Clear a latched fault: said by a person, never by a loop.

        Raises:
            RobotError: What caused the fault is still there.
        """
        if self._lifecycle is Lifecycle.FAULT:
            self._acknowledge()
            self._fault = ""
            self._lifecycle = Lifecycle.INACTIVE

    def disconnect(self) -> None:
        """Close the connection; stops an active arm first. Works in every state, twice too."""
        if self._lifecycle is Lifecycle.UNCONFIGURED:
            return
        try:
            if self._lifecycle is Lifecycle.ACTIVE:
                self.stop()
        finally:
            self._disconnect()
            self._lifecycle = Lifecycle.UNCONFIGURED

    def rewind(self, episode: int, start_s: float) -> None:
        """Put a simulated world back to the start of an episode; its clock runs from `start_s` on.

        Returns at once; it is done when `read` returns states of that episode.

        Args:
            episode: Which of the episodes the driver was opened with.
            start_s: When the world starts moving, on the monotonic clock [s].

        Raises:
            RobotError: The arm is real, or the episode does not exist.
        """
        raise RobotError(f"{self.info.uri} is no simulation: its world cannot be put back to a start")

    def __enter__(self) -> Driver:
        self.connect()
        return self

    def __exit__(self, *exception: object) -> None:
        self.disconnect()

    def _require_movable(self) -> None:
        if self._lifecycle is Lifecycle.FAULT:
            raise FaultError(f"{self.info.uri} is in fault ({self._fault}); mend it, then acknowledge()")
        if self._lifecycle is Lifecycle.UNCONFIGURED:
            raise RobotError(f"{self.info.uri} is not connected; call connect() first")

    # ---- what a subclass writes ----------------------------------------------

    @abstractmethod
    def _connect(self) -> None:
        """Open; on failure leave nothing behind."""

    @abstractmethod
    def _read(self) -> JointState:
        """Newest measurement; never waits longer than a period."""

    @abstractmethod
    def _send(self, command: JointCommand) -> JointCommand:
        """Pass on a checked command; returns what went out."""

    @abstractmethod
    def _stop(self) -> None:
        """Brake, hold, ramp down; returns when confirmed."""

    @abstractmethod
    def _acknowledge(self) -> None:
        """Clear the fault on the arm's side."""

    @abstractmethod
    def _disconnect(self) -> None:
        """Close and leave nothing behind; never raises."""


def _finite(*values: np.ndarray | float) -> bool:
    return all(np.isfinite(value).all() for value in values)


class _Latch:
    """Latches a fault when its block raises; the error goes on as a `FaultError`."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception):
            driver = self.driver
            driver._fault = driver._fault or str(error)
            driver._lifecycle = Lifecycle.FAULT
            if isinstance(error, RobotError) and not isinstance(error, FaultError):
                raise FaultError(f"{driver.info.uri}: {error}") from error
