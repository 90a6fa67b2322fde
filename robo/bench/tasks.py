"""The manipulation tasks: what their scripted experts solve, and what chance does."""

from __future__ import annotations

import hashlib
import inspect
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import policies.expert.policy
import sim.tabletop
from policies.learner import AnyPolicy
from policies.registry import POLICIES
from robo.bench import Median, Rate, Report
from robo.bench.cells import Cells
from robo.core.errors import ConfigError
from robo.core.machine import hardware_line
from robo.evaluate.evaluation import evaluate
from sim.batch import TabletopBatch
from tasks.registry import TASKS, load_task
from tasks.tabletop.base import TabletopTask, tabletop_task
from tasks.task import Task

EVERYDAY, OTHERS = ("reach", "push", "pick_and_place", "stack_cubes"), ("ur5e", "so101")
"""Tasks that other robots do, too, and these robots."""
CHANGE_STEPS = 10
"""A random policy draws a new action so often."""


def tasks_bench(
    tasks: Sequence[str] = (),
    episodes: int = 100,
    random_episodes: int = 100,
    seed: int = 0,
    workers: int = 2,
    sheet: str = "",
    results: str = "docs/results/tasks",
) -> Report:
    """Success of the scripted expert by contact physics, and of random actions, on every tabletop task.

    "Solved": the goal holds at the end, and all stages were reached. "Specification": the STL formula with timing and
    safety, over the executed trace. "Random": random motions of the tool and the gripper; solved at any moment counts.

    Args:
        tasks: Which; empty: all there are, and those that other robots do.
        episodes: Of the expert, from the first seed on.
        random_episodes: Of the random policy.
        seed: First evaluation seed.
        workers: Processes.
        sheet: Write a contact sheet there too, a picture for every task and stage (PNG).
        results: Folder of finished cells (JSON), read if there and written if not; empty: keep none.

    Raises:
        RoboError: A task is unknown or has no expert.
    """
    if min(episodes, random_episodes, workers) < 1:
        raise ConfigError("episodes, random_episodes and workers must be at least 1")
    loaded = [tabletop_task(load_task(name)) for name in tasks or (*tabletop_names(), *elsewhere())]
    cells, rows, machines = Cells(results or None, hardware_line()), [], {}
    for task in loaded:
        inputs = {"episodes": episodes, "random_episodes": random_episodes, "seed": seed, "source": _source(task)}
        result = cells.get(task.name, inputs, partial(_measure, task, episodes, random_episodes, seed, workers))
        machines[result["machine"]] = None
        rows.append(
            {
                "task": task.name,
                "stages": len(task.stages),
                "expert, solved": Rate.of(result["solved"], episodes),
                "specification": Rate.of(result["satisfied"], episodes),
                "unsafe": result["unsafe"],
                "random, solved": Rate.of(result["random"], random_episodes),
                "horizon [s]": task.horizon_s,
                "control step [ms]": Median.of(result["step_ms"]),
            }
        )
    notes = [
        "expert: waypoints of the task's script, inverse kinematics by mink; grasps by friction",
        "control step: physics and signals of one of 8 worlds that step together, without pictures",
        f"cells measured on: {', '.join(machines)}",
    ]
    if sheet:
        from robo.view.sheet import contact_sheet

        own = [task for task in loaded if "@" not in task.name]
        notes.append(f"contact sheet: {contact_sheet(own, Path(sheet), seed)}")
    return Report(title="Manipulation tasks", rows=rows, seeds=list(range(seed, seed + episodes)), notes=notes)


def tabletop_names() -> list[str]:
    """Names of all tabletop tasks."""
    return [name for name in TASKS if isinstance(load_task(name), TabletopTask)]


def elsewhere() -> list[str]:
    """Names of tasks with other robots."""
    return [f"{task}@{robot}" for robot in OTHERS for task in EVERYDAY]


def _source(task: TabletopTask) -> str:
    """What the result depends on: text of the task's own module and of what every task shares."""
    modules = {inspect.getmodule(cls) for cls in type(task).__mro__ if issubclass(cls, TabletopTask)}
    modules |= {policies.expert.policy, sim.tabletop}
    texts = sorted(inspect.getsource(module) for module in modules if module is not None)
    return hashlib.sha256("".join(texts).encode()).hexdigest()


def _measure(task: TabletopTask, episodes: int, random_episodes: int, seed: int, workers: int) -> dict[str, Any]:
    found = evaluate(partial(_load, task.name), episodes=episodes, seed=seed, workers=workers, policy="expert").episodes
    lucky, step_ms = _chance(task, random_episodes, seed)
    return {
        "solved": sum(e.success for e in found),
        "satisfied": sum(e.satisfied for e in found),
        "unsafe": sum(bool(e.violations) for e in found),
        "failed": [e.seed for e in found if not (e.success and e.satisfied)],
        "random": lucky,
        "step_ms": step_ms,
    }


def _load(name: str) -> tuple[Task, AnyPolicy]:
    task, kind = load_task(name), POLICIES.make("expert")
    return task, kind.load(task, kind.config(), {}, "cpu")


def _chance(task: TabletopTask, episodes: int, seed: int) -> tuple[int, list[float]]:
    """Episodes that random actions solve at some moment, and milliseconds of a control step of one world."""
    worlds, rng, lucky, step_ms = min(8, episodes), np.random.default_rng(seed), 0, []
    batch = TabletopBatch(task, worlds, control="ee_delta")
    low, high = batch.worlds[0].command.low, batch.worlds[0].command.high
    for first in range(0, episodes, worlds):
        batch.reset(seed=seed + first)
        solved, action = np.zeros(worlds, bool), np.zeros((worlds, len(low)))
        for k in range(task.steps):
            if k % CHANGE_STEPS == 0:
                action = rng.uniform(low, high, action.shape)
            began = time.perf_counter()
            *_, info = batch.step(action)
            step_ms.append(1e3 * (time.perf_counter() - began) / worlds)
            solved |= info["success"]
        lucky += int(solved[: episodes - first].sum())
    batch.close()
    return lucky, step_ms[:: max(len(step_ms) // 200, 1)]
