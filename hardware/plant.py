"""A simulated arm in a process of its own: MuJoCo in real time, behind shared memory.

The one place where `hardware` steps MuJoCo. The process behaves like the controller
cabinet of an arm: it runs at its own rate whatever its caller does, takes joint references,
brakes by itself when none comes, stops on request (brake, hold, brakes on, servos
ramped down) and keeps standing until it is told to go on. Run by
`hardware.drivers.sim.SimDriver` as ``python -m hardware.plant``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import IntEnum
from typing import TYPE_CHECKING, Any

import numpy as np

from hardware.robots import ROBOTS
from robo.core.errors import ConfigError, RobotError
from robo.core.ipc import Layout, Parent, Slot, serve
from robo.core.realtime import go_realtime, sleep_until

if TYPE_CHECKING:
    import mujoco

HOLD_S, RAMP_S = 0.2, 0.5
"""A stop holds this long after the arm came to rest, then ramps the servos down in this time [s]."""
MAX_LAG_S = 0.1
"""Physics that lags more than this lets time slip instead of running after it."""


@dataclass(frozen=True, kw_only=True)
class Timeline:
    """Arrays over time, linear between samples, the last one held.

    Attributes:
        dt_s: Distance of samples [s].
        values: Name → (K, ...); K = 1 for what never changes.
    """

    dt_s: float
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One start of the world and what moves by itself in it: data, so that a replay is the same.

    Attributes:
        joint_pos: Where the arm stands, (J,) [rad].
        bodies: Positions of the scene's mocap bodies by name, (K, 3) [m].
        tracker: What a tracker of the world reports, by name of the observation, (K, ...).
    """

    joint_pos: Any
    bodies: Timeline
    tracker: Timeline


