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
from gymnasium.vector.utils import CloudpickleWrapper

from robo.core.errors import ConfigError, TaskError
from sim.env import TaskEnv
from sim.system import SystemEnv
from sim.tabletop import TabletopEnv
from sim.vector import SharedVector
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
    task: Task | str | Path, n: int, *, processes: int | None = None, **options: Any
) -> gymnasium.vector.VectorEnv:
    """Many environments of a task that step together. Without pictures `sim.batch.TabletopBatch` is faster.

    Args:
        task: As for `make`.
        n: How many; environment i of ``reset(seed=s)`` gets seed s + i.
        processes: Over how many processes, see `sim.vector.SharedVector`; None: one for every core; 0: all in this one.
        options: As of `open_env`.

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
    one = partial(make, task, **options)
    if not processes:
        return gymnasium.vector.SyncVectorEnv([one] * n)
    return SharedVector(CloudpickleWrapper(one), n, processes)
