"""The six benchmarks of STL neural predictive control: ours beside planners without a network, on executed traces."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from policies.learner import AnyPolicy
from robo.bench import Median, Rate, Report
from robo.core.errors import ConfigError, UnknownNameError
from robo.evaluate.evaluation import evaluate, one_thread
from robo.evaluate.rollout import FIRST_SEED
from robo.train.run import Run
from tasks.system import SystemTask, system_task
from tasks.task import Task

TASKS = ("car", "maze", "ship_safe", "ship_track", "rover", "panda")
BASELINES = ("grad", "cem", "mppi")


def stl_bench(
    runs: str = "runs/bench",
    tasks: Sequence[str] = TASKS,
    states: int = 1000,
    baselines: Sequence[str] = BASELINES,
    baseline_states: int = 100,
    budget: int = 10,
    seed: int = 0,
    workers: int = 2,
) -> Report:
    """Satisfaction of executed traces, planning time and safety on the paper's start distributions.

    A start counts as unsatisfiable when neither ours nor a search with `budget` times its samples, starts and
    gradient steps (each times the square root) finds a satisfying plan; satisfaction is given over all starts
    and over those that are satisfiable. "Plans": the share of steps at which the predicted plan satisfies, the
    paper's own measure. "Certified": starts whose first plan is safe to the end of the episode; none may violate.

    Args:
        runs: Folder that holds a trained run of every task, ``RUNS/<task>/last``.
        tasks: Which benchmarks.
        states: Unseen starts of ours.
        baselines: Planners without a network: grad, cem, mppi.
        baseline_states: Starts of these, the first ones of ours.
        budget: Of the search that decides what is unsatisfiable, over ours.
        seed: First evaluation seed.
        workers: Processes; 1 for undisturbed planning times.

    Raises:
        RoboError: A run is missing, a task or a baseline unknown.
    """
    for kind, given, known in (("benchmark task", tasks, TASKS), ("baseline", baselines, BASELINES)):
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    if states < 1 or budget < 1 or not 1 <= baseline_states <= states:
        raise ConfigError("states and budget must be at least 1, baseline_states between 1 and states")
    rows: list[dict[str, Any]] = []
    for name in tasks:
        path = str(Path(runs) / name / "last")
        ours = evaluate(partial(_load, path), episodes=states, seed=seed, workers=workers, policy="ours")
        failed = [e.seed for e in ours.episodes if not e.satisfied]
        hopeless = _hopeless(path, failed, budget, workers) if failed else set()
        rows.append(_row(name, "ours", ours.episodes, hopeless))
        for baseline in baselines:
            load = partial(_load_baseline, path, baseline)
            theirs = evaluate(load, episodes=baseline_states, seed=seed, workers=workers, policy=baseline)
            found = {e.seed for e in theirs.episodes if e.satisfied} & hopeless
            hopeless -= found
            rows.append(_row(name, baseline, theirs.episodes, hopeless))
            if found:  # a baseline solved what was given up
                rows[-1 - list(baselines).index(baseline) - 1] = _row(name, "ours", ours.episodes, hopeless)
    return Report(
        title="STL neural predictive control: the paper's six benchmarks, executed",
        rows=rows,
        seeds=list(range(seed, seed + states)),
        notes=[
            "rates with Wilson 95 % intervals; a decision: of ours every step, of the others once per episode",
            f"ours: {states} starts, the others the first {baseline_states} of them; unsatisfiable: not found with "
            f"{budget} times the search budget of ours either",
            f"{workers} episodes at a time, one torch thread each",
        ],
    )


def _row(task: str, policy: str, episodes: Sequence[Any], hopeless: set[int]) -> dict[str, Any]:
    possible = [e for e in episodes if e.seed not in hopeless]
    first = np.array([e.plan_ms[0] for e in episodes])
    decisions = np.concatenate([e.plan_ms for e in episodes]) if policy == "ours" else first
    certified = [e for e in episodes if e.certified]
    row: dict[str, Any] = {
        "task": task,
        "policy": policy,
        "satisfied, of satisfiable": Rate.of(sum(e.satisfied for e in possible), max(len(possible), 1)),
        "satisfied, of all": Rate.of(sum(e.satisfied for e in episodes), len(episodes)),
        "unsatisfiable": sum(e.seed in hopeless for e in episodes),
        "plans [%]": round(100 * float(np.mean([e.plans for e in episodes])), 1),
        "decision p50 [ms]": round(float(np.percentile(decisions, 50)), 2),
        "decision p99 [ms]": round(float(np.percentile(decisions, 99)), 1),
        "first decision [ms]": Median.of(first),
    }
    if policy == "ours":
        row["certified [%]"] = round(100 * len(certified) / len(episodes), 1)
        row["unsafe of certified"] = sum(bool(e.violations) for e in certified)
    return row


def _load(path: str) -> tuple[Task, AnyPolicy]:
    run = Run.open(path)
    return run.task(), run.policy()


def _load_baseline(path: str, name: str) -> tuple[Task, AnyPolicy]:
    from policies.npc import baselines  # lazily: torch

    task = system_task(Run.open(path).task())
    make: dict[str, Callable[[SystemTask], AnyPolicy]] = {
        "grad": baselines.GradientSearch,
        "cem": baselines.CrossEntropy,
        "mppi": baselines.Mppi,
    }
    return task, make[name](task)


def _load_search(path: str, budget: int) -> tuple[Task, AnyPolicy]:
    """Ours with more of everything, content with any satisfying plan."""
    from dataclasses import replace

    run = Run.open(path)
    settings, more = run.config.settings, budget**0.5
    plan = settings.plan
    plan = replace(
        plan,
        samples=round(plan.samples * budget),
        starts=round(plan.starts * more),
        iterations=round(plan.iterations * more),
    )
    return run.task(), run.policy(settings=replace(settings, plan=plan))


def _hopeless(path: str, seeds: Sequence[int], budget: int, workers: int) -> set[int]:
    """Of the starts that were not satisfied those that the larger search does not satisfy either."""
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(workers, len(seeds)), spawn) as pool:
        found = pool.map(partial(_findable, path, budget), seeds)
        return {seed for seed, there_is_one in zip(seeds, found, strict=True) if not there_is_one}


def _findable(path: str, budget: int, seed: int) -> bool:
    """Whether the larger search finds a plan that satisfies the specification from a start."""
    from sim.system import SystemEnv

    with one_thread():
        task, policy = _load_search(path, budget)
        obs, _ = SystemEnv(task).reset(seed=FIRST_SEED + seed)
        policy.reset(obs, seed)
        return policy.act(obs).info["plan_rho"] > 0
