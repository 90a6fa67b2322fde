"""One episode of a policy in an environment, kept as a `ArmRollout`."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.policy import Policy
from robo.core.errors import ConfigError, UnknownNameError
from robo.core.protocols import ActionChunk, Obs
from robo.data.rollout import CONTROLLERS, ArmRollout
from tasks.arm import SceneTask
from tasks.task import Task

if TYPE_CHECKING:
    from sim.env import TaskEnv
    from sim.tabletop import TabletopEnv

FIRST_SEED = 1_000_000
"""Evaluation seed s is the environment's seed 1,000,000 + s: training never uses seeds that high, so all are unseen."""


def check_fits(task: SceneTask, policy: Policy) -> None:
    """Refuse a policy that was trained for another task, robot, rate or observation.

    Raises:
        ConfigError: Names the first thing that differs.
    """
    info, seen = policy.info, dict(task.observation)
    wanted = {name: tuple(shape) for name, shape in info.observation.items() if name in seen}
    for what, has, needs in (
        ("task", task.name, info.task),
        ("number of joints", task.robot.dof, info.joints),
        ("control period", task.ctrl_dt_s, info.ctrl_dt_s),
        ("observation", {name: tuple(seen[name]) for name in wanted}, wanted),
    ):
        if has != needs:
            raise ConfigError(
                f"the policy was trained with {what} {needs!r}, here it is {has!r}; robo-train trains one"
            )
    for view in info.views:
        if view not in (cameras := [camera.name for camera in task.cameras]):
            raise UnknownNameError("camera", view, cameras)


def roll_out(
    env: TaskEnv | TabletopEnv,
    policy: Policy,
    seed: int,
    *,
    name: str = "policy",
    kind: type[ArmRollout] = ArmRollout,
    keep: Callable[[Sequence[Mapping[str, Any]]], dict[str, Any]] = lambda infos: {},
) -> ArmRollout:
    """Run one episode and score it on the executed trace.

    Args:
        env: The environment of the task.
        policy: What acts; called once per control step.
        seed: Evaluation seed of the episode, 0 or more, and of the policy in it; see `FIRST_SEED`.
        name: Name of the policy, for the record.
        kind: Of rollout.
        keep: Its further fields, from what the environment told at every sample.

    Raises:
        RoboError: The policy does not fit the task, or policy or environment refuse.
    """
    task = env.task
    check_fits(task, policy)
    obs, info = env.reset(seed=FIRST_SEED + seed)
    policy.reset(obs, seed)
    instance = info["instance"]
    samples: list[tuple[Obs, Mapping[str, Any]]] = [(obs, info)]
    chunks: list[ActionChunk] = []
    plan_ms: list[float] = []
    done = False
    while not done:
        began = time.perf_counter()
        chunk = policy.act(obs)
        elapsed_ms = 1e3 * (time.perf_counter() - began)
        obs, _, terminated, truncated, info = env.step(env.action(chunk))
        samples.append((obs, info))
        chunks.append(chunk)
        plan_ms.append(float(chunk.info.get("plan_ms", elapsed_ms)))
        done = terminated or truncated
    # Pictures can be drawn again from the state.
    seen = [{name: value for name, value in o.items() if not name.startswith("rgb_")} for o, _ in samples]
    observation, infos = stack(seen), [i for _, i in samples]
    at_rest = np.zeros_like(instance["joint_pos"])
    return kind(
        **scored(task, infos),
        **keep(infos),
        policy=name,
        seed=seed,
        joint_pos=observation["joint_pos"],
        joint_vel=observation["joint_vel"],
        command_pos=np.stack([instance["joint_pos"], *(c.joint_pos[0] for c in chunks)]),
        command_vel=np.stack([at_rest, *(c.joint_vel[0] for c in chunks)]),
        controller=np.array([_controller(c) for c in chunks]),
        ee_pos=task.kinematics.ee_pos(observation["joint_pos"]),
        observation=observation,
        instance=instance,
        world=stack([i["world"] for i in infos]),
        bodies=stack([i["bodies"] for i in infos]),
        plan_ee=pad([_plan_ee(task, c) for c in chunks]),
        plan_rho=np.array([float(c.info.get("plan_rho", np.nan)) for c in chunks]),
        plan_ms=np.array(plan_ms),
        violations=describe(info["violations"]),
    )


def scored(task: Task, infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The fields of a `Rollout` that say how an executed trace fares, from what an environment told at every sample."""
    signals, dt = stack([info["signals"] for info in infos]), task.ctrl_dt_s
    low, high = online(task, signals)
    return {
        "task": task.name,
        "dt_s": dt,
        "signals": signals,
        "predicates": stack([info["predicates"] for info in infos]),
        "parts": {str(part): float(part.rho(signals, dt)[0]) for part in task.formula.conjuncts},
        "rho": float(task.formula.rho(signals, dt)[0]),
        "rho_low": low,
        "rho_high": high,
        "success": task.success(signals),
    }


def describe(violations: Mapping[str, Any]) -> tuple[str, ...]:
    """The env's count of violations in words, one line each; empty if nothing happened."""
    contacts = violations["contacts"].items()
    lines = [f"contact of {pair.replace('|', ' and ')} ({steps} physics steps)" for pair, steps in contacts]
    for name, text in (("joint_limit", "joint limit"), ("velocity", "joint velocity limit")):
        if violations[name]:
            lines.append(f"{text} exceeded ({violations[name]} physics steps)")
    return tuple(lines)


def _controller(chunk: ActionChunk) -> int:
    # Sample 0 is what the coming step executes; from `tail` on a chunk is backup, whoever made the rest.
    return CONTROLLERS.index("backup" if chunk.tail == 0 else chunk.controller)


def _plan_ee(task: SceneTask, chunk: ActionChunk) -> np.ndarray:
    """Tool path (p, 3) of the plan behind a chunk: of all it planned if it says so, else of the chunk itself."""
    return task.kinematics.ee_pos(np.asarray(chunk.info.get("plan_joint_pos", chunk.joint_pos), float))


def online(task: Task, signals: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Interval of the final robustness as known after each sample, (N + 1,) each."""
    import torch

    # One copy of the trace per sample: copy k knows the samples up to k.
    samples = len(next(iter(signals.values())))
    copies = {name: np.broadcast_to(value, (samples, samples)) for name, value in signals.items()}
    low, high = task.formula.bounds_at_start(copies, task.ctrl_dt_s, torch.arange(1, samples + 1))
    return low.numpy(), high.numpy()


def stack(rows: Sequence[Mapping[str, Any]]) -> dict[str, np.ndarray]:
    """Mappings of one sample each as one mapping of arrays, time first."""
    return {name: np.stack([np.asarray(row[name]) for row in rows]) for name in rows[0]}


def pad(plans: Sequence[np.ndarray]) -> np.ndarray:
    """Paths (p, n) of different lengths → (N, P, n), shorter ones filled with NaN."""
    padded = np.full((len(plans), max(map(len, plans)), plans[0].shape[1]), np.nan)
    for row, plan in zip(padded, plans, strict=True):
        row[: len(plan)] = plan
    return padded
