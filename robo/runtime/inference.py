"""The inference process: newest observation in, action chunk out. torch may live here, and only here.

Late is as good as never: an observation that was overtaken is not answered, and the control
process plays out the backup it holds. Run by `robo.runtime.control` as ``python -m robo.runtime.inference``.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import numpy as np

from robo.core.errors import RobotError
from robo.core.ipc import Bell, Parent, Slot, serve
from robo.core.realtime import go_ahead_of_others
from robo.runtime.protocol import Factory, chunk_layout, obs_of, observation_keys, pack_chunk, question_layout

if TYPE_CHECKING:
    from policies.policy import Policy, PolicyInfo
    from tasks.arm import ArmTask

WARM_UP = 3
"""Calls before the arm moves: the first ones load, compile and cache."""


def run_policy(run: str) -> Policy:
    """The trained policy of a run folder.

    Raises:
        RobotError: It moves no arm.
    """
    from policies.policy import Policy
    from robo.train.run import Run

    policy = Run.open(run).policy()
    if not isinstance(policy, Policy):
        raise RobotError(f"run {run} holds a {type(policy).__name__}, which moves no arm")
    return policy


def check_policy(info: PolicyInfo, task: ArmTask) -> None:
    """Refuse a policy that was trained for something else.

    Raises:
        RobotError: Says what differs.
    """
    offered = observation_keys(task)
    for name, shape in info.observation.items():
        if tuple(shape) != tuple(offered.get(name, ())):
            raise RobotError(
                f"the policy observes {name!r} with shape {tuple(shape)}, task {task.name} offers "
                + (f"shape {offered[name]}" if name in offered else f"only {', '.join(offered)}")
            )
    for what, got, wanted in (
        ("the task", info.task, task.name),
        ("joints", info.joints, task.robot.dof),
        ("ctrl_dt_s", info.ctrl_dt_s, task.ctrl_dt_s),
    ):
        if got != wanted:
            raise RobotError(f"the policy was trained with {what} {got!r}, task {task.name} has {wanted!r}")


def _run(config: dict[str, Any], parent: Parent) -> None:
    """Body of the process: load, warm up, then answer questions."""
    if config["ahead"]:
        go_ahead_of_others()
    task: ArmTask = Factory(**config["task"]).make()
    policy: Policy = Factory(**config["policy"]).make()
    check_policy(policy.info, task)
    questions = Slot(question_layout(task), config["fds"]["questions"])
    chunks = Slot(chunk_layout(task.robot.dof), config["fds"]["chunks"])
    bell = Bell(config["fds"]["bell"])
    obs = {name: np.array(value, float) for name, value in config["obs"].items()}
    warm_ms = []
    for _ in range(WARM_UP):
        policy.reset(obs, config["seed"])
        started = time.perf_counter()
        policy.act(obs)
        warm_ms.append(1e3 * (time.perf_counter() - started))
    parent.tell(ready=True, warm_ms=warm_ms)
    seen, generation = 0, None
    while True:
        if not bell.wait(1.0):
            continue
        newest = questions.read()
        if newest is None or newest[0] == seen:
            continue
        seen, question = newest
        obs, asked = obs_of(question), int(question["generation"])
        started = time.perf_counter()
        if asked != generation:
            policy.reset(obs, int(question["seed"]))
            generation = asked
        if question["act"]:
            chunk = policy.act(obs)
            chunks.write(pack_chunk(chunk, asked, 1e3 * (time.perf_counter() - started)))


if __name__ == "__main__":
    sys.exit(serve(_run))
