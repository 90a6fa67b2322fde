"""``horizon`` beside who imitates, and without each of its parts: trained and evaluated in cells that are kept."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
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
from robo.evaluate.evaluation import evaluate
from robo.evaluate.loading import load_run
from robo.train.config import build
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
    "bc_encoder": {"policy": "bc", "see": {**_EYES, "shift_px": 0}},
    "bc": {"policy": "bc", "see": _EYES},
    "act": {"policy": "act", "see": _EYES},
    "diffusion": {"policy": "diffusion", "see": _EYES},
}
"""Name → config keys, without task, demonstrations and seed."""
CLONING, ENCODER = "bc_encoder", "horizon"
"""Who the others are compared with, and whose encoder that one has."""


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
                data = Path(runs) / "demos" / f"{task}-{demos}"
                inputs = _keys(task, name, each) | {"demonstrations": demos, "episodes": episodes, "first": seed}
                if missing or cells.has(f"{task}/{name}-{each}", inputs):
                    measure = partial(_measure, task, name, each, data, demos, episodes, seed, workers, Path(runs))
                    result = cells.get(f"{task}/{name}-{each}", inputs, measure)
                    machines[result["machine"]] = None
                    found.setdefault(name, []).append(result | {"seed": each})
                else:
                    left_out.append(f"{task}/{name}-{each}")
        rows += [_row(task, name, done, found.get(CLONING, []), seed) for name, done in found.items()]
    return Report(
        title=f"horizon and others, {demos} demonstrations, {episodes} unseen starts for every training",
        rows=rows,
        seeds=list(seeds),
        notes=[
            f"demonstrations of the scripted expert, ways bent by {SWAY:g}; {len(VIEWS)} views of {SIZE} pixels",
            "same encoder: frozen, that of horizon's training of the same seed, with all that it tells",
            "success: Wilson 95 % intervals over all starts; above cloning: of those starts, paired bootstrap over "
            "trainings and starts, 95 %",
            f"cells measured on: {', '.join(machines) or 'none'}",
            f"cells that are missing: {', '.join(left_out) or 'none'}",
        ],
    )


def _keys(task: str, variant: str, seed: int) -> dict[str, Any]:
    """Config keys of a training but for folders."""
    return {"task": task, "seed": seed, **copy.deepcopy(VARIANTS[variant])}


def _measure(
    task: str, variant: str, seed: int, data: Path, demos: int, episodes: int, first: int, workers: int, runs: Path
) -> dict[str, Any]:
    """Train, or go on with it, and evaluate."""
    run = _trained(task, variant, seed, data, demos, runs)
    shares: dict[int, float] = {}

    def reached(rollout: Rollout) -> None:
        done = tabletop_task(run.task())
        shares[rollout.seed] = len(done.stage_samples(rollout.signals)) / len(done.stages)

    found = evaluate(
        partial(load_run, run.path), episodes=episodes, seed=first, workers=workers, policy=variant, on_rollout=reached
    )
    return {
        "success": [bool(e.success) for e in found.episodes],
        "satisfied": sum(e.satisfied for e in found.episodes),
        "unsafe": sum(bool(e.violations) for e in found.episodes),
        "stages": [round(shares[e.seed], 4) for e in found.episodes],
        "minutes": round(run.train_s / 60, 1),
    }


def _trained(task: str, variant: str, seed: int, data: Path, demos: int, runs: Path) -> Run:
    """The whole training; of what is there already only the rest is trained."""
    if not data.is_dir():
        collect(data, Order(task=task, episodes=demos, views=VIEWS, size=SIZE, sway=SWAY))
    keys: dict[str, Any] = _keys(task, variant, seed) | {"demos": str(data), "name": f"{task}-{variant}-{seed}"}
    if variant == CLONING:
        sees = _trained(task, ENCODER, seed, data, demos, runs)
        keys["see"] |= {"trunk": str(sees.path / "sight")}
    config = build(keys)
    last = runs / config.name / "last"
    if last.exists() and (there := Run.open(last)).config == config:
        return there if there.status == "done" else resume(there.path)
    return train(config, runs)


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
