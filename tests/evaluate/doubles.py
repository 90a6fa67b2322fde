"""Scripted policies: they stand still, go to a pose, or follow an instance's witness."""

from __future__ import annotations

import numpy as np

from policies.policy import Policy, PolicyInfo
from robo.core.errors import RobotError
from robo.core.protocols import ActionChunk
from sim.env import TaskEnv
from tasks.arm import ArmTask
from tasks.reach_avoid import ReachAvoid


class Scripted(Policy):
    """Follows `self.path` (N + 1, J), one sample a tick; who is in control changes on the way."""

    def __init__(self, task: ArmTask) -> None:
        self.task = task
        self.info = PolicyInfo(
            task=task.name, observation=dict(task.observation), joints=task.robot.dof, ctrl_dt_s=task.ctrl_dt_s
        )

    def plan(self, obs) -> np.ndarray:
        return np.repeat(obs["joint_pos"][None], self.task.steps + 1, axis=0)

    def reset(self, obs, seed=0) -> None:
        self.tick = 0
        self.path = self.plan(obs)
        self.velocity = np.gradient(self.path, self.task.ctrl_dt_s, axis=0)

    def act(self, obs) -> ActionChunk:
        self.tick += 1
        k = self.tick
        return ActionChunk(
            start_s=k * self.task.ctrl_dt_s,
            dt_s=self.task.ctrl_dt_s,
            joint_pos=self.path[k:],
            joint_vel=self.velocity[k:],
            tail=0 if 60 <= k < 64 else len(self.path) - k,
            controller="refinement" if 20 <= k < 30 else "policy",
            info={"plan_joint_pos": self.path[k:], "plan_rho": 0.05, "plan_ms": 2.0 + k / 100},
        )


class Hold(Scripted):
    """Stands still."""


class GoHome(Scripted):
    """Straight to the home pose in joint space, as it comes."""

    def plan(self, obs) -> np.ndarray:
        u = np.clip(np.arange(self.task.steps + 1) / 60, 0, 1)[:, None]
        u = u * u * (3 - 2 * u)
        return (1 - u) * obs["joint_pos"] + u * self.task.robot.home_rad


class FollowWitness(Scripted):
    """The trajectory that shows the instance is satisfiable: knows the truth, in tests only."""

    def __init__(self, env: TaskEnv) -> None:
        super().__init__(env.task)
        self.env = env

    def plan(self, obs) -> np.ndarray:
        return self.env.state()["instance"]["witness"]


class Refuses(Hold):
    """Refuses to act."""

    def act(self, obs) -> ActionChunk:
        raise RobotError("no, not today")


def load(kind: type[Scripted]) -> tuple[ArmTask, Policy]:
    """ArmTask and policy, for `robo.evaluate.evaluation.evaluate`."""
    task = ReachAvoid()
    return task, kind(task)
