"""A deployment from start to end: prepare the world, start the control process, record, judge.

This process is never in a hurry: it may load what it likes, and the arm stops if it dies.
"""

from __future__ import annotations

import json
import math
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from hardware.drivers import open_driver
from hardware.plant import Episode, PlantScene, Timeline
from robo.core.errors import ConfigError, RobotError
from robo.core.files import write_json, write_text
from robo.core.ipc import Child, Ring
from robo.runtime.log import SUMMARY, Recorder
from robo.runtime.protocol import CONTROLLERS, Factory, tick_layout
from robo.runtime.supervisor import SupervisorConfig, check_sources
from tasks.arm import ArmTask

WORLD_DT_S = 0.01
"""Distance of samples of what moves by itself."""
LOG_TICKS = 8192
"""Ticks the recorder may lag; 80 s at 100 Hz."""
START_S = 180.0
STOP_S = 10.0


@dataclass(frozen=True, kw_only=True)
class DeployConfig:
    """What is deployed where.

    Attributes:
        robot: URI of the driver, see `hardware.drivers.open_driver`.
        task, policy: How the processes get them.
        seconds: Episodes are played until this time is over [s]; 0 for one.
        seed: Of instances, of what moves by itself and of the policy.
        fifo: Ask for real-time scheduling.
        dry_run: Start and check everything, send nothing.
        supervisor: Thresholds.
    """

    robot: str
    task: Factory
    policy: Factory
    seconds: float = 0.0
    seed: int = 0
    fifo: bool = True
    dry_run: bool = False
    supervisor: SupervisorConfig = field(default_factory=SupervisorConfig)

    def __post_init__(self) -> None:
        if not (math.isfinite(self.seconds) and self.seconds >= 0):
            raise ConfigError(f"seconds must be a finite number of at least 0, not {self.seconds!r}")
        if self.seed < 0:
            raise ConfigError(f"seed must be 0 or more, not {self.seed}")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """An episode that was drawn beforehand.

    Attributes:
        instance: See `tasks.arm.ArmTask`.
        worlds: States of what moves by itself, every `WORLD_DT_S` from the start on.
    """

    instance: Mapping[str, np.ndarray]
    worlds: list[Mapping[str, np.ndarray]]


def draw(task: ArmTask, seed: int) -> tuple[Drawn, Episode]:
    """An episode of a task and the same as data for the simulated plant."""
    draw_rng, move, see = (np.random.default_rng([seed, i]) for i in range(3))
    instance = task.sample(draw_rng)
    worlds: list[Mapping[str, np.ndarray]] = [task.start_world(instance, move)]
    for _ in range(round(task.horizon_s / WORLD_DT_S)):
        worlds.append(task.advance(instance, worlds[-1], WORLD_DT_S, move))
    poses = _stack([task.poses(instance, world) for world in worlds])
    seen = _stack([task.observe(instance, world, see) for world in worlds])
    episode = Episode(
        joint_pos=instance["joint_pos"],
        bodies=Timeline(dt_s=WORLD_DT_S, values=poses),
        tracker=Timeline(dt_s=WORLD_DT_S, values=seen),
    )
    return Drawn(instance=instance, worlds=worlds), episode


