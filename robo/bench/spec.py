"""Specifications that nobody knew at training: our network and refinement beside search and gradient from scratch."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np

from policies.registry import POLICIES
from policies.spec import spec_task
from policies.spec.planner import SpecPolicy
from policies.system import SystemPolicy
from robo.bench import Median, Rate, Report
from robo.bench.cells import Cells
from robo.core.errors import ConfigError, UnknownNameError
from robo.core.machine import hardware_line
from robo.evaluate.evaluation import one_thread
from robo.evaluate.worlds import SystemWorld
from robo.train.run import Run
from tasks.specs.grammar import draw_shape
from tasks.specs.task import SpecTask

TASKS = ("point", "panda")
FIRST = 10_000_000
"""Problem i of an evaluation is drawn by seed ``FIRST + i``: no training draws from these."""
Make = Callable[[SpecTask], SystemPolicy]


def _ours(run: Run, **changes: Any) -> Make:
    settings = run.config.settings
    policy = run.policy(settings=replace(settings, plan=replace(settings.plan, **changes)))
    assert isinstance(policy, SpecPolicy)
    return policy.of


def _grad(run: Run, **changes: Any) -> Make:
    kind = POLICIES.make("grad")
    settings = kind.config()
    changed = replace(settings, plan=replace(settings.plan, **changes))
    return lambda task: kind.load(task, changed, {}, "cpu")  # type: ignore[return-value]


ROWS: dict[str, Callable[[Run], Make]] = {
    "ours": _ours,
    "network alone": partial(_ours, search=False),
    "refinement alone": partial(_ours, network=False),
    "grad": _grad,
    "grad-compiled": partial(_grad, compiled=True),
}
"""Rows of the table → what makes a policy for a specification."""


def spec_bench(
    tasks: Sequence[str] = TASKS,
    formulas: int = 200,
    runs: str = "",
    policies: Sequence[str] = tuple(ROWS),
    results: str = "docs/results/spec",
) -> Report:
    """Satisfaction and time of plans for formulas of shapes and constants that were not trained on.

    All formulas are satisfiable by construction: regions are laid along a way of the system, obstacles beside it. What
    is executed is scored. "Ready": from a formula to a policy, with all that is compiled for it; "plan": from a
    state to a plan.

    Args:
        tasks: Systems: point, panda.
        formulas: How many for each.
        runs: Folder of runs, ``RUNS/spec/<task>/last``; empty: the networks that ship with the project.
        policies: Rows: ours, network alone, refinement alone, grad, grad-compiled.
        results: Folder of finished cells (JSON), read if there and written if not; empty: keep none.

    Raises:
        RoboError: A run does not load, a task or a policy is unknown.
    """
    for kind, given, known in (("spec task", tasks, TASKS), ("policy", policies, tuple(ROWS))):
        for name in given:
            if name not in known:
                raise UnknownNameError(kind, name, known)
    if formulas < 1:
        raise ConfigError(f"formulas must be at least 1, not {formulas}")
    cells, rows, machines = Cells(results or None, hardware_line()), [], {}
    for name in tasks:
        run = Run.open(f"{runs}/spec/{name}/last" if runs else f"spec/{name}")
        checkpoint = run.latest()
        assert checkpoint is not None
        inputs = {
            "task": name,
            "formulas": formulas,
            "weights": checkpoint.sha256["weights.safetensors"],
            "plan": asdict(run.config.settings.plan),
        }
        found = {
            policy: cells.get(
                f"{name}-{policy.replace(' ', '-')}",
                {**inputs, "policy": policy},
                lambda policy=policy, run=run: _measure(run, ROWS[policy], formulas),
            )
            for policy in policies
        }
        for policy, result in found.items():
            machines[result["machine"]] = None
            row: dict[str, Any] = {
                "task": name,
                "policy": policy,
                "satisfied": Rate.of(sum(rho > 0 for rho in result["rho"]), formulas),
                "unsafe": Rate.of(result["unsafe"], formulas),
                "plan, median [ms]": Median.of(result["plan_ms"]),
                "plan, p99 [ms]": round(float(np.percentile(result["plan_ms"], 99)), 1),
                "ready, median [ms]": round(float(np.median(result["ready_ms"])), 1),
                "both, median [ms]": Median.of(np.add(result["plan_ms"], result["ready_ms"])),
            }
            if policy != "ours" and "ours" in found:
                for what in ("plan", "both"):
                    times = [
                        np.median(np.add(r["plan_ms"], np.multiply(r["ready_ms"], what == "both")))
                        for r in (result, found["ours"])
                    ]
                    row[f"ours is faster, {what}"] = f"{times[0] / times[1]:.3g} times"
            rows.append(row)
    return Report(
        title=f"{formulas} formulas that were not trained on",
        rows=rows,
        seeds=list(range(FIRST, FIRST + formulas)),
        notes=[
            "executed traces; rates with Wilson 95 % intervals; one formula at a time, one torch thread",
            f"cells measured on: {', '.join(machines)}",
        ],
    )


def _measure(run: Run, prepare: Callable[[Run], Make], formulas: int) -> dict[str, Any]:
    plain = spec_task(run.task())
    make = prepare(run)
    rho, unsafe, plan_ms, ready_ms = [], 0, [], []
    with one_thread():
        for i in range(formulas):
            rng = np.random.default_rng(FIRST + i)
            problem = plain.problem(draw_shape(plain.steps, rng), rng)
            began = time.perf_counter()
            task = plain.pose(problem)
            policy = make(task)
            ready_ms.append(1e3 * (time.perf_counter() - began))
            rollout = SystemWorld(task).roll_out(policy, i, instance={"state": problem.start})
            rho.append(rollout.rho)
            unsafe += bool(rollout.violations)
            plan_ms.append(float(rollout.plan_ms[0]))
    return {"rho": rho, "unsafe": unsafe, "plan_ms": plan_ms, "ready_ms": ready_ms}
