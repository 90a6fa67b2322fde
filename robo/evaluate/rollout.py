"""One episode of a policy in an environment, kept as a `Rollout`."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from policies.policy import Policy
from robo.core.errors import NonFiniteError
from robo.data.rollout import CONTROLLERS, Rollout
from tasks.task import Task


def roll_out(task: Task, env: Any, policy: Policy, seed: int, *, name: str = "policy") -> Rollout:
    """Run one episode and score it on the executed trace.

    Args:
        task: The task.
        env: Its environment (`sim.make`).
        policy: What acts; called once per control step.
        seed: Seed of the episode; also that of the policy.
        name: Name of the policy, for the record.

    Raises:
        RoboError: Policy or environment refuses.
    """
    obs, info = env.reset(seed=seed)
    policy.reset(obs, seed)
    trace = _Trace(task, obs, info)
    for _ in range(task.steps):
        began = time.perf_counter()
        chunk = policy.act(obs)
        elapsed_ms = 1e3 * (time.perf_counter() - began)
        action = np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0]])
        obs, _, terminated, truncated, info = env.step(action)
        trace.add(obs, info, chunk, elapsed_ms)
        if terminated or truncated:
            break
    return trace.finish(seed, name)
