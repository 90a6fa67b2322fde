"""The log of a deployment: every tick of the control loop, written beside it and never in its way.

The control process writes ticks into shared memory; the process that started it takes
them out and appends them to a file as they come, so that what was logged survives whatever happens to
either. At the end the file becomes ``ticks.npz``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from robo.core.errors import RoboError, RunError
from robo.core.files import read_json, room_for, write_json
from robo.core.ipc import Layout, record_dtype

RAW, LAYOUT, TICKS, EVENTS, SUMMARY = "ticks.raw", "layout.json", "ticks.npz", "events.jsonl", "summary.json"


class Recorder:
    """Writes a log folder as the ticks come.

    Args:
        folder: The log folder; made here, must not exist.
        layout: What a tick holds.
    """

    def __init__(self, folder: Path, layout: Layout) -> None:
        self.folder, self.dtype = folder, record_dtype(layout)
        with room_for(folder):
            folder.mkdir(parents=True)
            write_json(folder / LAYOUT, {name: list(shape) for name, shape in layout.items()})
            self._raw = (folder / RAW).open("ab", buffering=0)
            self._events = (folder / EVENTS).open("a", buffering=1)

    def append(self, rows: np.ndarray) -> None:
        """Write ticks.

        Raises:
            RoboError: No room on the disk; what was written before is kept.
        """
        if len(rows):
            with room_for(self.folder):
                self._raw.write(rows.tobytes())

    def event(self, event: Mapping[str, Any]) -> None:
        """Write an event as a line of JSON."""
        with room_for(self.folder):
            self._events.write(json.dumps(event) + "\n")

    def close(self) -> dict[str, np.ndarray]:
        """Turn what was written into ``ticks.npz``; returns the ticks, name → (N, ...)."""
        self._raw.close()
        self._events.close()
        ticks = read_ticks(self.folder)
        part = self.folder / f".{TICKS}.part"
        with room_for(part), part.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **ticks)
            file.flush()
            os.fsync(file.fileno())
        part.replace(self.folder / TICKS)
        (self.folder / RAW).unlink()
        return ticks


def read_ticks(folder: str | Path) -> dict[str, np.ndarray]:
    """Ticks of a log folder, name → (N, ...); see `robo.runtime.protocol.tick_layout`. Also of one that was cut off.

    Raises:
        RunError: The folder holds no log, or a corrupt one.
    """
    folder = Path(folder)
    try:
        if (folder / TICKS).is_file():
            with np.load(folder / TICKS, allow_pickle=False) as data:
                return {name: data[name] for name in data.files}
        dtype = record_dtype(read_json(folder / LAYOUT))
        data = (folder / RAW).read_bytes()
    except (OSError, ValueError, RoboError) as error:
        raise RunError(f"no readable log in {folder}: {error}; robo-deploy writes one") from error
    whole = len(data) // dtype.itemsize
    rows = np.frombuffer(data, dtype, whole)
    return {name: np.ascontiguousarray(rows[name]) for name in dtype.names or ()}


def next_folder(parent: Path) -> Path:
    """The next free numbered folder, not made yet: ``parent/001``, ``parent/002`` ..."""
    taken = [int(p.name) for p in parent.iterdir() if p.name.isdecimal()] if parent.is_dir() else []
    return parent / f"{max(taken, default=0) + 1:03d}"
