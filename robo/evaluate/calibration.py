"""A conformal margin: how much less robust than planned the executed trace may be, with a stated confidence.

Split conformal prediction (Vovk et al. 2005; for robustness of temporal logic Lindemann et al., arXiv 2211.01539):
of n calibration episodes the k-th smallest gap, k = ceil((n + 1) level), is not exceeded by the gap of a further,
exchangeable episode with probability at least `level`, whatever the distribution. Planning with the margin changes the
episodes, so its coverage is measured again on fresh ones that were planned with it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

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


@dataclass(frozen=True)
class World:
    """What is drawn in every episode of a calibration; the margin is worth something for such worlds.

    Attributes:
        mismatch: Masses, servo gains and payload (of other systems: controls) are off by up to this share.
        delay_s: Commands act up to this much later [s].
    """

    mismatch: float
    delay_s: float


def gap(rollout: Rollout) -> float:
    """How much more robustness any plan of an episode promised than was executed; negative if less.

    Raises:
        RunError: The policy does not say what its plans promise.
    """
    promised = rollout.plan_rho[np.isfinite(rollout.plan_rho)]
    if not len(promised):
        raise RunError(f"policy {rollout.policy!r} predicts no robustness, so there is nothing to calibrate")
    return float(promised.max() - rollout.rho)


def quantile(gaps: Sequence[float], level: float) -> float:
    """The margin that gaps ask for at a level, at least 0.

    Raises:
        ConfigError: There are too few for the level.
    """
    if not 0.0 < level < 1.0:
        raise ConfigError(f"level must lie between 0 and 1, not {level}; 0.95 means 95 %")
    rank = math.ceil((len(gaps) + 1) * level)
    if rank > len(gaps):
        least = math.ceil(level / (1.0 - level) - 1e-9)
        raise ConfigError(f"{len(gaps)} episodes are too few for level {level:g}; give at least {least}")
    return max(float(np.sort(gaps)[rank - 1]), 0.0)


def calibrate(
    path: str | Path,
    world: World,
    level: float = 0.95,
    episodes: int = 200,
    check: int = 200,
    workers: int = 1,
    on_rollout: Callable[[Rollout], None] | None = None,
) -> dict[str, Any]:
    """Measure a run's margin, keep it in ``RUN/calibration.json``, and measure on fresh episodes how often it holds.

    From then on the run's policy plans and certifies with the margin subtracted.

    Args:
        path: Run folder.
        world: What is drawn in every episode.
        level: Confidence.
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
    quantile([0.0] * episodes, level)  # enough of them, before they are run
    gaps = _gaps(run.path, 0.0, world, FIRST_CALIBRATION, episodes, workers, on_rollout)
    found: dict[str, Any] = {
        "margin": quantile(gaps, level),
        "level": level,
        "episodes": episodes,
        **asdict(world),
        "weights": checkpoint.sha256["weights.safetensors"],
        "gaps": sorted(gaps),
    }
    write_json(run.path / CALIBRATION, found)
    if check:
        # With the margin subtracted a plan promises less: what is executed must reach that.
        fresh = _gaps(run.path, found["margin"], world, FIRST_CHECK, check, workers, on_rollout)
        held = sum(g <= 0 for g in fresh)
        found |= {"checked": check, "coverage": held / check, "coverage_ci95": list(wilson(held, check))}
        write_json(run.path / CALIBRATION, found)
    return found


def _gaps(
    path: Path,
    margin: float,
    world: World,
    seed: int,
    episodes: int,
    workers: int,
    on_rollout: Callable[[Rollout], None] | None,
) -> list[float]:
    gaps: list[float] = []

    def note(rollout: Rollout) -> None:
        gaps.append(gap(rollout))
        if on_rollout is not None:
            on_rollout(rollout)

    evaluate(
        partial(_load, str(path), margin),
        episodes=episodes,
        seed=seed,
        workers=workers,
        mismatch=world.mismatch,
        delay_s=world.delay_s,
        on_rollout=note,
    )
    return gaps


def _load(path: str, margin: float) -> tuple[Task, AnyPolicy]:
    run = Run.open(path)
    settings = run.config.settings
    return run.task(), run.policy(settings=replace(settings, plan=replace(settings.plan, conformal=margin)))
