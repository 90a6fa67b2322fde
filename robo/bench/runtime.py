"""The real-time loop: how late its ticks are while a policy plans, with real-time scheduling and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from robo.bench import Report
from robo.core.errors import ConfigError
from robo.runtime.deploy import DeployConfig, deploy
from robo.runtime.protocol import Factory
from robo.train.run import Run
from tasks.arm import arm_task

TARGET_MS = 2.0
"""Lateness that 99 % of the ticks must keep."""


def runtime_bench(run: str = "runs/reach_avoid/last", seconds: float = 60.0, seed: int = 0) -> Report:
    """Lateness of the ticks of robo-deploy on the simulated arm, at 100 Hz while the policy runs.

    Args:
        run: Run folder of a trained policy.
        seconds: How long, for each way of scheduling [s].
        seed: Of the first episode.

    Raises:
        ConfigError: No time.
    """
    if not seconds > 0:
        raise ConfigError(f"seconds must be above 0, not {seconds}")
    opened = Run.open(run)
    task = arm_task(opened.task())
    rows, notes, seeds = [], [], set()
    for name, fifo in (("SCHED_FIFO", True), ("ordinary scheduling", False)):
        config = DeployConfig(
            robot=f"sim://{task.robot_name}?fifo={int(fifo)}",
            task=Factory(call="tasks.registry:load_task", arguments={"name_or_path": opened.config.task}),
            policy=Factory(call="robo.runtime.inference:run_policy", arguments={"run": str(opened.path)}),
            seconds=seconds,
            seed=seed,
            fifo=fifo,
        )
        summary = deploy(task, config, None)
        if fifo and not summary["fifo"]:
            name = "SCHED_FIFO (not permitted here)"
        rows.append({"scheduling": name} | _row(summary))
        seeds |= {episode["seed"] for episode in summary["episodes"]}
        if summary["stopped"]:
            notes.append(f"{name}: the arm was stopped: {summary['stopped']}")
    return Report(
        title=f"real-time loop, {seconds:g} s each, the policy in a process beside it",
        rows=rows,
        seeds=sorted(seeds),
        notes=[
            f"run {Path(run)}; aim: lateness p99 <= {TARGET_MS:g} ms, no missed tick; "
            "above about 1 % stolen time the figures mean little",
            *notes,
        ],
    )


def _row(summary: dict[str, Any]) -> dict[str, Any]:
    return {
        "rate [Hz]": summary["rate_hz"],
        "ticks": summary["ticks"],
        "missed": summary["missed"],
        "lateness p50 [ms]": round(summary["late_ms_p50"], 3),
        "lateness p99 [ms]": round(summary["late_ms_p99"], 3),
        "lateness max [ms]": round(summary["late_ms_max"], 3),
        "work p99 [ms]": round(summary["work_ms_p99"], 2),
        "plan p50 [ms]": _round(summary["plan_ms_p50"]),
        "plan p99 [ms]": _round(summary["plan_ms_p99"]),
        "late chunks": summary["late_chunks"],
        "stolen [%]": round(100 * (summary["steal"] or 0.0), 2),
    }


def _round(value: float | None) -> float | None:
    return None if value is None else round(value, 1)
