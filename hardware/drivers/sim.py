"""Driver of a simulated arm (`hardware.plant`): ``sim``, ``sim://panda?payload_kg=0.3&gain_scale=0.9``."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict

import numpy as np

from hardware.driver import Driver, DriverInfo, JointCommand, JointState, Lifecycle
from hardware.plant import Mode, PlantConfig, PlantScene, Request, layouts
from hardware.robots import JointLimits, Robot
from robo.core.errors import ConfigError, RobotError, UnknownNameError
from robo.core.ipc import Child, Slot

START_S = 20.0
"""Longest start of the plant's process."""
ANSWER_S = 3.0
"""Longest time a stop may take until it is confirmed."""
DEAD_S = 1.0
"""A state older than this means that the plant no longer runs."""


class SimDriver(Driver):
    """A simulated arm in a process of its own, reached through shared memory only.

    Args:
        robot: The arm.
        limits: Limits every command is held to.
        scene: What it stands in; None for an empty world.
        config: How it differs from the arm on paper.
        truth: Whether signals from simulator truth exist; without, it is as blind as a real arm.
    """

    def __init__(
        self,
        robot: Robot,
        limits: JointLimits,
        scene: PlantScene | None = None,
        config: PlantConfig | None = None,
        truth: bool = True,
    ) -> None:
        super().__init__(robot, limits)
        self.scene, self.config, self.truth = scene, config or PlantConfig(), truth
        self._child: Child | None = None
        self._slots: dict[str, Slot] = {}

    @classmethod
    def from_uri(cls, robot: Robot, options: Mapping[str, str], scene: PlantScene | None) -> SimDriver:
        """See `Driver.from_uri`. Options: the fields of `PlantConfig`, and ``truth``."""
        known = asdict(PlantConfig()) | {"truth": True}
        values = {}
        for name, text in options.items():
            if name not in known:
                raise UnknownNameError("option of sim://", name, known)
            values[name] = _parse(name, text, known[name])
        truth = values.pop("truth", True)
        return cls(robot, robot.limits, scene, PlantConfig(**values), truth)

    @property
    def info(self) -> DriverInfo:
        """See `Driver.info`."""
        return DriverInfo(
            uri=f"sim://{self.robot.name}",
            robot=self.robot.name,
            joints=self.robot.joints,
            rate_hz=1.0 / self.config.period_s,
            modes=("joint_pos_vel",),
            limits=self.limits,
            stop_categories=(1,),
            sources=frozenset({"proprioception", "tracker"} | ({"simulator"} if self.truth else set())),
            carry_s=self.config.carry_s,
            simulated=True,
        )

    @property
    def pid(self) -> int:
        """Process id of the plant; 0 while disconnected."""
        return self._child.pid if self._child else 0

    def rewind(self, episode: int, start_s: float) -> None:
        """See `Driver.rewind`."""
        self._require_movable()
        count = len(self.scene.episodes) if self.scene else 0
        if not 0 <= episode < count:
            raise RobotError(f"{self.info.uri} was opened with {count} episodes, there is no episode {episode}")
        self._request(Request.REWIND, episode, start_s)
        self._last = None  # the arm jumps: the next step starts from where it is then

    def inject(self, fault: Request, value: float = 0.0) -> None:
        """For tests: `Request.STALL` for `value` seconds, or `Request.NAN`."""
        self._request(fault, value)

    # ---- the contract ------------------------------------------------------

    def _connect(self) -> None:
        episodes = self.scene.episodes if self.scene else ()
        tracker = {k: np.shape(v)[1:] for k, v in episodes[0].tracker.values.items()} if episodes else {}
        self._slots = {name: Slot(shape) for name, shape in layouts(self.robot.dof, tracker).items()}
        fds = {name: slot.fd for name, slot in self._slots.items()}
        config = {
            "robot": self.robot.name,
            "scene": self.scene.to_json() if self.scene else None,
            "plant": asdict(self.config),
            "fds": fds,
        }
        self._child = Child("hardware.plant", config, tuple(fds.values()), f"the plant of {self.info.uri}", RobotError)
        self._released = False
        try:
            self._child.wait_answer(START_S)
        except BaseException:
            self._disconnect()
            raise

    def _read(self) -> JointState:
        record = self._state()
        mode, age = Mode(int(record["mode"])), time.monotonic() - float(record["time_s"])
        if self.lifecycle is not Lifecycle.FAULT:
            if age > DEAD_S:
                raise RobotError(f"the arm has said nothing for {age:.1f} s")
            if self.lifecycle is Lifecycle.ACTIVE and mode is Mode.WATCHDOG:
                raise RobotError(f"no command reached the arm for {self.config.watchdog_s:g} s: it braked by itself")
        names = record.dtype.names or ()
        return JointState(
            time_s=float(record["time_s"]),
            joint_pos=record["joint_pos"],
            joint_vel=record["joint_vel"],
            extra={name[6:]: record[name] for name in names if name.startswith("extra/")},
            episode=int(record["episode"]),
        )

    def _send(self, command: JointCommand) -> JointCommand:
        if self._released:
            self._resume()
        self._require_child()
        self._slots["command"].write(
            {"time_s": command.time_s, "joint_pos": command.joint_pos, "joint_vel": command.joint_vel}
        )
        return command

    def _stop(self) -> None:
        self._request(Request.STOP)
        self._released = True
        self._wait(lambda record: int(record["mode"]) == Mode.RELEASED, "confirm the stop")

    def _acknowledge(self) -> None:
        self._resume()
        if not np.isfinite(self._state()["joint_pos"]).all():
            raise RobotError(f"{self.info.uri} still reports joint positions that are not finite")

    def _disconnect(self) -> None:
        if self._child:
            self._child.end()
            self._child = None
        for slot in self._slots.values():
            slot.close()
        self._slots = {}

    # ---- the wire -----------------------------------------------------------

    def _require_child(self) -> Child:
        if self._child is None or not self._child.alive:
            raise RobotError("the arm no longer answers: the process of its plant has ended")
        return self._child

    def _state(self) -> np.void:
        self._require_child()
        newest = self._slots["state"].read()
        if newest is None:
            raise RobotError("the arm has not reported any state yet")
        return newest[1]

    def _resume(self) -> None:
        self._request(Request.RESUME)
        self._released = False
        self._wait(lambda record: int(record["mode"]) == Mode.HOLD, "take up its servos")

    def _request(self, kind: Request, value: float = 0.0, start_s: float = 0.0) -> None:
        # The newest request is all the plant sees: the one before must have been taken.
        self._wait(lambda record: True, "take the request before")
        self._slots["request"].write({"kind": int(kind), "value": value, "start_s": start_s})

    def _wait(self, done: Callable[[np.void], bool], what: str) -> None:
        """Wait until the plant has taken the last request and its state satisfies `done`."""
        deadline = time.monotonic() + ANSWER_S
        while True:
            record = self._state()
            if int(record["request"]) == self._slots["request"].count and done(record):
                return
            if time.monotonic() > deadline:
                raise RobotError(f"the arm did not {what} within {ANSWER_S:g} s")
            time.sleep(0.001)


def _parse(name: str, text: str, default: float | bool) -> float | bool:
    if isinstance(default, bool):
        if text not in ("0", "1"):
            raise ConfigError(f"option {name} of sim:// must be 0 or 1, not {text!r}")
        return text == "1"
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not np.isfinite(value) or value < 0:
        raise ConfigError(f"option {name} of sim:// must be a finite number of at least 0, not {text!r}")
    return value
