"""How processes of our own begin: those that play, record, evaluate, and step many worlds."""

from __future__ import annotations

import multiprocessing
import os
import sys
from functools import cache
from typing import Any

_LIBRARIES = (
    "gymnasium",
    "mujoco",
    "pydantic",
    "safetensors.torch",
    "scipy.optimize",
    "scipy.signal",
    "torch",
    "trimesh",
)
"""What all of them import, and what takes seconds."""


@cache
def _first_renderer() -> str | None:
    """``MUJOCO_GL`` when the server begins, which is at the first process."""
    multiprocessing.set_forkserver_preload(list(_LIBRARIES))
    return os.environ.get("MUJOCO_GL")


def process_context() -> Any:
    """A context of `multiprocessing`: never forked off this one, whose threads a fork would lack.

    On Linux processes are forked off a server that has done nothing yet but import, which spares each of them seconds.
    They see the environment variables of the moment when the first of them began. Elsewhere, and when ``MUJOCO_GL``,
    which counts while MuJoCo is imported, has become another since, each is a fresh interpreter.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    same = os.environ.get("MUJOCO_GL") == _first_renderer()
    return multiprocessing.get_context("forkserver" if same else "spawn")
