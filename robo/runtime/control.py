"""The control process: one loop at the arm's rate, on absolute deadlines. Never torch, never mujoco.

Each tick: read → stale and tracking checks → reference of the chunk in force → limits → send →
log; every ``ctrl_dt_s`` also: observation out to the inference process, its newest chunk in, the
specification's monitor. Whatever goes wrong, the way out is the same: the certified backup plays
out if the arm still follows, then the driver stops the arm (brake, hold, ramp down).

Run by `robo.runtime.deploy` as ``python -m robo.runtime.control``.
"""

from __future__ import annotations

import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from hardware.driver import Driver, JointCommand, JointState
from hardware.drivers import open_driver
from hardware.plant import PlantScene
from robo.core.errors import ConfigError, NonFiniteError, RoboError, RobotError
from robo.core.ipc import Bell, Child, Parent, Ring, Slot, serve
from robo.core.realtime import cpu_times, go_realtime, sleep_until, steal_fraction
from robo.runtime.protocol import (
    CONTROLLERS,
    Factory,
    chunk_layout,
    question_layout,
    tick_layout,
    unpack_chunk,
)
from robo.runtime.supervisor import Supervisor, SupervisorConfig, Watch, check_sources
from tasks.arm import ArmTask

PRIORITY = 60
"""``SCHED_FIFO`` priority: above the simulated plant, below the kernel's own threads."""
SPIN_S = 50e-6
"""Spun before each deadline, half a percent of a period at 100 Hz."""
LONGEST_STEP_S = 0.05
"""After missed ticks a command may catch up with its reference over at most this time [s]."""
INFERENCE_START_S = 120.0
SILENCE_S = 5.0
"""Inference that is silent for longer is taken for dead."""
SETTLE_S = 0.3
"""From the rewind of the world to the start of its clock: the policy is reset meanwhile."""
REWIND_S = 2.0
"""Longest time a rewind may take."""
WARM_UP = 5
"""Samples the monitor is fed before the arm moves: the first ones compile and cache."""
ALARM_CLEAR = 3
"""Samples without a safety alarm before the policy gets the arm back."""


@dataclass
class _Stop:
    """Why the loop is to end; set by a signal handler, read by the loop.

    Attributes:
        reason: In words; empty to go on.
        at_once: Asked for a second time: do not wait for the certified way to rest.
    """

    reason: str = ""
    at_once: bool = False

    def __call__(self, number: int, frame: object) -> None:
        self.at_once = bool(self.reason)
        self.reason = self.reason or "stopped on request"


class Inference:
    """The inference process, seen from the control process.

    Args:
        task: The task.
        config: Factories ``task`` and ``policy`` as JSON, and ``ahead``: whether it may ask for more of the processor.
        obs: A first observation to warm up with.
        seed: Seed of the warm-up.
    """

    def __init__(self, task: ArmTask, config: dict[str, Any], obs: dict[str, np.ndarray], seed: int) -> None:
        self.questions = Slot(question_layout(task))
        self.chunks = Slot(chunk_layout(task.robot.dof))
        self.bell = Bell()
        self._seen = 0
        fds = {"questions": self.questions.fd, "chunks": self.chunks.fd, "bell": self.bell.fd}
        plain = {name: value.tolist() for name, value in obs.items()}
        self.child = Child(
            "robo.runtime.inference",
            config | {"fds": fds, "obs": plain, "seed": seed},
            tuple(fds.values()),
            "the inference process",
            RobotError,
        )

    def wait_ready(self, wish_to_stop: Callable[[], str]) -> list[float]:
        """Wait for the policy to be loaded and warm; returns the times of its first calls [ms].

        Raises:
            RoboError: It could not be loaded, or does not fit the task; or the wait was cut short.
        """
        deadline = time.monotonic() + INFERENCE_START_S
        while (answer := self.child.poll_answer()) is None:
            if reason := wish_to_stop():
                raise RobotError(reason)
            if time.monotonic() > deadline:
                raise RobotError(f"the policy was not ready within {INFERENCE_START_S:g} s")
            time.sleep(0.02)
        return answer["warm_ms"]

    def ask(self, obs: dict[str, np.ndarray], generation: int, seed: int, act: bool) -> None:
        """Send an observation; never waits."""
        record: dict[str, Any] = {f"obs/{name}": value for name, value in obs.items()}
        self.questions.write(record | {"generation": generation, "seed": seed, "act": act})
        self.bell.ring()

    def newest(self) -> np.void | None:
        """A chunk that has not been looked at yet."""
        if self.chunks.count == self._seen:
            return None
        newest = self.chunks.read()
        if newest is None:
            return None
        self._seen = newest[0]
        return newest[1]

    @property
    def alive(self) -> bool:
        """Whether the process still runs."""
        return self.child.alive

    def last_words(self) -> str:
        """Why it ended, once it has."""
        try:
            self.child.poll_answer()
        except RoboError as error:
            return str(error)
        return ""

    def close(self) -> None:
        """End it and free what was shared."""
        self.child.end(timeout_s=0.5)
        for shared in (self.questions, self.chunks, self.bell):
            shared.close()


