"""Where a policy is tried: the world of a task, whatever kind of task it is, that turns a policy into a rollout."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import singledispatch
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.system import ControlPlan, SystemPolicy
from robo.core.errors import ConfigError, TaskError
from robo.data.rollout import CONTROLLERS, Rollout, SystemRollout, TabletopRollout
from robo.evaluate.rollout import FIRST_SEED, pad, roll_out, scored
from tasks.arm import ArmTask
from tasks.system import SystemTask
from tasks.tabletop.base import TabletopTask
from tasks.task import Task

if TYPE_CHECKING:
    from sim.tabletop import TabletopEnv


class World(ABC):
    """The world of one task."""

    @abstractmethod
    def roll_out(self, policy: Any, seed: int, name: str = "policy") -> Rollout:
        """Run one episode of a policy and score it on the executed trace.

        Args:
            policy: What acts; called once per control step.
            seed: Evaluation seed of the episode and of the policy in it, 0 or more; see `FIRST_SEED`.
            name: Name of the policy, for the record.

        Raises:
            RoboError: The policy does not fit the task, or policy or environment refuse.
        """

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""


@singledispatch
def open_world(task: Task, mismatch: float = 0.0, delay_s: float = 0.0) -> World:
    """The world of a task.

    Args:
        task: The task; its class decides.
        mismatch: Relative bound by which the world differs from the model the policy plans with.
        delay_s: What is commanded acts up to this much later [s].

    Raises:
        TaskError: No world for this kind of task.
        ConfigError: The mismatch or the delay is out of range.
    """
    raise TaskError(f"no world for task {task.name}, a {type(task).__name__}")


class ArmWorld(World):
    """An arm in MuJoCo; mismatch: masses, servo gains and payload."""

    def __init__(self, task: ArmTask, mismatch: float = 0.0, delay_s: float = 0.0) -> None:
        from sim.env import EnvOptions  # lazily: mujoco
        from sim.open import make

        self.env = make(task, options=EnvOptions.mismatch(mismatch, delay_s))

    def roll_out(self, policy: Any, seed: int, name: str = "policy") -> Rollout:
        """See `World`."""
        return roll_out(self.env, policy, seed, name=name)

    def close(self) -> None:
        """See `World`."""
        self.env.close()


class TabletopWorld(World):
    """An arm with a gripper among things it moves, in MuJoCo; mismatch: masses, friction and servo gains."""

    def __init__(self, task: TabletopTask, mismatch: float = 0.0, delay_s: float = 0.0) -> None:
        from sim.randomise import Randomisation  # lazily: mujoco

        self.task, self.randomise = task, Randomisation.mismatch(mismatch, delay_s)
        self._env: TabletopEnv | None = None

    def _open(self, views: tuple[str, ...], size: int) -> TabletopEnv:
        """The environment with the pictures that a policy sees."""
        from sim.tabletop import TabletopEnv

        if self._env is None or (self._env.pictures.cameras, self._env.pictures.size) != (views, (size, size)):
            self.close()
            self._env = TabletopEnv(self.task, randomise=self.randomise, cameras=views, size=size)
        return self._env

    def roll_out(self, policy: Any, seed: int, name: str = "policy") -> Rollout:
        """See `World`."""
        env = self._open(policy.info.views, policy.info.size)

        def keep(infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
            widths = np.array([info["reference"][-1] for info in infos])
            return {"qpos": np.stack([info["qpos"] for info in infos]), "command_width_m": widths}

        return roll_out(env, policy, seed, name=name, kind=TabletopRollout, keep=keep)

    def close(self) -> None:
        """See `World`."""
        if self._env is not None:
            self._env.close()


class SystemWorld(World):
    """A system under its own dynamics; mismatch: how strongly controls act."""

    def __init__(self, task: SystemTask, mismatch: float = 0.0, delay_s: float = 0.0) -> None:
        from sim.system import SystemEnv

        self.env = SystemEnv(task, mismatch=mismatch, delay_s=delay_s)

    def roll_out(
        self, policy: Any, seed: int, name: str = "policy", instance: Mapping[str, np.ndarray] | None = None
    ) -> Rollout:
        """See `World`; `instance` starts somewhere else than where the seed says."""
        env, task = self.env, self.env.task
        if not isinstance(policy, SystemPolicy) or policy.task_name != task.name:
            made = getattr(policy, "task_name", type(policy).__name__)
            raise ConfigError(
                f"the policy was made for {made!r}, here the task is {task.name!r}; robo-train trains one"
            )
        obs, info = env.reset(
            seed=FIRST_SEED + seed, options=None if instance is None else {"instance": dict(instance)}
        )
        drawn = info["instance"]
        policy.reset(obs, seed)
        samples, plans, plan_ms, done = [(obs, info)], [], [], False
        while not done:
            began = time.perf_counter()
            plan: ControlPlan = policy.act(obs)
            elapsed_ms = 1e3 * (time.perf_counter() - began)
            obs, _, terminated, truncated, info = env.step(plan.control[0])
            samples.append((obs, info))
            plans.append(plan)
            plan_ms.append(float(plan.info.get("plan_ms", elapsed_ms)))
            done = terminated or truncated
        score = scored(task, [i for _, i in samples])
        signals, dt = score["signals"], task.ctrl_dt_s
        return SystemRollout(
            **score,
            policy=name,
            seed=seed,
            state=np.stack([o["state"] for o, _ in samples]),
            control=np.stack([i["control"] for _, i in samples[1:]]),
            plan_state=pad([plan.state for plan in plans]),
            controller=np.array([CONTROLLERS.index(plan.controller) for plan in plans]),
            instance=drawn,
            plan_rho=np.array([float(plan.info.get("plan_rho", np.nan)) for plan in plans]),
            plan_ms=np.array(plan_ms),
            violations=tuple(
                f"{part} violated ({int((~part.verdict(signals, dt)).sum())} samples)"
                for part in task.safety_formula.conjuncts
                if not part.verdict(signals, dt).all()
            ),
            extra={
                name: [float(plan.info[name]) for plan in plans] for name in ("certified",) if name in plans[0].info
            },
        )

    def close(self) -> None:
        """See `World`."""
        self.env.close()


open_world.register(ArmTask)(ArmWorld)
open_world.register(TabletopTask)(TabletopWorld)
open_world.register(SystemTask)(SystemWorld)
