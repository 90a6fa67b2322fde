"""A conformal margin: how much less robust than planned the executed trace may be, with a stated confidence.

Split conformal prediction (Vovk et al. 2005; for robustness of temporal logic Lindemann et al., arXiv 2211.01539)
takes the k-th smallest gap of n calibration episodes. With k = ceil((n + 1) level) it covers a further episode with
probability `level`, on average over all calibrations that might have been drawn; about every other calibration falls
short of it. A robot is calibrated once, so k is larger here: the smallest with which the coverage is at least `level`
in a share `confidence` of calibrations (Wilks 1941; Vovk 2012, arXiv 1209.2673), whatever the distribution. Planning
with the margin changes the episodes, so its coverage is measured again on fresh ones that were planned with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import binom

from policies.learner import AnyPolicy
from robo.core.errors import ConfigError, RunError
from robo.core.files import write_json
from robo.data.rollout import Rollout
from robo.evaluate.evaluation import evaluate
from robo.evaluate.metrics import wilson
from robo.train.run import CALIBRATION, Run
from tasks.task import Task

FIRST_CALIBRATION, FIRST_CHECK = 5_000_000, 6_000_000
"""Evaluation seeds: neither those of robo-eval nor of each other."""


def gap(rollout: Rollout) -> float:
    """How much more robustness any plan of an episode promised than was executed; negative if less.

    Raises:
        RunError: The policy does not say what its plans promise.
    """
    promised = rollout.plan_rho[np.isfinite(rollout.plan_rho)]
    if not len(promised):
        raise RunError(f"policy {rollout.policy!r} predicts no robustness, so there is nothing to calibrate")
    return float(promised.max() - rollout.rho)


def quantile(gaps: Sequence[float], level: float, confidence: float) -> float:
    """The margin that gaps ask for, at least 0: with `confidence` it covers a share `level` of all gaps.

    Raises:
        ConfigError: There are too few for the level.
    """
    for name, share in (("level", level), ("confidence", confidence)):
        if not 0.0 < share < 1.0:
            raise ConfigError(f"{name} must lie between 0 and 1, not {share}; 0.95 means 95 %")
    # The k-th smallest gap lies below the wanted one if k or more of all gaps do, each with probability `level`.
    rank = int(binom.ppf(confidence, len(gaps), level)) + 1
    if rank > len(gaps):
        least = math.ceil(math.log(1.0 - confidence) / math.log(level))
        raise ConfigError(
            f"{len(gaps)} episodes are too few for level {level:g} with confidence {confidence:g}; "
            f"give at least {least}"
        )
    return max(float(np.sort(gaps)[rank - 1]), 0.0)


def calibrate(
    path: str | Path,
    *,
    mismatch: float,
    delay_s: float,
    level: float = 0.95,
    confidence: float = 0.9,
    episodes: int = 200,
    check: int = 200,
    workers: int = 1,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> dict[str, Any]:
    """Measure a run's margin, keep it in ``RUN/calibration.json``, and measure on fresh episodes how often it holds.

    From then on the run's policy plans and certifies with the margin subtracted.

    Args:
        path: Run folder.
        mismatch: Masses, servo gains and payload (of other systems: controls) are off by up to this share, drawn
            in every episode: the margin is worth something in such worlds.
        delay_s: Commands act up to this much later, drawn likewise [s].
        level: Share of episodes that shall reach what their plans promise.
        confidence: That they do.
        episodes: For the margin, planned without one.
        check: Fresh ones, planned with it; 0 for none.
        workers: Processes.
        on_rollout: Called with every rollout.

    Raises:
        RoboError: The run or the settings do not fit.
    """
    run = Run.open(path)
    checkpoint = run.latest()
    if checkpoint is None or not hasattr(getattr(run.config.settings, "plan", None), "conformal"):
        raise RunError(f"{run.path}: policy {run.config.policy} cannot subtract a margin; stl, npc and spec can")
    quantile([0.0] * episodes, level, confidence)  # enough of them, before they are run

    def measure(margin: float, seed: int, episodes: int) -> list[float]:
        gaps: list[float] = []

        def note(rollout: Rollout) -> None:
            gaps.append(gap(rollout))
            if on_rollout is not None:
                on_rollout(rollout)

        load = partial(_load, str(run.path), margin)
        evaluate(
            load,
            episodes=episodes,
            seed=seed,
            workers=workers,
            mismatch=mismatch,
            delay_s=delay_s,
            on_rollout=note,
        )
        return gaps

    gaps = measure(0.0, FIRST_CALIBRATION, episodes)
    found: dict[str, Any] = {
        "margin": quantile(gaps, level, confidence),
        "level": level,
        "confidence": confidence,
        "episodes": episodes,
        "mismatch": mismatch,
        "delay_s": delay_s,
        "weights": checkpoint.sha256["weights.safetensors"],
        "gaps": sorted(gaps),
    }
    write_json(run.path / CALIBRATION, found)
    if check:
        # With the margin subtracted a plan promises less: what is executed must reach that.
        fresh = measure(found["margin"], FIRST_CHECK, check)
        held = sum(g <= 0 for g in fresh)
        found |= {"checked": check, "coverage": held / check, "coverage_ci95": list(wilson(held, check))}
        write_json(run.path / CALIBRATION, found)
    return found


def _load(path: str, margin: float) -> tuple[Task, AnyPolicy]:
    run = Run.open(path)
    settings = run.config.settings
    return run.task(), run.policy(settings=replace(settings, plan=replace(settings.plan, conformal=margin)))
