"""How processes of our own begin: those that play, record, evaluate, and step many worlds."""

from __future__ import annotations

import multiprocessing
import os
import sys
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

_renderers: list[str | None] = []


def process_context() -> Any:
    """A context of `multiprocessing`: never forked off this one, whose threads a fork would lack.

    On Linux processes are forked off a server that has done nothing yet but import, which spares each of them seconds.
    They see the environment variables of the moment when the first of them began. Elsewhere, and when ``MUJOCO_GL``,
    which counts while MuJoCo is imported, has become another since, each is a fresh interpreter.
    """
    if sys.platform != "linux":
        return multiprocessing.get_context("spawn")
    renderer = os.environ.get("MUJOCO_GL")
    if not _renderers:
        _renderers.append(renderer)
        multiprocessing.set_forkserver_preload(list(_LIBRARIES))
    return multiprocessing.get_context("forkserver" if _renderers == [renderer] else "spawn")
