"""The environment of any task: its class decides which."""

from __future__ import annotations

import os
import sys
from functools import partial, singledispatch
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any

import cloudpickle
import gymnasium

from robo.core.errors import ConfigError, TaskError
from sim.env import TaskEnv
from sim.system import SystemEnv
from sim.tabletop import TabletopEnv
from tasks.arm import ArmTask
from tasks.registry import load_task
from tasks.system import SystemTask
from tasks.tabletop.base import TabletopTask
from tasks.task import Task


@singledispatch
def open_env(task: Task, **options: Any) -> gymnasium.Env:
    """The environment of a task; options are those of `TaskEnv`, `TabletopEnv` or `SystemEnv`.

    Raises:
        TaskError: No environment for this kind of task.
    """
    raise TaskError(f"no environment for task {task.name}, a {type(task).__name__}")


open_env.register(ArmTask)(TaskEnv)
open_env.register(TabletopTask)(TabletopEnv)
open_env.register(SystemTask)(SystemEnv)


def make(task: Task | str | Path, **options: Any) -> Any:
    """An environment of a task, by object, registered name or path of a task file; options as of `open_env`."""
    return open_env(task if isinstance(task, Task) else load_task(task), **options)


def make_vector(
    task: Task | str | Path, n: int, *, processes: bool = True, **options: Any
) -> gymnasium.vector.VectorEnv:
    """Many environments of a task that step together. Without pictures `sim.batch.TabletopBatch` is faster.

    Args:
        task: As for `make`.
        n: How many; environment i of ``reset(seed=s)`` gets seed s + i.
        processes: One process each (observations in shared memory), or all in this one.
        options: As of `open_env`.

    Raises:
        ConfigError: `n` is below 1.
    """
    if n < 1:
        raise ConfigError(f"a vector needs at least 1 environment, not {n}")
    if isinstance(task, Task):
        module = sys.modules[type(task).__module__]
        if module.__name__ != "__main__" and PathFinder.find_spec(module.__name__.partition(".")[0]) is None:
            # A task file of one's own: a fresh interpreter could not import it, so its code travels along.
            cloudpickle.register_pickle_by_value(module)
    if not processes:
        return gymnasium.vector.SyncVectorEnv([partial(make, task, **options)] * n)
    # Fresh interpreters: a fork of a process with threads or a GL context may hang.
    makers = [partial(_make_beside_others, task, **options)] * n
    return gymnasium.vector.AsyncVectorEnv(makers, shared_memory=True, context="spawn")


def _make_beside_others(task: Task | str | Path, **options: Any) -> Any:
    # Mesa's software renderer starts a thread for every core in each process; they only get into each other's way.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    return make(task, **options)