def _stack(rows: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def judge(task: ArmTask, drawn: Drawn, ticks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Score an executed episode by the truth of the simulated world.

    Args:
        task: The task.
        drawn: The episode.
        ticks: Its rows of the log.

    Returns:
        ``rho`` (robustness of the specification), ``satisfied``, ``success``, ``safety_rho`` (least over
        all ticks) and ``unsafe_ticks``.
    """
    time_s = ticks["time_s"]
    run = np.flatnonzero((time_s > -1e-6) & (time_s < task.horizon_s + 1e-6))
    world = np.clip(np.round(time_s[run] / WORLD_DT_S).astype(int), 0, len(drawn.worlds) - 1)
    occupied = _stack([task.occupied(drawn.instance, drawn.worlds[i]) for i in world])
    pos = ticks["joint_pos"][run]
    state = {"joint_pos": pos, "joint_vel": ticks["joint_vel"][run], "points": task.kinematics.points(pos)} | occupied
    signals = {name: np.asarray(value, float) for name, value in task.measure(state, drawn.instance).items()}
    safety = task.safety_formula.rho(signals, task.ctrl_dt_s)
    calls = np.arange(task.steps + 1) * task.ctrl_dt_s
    nearest = np.abs(time_s[run][None] - calls[:, None]).argmin(1)
    trace = {name: value[nearest] for name, value in signals.items()}
    rho = float(task.formula.rho(trace, task.ctrl_dt_s)[0])
    return {
        "rho": rho,
        "satisfied": rho > 0,
        "success": task.success(trace),
        "safety_rho": float(safety.min()),
        "unsafe_ticks": int((safety <= 0).sum()),
    }


def deploy(
    task: ArmTask, config: DeployConfig, folder: Path | None, on_event: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Run a policy on an arm, and log every tick.

    Args:
        task: What `config.task` makes.
        config: What is deployed where.
        folder: The log folder, made here; None for no log.
        on_event: Told in words what happens.

    Returns:
        The summary, also written to ``summary.json``: JSON-able. ``stopped`` is empty when all went to its end.

    Raises:
        RobotError: The deployment could not begin: nothing has moved.
    """
    info = open_driver(config.robot, robot=task.robot_name).info
    check_sources(task, info)
    count = max(math.ceil(config.seconds / task.horizon_s), 1)
    seeds = [config.seed + i for i in range(count)]
    drawn, scene = [], None
    if info.simulated:
        drawn, episodes = zip(*(draw(task, seed) for seed in seeds), strict=True)
        scene = PlantScene(xml=_scene_xml(task), episodes=episodes)
    layout = tick_layout(task)
    recorder = Recorder(folder, layout) if folder and not config.dry_run else None
    if recorder and scene:
        write_text(recorder.folder / "scene.json", json.dumps(scene.to_json()))
    ring = Ring(layout, LOG_TICKS)
    settings = {
        "robot": config.robot,
        "task": config.task.to_json(),
        # Ahead of ordinary processes only where the loop is ahead of it, in turn.
        "inference": {"task": config.task.to_json(), "policy": config.policy.to_json(), "ahead": config.fifo},
        "scene": scene.to_json() if scene else None,
        "seeds": seeds,
        "seconds": config.seconds,
        "fifo": config.fifo,
        "dry_run": config.dry_run,
        "supervisor": asdict(config.supervisor),
        "log": {"fd": ring.fd, "capacity": LOG_TICKS},
    }
    child = Child("robo.runtime.control", settings, (ring.fd,), "the control process")
    session = _Session(child, ring, recorder, on_event)
    try:
        with _forwarding(child) as interrupted:
            session.follow()
    finally:
        child.end(STOP_S)
        ring.close()
    ticks = session.close()
    if not session.ready and not interrupted:
        if recorder:
            shutil.rmtree(recorder.folder)
        raise RobotError(session.error)
    summary = {
        "task": task.name,
        "robot": info.uri,
        "seed": config.seed,
        "rate_hz": info.rate_hz,
        "dry_run": config.dry_run,
        "interrupted": bool(interrupted),
        "stopped": session.error,
        "fifo": session.ready.get("fifo"),
        "memory_locked": session.ready.get("locked"),
        "warm_ms": session.ready.get("warm_ms"),
        "steal": session.steal,
        **timing(ticks),
        "late_chunks": sum(said["late_chunks"] for said in session.episodes),
        "events": session.events,
        "episodes": [_episode(task, d, ticks, said) for d, said in _pair(drawn, session.episodes)],
        "log": str(folder) if recorder else None,
    }
    judged = [e for e in summary["episodes"] if "rho" in e]
    summary |= {
        "satisfied": sum(e["satisfied"] for e in judged),
        "safety_violations": sum(e["unsafe_ticks"] > 0 for e in judged),
        "rho_min": min((e["rho"] for e in judged), default=None),
    }
    if recorder:
        write_json(recorder.folder / SUMMARY, summary)
    return summary


def timing(ticks: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Numbers of ticks, lateness [ms], planning times [ms] and who was in control, from the rows of a log."""
    late = ticks["late_s"][np.isfinite(ticks["late_s"])] * 1e3
    work = ticks["work_s"][np.isfinite(ticks["work_s"])] * 1e3
    plan = ticks["plan_ms"][np.isfinite(ticks["plan_ms"])]
    played = ticks["controller"][ticks["time_s"] > -1e-6].astype(int)
    edges = [0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0]
    counts = np.histogram(late, [-np.inf, *edges, np.inf])[0]
    names = [f"<{edge:g}" for edge in edges] + [f">={edges[-1]:g}"]
    return {
        "ticks": len(ticks["tick"]),
        "missed": int(np.nansum(ticks["missed"])),
        "limited": int(np.nansum(ticks["limited"])),
        "late_ms_p50": _percentile(late, 50),
        "late_ms_p99": _percentile(late, 99),
        "late_ms_max": _percentile(late, 100),
        "late_ms_histogram": dict(zip(names, counts.tolist(), strict=True)),
        "work_ms_p99": _percentile(work, 99),
        "plan_ms_p50": _percentile(plan, 50),
        "plan_ms_p99": _percentile(plan, 99),
        "share": {name: float(np.mean(played == i)) if len(played) else 0.0 for i, name in enumerate(CONTROLLERS)},
    }


def _percentile(values: np.ndarray, q: float) -> float | None:
    return float(np.percentile(values, q)) if len(values) else None


def _scene_xml(task: ArmTask) -> str:
    from sim.scene import compose

    spec = compose(task)
    spec.compile()
    return spec.to_xml()


def _pair(drawn: Any, said: list[dict[str, Any]]) -> Iterator[tuple[Drawn | None, dict[str, Any]]]:
    for answer in said:
        yield (drawn[answer["episode"]] if drawn else None), answer


def _episode(
    task: ArmTask, drawn: Drawn | None, ticks: Mapping[str, np.ndarray], said: dict[str, Any]
) -> dict[str, Any]:
    """What is known of an episode: the monitor's bounds, and the truth where there is one."""
    if drawn is None or not said["whole"]:
        return said
    rows = ticks["episode"] == said["episode"]
    return said | judge(task, drawn, {name: value[rows] for name, value in ticks.items()})


class _Session:
    """What the control process says and logs, taken in until it ends."""

    def __init__(self, child: Child, ring: Ring, recorder: Recorder | None, on_event: Callable[[str], None]) -> None:
        self.child, self.ring, self.recorder, self.on_event = child, ring, recorder, on_event
        self.ready: dict[str, Any] = {}
        self.steal: float | None = None
        self.error = ""
        self.events: list[dict[str, Any]] = []
        self.episodes: list[dict[str, Any]] = []
        self._rows: list[np.ndarray] = []

    def follow(self) -> None:
        started = time.monotonic()
        while True:
            alive = self.child.alive  # asked first: what it said before it ended still counts
            self._take()
            if not alive:
                break
            if not self.ready and time.monotonic() - started > START_S:
                self.error = f"the control process was not ready within {START_S:g} s"
                break
            time.sleep(0.1)
        if not self.error and (self.child.exit_code or not self.ready):
            self.error = f"the control process ended with status {self.child.exit_code}"

    def _take(self) -> None:
        rows = self.ring.drain()
        if self.recorder:
            self.recorder.append(rows)
        else:
            self._rows.append(rows)
        for answer in self.child.said():
            if "error" in answer:
                self.error = answer["error"]
            elif "ready" in answer:
                self.ready = answer
            elif "steal" in answer:
                self.steal = answer["steal"]
            elif "event" in answer:
                self.events.append(answer)
                if self.recorder:
                    self.recorder.event(answer)
                self.on_event(f"episode {answer['episode']}, {answer['time_s']:.2f} s: {answer['event']}")
            elif "whole" in answer:
                self.episodes.append(answer)

    def close(self) -> Mapping[str, np.ndarray]:
        """The ticks, name → (N, ...)."""
        if self.recorder:
            return self.recorder.close()
        rows = np.concatenate([*self._rows, np.zeros(0, self.ring.dtype)])
        return {name: rows[name] for name in rows.dtype.names or ()}


@contextmanager
def _forwarding(child: Child) -> Iterator[list[int]]:
    """Pass Ctrl-C and SIGTERM on to the control process, which stops the arm; yields what was passed on."""
    passed: list[int] = []

    def forward(number: int, frame: object) -> None:
        passed.append(number)
        child.signal(signal.SIGTERM)

    if threading.current_thread() is not threading.main_thread():
        yield passed  # only the main thread may take signals; another program's threads keep theirs
        return
    before = {number: signal.signal(number, forward) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield passed
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
