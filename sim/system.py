"""A system with known dynamics as a Gymnasium environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces

from robo.core.errors import ConfigError, NonFiniteError, RoboError, UnknownNameError
from tasks.registry import load_task
from tasks.system import system_task
from tasks.task import Task


class SystemEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One system doing one task.

    Action: (m,) float64, the control of the coming step; cut to its bounds. Observation: ``state`` (n,) and
    ``time_s`` (1,). Reward: hard robustness of the specification over the executed trace at the last step, before
    that 0. Never terminated; truncated after ``task.steps`` steps.

    Info: ``signals`` (name → value, truth), ``predicates`` (text → robustness at this sample), ``control`` (m,) as
    applied; after a reset ``instance`` and ``mismatch`` too.

    Args:
        task: A task of a system, its registered name, or the path of a task file.
        mismatch: Every component of the control acts 1 - x .. 1 + x times as strongly as the model says; drawn anew
            every episode.
        delay_s: Controls act up to this much later, at most a control step; drawn anew every episode. For that share of
            a step the control before still acts.

    Raises:
        RoboError: Unknown task, or one of another kind; a mismatch outside 0 .. 1, a delay longer than a step.
    """

    metadata = {"render_modes": []}

    def __init__(self, task: Task | str | Path, *, mismatch: float = 0.0, delay_s: float = 0.0) -> None:
        self.task = system_task(task if isinstance(task, Task) else load_task(task))
        if not 0.0 <= mismatch < 1.0:
            raise ConfigError(f"mismatch must lie in [0, 1), not {mismatch}; 0.1 means ±10 %")
        if not 0.0 <= delay_s <= self.task.ctrl_dt_s:
            raise ConfigError(f"delay must lie between 0 and a control step ({self.task.ctrl_dt_s:g} s), not {delay_s}")
        self.mismatch, self.delay_s = mismatch, delay_s
        n = self.task.state_size
        self.observation_space = spaces.Dict(
            {name: spaces.Box(-np.inf, np.inf, (size,), np.float64) for name, size in (("state", n), ("time_s", 1))}
        )
        self.action_space = spaces.Box(
            np.array(self.task.control_low), np.array(self.task.control_high), dtype=np.float64
        )
        self._predicates = {str(p): p for p in self.task.formula.predicates}
        self._state = np.zeros(0)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Makes everything of the episode repeatable.
            options: ``{"instance": ...}`` starts from a given instance instead of a drawn one.

        Raises:
            UnknownNameError: An option that does not exist.
        """
        super().reset(seed=seed)
        for name in options or {}:
            if name != "instance":
                raise UnknownNameError("reset option", name, ["instance"])
        draw, differ = (np.random.default_rng(s) for s in self.np_random.integers(2**63, size=2))
        given = (options or {}).get("instance")
        instance = self.task.sample(draw) if given is None else {k: np.array(v, float) for k, v in given.items()}
        self._strength = differ.uniform(1.0 - self.mismatch, 1.0 + self.mismatch, self.task.control_size)
        self._late = differ.uniform(0.0, self.delay_s) / self.task.ctrl_dt_s
        self._before = self.task.clip(np.zeros(self.task.control_size))
        self._state = np.array(instance["state"], float)
        self._trace = [self._signals()]
        self._step = 0
        info = self._info(np.zeros(self.task.control_size))
        return self._observe(), info | {"instance": instance, "mismatch": self._drawn()}

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One step.

        Raises:
            RoboError: The action has another shape; `reset` was not called.
            NonFiniteError: NaN or infinity in the action: nothing is executed.
        """
        if not len(self._state):
            raise RoboError("step() before reset(); call reset() first")
        control = np.asarray(action, float)
        if control.shape != (self.task.control_size,):
            raise RoboError(f"action has shape {control.shape}, expected ({self.task.control_size},)")
        if not np.isfinite(control).all():
            raise NonFiniteError(f"action holds NaN or infinity: {control}; nothing was executed")
        control = self.task.clip(control)
        acting = self._late * self._before + (1.0 - self._late) * control
        self._state, self._before = self.task.advance(self._state, acting * self._strength), control
        if not np.isfinite(self._state).all():
            raise NonFiniteError(f"the state of {self.task.name} blew up at step {self._step}; reset() to go on")
        self._step += 1
        self._trace.append(self._signals())
        truncated, reward = self._step >= self.task.steps, 0.0
        if self._step == self.task.steps:
            trace = {name: np.array([s[name] for s in self._trace]) for name in self._trace[0]}
            reward = float(self.task.formula.rho(trace, self.task.ctrl_dt_s)[0])
        return self._observe(), reward, False, truncated, self._info(control)

    def _drawn(self) -> dict[str, np.ndarray]:
        return {"strength": self._strength.copy(), "delay_s": np.array([self._late * self.task.ctrl_dt_s])}

    def _signals(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.task.measure(self._state).items()}

    def _observe(self) -> dict[str, np.ndarray]:
        return {"state": self._state.copy(), "time_s": np.array([self._step * self.task.ctrl_dt_s])}

    def _info(self, control: np.ndarray) -> dict[str, Any]:
        signals = dict(self._trace[-1])
        predicates = {text: float(p.value(signals)) for text, p in self._predicates.items()}
        return {"signals": signals, "predicates": predicates, "control": control}
