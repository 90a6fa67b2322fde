"""Reading of recorded demonstrations, as training does it: frames at random, with their pictures."""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from robo.bench import Report
from robo.core.errors import ConfigError
from robo.data.collect import Order, collect
from robo.dataset.lerobot import Dataset


def data_bench(
    task: str = "pick_and_place",
    episodes: int = 10,
    views: Sequence[str] = ("front", "wrist"),
    size: int = 96,
    processes: int = 2,
    batch: int = 64,
    seconds: float = 10.0,
    seed: int = 0,
) -> Report:
    """Frames a second that are read at random from a dataset recorded for it, all numbers and pictures of each.

    Args:
        task: A tabletop task; its expert is recorded.
        episodes: How many.
        views, size: Pictures in every frame [px].
        processes: That read at the same time.
        batch: Frames asked for at once.
        seconds: For each row.
        seed: Of episodes and of what is read.

    Raises:
        RoboError: Unknown task or camera, or a number is out of range.
    """
    if min(episodes, processes, batch) < 1 or seconds <= 0:
        raise ConfigError("episodes, processes, batch and seconds must be positive")
    with tempfile.TemporaryDirectory() as folder:
        order = Order(task=task, episodes=episodes, seed=seed, views=tuple(views), size=size)
        dataset = collect(Path(folder) / "set", order, workers=min(processes, episodes))
        frames, stored = len(dataset), sum(p.stat().st_size for p in Path(folder).rglob("*") if p.is_file())
        dataset.close()
        rows = []
        for shown in dict.fromkeys((tuple(views)[:1], tuple(views))):
            names = ["action", "observation.state", *(f"observation.images.{view}" for view in shown)]
            read = partial(_read, Path(folder) / "set", names, batch, seconds)
            with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
                found = sum(pool.map(read, range(seed, seed + processes)))
            rows.append({"frames with": f"{len(shown)} pictures of {size} x {size}", "frames/s": round(found)})
    return Report(
        title=f"Reading demonstrations: {task}, {processes} processes",
        rows=rows,
        seeds=[seed],
        notes=[
            f"{episodes} episodes, {frames} frames, {stored / 1e6:.1f} MB; {batch} frames at random at a time",
            "figure to reach: 1,000 frames/s",
        ],
    )


def _read(folder: Path, names: list[str], batch: int, seconds: float, seed: int) -> float:
    """Frames a second that this process reads."""
    dataset, rng = Dataset(folder), np.random.default_rng(seed)
    dataset.batch(rng.integers(len(dataset), size=batch), names=names)
    steps, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        dataset.batch(rng.integers(len(dataset), size=batch), names=names)
        steps += batch
    taken = time.perf_counter() - began
    dataset.close()
    return steps / taken