@dataclass(frozen=True, kw_only=True)
class PlantScene:
    """What a simulated arm stands in.

    Attributes:
        xml: MJCF text that holds the arm (bodies, joints and actuators as `Robot.mjcf` builds them).
        episodes: Starts of the world.
    """

    xml: str
    episodes: tuple[Episode, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As plain JSON; arrays that do not change over time shrink to one sample."""
        value = asdict(self)
        for episode in value["episodes"]:
            episode["joint_pos"] = np.asarray(episode["joint_pos"]).tolist()
            for timeline in (episode["bodies"], episode["tracker"]):
                for name, rows in timeline["values"].items():
                    rows = np.asarray(rows, float)
                    timeline["values"][name] = (rows[:1] if (rows == rows[:1]).all() else rows).tolist()
        return value

    @staticmethod
    def from_json(value: Mapping[str, Any]) -> PlantScene:
        """The inverse of `to_json`."""
        return PlantScene(
            xml=value["xml"],
            episodes=tuple(
                Episode(
                    joint_pos=np.array(e["joint_pos"]),
                    bodies=_timeline(e["bodies"]),
                    tracker=_timeline(e["tracker"]),
                )
                for e in value["episodes"]
            ),
        )


def _timeline(value: Mapping[str, Any]) -> Timeline:
    return Timeline(dt_s=value["dt_s"], values={k: np.array(v, float) for k, v in value["values"].items()})


class Request(IntEnum):
    """What a driver can ask of the plant besides following references."""

    REWIND = 1
    """Back to the start of episode `value`, its clock starting at `start_s`."""
    STOP = 2
    """Brake, hold, brakes on, servos down."""
    RESUME = 3
    """After a stop or a watchdog: hold where the arm stands and take references again."""
    STALL = 4
    """For tests: freeze for `value` seconds."""
    NAN = 5
    """For tests: report NaN from now on; ends with a rewind."""


class Mode(IntEnum):
    """What the servos do."""

    HOLD = 0
    FOLLOW = 1
    WATCHDOG = 2
    """No reference came in time: brakes and holds until `Request.RESUME`."""
    STOPPING = 3
    RELEASED = 4
    """Stopped: brakes on, servos off."""


def layouts(dof: int, tracker: Layout) -> dict[str, Layout]:
    """Layouts of the three slots between driver and plant, by name."""
    command = {"time_s": (), "joint_pos": (dof,), "joint_vel": (dof,)}
    request = {"kind": (), "value": (), "start_s": ()}
    state = {"time_s": (), "episode": (), "mode": (), "request": (), "slip_s": ()}
    state |= {"joint_pos": (dof,), "joint_vel": (dof,)}
    return {
        "command": command,
        "request": request,
        "state": state | {f"extra/{name}": shape for name, shape in tracker.items()},
    }


@dataclass(frozen=True, kw_only=True)
class PlantConfig:
    """How the plant differs from the arm on paper, and how it is run.

    Attributes:
        payload_kg: Load in the hand that nobody told the controller about.
        gain_scale: Servo gains over those on paper.
        watchdog_s: Brakes by itself when no reference comes for this long [s].
        period_s: Period at which references are due [s].
        carry_s: A reference is carried on with its velocity this long while no newer one comes [s].
        fifo: Ask for real-time scheduling.
    """

    payload_kg: float = 0.0
    gain_scale: float = 1.0
    watchdog_s: float = 0.1
    period_s: float = 0.01
    carry_s: float = 0.05
    fifo: bool = True


class _World:
    """All timelines of an episode packed into one table, so that a moment is one interpolation."""

    def __init__(self, timeline: Timeline) -> None:
        self.dt_s = timeline.dt_s
        arrays = {k: np.asarray(v, float) for k, v in timeline.values.items()}
        n = max((len(v) for v in arrays.values()), default=1)
        columns, self.slices, start = [], {}, 0
        for name, value in arrays.items():
            if len(value) not in (1, n):
                raise ConfigError(
                    f"timeline {name!r} has {len(value)} samples, others {n}; all need the same number, or 1"
                )
            flat = value.reshape(len(value), -1)
            columns.append(np.broadcast_to(flat, (n, flat.shape[1])))
            self.slices[name] = (slice(start, start + flat.shape[1]), value.shape[1:])
            start += flat.shape[1]
        self.table = np.concatenate(columns, axis=1) if columns else np.zeros((n, 0))

    def at(self, time_s: float) -> np.ndarray:
        phase = min(max(time_s / self.dt_s, 0.0), len(self.table) - 1.0)
        i = min(int(phase), max(len(self.table) - 2, 0))
        u = phase - i
        return (1 - u) * self.table[i] + u * self.table[min(i + 1, len(self.table) - 1)]


class Plant:
    """The simulated arm: model, servos, world. `step` is one physics step at a time that the caller sets."""

    def __init__(self, robot_name: str, scene: PlantScene | None, config: PlantConfig) -> None:
        import mujoco

        self._mj = mujoco
        self.robot, self.config = ROBOTS.make(robot_name), config
        self.episodes = scene.episodes if scene else ()
        try:
            xml = scene.xml if scene else self.robot.mjcf().to_xml()
            self.model: mujoco.MjModel = mujoco.MjModel.from_xml_string(xml)
        except ValueError as error:
            raise RobotError(f"the scene is no valid MJCF: {error}") from error
        model, robot = self.model, self.robot
        try:
            joints = [model.joint(name) for name in robot.joints]
            servos = [model.actuator(f"{name}_{kind}").id for kind in ("pos", "vel") for name in robot.joints]
            model.body("payload").mass[0] += config.payload_kg
        except KeyError as error:
            raise RobotError(f"the scene does not hold the arm {robot.name}: {error}") from error
        self._qpos = np.array([j.qposadr[0] for j in joints])
        self._dof = np.array([j.dofadr[0] for j in joints])
        self._servos = np.array(servos)
        model.actuator_gainprm[servos, 0] *= config.gain_scale
        model.actuator_biasprm[servos, 1:3] *= config.gain_scale
        self._gain, self._bias = model.actuator_gainprm.copy(), model.actuator_biasprm.copy()
        self._friction = model.dof_frictionloss.copy()
        self.data: mujoco.MjData = mujoco.MjData(model)
        mujoco.mj_setConst(model, self.data)
        self._worlds = [(_World(e.bodies), _World(e.tracker)) for e in self.episodes]
        self._mocap = [self._mocap_ids(bodies) for bodies, _ in self._worlds]
        self.episode = -1
        self.rewind(0 if self.episodes else -1, np.inf)
        self.episode = -1

    def _mocap_ids(self, bodies: _World) -> list[int]:
        ids = []
        for name, (_, shape) in bodies.slices.items():
            body = self._mj.mj_name2id(self.model, self._mj.mjtObj.mjOBJ_BODY, name)
            if body < 0 or self.model.body_mocapid[body] < 0 or shape != (3,):
                raise RobotError(f"{name!r} is no mocap body of the scene with positions (3,)")
            ids.append(int(self.model.body_mocapid[body]))
        return ids

    @property
    def dt_s(self) -> float:
        """Physics step [s]."""
        return float(self.model.opt.timestep)

    @property
    def tracker_layout(self) -> Layout:
        """Names and shapes of the tracker's values; the same in every episode."""
        return {name: shape for name, (_, shape) in self._worlds[0][1].slices.items()} if self._worlds else {}

    # ---- requests ----------------------------------------------------------

    def rewind(self, episode: int, start_s: float) -> None:
        """Back to the start of an episode, or of an empty world (-1)."""
        mj, data = self._mj, self.data
        mj.mj_resetData(self.model, data)
        data.qpos[self._qpos] = self.episodes[episode].joint_pos if episode >= 0 else self.robot.home_rad
        self.episode, self._start_s = episode, start_s
        self._reports_nan = False
        self._powered(1.0)
        self._move_world(-np.inf)
        mj.mj_forward(self.model, data)
        self.hold()

    def hold(self) -> None:
        """Hold where the arm stands; takes references again."""
        self._powered(1.0)
        self.mode = Mode.HOLD
        self.ref_pos = self.data.qpos[self._qpos].copy()
        self.ref_vel = np.zeros(self.robot.dof)
        self._command: np.void | None = None

    def stop(self) -> None:
        """Begin to stop: brake along the limits, hold, brakes on, servos down."""
        if self.mode not in (Mode.STOPPING, Mode.RELEASED):
            self.mode, self._rest_s = Mode.STOPPING, 0.0

    def report_nan(self) -> None:
        """For tests: report NaN until a rewind."""
        self._reports_nan = True

    def command(self, record: np.void) -> None:
        """Follow a reference from now on, unless stopped or braking."""
        if self.mode in (Mode.HOLD, Mode.FOLLOW):
            self.mode, self._command = Mode.FOLLOW, record

    # ---- time ----------------------------------------------------------------

    def step(self, now_s: float) -> None:
        """One physics step that ends at `now_s` on the monotonic clock."""
        self._reference(now_s)
        data = self.data
        data.ctrl[self._servos[: self.robot.dof]] = self.ref_pos
        data.ctrl[self._servos[self.robot.dof :]] = self.ref_vel
        self._move_world(now_s)
        self._mj.mj_step(self.model, data)

    def state(self, now_s: float) -> dict[str, Any]:
        """What is reported, by name of the state layout (without ``request`` and ``slip_s``)."""
        q, v = self.data.qpos[self._qpos], self.data.qvel[self._dof]
        if self._reports_nan:
            q = np.full_like(q, np.nan)
        values = {"time_s": now_s, "episode": self.episode, "mode": self.mode, "joint_pos": q, "joint_vel": v}
        if self._worlds:
            tracker = self._worlds[max(self.episode, 0)][1]
            row = tracker.at(now_s - self._start_s)
            for name, (where, shape) in tracker.slices.items():
                values[f"extra/{name}"] = row[where].reshape(shape)
        return values

    def _reference(self, now_s: float) -> None:
        carry, command = self.config.carry_s, self._command
        if self.mode is Mode.FOLLOW and command is not None:
            age = now_s - float(command["time_s"])
            if age > self.config.watchdog_s:
                self.mode = Mode.WATCHDOG
            else:
                limits, vel = self.robot.limits, command["joint_vel"]
                ahead = min(max(age, -carry), carry)
                self.ref_pos = np.clip(command["joint_pos"] + vel * ahead, limits.lower_rad, limits.upper_rad)
                self.ref_vel = vel.copy() if age <= carry else np.zeros_like(vel)
                return
        if self.mode in (Mode.WATCHDOG, Mode.STOPPING):
            slower = self.robot.limits.acceleration_rad_s2 * self.dt_s
            vel = np.sign(self.ref_vel) * np.maximum(np.abs(self.ref_vel) - slower, 0.0)
            self.ref_pos = self.ref_pos + 0.5 * (self.ref_vel + vel) * self.dt_s
            self.ref_vel = vel
            if self.mode is Mode.STOPPING and not vel.any():
                self._rest_s += self.dt_s
                self._powered(1.0 - min(max(self._rest_s - HOLD_S, 0.0) / RAMP_S, 1.0))
                if self._rest_s > HOLD_S + RAMP_S:
                    self.mode = Mode.RELEASED

    def _powered(self, share: float) -> None:
        """Servo gains scaled by `share`; below 1 the mechanical brakes are on (dry friction of the torque limit)."""
        model = self.model
        model.actuator_gainprm[:] = self._gain * share
        model.actuator_biasprm[:] = self._bias * share
        model.dof_frictionloss[:] = self._friction
        if share < 1.0:
            model.dof_frictionloss[self._dof] = self.robot.limits.torque_n_m

    def _move_world(self, now_s: float) -> None:
        if self._worlds:
            episode = max(self.episode, 0)
            row = self._worlds[episode][0].at(now_s - self._start_s if np.isfinite(self._start_s) else 0.0)
            self.data.mocap_pos[self._mocap[episode]] = row.reshape(-1, 3)


def _run(config: dict[str, Any], parent: Parent) -> None:
    """Body of the process: steps on absolute deadlines until the parent cuts the lifeline."""
    scene = PlantScene.from_json(config["scene"]) if config["scene"] else None
    plant = Plant(config["robot"], scene, PlantConfig(**config["plant"]))
    shapes = layouts(plant.robot.dof, plant.tracker_layout)
    command, request, state = (Slot(shapes[name], config["fds"][name]) for name in ("command", "request", "state"))
    # Below the control process: an arm's cabinet does not compete with its caller.
    go_realtime(priority=40, fifo=plant.config.fifo)
    dt = plant.dt_s
    due, slip, seen_command, seen_request = time.monotonic(), 0.0, 0, 0
    started = False
    while True:
        newest = request.read()
        if newest and newest[0] != seen_request:
            seen_request, record = newest
            stalled = _obey(plant, record)
            # References sent before a request are not references after it.
            seen_command = command.count
            due += stalled
        newest = command.read()
        if newest and newest[0] != seen_command:
            seen_command = newest[0]
            plant.command(newest[1])
        plant.step(due)
        state.write(plant.state(due) | {"request": seen_request, "slip_s": slip})
        if not started:
            parent.tell(ready=True, dt_s=dt)
            started = True
        due += dt
        late = sleep_until(due) - due
        if late > MAX_LAG_S:
            slip += late
            due += late


def _obey(plant: Plant, record: np.void) -> float:
    """Do what was asked; returns how long the plant stood still for it [s]."""
    kind, value = Request(int(record["kind"])), float(record["value"])
    if kind is Request.REWIND:
        plant.rewind(int(value), float(record["start_s"]))
    elif kind is Request.STOP:
        plant.stop()
    elif kind is Request.RESUME:
        plant.hold()
    elif kind is Request.NAN:
        plant.report_nan()
    elif kind is Request.STALL:
        sleep_until(time.monotonic() + value)
        return value
    return 0.0


if __name__ == "__main__":
    sys.exit(serve(_run))
