"""The environment of any task: its class decides which, and for tasks on a tabletop the physics."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable
from functools import partial, singledispatch
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium

from robo.core.errors import ConfigError, TaskError, UnknownNameError
from sim.batch import TabletopBatch
from sim.env import TaskEnv
from sim.system import SystemEnv
from sim.tabletop import TabletopEnv
from sim.vector import Serial, SharedVector
from tasks.arm import ArmTask
from tasks.registry import load_task
from tasks.system import SystemTask
from tasks.tabletop.base import TabletopTask
from tasks.task import Task

PHYSICS = {"mujoco": "sim.tabletop:TabletopEnv", "bullet": "sim.bullet:BulletEnv"}
"""What can move a task on a tabletop → the environment that does, imported when it is asked for."""


@singledispatch
def open_env(task: Task, **options: Any) -> gymnasium.Env:
    """The environment of a task; options are those of `TaskEnv`, `TabletopEnv` or `SystemEnv`.

    Tasks on a tabletop also take ``physics``, of `PHYSICS`: ``"mujoco"`` (the default) or ``"bullet"``.

    Raises:
        TaskError: No environment for this kind of task, or none on this physics.
        UnknownNameError: No such physics.
        MissingDependencyError: Its package is not installed.
    """
    raise TaskError(f"no environment for task {task.name}, a {type(task).__name__}")


@open_env.register
def _(task: TabletopTask, *, physics: str = "mujoco", **options: Any) -> TabletopEnv:
    if physics not in PHYSICS:
        raise UnknownNameError("physics", physics, PHYSICS)
    module, _, name = PHYSICS[physics].partition(":")
    return getattr(importlib.import_module(module), name)(task, **options)


def _only(env: Callable[..., gymnasium.Env]) -> Callable[..., gymnasium.Env]:
    def opened(task: Task, *, physics: str | None = None, **options: Any) -> gymnasium.Env:
        if physics is not None:
            raise TaskError(f"physics {physics!r} is for tasks on a tabletop, such as pick_and_place, not {task.name}")
        return env(task, **options)

    return opened


open_env.register(ArmTask)(_only(TaskEnv))
open_env.register(SystemTask)(_only(SystemEnv))


def make(task: Task | str | Path, **options: Any) -> Any:
    """An environment of a task, by object, registered name or path of a task file; options as of `open_env`."""
    return open_env(task if isinstance(task, Task) else load_task(task), **options)


def make_vector(
    task: Task | str | Path, n: int, *, processes: int | None = None, **options: Any
) -> gymnasium.vector.VectorEnv:
    """Many environments of a task that step together, over a few processes; see `sim.vector.SharedVector`.

    Without pictures `sim.batch.TabletopBatch`, whose threads need no processes, is as fast and tells more.

    Args:
        task: As for `make`.
        n: How many; environment i of ``reset(seed=s)`` gets seed s + i.
        processes: Over how many; None: one for every core; 0: all in this one.
        options: As of `open_env`; no ``scene``, no ``render_mode``.

    Raises:
        ConfigError: `n` is below 1, or `processes` below 0.
    """
    processes = (os.cpu_count() or 1) if processes is None else processes
    if n < 1 or processes < 0:
        raise ConfigError(f"a vector needs at least 1 environment and 0 processes, not {n} and {processes}")
    if isinstance(task, Task):
        module = sys.modules[type(task).__module__]
        if module.__name__ != "__main__" and PathFinder.find_spec(module.__name__.partition(".")[0]) is None:
            # A task file of one's own: a fresh interpreter could not import it, so its code travels along.
            cloudpickle.register_pickle_by_value(module)
    together = partial(_make_together, task, options)
    return SharedVector(together, n, processes) if processes else together(n)


def _make_together(task: Task | str | Path, options: dict[str, Any], n: int) -> gymnasium.vector.VectorEnv:
    return open_together(task if isinstance(task, Task) else load_task(task), n, **options)


@singledispatch
def open_together(task: Task, n: int, **options: Any) -> gymnasium.vector.VectorEnv:
    """Environments of a task in this process, one thread: one after the other, or all at once where that can be."""
    return Serial([partial(open_env, task, **options)] * n)


@open_together.register
def _(
    task: TabletopTask, n: int, *, attach: bool = False, physics: str = "mujoco", **options: Any
) -> gymnasium.vector.VectorEnv:
    if attach or physics != "mujoco":  # what is fastened to what is no part of the state that MuJoCo's threads take
        return Serial([partial(open_env, task, attach=attach, physics=physics, **options)] * n)
    return TabletopBatch(task, n, threads=1, **options)
