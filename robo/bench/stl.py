"""The six benchmarks of STL neural predictive control: ours beside planners without a network and SAC, executed."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from policies.learner import AnyPolicy
from policies.registry import POLICIES
from robo.bench import Median, Rate, Report
from robo.bench.cells import Cells
from robo.core.errors import ConfigError, RunError, TaskError, UnknownNameError
from robo.core.machine import hardware_line
from robo.evaluate.evaluation import Episode, evaluate, one_thread
from robo.evaluate.rollout import FIRST_SEED
from robo.train.config import resolve
from robo.train.loop import train
from robo.train.run import Run
from tasks.registry import load_task
from tasks.system import system_task
from tasks.task import Task

TASKS = ("car", "maze", "ship_safe", "ship_track", "rover", "panda")
PLANNERS: Mapping[str, tuple[str, dict[str, Any]]] = {
    "grad": ("grad", {}),
    "grad-compiled": ("grad", {"compiled": True}),
    "cem": ("cem", {}),
    "cem-compiled": ("cem", {"compiled": True}),
    "mppi": ("mppi", {}),
    "mppi-compiled": ("mppi", {"compiled": True}),
    "mpc": ("mpc", {}),
    "milp": ("milp", {}),
}
"""Baselines that learn nothing: name → kind of policy, changes of its settings."""
BASELINES = (*PLANNERS, "sac")
PROOF_S = 10.0
"""Most time for a proof that there is no plan."""
BLOCK = 100
"""Starts whose unsatisfied ones make one cell."""


def stl_bench(
    runs: str = "runs",
    tasks: Sequence[str] = TASKS,
    states: int = 1000,
    baselines: Sequence[str] = BASELINES,
    baseline_states: int = 100,
    budget: int = 100,
    seed: int = 0,
    workers: int = 1,
    results: str = "docs/results/stl",
) -> Report:
    """Satisfaction of executed traces, planning time and safety on the paper's start distributions.

    A start counts as unsatisfiable when a mixed-integer program proves it (what is not linear is relaxed in favour of
    a plan), or when neither anyone in the table nor ours with `budget` times its search finds a satisfying plan.
    "Plans": the share of steps at which the predicted plan satisfies, the paper's own measure. "Certified": starts
    whose first plan is safe to the end of the episode; none of them may become unsafe. "Against ours": starts that
    only this policy satisfied, and only ours, with the one-sided sign test of its being better.

    Args:
        runs: Folder of the runs, ``RUNS/bench/<task>/<number>``; the newest finished one of a kind of policy counts.
            Without one, ours is the network that ships with the project, and SAC is trained first (if its cell is
            missing).
        tasks: Which benchmarks.
        states: Unseen starts of ours.
        baselines: Of grad, cem, mppi (each also -compiled: on our tapes), mpc, milp, sac.
        baseline_states: Starts of these, the first ones of ours.
        budget: Of the search that decides what is unsatisfiable, over ours.
        seed: First evaluation seed.
        workers: Processes; 1 for undisturbed planning times.
        results: Folder of finished cells (JSON), read if there and written if not; empty: keep none.

    Raises:
        RoboError: A run does not load, a task or a baseline is unknown.
    """
    for kind, given, known in (("benchmark task", tasks, TASKS), ("baseline", baselines, BASELINES)):
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    if states < 1 or budget < 1 or not 1 <= baseline_states <= states:
        raise ConfigError("states and budget must be at least 1, baseline_states between 1 and states")
    cells = Cells(results or None, hardware_line())
    rows: list[dict[str, Any]] = []
    machines: dict[str, None] = {}
    left_out: list[str] = []
    for name in tasks:
        run = _newest(runs, name, "npc") or Run.open(f"bench/{name}")
        found = {"ours": _ours(cells, name, run, states, seed, workers)}
        for baseline in baselines:
            measure = partial(_sac, runs=runs) if baseline == "sac" else partial(_planner, policy=baseline)
            try:
                found[baseline] = measure(cells, name, states=baseline_states, seed=seed, workers=workers)
            except TaskError as error:
                left_out.append(f"{name}, {baseline}: {error}")
        hopeless = _hopeless(cells, name, run, found["ours"]["unsatisfied"], budget, seed, workers)
        for result in found.values():  # whoever satisfied one shows that it can be
            hopeless["not found"] -= set(range(seed, seed + result["states"])) - set(result["unsatisfied"])
        machines |= dict.fromkeys(result["machine"] for result in found.values())
        rows += [_row(name, policy, result, found["ours"], hopeless, seed) for policy, result in found.items()]
    return Report(
        title="STL neural predictive control: the paper's six benchmarks, executed",
        rows=rows,
        seeds=list(range(seed, seed + states)),
        notes=[
            "rates with Wilson 95 % intervals; a decision: of ours and SAC every step, of the others once per episode",
            f"ours: {states} starts, the others the first {baseline_states}; unsatisfiable: proven by a relaxed "
            f"mixed-integer program, or not found with {budget} times the search of ours",
            f"{workers} episodes at a time, one torch thread each; cells measured on: {', '.join(machines)}",
            *(f"left out: {line}" for line in left_out),
        ],
    )


# ---- cells -----------------------------------------------------------------------


def _newest(runs: str, task: str, policy: str) -> Run | None:
    """The newest finished run of a kind of policy, if there is one."""
    numbered = (p for p in (Path(runs) / "bench" / task).glob("*") if p.name.isdecimal())
    for path in sorted(numbered, key=lambda p: int(p.name), reverse=True):
        run = Run.open(path)
        if run.config.policy == policy and run.status == "done":
            return run
    return None


def _ours(cells: Cells, task: str, run: Run, states: int, seed: int, workers: int) -> dict[str, Any]:
    checkpoint = run.latest()
    assert checkpoint is not None
    inputs = {
        "task": task,
        "policy": "ours",
        "settings": asdict(run.config.settings),
        "weights": checkpoint.sha256["weights.safetensors"],
        "states": states,
        "seed": seed,
        "workers": workers,
    }
    return cells.get(f"{task}-ours", inputs, lambda: _measure_run(run, "ours", states, seed, workers))


def _sac(cells: Cells, task: str, runs: str, states: int, seed: int, workers: int) -> dict[str, Any]:
    config = resolve(f"bench/{task}", {"policy": "sac"})
    inputs = {
        "task": task,
        "policy": "sac",
        "settings": asdict(config.settings),
        "states": states,
        "seed": seed,
        "workers": workers,
    }

    def measure() -> dict[str, Any]:
        run = _newest(runs, task, "sac")
        if run is None or run.config.settings != config.settings:
            run = train(config, runs)
        if run.status != "done":
            raise RunError(f"stopped while training SAC on {task}; go on with: robo-train --resume {run.path}")
        return _measure_run(run, "sac", states, seed, workers)

    return cells.get(f"{task}-sac", inputs, measure)


def _measure_run(run: Run, policy: str, states: int, seed: int, workers: int) -> dict[str, Any]:
    load = partial(_load_run, str(run.path))
    episodes = evaluate(load, episodes=states, seed=seed, workers=workers, policy=policy).episodes
    return summarise(episodes) | {"train_s": run.train_s}


def _planner(cells: Cells, task: str, policy: str, states: int, seed: int, workers: int) -> dict[str, Any]:
    kind, changes = PLANNERS[policy]
    settings = asdict(_planner_settings(kind, changes))
    inputs = {"task": task, "policy": policy, "settings": settings, "states": states, "seed": seed, "workers": workers}
    load = partial(_load_planner, task, kind, changes)
    load()  # what does not fit is told here, not by a worker

    def measure() -> dict[str, Any]:
        episodes = evaluate(load, episodes=states, seed=seed, workers=workers, policy=policy).episodes
        return summarise(episodes) | {"train_s": 0.0}

    return cells.get(f"{task}-{policy}", inputs, measure)


def summarise(episodes: Sequence[Episode]) -> dict[str, Any]:
    """What a cell keeps of the episodes of a policy: JSON-able."""
    decisions = np.concatenate([e.plan_ms for e in episodes])
    return {
        "states": len(episodes),
        "unsatisfied": [e.seed for e in episodes if not e.satisfied],
        "unsafe": [e.seed for e in episodes if e.violations],
        "certified": sum(e.certified for e in episodes),
        "unsafe of certified": sum(e.certified and bool(e.violations) for e in episodes),
        "plans": float(np.mean([e.plans for e in episodes])),
        "first_ms": [round(e.plan_ms[0], 4) for e in episodes],
        "decision_ms": {"p50": float(np.percentile(decisions, 50)), "p99": float(np.percentile(decisions, 99))},
    }


def _hopeless(
    cells: Cells, task: str, run: Run, seeds: Sequence[int], budget: int, seed: int, workers: int
) -> dict[str, set[int]]:
    """Of the starts that ours did not satisfy: those proven to be unsatisfiable, and those where no plan is found."""
    found: dict[str, set[int]] = {"proven": set(), "not found": set()}
    blocks: dict[int, list[int]] = {}
    for failed in seeds:
        blocks.setdefault((failed - seed) // BLOCK, []).append(failed)
    spawn = multiprocessing.get_context("spawn")
    for block, wanted in blocks.items():
        inputs = {
            "task": task,
            "seeds": wanted,
            "budget": budget,
            "proof_s": PROOF_S,
            "search": asdict(run.config.settings.plan),
        }

        def measure(wanted: list[int] = wanted) -> dict[str, Any]:
            with ProcessPoolExecutor(min(workers, len(wanted)), spawn) as pool:
                verdicts = list(pool.map(partial(_judge, str(run.path), budget), wanted))
            pairs = list(zip(wanted, verdicts, strict=True))
            return {kind: [s for s, v in pairs if v == kind] for kind in ("proven", "not found", "found")}

        result = cells.get(f"{task}-unsatisfiable-{block}", inputs, measure)
        for kind, known in found.items():
            known.update(result[kind])
    return found


def _judge(path: str, budget: int, seed: int) -> str:
    """Whether a start is proven to be unsatisfiable, or a plan for it is found by a larger search, or neither."""
    from policies.planners.milp import hopeless
    from sim.system import SystemEnv

    with one_thread():
        run = Run.open(path)
        task = system_task(run.task())
        obs, _ = SystemEnv(task).reset(seed=FIRST_SEED + seed)
        if hopeless(task, obs["state"], PROOF_S):
            return "proven"
        settings = run.config.settings
        policy = run.policy(
            settings=replace(settings, plan=replace(settings.plan, rounds=settings.plan.rounds * budget))
        )
        policy.reset(obs, seed + 1)  # not the random numbers that failed
        return "found" if policy.act(obs).info["plan_rho"] > 0 else "not found"


def _load_run(path: str) -> tuple[Task, AnyPolicy]:
    run = Run.open(path)
    return run.task(), run.policy(settings=run.config.settings)  # without a margin that somebody calibrated


def _load_planner(task: str, kind: str, changes: Mapping[str, Any]) -> tuple[Task, AnyPolicy]:
    made = load_task(f"bench/{task}")
    return made, POLICIES.make(kind).load(made, _planner_settings(kind, changes), {}, "cpu")


def _planner_settings(kind: str, changes: Mapping[str, Any]) -> Any:
    settings = POLICIES.make(kind).config()
    return replace(settings, plan=replace(settings.plan, **changes))


# ---- the table -------------------------------------------------------------------


def _row(
    task: str,
    policy: str,
    result: Mapping[str, Any],
    ours: Mapping[str, Any],
    hopeless: Mapping[str, set[int]],
    seed: int,
) -> dict[str, Any]:
    starts, failed = set(range(seed, seed + result["states"])), set(result["unsatisfied"])
    possible = starts - hopeless["proven"] - hopeless["not found"]
    decision = result["decision_ms"]["p50"] if policy in ("ours", "sac") else float(np.median(result["first_ms"]))
    row: dict[str, Any] = {
        "task": task,
        "policy": policy,
        "satisfied, of satisfiable": Rate.of(len(possible - failed), max(len(possible), 1)),
        "satisfied, of all": Rate.of(len(starts - failed), len(starts)),
        "unsatisfiable": f"{len(starts & hopeless['proven'])} proven, {len(starts & hopeless['not found'])} not found",
        "plans [%]": round(100 * result["plans"], 1),
        "decision p50 [ms]": round(decision, 3),
        "decision p99 [ms]": round(result["decision_ms"]["p99"], 1),
        "first decision [ms]": Median.of(result["first_ms"]),
        "training [min]": round(result["train_s"] / 60, 1),
        "unsafe": Rate.of(len(result["unsafe"]), len(starts)),
    }
    if policy == "ours":
        row["certified [%]"] = round(100 * result["certified"] / len(starts), 1)
        row["unsafe of certified"] = result["unsafe of certified"]
    else:
        better, worse = len((starts & set(ours["unsatisfied"])) - failed), len(failed - set(ours["unsatisfied"]))
        row["against ours"] = f"+{better} -{worse}, p = {_sign_test(better, worse):.2g}"
        row["ours decides faster"] = f"{decision / ours['decision_ms']['p50']:.3g} times"
    return row


def _sign_test(better: int, worse: int) -> float:
    """Probability of at least so many wins in as many fair coin tosses (exact one-sided McNemar test)."""
    n = better + worse
    return sum(math.comb(n, k) for k in range(better, n + 1)) / 2**n
