"""The control path of policies that see: how long from pictures to an action, on one core."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from policies.horizon.config import PRESETS, HorizonConfig
from policies.horizon.network import HorizonNetwork
from policies.horizon.policy import HorizonPolicy
from robo.bench import Median, Report
from robo.core.errors import ConfigError, UnknownNameError
from robo.evaluate.evaluation import one_thread
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task

FIGURE_MS = 30.0
"""The 95 % quantile is not to exceed it."""
WARM_UP = 10
"""First steps that are not counted."""


def acting_bench(
    task: str = "pick_and_place",
    preset: str = "small",
    acts: Sequence[str] = ("actor", "drawn", "mpc"),
    steps: int = 500,
    seed: int = 0,
) -> Report:
    """Time of ``horizon`` from pictures to a command: encoding of all views, belief, action, inverse kinematics.

    The network is untrained, which takes as long; pictures are those of an episode. One thread; nothing else should
    run.

    Args:
        task: A tabletop task.
        preset: Of horizon.
        acts: Who acts: actor, drawn, mpc.
        steps: Control steps for each.
        seed: Of the episode and the network.

    Raises:
        RoboError: A name is unknown or a number out of range.
    """
    if preset not in PRESETS:
        raise UnknownNameError("preset", preset, PRESETS)
    if steps < 1:
        raise ConfigError(f"steps must be at least 1, not {steps}")
    loaded, rows = tabletop_task(load_task(task)), []
    for name in acts:
        config: HorizonConfig = replace(PRESETS[preset], act=name)
        network = HorizonNetwork(loaded, config, seed)
        network.begun.fill_(True)
        env = TabletopEnv(loaded, cameras=config.mae.views, size=config.mae.size)
        with one_thread(), torch.no_grad():
            took = _time(env, HorizonPolicy(loaded, network, config, "cpu"), steps, seed)
        env.close()
        p95 = float(np.quantile(took, 0.95))
        rows.append(
            {
                "act": name,
                "step [ms]": Median.of(took),
                "p95 [ms]": round(p95, 2),
                "p99 [ms]": round(float(np.quantile(took, 0.99)), 2),
                f"p95 at most {FIGURE_MS:g} ms": bool(p95 <= FIGURE_MS),
            }
        )
    config = PRESETS[preset]
    return Report(
        title=f"From pictures to a command, {task}, horizon {preset}, {steps} control steps",
        rows=rows,
        seeds=[seed],
        notes=[f"{len(config.mae.views)} views of {config.mae.size} pixels, one thread, drawing not counted"],
    )


def _time(env: TabletopEnv, policy: HorizonPolicy, steps: int, seed: int) -> np.ndarray:
    """Milliseconds of each step."""
    took: list[float] = []
    while len(took) < steps + WARM_UP:
        obs, _ = env.reset(seed=seed)
        policy.reset(obs, seed)
        ended = False
        while not ended and len(took) < steps + WARM_UP:
            began = time.perf_counter()
            chunk = policy.act(obs)
            took.append(1e3 * (time.perf_counter() - began))
            obs, _, terminated, truncated, _ = env.step(env.action(chunk))
            ended = terminated or truncated
    return np.array(took[WARM_UP:])
