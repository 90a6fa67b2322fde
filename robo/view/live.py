"""A task played live by a policy, against a clock; `robo.view.page` shows it in the browser."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import singledispatch
from pathlib import Path
from typing import Any

import numpy as np

from policies.policy import Policy
from robo.core.errors import ConfigError, RoboError, TaskError, UnknownNameError
from robo.data.collect import actor
from robo.evaluate.rollout import check_fits, describe
from sim.open import make
from sim.pictures import Pictures
from tasks.arm import ArmTask, SceneTask
from tasks.stl.monitor import Interval
from tasks.tabletop.base import TabletopTask
from tasks.task import Task

SPEEDS = (0.1, 4.0)
"""Slowest and fastest, in multiples of real time; infinity is as fast as possible."""
LAG_S = 0.5
"""What a session is behind its clock is caught up to this much; the rest is lost."""
FRAME_S = 0.05
"""A session lets others have their turn so often."""


@singledispatch
def scripted(task: Task) -> tuple[str, ...]:
    """Policies of a task that need no training, the first by default.

    Raises:
        TaskError: The task has no scene.
    """
    raise TaskError(
        f"task {task.name} has no scene to look at live, it is a {type(task).__name__}; "
        "train a policy and look at its rollout: robo-train TASK, then robo-view RUN"
    )


@scripted.register
def _scripted_arm(task: ArmTask) -> tuple[str, ...]:
    return ()


@scripted.register
def _scripted_tabletop(task: TabletopTask) -> tuple[str, ...]:
    return ("expert", "random", "zero")


@dataclass(frozen=True, kw_only=True)
class Moment:
    """How an episode stands after a control step.

    Attributes:
        step, time_s: Control steps since the start, and their time [s].
        instruction: What is to be done, in words.
        reward: Of the last step.
        stage: Stages reached so far.
        signals: Name → value.
        success: Whether the episode would count as a success if it ended now.
        robustness: What the robustness of the specification can still become.
        violations: One line for every safety violation so far.
        ended: Whether the episode is over.
    """

    step: int
    time_s: float
    instruction: str
    reward: float
    stage: int
    signals: dict[str, float]
    success: bool
    robustness: Interval
    violations: tuple[str, ...]
    ended: bool


class Session:
    """Episodes of a task, played by a policy against a clock. Paused at first; close it. For one thread.

    Args:
        task: A task of an arm in a scene.
        policy: ``expert``, ``random``, ``zero`` where the task has them, or a run folder; None: the first there is.
        seed: Seed of the first episode, of environment and policy, 0 or more.
        speed: In multiples of real time, within `SPEEDS`, or infinity: as fast as possible.
        clock: Seconds that pass.

    Attributes:
        policies: What can be chosen from.
        env: The environment, `sim.env.TaskEnv` or `sim.tabletop.TabletopEnv`.
        policy, seed, speed, running: As they are now.
        moment: How the episode stands.

    Raises:
        RoboError: The task has no scene, there is no such policy or it does not fit, or a number is out of range.
    """

    def __init__(
        self,
        task: Task,
        policy: str | None = None,
        seed: int = 0,
        *,
        speed: float = 1.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policies = scripted(task)
        if policy is None and not self.policies:
            raise ConfigError(
                f"task {task.name} has no policy that needs no training; name a run of it: "
                f"robo-view {task.name} --policy runs/{task.name}/last (robo-train {task.name} makes one)"
            )
        self._clock, self._due_s = clock, 0.0
        self.running, self.seed, self.policy = False, seed, policy or self.policies[0]
        if self.policy not in self.policies and ("/" in self.policy or Path(self.policy).is_dir()):
            self.policies = (*self.policies, self.policy)
        self.set_speed(speed)
        self.env: Any = make(task)
        self.task: SceneTask = self.env.task
        self._eyes = Pictures(self.env.model, (), (), 2)
        try:
            self._take(self._load(self.policy))
            self.reset()
        except BaseException:
            self.close()
            raise

    def reset(self, seed: int | None = None) -> None:
        """Begin an episode: of a seed, or of the same one again. It runs on if it ran.

        Raises:
            ConfigError: The seed is negative.
        """
        seed = self.seed if seed is None else seed
        if seed < 0:
            raise ConfigError(f"--seed must be 0 or more, not {seed}")
        obs, self._info = self.env.reset(seed=seed)
        self._obs = obs | self._eyes.take(self.env.data)
        self._actor.reset(self._obs, seed)
        self.seed = seed
        self._instruction = self._info.get("instruction", self.task.instruction)
        self._monitor = self.task.formula.monitor(self.task.ctrl_dt_s)
        self._trace: list[dict[str, float]] = []
        self._sample(0.0, False)
        self._pace()

    def choose(self, policy: str) -> None:
        """Have another policy act, from the start of the episode.

        Raises:
            RoboError: There is no such policy, or it does not fit; the one before acts on.
        """
        self._take(self._load(policy))
        self.policy = policy
        self.reset()

    def run(self) -> None:
        """Let time pass; after the end of an episode it begins again."""
        if self.moment.ended:
            self.reset()
        self.running = True
        self._pace()

    def pause(self) -> None:
        """Stop time."""
        self.running = False

    def step(self) -> None:
        """Pause and take one control step; none after the end of an episode.

        Raises:
            RoboError: Policy or environment refuse.
        """
        self.pause()
        if not self.moment.ended:
            self._step()

    def set_speed(self, speed: float) -> None:
        """Let time pass at another speed.

        Raises:
            ConfigError: It is none.
        """
        slowest, fastest = SPEEDS
        if not (slowest <= speed <= fastest or speed == math.inf):
            raise ConfigError(f"--speed must lie in {slowest:g} .. {fastest:g}, or be max, not {speed:g}")
        self.speed = speed
        self._pace()

    def advance(self) -> bool:
        """Take the control steps that are due, for `FRAME_S` at most; whether there were any.

        Raises:
            RoboError: Policy or environment refuse; time stands still then.
        """
        began = self._clock()
        self._due_s = max(self._due_s, began - LAG_S)
        stepped = False
        while self.running and self._due_s <= began and (not stepped or self._clock() < began + FRAME_S):
            try:
                self._step()
            except RoboError:
                self.pause()
                raise
            self._due_s += self._period_s
            stepped = True
        return stepped

    def wait_s(self) -> float:
        """How long until there is something to do; infinity while time stands still."""
        return max(self._due_s - self._clock(), 0.0) if self.running else math.inf

    def close(self) -> None:
        """Free what it holds."""
        self._eyes.close()
        self.env.close()

    # ---- within ----------------------------------------------------------------

    @property
    def _period_s(self) -> float:
        return self.task.ctrl_dt_s / self.speed

    def _pace(self) -> None:
        """The next step is due a period from now."""
        if self.running:
            self._due_s = self._clock() + self._period_s

    def _load(self, name: str) -> Policy:
        if name not in self.policies:
            hint = f"a run folder will do too, such as runs/{self.task.name}/last"
            raise UnknownNameError("policy", name, self.policies, hint)
        policy = actor(name, self.task)  # type: ignore[arg-type]
        check_fits(self.task, policy)
        return policy

    def _take(self, actor: Policy) -> None:
        """Have a policy act, with the pictures that it sees."""
        self._eyes.close()  # before another is opened, see `sim.render.Renderer`
        self._eyes = Pictures(self.env.model, actor.info.views, ("rgb",), actor.info.size)
        self._actor = actor

    def _step(self) -> None:
        chunk = self._actor.act(self._obs)
        obs, reward, terminated, truncated, self._info = self.env.step(self.env.action(chunk))
        self._obs = obs | self._eyes.take(self.env.data)
        self._sample(float(reward), terminated or truncated)

    def _sample(self, reward: float, ended: bool) -> None:
        info = self._info
        self._trace.append(info["signals"])
        trace = {name: np.array([row[name] for row in self._trace]) for name in info["signals"]}
        self.moment = Moment(
            step=len(self._trace) - 1,
            time_s=info["time_s"],
            instruction=self._instruction,
            reward=reward,
            stage=info["stage"],
            signals=info["signals"],
            success=self.task.success(trace),
            robustness=self._monitor.update(info["signals"]),
            violations=describe(info["violations"]),
            ended=ended,
        )
        self.running = self.running and not ended
