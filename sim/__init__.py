"""Worlds that step: every task on MuJoCo, behind one Gymnasium interface. Imports `tasks` and below.

Importing this package registers every known task with Gymnasium, as ``robo/<task>-v0``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import gymnasium

from tasks.registry import TASKS

if TYPE_CHECKING:
    from sim.env import EnvOptions, TaskEnv, make, make_vector

__all__ = ["EnvOptions", "TaskEnv", "make", "make_vector"]

for _name in TASKS:
    gymnasium.register(id=f"robo/{_name}-v0", entry_point="sim.env:make", kwargs={"task": _name})


def __getattr__(name: str) -> Any:
    # Lazily, so that registering tasks does not load mujoco.
    if name in __all__:
        import sim.env

        return getattr(sim.env, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
