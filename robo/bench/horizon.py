"""``horizon`` beside who imitates, and without each of its parts: trained and evaluated in cells that are kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from robo.bench import Gain, Median, Rate, Report
from robo.bench.cells import Cells
from robo.core.errors import ConfigError, UnknownNameError
from robo.core.machine import hardware_line
from robo.data.collect import Order, collect
from robo.data.rollout import Rollout
from robo.dataset.video import CRF, PIXELS
from robo.evaluate.evaluation import evaluate
from robo.evaluate.loading import load_run
from robo.train.config import Config, build
from robo.train.loop import resume, train
from robo.train.run import Run
from tasks.tabletop.base import tabletop_task

VIEWS, SIZE, SWAY = ("front", "left", "right", "wrist"), 64, 0.2
_EYES = {"views": list(VIEWS), "size": SIZE}
VARIANTS: dict[str, dict[str, Any]] = {
    "horizon": {"policy": "horizon", "preset": "small"},
    "no_keyframes": {"policy": "horizon", "preset": "small", "keys": {"on": False}},
    "no_view_masking": {"policy": "horizon", "preset": "small", "mae": {"masked_views": 0}},
    "no_stages": {"policy": "horizon", "preset": "small", "train": {"reward": "success"}},
    "mv_mwm": {"policy": "horizon", "preset": "small_mv_mwm"},
    "mwm": {"policy": "horizon", "preset": "small_mwm"},
    # The best of what was tried, see docs/benchmarks.md; more steps make it worse.
    "bc_encoder": {
        "policy": "bc",
        "see": {**_EYES, "shift_px": 0},
        "do": {"chunk": 32},
        "train": {"steps": 2000},
    },
    "bc": {"policy": "bc", "see": _EYES},
    "act": {"policy": "act", "see": _EYES},
    "diffusion": {"policy": "diffusion", "see": _EYES},
}
"""Name → config keys, without task, demonstrations and seed."""
CLONING, ENCODER = "bc_encoder", "horizon"
"""Who the others are compared with, and whose encoder some have ..."""
TAKES = {"bc_encoder": ("see", "trunk"), "no_keyframes": ("sense", "ready"), "no_stages": ("sense", "ready")}
"""... because nothing in it is what they lack: where they are told the folder of it."""

LATER = (("sense", "precision"), ("sense", "compiled"), ("train", "precision"))
"""Settings that cells from before do not have: all were what is ``auto`` on a processor."""


def horizon_bench(
    tasks: Sequence[str] = ("reach", "pick_and_place"),
    variants: Sequence[str] = ("horizon", "bc_encoder", "bc"),
    seeds: Sequence[int] = (0, 1, 2),
    demos: int = 50,
    episodes: int = 50,
    seed: int = 0,
    workers: int = 2,
    runs: str = "runs/bench_horizon",
    results: str = "docs/results/horizon",
    missing: bool = True,
) -> Report:
    """Train policies of the same demonstrations, evaluate them in physics on unseen seeds, compare with cloning.

    Every training is a cell of at most an hour on two cores; what is there already is read. One that was interrupted
    goes on from its last checkpoint.

    Args:
        tasks: Tabletop tasks.
        variants: Of those of `VARIANTS`.
        seeds: Of trainings.
        demos: Of the expert, whose ways differ; the same for all variants and seeds.
        episodes: Of evaluation, for each training ...
        seed: ... from this seed on.
        workers: Processes of evaluation.
        runs: Folder of trainings.
        results: Folder of finished cells (JSON); empty: keep none.
        missing: Measure cells that are not there; else leave them out.

    Raises:
        RoboError: A name is unknown, or a training fails.
    """
    if min(demos, episodes, workers) < 1 or not seeds:
        raise ConfigError("demos, episodes, workers and the number of seeds must be at least 1")
    for name in variants:
        if name not in VARIANTS:
            raise UnknownNameError("variant", name, VARIANTS)
    cells, rows, machines, left_out = Cells(results or None, hardware_line()), [], {}, []
    for task in tasks:
        found: dict[str, list[dict[str, Any]]] = {}
        for name in variants:
            for each in seeds:
                training = _Training(task=task, variant=name, seed=each, demos=demos, runs=Path(runs))
                key = f"{task}/{name}-{each}"
                inputs = training.inputs() | {"episodes": episodes, "first": seed}
                if missing or cells.has(key, inputs):
                    result = cells.get(key, inputs, partial(_measure, training, episodes, seed, workers))
                    machines[result["machine"]] = None
                    found.setdefault(name, []).append(result | {"seed": each})
                else:
                    left_out.append(key)
        rows += [_row(task, name, done, found.get(CLONING, []), seed) for name, done in found.items()]
    return Report(
        title=f"horizon and others, {demos} demonstrations, {episodes} unseen starts for every training",
        rows=rows,
        seeds=list(seeds),
        notes=[
            f"demonstrations of the scripted expert, ways bent by {SWAY:g}; {len(VIEWS)} views of {SIZE} pixels",
            f"{', '.join(TAKES)} see with the encoder of horizon's training of the same seed, cloning with all that it "
            "tells; its minutes come on top",
            "success: Wilson 95 % intervals over all starts; above cloning: of those starts, paired bootstrap over "
            "trainings and starts, 95 %",
            f"cells measured on: {', '.join(machines) or 'none'}",
            f"cells that are missing: {', '.join(left_out) or 'none'}",
        ],
    )


@dataclass(frozen=True, kw_only=True)
class _Training:
    """Of a variant with a seed on a task, from so many demonstrations, in a folder of runs."""

    task: str
    variant: str
    seed: int
    demos: int
    runs: Path

    def inputs(self) -> dict[str, Any]:
        """All that it depends on, folders left out: every setting, also those of whose encoder it has."""
        settings = self._config("").keys()
        for key in ("demos", "name"):
            del settings[key]
        for group, key in LATER:
            if settings.get(group, {}).get(key) == "auto":
                del settings[group][key]
        videos = {"views": list(VIEWS), "size": SIZE, "pixels": PIXELS, "crf": CRF}
        recorded = {"episodes": self.demos, "sway": SWAY, **videos}
        sees = {"encoder": self._encoder().inputs()} if self.variant in TAKES else {}
        return {"settings": settings, "demonstrations": recorded, **sees}

    def run(self) -> Run:
        """The whole training; of what is there already only the rest is trained."""
        if not self._data.is_dir():
            collect(self._data, Order(task=self.task, episodes=self.demos, views=VIEWS, size=SIZE, sway=SWAY))
        sight = str(self._encoder().run().path / "sight") if self.variant in TAKES else ""
        config = self._config(sight)
        last = self.runs / config.name / "last"
        if last.exists() and (there := Run.open(last)).config == config:
            return there if there.status == "done" else resume(there.path)
        return train(config, self.runs)

    @property
    def _data(self) -> Path:
        # Those that were written otherwise are others, and so are trainings on them.
        return self.runs / "demos" / f"{self.task}-{self.demos}-{PIXELS}-{CRF}"

    def _encoder(self) -> _Training:
        return replace(self, variant=ENCODER)

    def _config(self, sight: str) -> Config:
        keys: dict[str, Any] = {"task": self.task, "seed": self.seed, **copy.deepcopy(VARIANTS[self.variant])}
        if sight:
            group, key = TAKES[self.variant]
            keys.setdefault(group, {})[key] = sight
        return build(keys | {"demos": str(self._data), "name": f"{self.task}-{self.variant}-{self.seed}"})


def _measure(training: _Training, episodes: int, first: int, workers: int) -> dict[str, Any]:
    """Train, or go on with it, and evaluate."""
    run = training.run()
    task, shares = tabletop_task(run.task()), dict[int, float]()

    def reached(rollout: Rollout) -> None:
        shares[rollout.seed] = len(task.stage_samples(rollout.signals)) / len(task.stages)

    found = evaluate(
        partial(load_run, run.path),
        episodes=episodes,
        seed=first,
        workers=workers,
        policy=training.variant,
        on_rollout=reached,
    )
    return {
        "success": [bool(e.success) for e in found.episodes],
        "satisfied": sum(e.satisfied for e in found.episodes),
        "unsafe": sum(bool(e.violations) for e in found.episodes),
        "stages": [round(shares[e.seed], 4) for e in found.episodes],
        "minutes": round(run.train_s / 60, 1),
    }


def _row(
    task: str, variant: str, found: Sequence[Mapping[str, Any]], cloning: Sequence[Mapping[str, Any]], seed: int
) -> dict[str, Any]:
    won = [cell["success"] for cell in found]
    row: dict[str, Any] = {
        "task": task,
        "policy": variant,
        "trainings": len(found),
        "success": Rate.of(sum(map(sum, won)), sum(map(len, won))),
        "of each [%]": ", ".join(f"{100 * np.mean(each):.0f}" for each in won),
        "stages [%]": round(100 * float(np.mean([cell["stages"] for cell in found])), 1),
        "unsafe": sum(cell["unsafe"] for cell in found),
        "training [min]": Median.of([cell["minutes"] for cell in found]),
    }
    others = {cell["seed"]: cell["success"] for cell in cloning}
    both = [(cell["success"], others[cell["seed"]]) for cell in found if cell["seed"] in others]
    if both and variant != CLONING:
        row["above cloning [points]"] = Gain.of([a for a, _ in both], [b for _, b in both], seed)
    return row
