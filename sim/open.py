"""The environment of any task: its class decides which."""

from __future__ import annotations

from functools import singledispatch
from typing import Any

import gymnasium

from robo.core.errors import TaskError
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


def by_name(task: str, **options: Any) -> gymnasium.Env:
    """The environment of a registered task or a task file; what `gymnasium.make` calls."""
    return open_env(load_task(task), **options)
