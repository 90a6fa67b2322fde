"""The figures of `reach_avoid`: what network, refinement, certificate and backup each bring, in physics."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from policies.learner import AnyPolicy
from policies.stl.config import PlanConfig
from robo.bench import Rate, Report
from robo.evaluate.evaluation import evaluate
from robo.train.run import Run
from tasks.arm import arm_task
from tasks.task import Task

VARIANTS: tuple[tuple[str, dict[str, bool], float], ...] = (
    ("network alone", {"refine": False, "certify": False}, 0.0),
    ("random network + refinement", {"network": False, "certify": False}, 0.0),
    ("network + refinement", {"certify": False}, 0.0),
    ("network + refinement + certificate", {}, 0.0),
    ("the same, ±10 % payload, masses, gains", {}, 0.1),
    ("backup alone (random network, no refinement)", {"network": False, "refine": False}, 0.0),
    ("random network, no refinement, no certificate", {"network": False, "refine": False, "certify": False}, 0.0),
)
"""Name, changes of the plan's settings, mismatch of the physics."""
GRADIENT = "gradient from scratch, once per episode"


def reach_avoid_bench(
    run: str = "runs/reach_avoid/last", episodes: int = 200, seed: int = 0, workers: int = 2, only: str = ""
) -> Report:
    """Satisfaction, violations, backup use and planning time of a trained run and its ablations.

    Args:
        run: Run folder of a trained ``stl`` policy.
        episodes: Unseen seeds per row.
        seed: First of them.
        workers: Processes; 1 for undisturbed planning times.
        only: Measure only rows whose name contains this.
    """
    config = Run.open(run).config
    rows = []
    loads = [(name, partial(_load, run, changes), mismatch) for name, changes, mismatch in VARIANTS]
    for name, load, mismatch in [*loads, (GRADIENT, partial(_load_gradient, run), 0.0)]:
        if only not in name:
            continue
        evaluation = evaluate(load, episodes=episodes, seed=seed, workers=workers, mismatch=mismatch, policy=name)
        result = evaluation.summary()
        thinking = np.median([sum(e.plan_ms) for e in evaluation.episodes])
        rows.append(
            {
                "policy": name,
                "satisfied": Rate.of(sum(e.satisfied for e in evaluation.episodes), episodes),
                "success": Rate.of(sum(e.success for e in evaluation.episodes), episodes),
                "unsafe episodes": result["safety_violations"],
                "rho mean": round(result["rho_mean"], 3),
                "backup [%]": round(100 * result["backup_fraction"], 1),
                "refined [%]": round(100 * result["refinement_fraction"], 1),
                "plan p50 [ms]": round(result["plan_ms_p50"], 1),
                "plan p99 [ms]": round(result["plan_ms_p99"], 1),
                "plan max [ms]": round(result["plan_ms_max"], 1),
                "whole episode, median [ms]": round(float(thinking)),
            }
        )
    return Report(
        title=f"reach_avoid, {episodes} unseen seeds, executed in physics",
        rows=rows,
        seeds=list(range(seed, seed + episodes)),
        notes=[
            f"run {Path(run)}: {config.task}, seed {config.seed}, {config.settings.train.steps} training steps",
            "rates with Wilson 95 % intervals; unsafe: a contact, joint limit or velocity limit at any physics step",
            f"{workers} episodes at a time, one torch thread each",
        ],
    )


def _load(run: str, changes: dict[str, bool]) -> tuple[Task, AnyPolicy]:
    opened = Run.open(run)
    settings = opened.config.settings
    return opened.task(), opened.policy(settings=replace(settings, plan=replace(settings.plan, **changes)))


def _load_gradient(run: str) -> tuple[Task, AnyPolicy]:
    from policies.stl.gradient import GradientPolicy  # lazily: torch

    return Run.open(run).task(), GradientPolicy(arm_task(Run.open(run).task()), PlanConfig())