class Control:
    """The loop. `run` returns when all episodes are done, or raises after the arm was stopped.

    Args:
        config: What `robo.runtime.deploy` sends.
        parent: Told about episodes and events.
    """

    def __init__(self, config: dict[str, Any], parent: Parent) -> None:
        self.config, self.parent = config, parent
        self.task: ArmTask = Factory(**config["task"]).make()
        scene = PlantScene.from_json(config["scene"]) if config["scene"] else None
        self.driver: Driver = open_driver(config["robot"], scene, robot=self.task.robot_name)
        info = self.driver.info
        check_sources(self.task, info)
        self.dt_s = 1.0 / info.rate_hz
        self.per_call = round(self.task.ctrl_dt_s / self.dt_s)
        if self.per_call < 1 or abs(self.per_call * self.dt_s - self.task.ctrl_dt_s) > 1e-9:
            raise ConfigError(
                f"ctrl_dt_s {self.task.ctrl_dt_s:g} of task {self.task.name} is no multiple of the "
                f"arm's period {self.dt_s:g} s; choose another ctrl_dt_s"
            )
        self.supervisor = Supervisor(self.task, info, SupervisorConfig(**config["supervisor"]))
        self.watch = Watch(self.task)
        self.log = Ring(tick_layout(self.task), config["log"]["capacity"], config["log"]["fd"])
        self.seeds: list[int] = config["seeds"]
        self.stop = _Stop()
        self.generation = 0
        self.tick = 0
        self.due_s = 0.0

    # ---- the whole -----------------------------------------------------------

    def run(self) -> None:
        """Connect, warm up, loop, stop. Every way out stops the arm and leaves no process behind.

        Raises:
            RoboError: What ended the loop early; the arm was stopped.
        """
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self.stop)
        inference = None
        try:
            self.driver.connect()
            obs = self._observe(self.driver.read(), 0.0)
            inference = Inference(self.task, self.config["inference"], obs, self.seeds[0])
            warm_ms = inference.wait_ready(self._wish_to_stop)
            self._check_imports()
            for _ in range(WARM_UP):
                self.watch.update(obs)
            scheduling = go_realtime(PRIORITY, self.config["fifo"])
            self.parent.tell(ready=True, warm_ms=warm_ms, fifo=scheduling.fifo, locked=scheduling.locked)
            if not self.config["dry_run"]:
                self._loop(inference)
        except BaseException as error:
            self._shut_down(inference, error)
            raise
        self._shut_down(inference, None)

    def _shut_down(self, inference: Inference | None, cause: BaseException | None) -> None:
        """Stop the arm, then let go of everything.

        Raises:
            RobotError: The arm did not confirm the stop; names what came before, too.
        """
        try:
            self.driver.stop()
        except RobotError as error:
            before = f"{cause}; and then: " if cause else ""
            raise RobotError(f"{before}the stop was not confirmed: {error}") from cause
        finally:
            self.driver.disconnect()
            if inference:
                inference.close()

    def _loop(self, inference: Inference) -> None:
        """All episodes, tick after tick without a gap."""
        before = cpu_times()
        first_s = self.due_s = time.monotonic() + self.dt_s
        try:
            for index, seed in enumerate(self.seeds):
                episode = _Episode(index=index, seed=seed, start_s=self.due_s + SETTLE_S)
                self._settle(inference, episode)
                self._play(inference, episode)
                if self.due_s - first_s >= self.config["seconds"]:
                    break
        finally:
            self.parent.tell(steal=steal_fraction(before, cpu_times()))

    def _wish_to_stop(self) -> str:
        """Why the loop is to end now; empty to go on."""
        if not self.stop.reason and self.parent.gone():
            self.stop.reason = "the process that started the deployment has ended"
        return self.stop.reason

    def _check_imports(self) -> None:
        foreign = sorted({"torch", "mujoco"} & set(sys.modules))
        if foreign:
            raise RobotError(
                f"the control process has loaded {' and '.join(foreign)}, which costs it its deadlines; "
                f"import it in those functions of task {self.task.name} that need it"
            )

    # ---- an episode --------------------------------------------------------------

    def _settle(self, inference: Inference, episode: _Episode) -> None:
        """Hold while the world is put back to its start and the policy is reset."""
        driver, supervisor = self.driver, self.supervisor
        if driver.info.simulated:
            driver.rewind(episode.index, episode.start_s)
        given_up_s = time.monotonic() + REWIND_S
        while driver.info.simulated and driver.read().episode != episode.index:
            if time.monotonic() > given_up_s:
                raise RobotError(f"the simulated world was not put back to its start within {REWIND_S:g} s")
            time.sleep(0.1 * self.dt_s)
        state = driver.read()
        supervisor.start(state.joint_pos)
        supervisor.first_frame(state)
        self.watch.start()
        self._reset_policy(inference, episode, self._observe(state, 0.0), act=False)
        while self.due_s < episode.start_s - 0.5 * self.dt_s:
            self._tick(inference, episode)

    def _play(self, inference: Inference, episode: _Episode) -> None:
        """Ticks of an episode to its end, then its backup until the arm stands still.

        Raises:
            RobotError: The episode was cut short, by whom.
        """
        episode.open = True
        episode.heard_s = time.monotonic()
        while episode.open or not self.supervisor.at_rest(self.due_s - episode.start_s):
            if not episode.cut:
                self._cut(episode, self._inference_lost(inference, episode))
            self._tick(inference, episode)
        self.parent.tell(
            episode=episode.index,
            seed=episode.seed,
            whole=episode.calls > self.task.steps,
            rho_low=_plain(episode.rho_low),
            rho_high=_plain(episode.rho_high),
            late_chunks=episode.late_chunks,
        )
        if episode.cut:
            raise RobotError(episode.cut)

    def _inference_lost(self, inference: Inference, episode: _Episode) -> str:
        if not inference.alive:
            return inference.last_words() or "the inference process has ended"
        if episode.open and time.monotonic() - episode.heard_s > SILENCE_S:
            return f"the inference process has said nothing for {SILENCE_S:g} s"
        return ""

    def _cut(self, episode: _Episode, reason: str) -> None:
        """No more chunks for this episode: the backup that is held plays out."""
        if reason:
            episode.cut, episode.open = reason, False
            self._event(episode, reason)

    # ---- a tick ------------------------------------------------------------------

    def _tick(self, inference: Inference, episode: _Episode) -> None:
        """Wait for the deadline, then read, think, send, log."""
        now = sleep_until(self.due_s, SPIN_S)
        missed = int((now - self.due_s) / self.dt_s)
        self.due_s += missed * self.dt_s
        late_s = now - self.due_s
        self.supervisor.check_rate(self.due_s)
        done = self._periods(episode)
        time_s = done * self.dt_s
        if reason := self._wish_to_stop():
            self._come_to_rest(episode, reason, time_s)
        state = self.driver.read()
        self.supervisor.check_state(state, time.monotonic())
        called = episode.calls * self.per_call <= done and done >= 0 and episode.calls <= self.task.steps
        self._take_chunk(inference, episode, time_s)
        obs: dict[str, np.ndarray] = {}
        if called:
            obs = self._observe(state, done // self.per_call * self.task.ctrl_dt_s)
            self._call(inference, episode, obs, time_s)
        asked_pos, asked_vel, controller = self.supervisor.reference(time_s)
        if episode.lost and not episode.told and controller in ("backup", "hold"):
            episode.told = True
            self._event(episode, f"{episode.lost}; the backup took over")
        row = self._send(episode, state, asked_pos, asked_vel, controller, missed)
        row |= {"late_s": late_s, "time_s": time_s, "plan_ms": episode.plan_ms}
        episode.plan_ms = np.nan
        if called:
            row |= self._watch(episode, obs, done // self.per_call)
        row["work_s"] = time.monotonic() - now
        self.log.append(row)
        self.due_s += self.dt_s

    def _send(
        self,
        episode: _Episode,
        state: JointState,
        asked_pos: np.ndarray,
        asked_vel: np.ndarray,
        controller: str,
        missed: int = 0,
    ) -> dict[str, Any]:
        """A reference through the limits to the arm; returns the row of the log so far."""
        elapsed_s = min((missed + 1) * self.dt_s, LONGEST_STEP_S)
        pos, vel, limited = self.supervisor.shield.apply(asked_pos, asked_vel, elapsed_s)
        sent = self.driver.send(JointCommand(time_s=self.due_s, joint_pos=pos, joint_vel=vel))
        self.supervisor.sent(sent.time_s, sent.joint_pos, sent.joint_vel)
        self.tick += 1
        chunk = self.supervisor.chunk
        return {
            "tick": self.tick,
            "due_s": self.due_s,
            "state_s": state.time_s,
            "missed": missed,
            "episode": episode.index,
            "controller": CONTROLLERS.index(controller),
            "limited": limited,
            "chunk_start_s": chunk.start_s if chunk else np.nan,
            "joint_pos": state.joint_pos,
            "joint_vel": state.joint_vel,
            "asked_pos": asked_pos,
            "asked_vel": asked_vel,
            "sent_pos": sent.joint_pos,
            "sent_vel": sent.joint_vel,
        } | {f"obs/{name}": state.extra[name] for name in self.task.observation}

    def _periods(self, episode: _Episode) -> int:
        """Periods of the arm since the start of the episode: a whole number, for the clock's own
        digits run out after days of uptime."""
        return round((self.due_s - episode.start_s) / self.dt_s)

    def _come_to_rest(self, episode: _Episode, reason: str, time_s: float) -> None:
        """The shortest certified way to rest, tick by tick; the driver does the rest of the stop.

        Where there is none, or when asked for a second time, brake along the limits at once.

        Raises:
            RobotError: The reason, always.
        """
        self._event(episode, reason)
        supervisor, shield = self.supervisor, self.supervisor.shield
        certified = supervisor.leave(time_s)
        while (certified and not supervisor.at_rest(time_s)) or shield.vel.any():
            state = self.driver.read()
            supervisor.check_state(state, time.monotonic())
            if certified and self.stop.at_once:
                certified = False
                self._event(episode, f"{reason}, a second time: braking at once")
            pos, vel = supervisor.reference(time_s)[:2] if certified else shield.brake()
            row = self._send(episode, state, pos, vel, "stop")
            self.log.append(row | {"time_s": time_s})
            self.due_s += self.dt_s
            sleep_until(self.due_s)
            time_s = self._periods(episode) * self.dt_s
        raise RobotError(reason)

    # ---- inference ---------------------------------------------------------------

    def _take_chunk(self, inference: Inference, episode: _Episode, time_s: float) -> None:
        """Look at what inference made; what does not fit is as good as not there."""
        record = inference.newest()
        if record is None:
            return
        episode.heard_s = time.monotonic()
        if not episode.open or int(record["generation"]) != self.generation:
            return
        episode.answered = True
        episode.plan_ms = float(record["plan_ms"])
        if episode.clear < ALARM_CLEAR:
            return
        try:
            refused = self.supervisor.offer(unpack_chunk(record), time_s)
        except NonFiniteError as error:
            refused = str(error)
        if refused:
            episode.lost = episode.lost or f"a chunk {refused}"
        else:
            episode.covered_s = float(record["start_s"])
            episode.lost, episode.told = "", False

    def _call(self, inference: Inference, episode: _Episode, obs: dict[str, np.ndarray], time_s: float) -> None:
        """Ask the policy for the reference from the next call on.

        A policy plans from its own reference. When a chunk came too late or did not fit, the two
        have parted; chunks that meet the reference in force are taken all the same. If none does until the
        backup has come to rest, the policy starts again from there.
        """
        call = round(float(obs["time_s"][0]) / self.task.ctrl_dt_s)
        if call >= self.task.steps:
            episode.open = False
        if not episode.open:
            return
        if call > 0 and episode.covered_s < time_s - 0.5 * self.dt_s:
            episode.lost = episode.lost or "no chunk came in time"
            episode.late_chunks += 1
            # Not before it has answered: a policy that is slow to start would be started for ever.
            if episode.answered and episode.clear >= ALARM_CLEAR and self.supervisor.at_rest(time_s):
                self._reset_policy(inference, episode, obs, act=True)
                return
        inference.ask(obs, self.generation, episode.seed, act=True)

    def _reset_policy(self, inference: Inference, episode: _Episode, obs: dict[str, np.ndarray], act: bool) -> None:
        """Tell the policy that the arm is at rest where its reference is, and to start (again) from there."""
        self.generation += 1
        episode.answered = False
        shield = self.supervisor.shield
        at_rest = {"joint_pos": shield.pos, "joint_vel": np.zeros_like(shield.pos)}
        inference.ask(obs | at_rest, self.generation, episode.seed, act)

    # ---- what is seen --------------------------------------------------------------

    def _watch(self, episode: _Episode, obs: dict[str, np.ndarray], call: int) -> dict[str, Any]:
        """Feed the monitor; a safety alarm hands over to the backup."""
        signals, safety = {}, np.inf
        while episode.calls <= call:  # more than once only after a stall of whole calls
            signals, safety, episode.rho_low, episode.rho_high = self.watch.update(obs)
            episode.calls += 1
        episode.clear = episode.clear + 1 if safety > 0 else 0
        if safety <= 0 and episode.open:
            self.supervisor.drop_pending()
            episode.lost = episode.lost or f"the measured safety margin is gone ({safety:.4f})"
        return {f"signal/{name}": value for name, value in signals.items()} | {
            "safety_rho": safety,
            "rho_low": episode.rho_low,
            "rho_high": episode.rho_high,
        }

    def _observe(self, state: JointState, time_s: float) -> dict[str, np.ndarray]:
        """The task's observation.

        Raises:
            RobotError: The arm and what is around it do not report all of it.
        """
        lacking = sorted(set(self.task.observation) - set(state.extra))
        if lacking:
            raise RobotError(
                f"task {self.task.name} observes {', '.join(lacking)}, which {self.driver.info.uri} does not report "
                f"(it reports: {', '.join(sorted(state.extra)) or 'joints only'})"
            )
        seen = {"joint_pos": state.joint_pos, "joint_vel": state.joint_vel, "time_s": np.array([time_s])}
        return seen | {name: state.extra[name] for name in self.task.observation}

    def _event(self, episode: _Episode, text: str) -> None:
        self.parent.tell(event=text, episode=episode.index, time_s=round(self.due_s - episode.start_s, 4))


@dataclass(kw_only=True)
class _Episode:
    """Where an episode stands.

    Attributes:
        index, seed: Which one.
        start_s: When its clock starts, on the monotonic clock [s].
        open: Whether chunks are asked for and taken.
        covered_s: Start of the newest chunk that was taken [s].
        lost: Why the policy has no say since then: a chunk was missing or did not fit; empty while it has.
        told: Whether that was told; it is when the backup takes over.
        late_chunks: Calls whose chunk was not there when it should have started.
        answered: Whether inference has answered since its last reset.
        calls: Calls of the policy that were due so far; samples of the monitor.
        clear: Samples since the last safety alarm.
        heard_s: When inference last answered, on the monotonic clock [s].
        plan_ms: Planning time of a chunk that came with this tick.
        cut: Why the episode ends early.
        rho_low, rho_high: Newest bounds of the monitor.
    """

    index: int
    seed: int
    start_s: float
    open: bool = False
    covered_s: float = -np.inf
    lost: str = ""
    told: bool = False
    late_chunks: int = 0
    answered: bool = False
    calls: int = 0
    clear: int = ALARM_CLEAR
    heard_s: float = 0.0
    plan_ms: float = np.nan
    cut: str = ""
    rho_low: float = -np.inf
    rho_high: float = np.inf


def _plain(value: float) -> float | None:
    """A number as JSON has it: None for infinity."""
    return float(value) if np.isfinite(value) else None


def _run(config: dict[str, Any], parent: Parent) -> None:
    Control(config, parent).run()


if __name__ == "__main__":
    sys.exit(serve(_run, dies_with_parent=False))
