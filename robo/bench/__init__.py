"""Benchmarks behind `robo-bench`: every figure that docs/benchmarks.md states is measured by one of these.

A benchmark is a function of plain keyword arguments with defaults (they become options of the
command) that returns a `Report`. It checks what it times: pixels, counts, outcomes.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from robo.core.errors import UnknownNameError
from robo.evaluate.metrics import wilson

BENCHES = {
    "reach_avoid": "robo.bench.reach_avoid:reach_avoid_bench",
    "render": "robo.bench.render:render_bench",
    "tracking": "robo.bench.tracking:tracking_bench",
    "runtime": "robo.bench.runtime:runtime_bench",
    "monitor": "robo.bench.monitor:monitor_bench",
    "stl": "robo.bench.stl:stl_bench",
    "spec": "robo.bench.spec:spec_bench",
    "stl_engine": "robo.bench.stl_engine:stl_engine_bench",
    "soak": "robo.bench.soak:soak_bench",
    "speed": "robo.bench.speed:speed_bench",
    "tasks": "robo.bench.tasks:tasks_bench",
    "data": "robo.bench.data:data_bench",
    "keyframes": "robo.bench.keyframes:keyframes_bench",
    "mae": "robo.bench.mae:mae_bench",
    "mae_speed": "robo.bench.mae_speed:mae_speed_bench",
    "horizon": "robo.bench.horizon:horizon_bench",
    "acting": "robo.bench.acting:acting_bench",
    "distractors": "robo.bench.distractors:distractors_bench",
}
"""Names → ``module:function``; imported when asked for."""


_DRAWS = 10_000


@dataclass(frozen=True)
class Rate:
    """A share of trials with its 95 % interval (Wilson)."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, hits: int, trials: int) -> Rate:
        """The rate of `hits` among `trials`."""
        return cls(hits / trials, *wilson(hits, trials))

    def __str__(self) -> str:
        return f"{100 * self.value:.1f} % [{100 * self.low:.1f}, {100 * self.high:.1f}]"


@dataclass(frozen=True)
class Median:
    """The median of repeated measurements with its 95 % interval, or without one where there are too few."""

    value: float
    low: float | None = None
    high: float | None = None

    @classmethod
    def of(cls, values: Sequence[float] | np.ndarray) -> Median:
        """Median; the interval from the order statistics around it (binomial, normal approximation), from 20 on."""
        ordered, n = np.sort(np.asarray(values, float)), len(values)
        if n < 20:
            return cls(float(np.median(ordered)))
        half = 0.98 * math.sqrt(n)
        low, high = ordered[math.floor(n / 2 - half)], ordered[min(math.ceil(n / 2 + half), n - 1)]
        return cls(float(np.median(ordered)), float(low), float(high))

    def __str__(self) -> str:
        interval = "" if self.low is None else f" [{self.low:.4g}, {self.high:.4g}]"
        return f"{self.value:.4g}{interval}"


@dataclass(frozen=True)
class Gain:
    """How many of a hundred trials more succeed, with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, ours: Sequence[Sequence[bool]], theirs: Sequence[Sequence[bool]], seed: int = 0) -> Gain:
        """Of trainings (outer) that were tried at the same starts (inner), ours paired with theirs.

        The interval is that of a bootstrap of percentiles which draws trainings, then starts, alike for all trainings
        (two-way pigeonhole bootstrap, Owen, Ann. Appl. Stat. 1 (2007) 386-411).

        Raises:
            ValueError: They do not pair.
        """
        if np.ndim(ours) != 2 or not np.size(ours) or np.shape(ours) != np.shape(theirs):
            raise ValueError(f"outcomes {np.shape(ours)} and {np.shape(theirs)} do not pair")
        gained = np.asarray(ours, float) - np.asarray(theirs, float)
        rng, (trainings, starts) = np.random.default_rng(seed), gained.shape
        drawn = [
            gained[rng.integers(trainings, size=trainings)][:, rng.integers(starts, size=starts)].mean()
            for _ in range(_DRAWS)
        ]
        return cls(100 * float(gained.mean()), *(100 * float(np.quantile(drawn, q)) for q in (0.025, 0.975)))

    def __str__(self) -> str:
        return f"{self.value:+.1f} [{self.low:+.1f}, {self.high:+.1f}]"


@dataclass(frozen=True, kw_only=True)
class Report:
    """What a benchmark measured.

    Attributes:
        title: What the table shows.
        rows: One mapping per row, column → text, number, `Rate` or `Median`; units are in the column names.
        seeds: Seeds of what was drawn.
        notes: What must be known to read it (run folder, scheduling, steal time ...).
    """

    title: str
    rows: list[dict[str, Any]]
    seeds: list[int]
    notes: list[str]

    @property
    def columns(self) -> list[str]:
        """All columns, in order of appearance."""
        return list(dict.fromkeys(column for row in self.rows for column in row))


def find(name: str) -> Callable[..., Report]:
    """The benchmark of a name.

    Raises:
        UnknownNameError: There is none of that name.
    """
    if name not in BENCHES:
        raise UnknownNameError("benchmark", name, BENCHES)
    module, _, function = BENCHES[name].partition(":")
    return getattr(importlib.import_module(module), function)


def options(bench: Callable[..., Report]) -> dict[str, inspect.Parameter]:
    """The keyword arguments of a benchmark, by name."""
    return dict(inspect.signature(bench, eval_str=True).parameters)
