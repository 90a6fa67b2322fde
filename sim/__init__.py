"""Worlds that step: arms on MuJoCo or Bullet, systems under their own dynamics, behind one Gymnasium interface.

Importing this package registers every known task with Gymnasium: ``robo/reach_avoid-v0``, ``bench/car-v0``.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

import gymnasium

from robo.core.errors import RenderError, nearest
from tasks.registry import TASKS

if TYPE_CHECKING:
    from sim.batch import TabletopBatch
    from sim.bullet import BulletEnv
    from sim.env import EnvOptions, TaskEnv
    from sim.open import make, make_vector, open_env
    from sim.randomise import Randomisation
    from sim.tabletop import TabletopEnv

__all__ = [
    "BulletEnv",
    "EnvOptions",
    "Randomisation",
    "TabletopBatch",
    "TabletopEnv",
    "TaskEnv",
    "make",
    "make_vector",
    "open_env",
]

_RENDERERS = ("egl", "osmesa", "glfw", "glx")
_NO_WISH = ("", "enable", "enabled", "on", "true", "1")
_OFF = ("disable", "disabled", "off", "false", "0")


def mujoco_gl() -> str:
    """What ``MUJOCO_GL`` asks for: ``"egl"``, ``"osmesa"``, ``"glfw"``, ``"glx"``, ``"off"``, or ``""`` for no wish.

    Raises:
        RenderError: It names no renderer. MuJoCo itself then cannot be imported, so this comes first.
    """
    wanted = os.environ.get("MUJOCO_GL", "").lower().strip()
    if wanted in _NO_WISH:
        return ""
    if wanted in _OFF:
        return "off"
    if wanted not in _RENDERERS:
        raise RenderError(
            f"MUJOCO_GL={wanted} is no renderer: {nearest(wanted, _RENDERERS)}; unset it to have one chosen"
        )
    return wanted


mujoco_gl()

for _name in TASKS:
    _id = _name if "/" in _name else f"robo/{_name}"
    gymnasium.register(id=f"{_id}-v0", entry_point="sim.open:make", kwargs={"task": _name})


_EXPORTS = {
    **dict.fromkeys(("make", "make_vector", "open_env"), "sim.open"),
    **dict.fromkeys(("EnvOptions", "TaskEnv"), "sim.env"),
    "TabletopEnv": "sim.tabletop",
    "TabletopBatch": "sim.batch",
    "BulletEnv": "sim.bullet",
    "Randomisation": "sim.randomise",
}


def __getattr__(name: str) -> Any:
    # Lazily, so that registering tasks does not load mujoco.
    if name in _EXPORTS:
        return getattr(importlib.import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
