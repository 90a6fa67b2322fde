"""robo-deploy: run a trained policy on an arm, in real time, under a supervisor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robo.cli.main import INTERRUPTED, Parser, run_command

if TYPE_CHECKING:
    from rich.table import Table

_EPILOG = """\
An episode is one instance of the task; episodes follow each other until --seconds are over (the one
under way is finished). Every tick is logged in RUN/deploy/<number>/. Ctrl-C brakes the arm, holds
it and ramps the servos down; so does every error.

robots:
  sim, sim://panda                            simulated arm in a process of its own
  sim://panda?payload_kg=0.3&gain_scale=0.9   one that differs from its model
  sim://panda?truth=0                         one that offers no simulator truth, as blind as a real arm

examples:
  robo-deploy runs/reach_avoid/last --robot sim
  robo-deploy runs/reach_avoid/last --robot sim --seconds 60 --json out.json
  robo-deploy runs/reach_avoid/last --robot sim --dry-run"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Deploy a run; prints a table."""
    parser = Parser("robo-deploy", "Run a trained policy on an arm, in real time, under a supervisor.", _EPILOG)
    parser.add_argument("run", metavar="RUN", help="a run folder, such as runs/reach_avoid/last")
    parser.add_argument("--robot", required=True, metavar="URI", help="which arm, such as sim")
    parser.add_argument(
        "--seconds", type=float, default=0.0, metavar="S", help="play episodes for that long (default: one episode)"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="seed of the first episode (default: 0)")
    parser.add_argument("--json", metavar="FILE", help="write the summary there too")
    parser.add_argument("--dry-run", action="store_true", help="start and check everything, but send nothing")
    args = parser.parse_args(argv)

    from pathlib import Path

    from rich.console import Console

    from robo.core.errors import ConfigError, RobotError
    from robo.core.files import write_json
    from robo.runtime.deploy import DeployConfig, deploy
    from robo.runtime.log import next_folder
    from robo.runtime.protocol import Factory
    from robo.train.run import Run
    from tasks.arm import arm_task

    run = Run.open(args.run)
    if args.json:  # known before the arm moves, not after
        try:
            Path(args.json).parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"cannot write --json {args.json}: {error.strerror}; choose another place") from error
        if Path(args.json).is_dir():
            raise ConfigError(f"cannot write --json {args.json}: it is a folder; give a file")
    config = DeployConfig(
        robot=args.robot,
        task=Factory(call="tasks.registry:load_task", arguments={"name_or_path": run.config.task}),
        policy=Factory(call="robo.runtime.inference:run_policy", arguments={"run": str(run.path)}),
        seconds=args.seconds,
        seed=args.seed,
        dry_run=args.dry_run,
    )
    folder = None if args.dry_run else next_folder(run.path / "deploy")
    summary = deploy(arm_task(run.task()), config, folder, on_event=print)
    if args.json:
        write_json(Path(args.json), summary)
    Console().print(_table(summary))
    if summary["log"]:
        print(f"log of every tick: {summary['log']}")
    if summary["interrupted"]:
        return INTERRUPTED
    if summary["stopped"]:
        raise RobotError(f"the arm was stopped: {summary['stopped']}")
    return 0


def _table(summary: dict[str, Any]) -> Table:
    from rich.table import Table

    def number(value: float | None, unit: str = "ms", digits: int = 2) -> str:
        return "-" if value is None else f"{value:.{digits}f} {unit}".rstrip()

    def numbers(name: str) -> str:
        return " / ".join(number(summary.get(f"{name}_{q}"), "") for q in ("p50", "p99"))

    table = Table(title=f"{summary['task']} on {summary['robot']}, {summary['rate_hz']:g} Hz", title_justify="left")
    table.add_column("executed")
    table.add_column("value", justify="right")
    granted = [name for name, key in (("SCHED_FIFO", "fifo"), ("mlockall", "memory_locked")) if summary[key]]
    if summary["dry_run"]:
        table.add_row("dry run", "everything started, nothing sent")
        table.add_row("planning time, first calls", ", ".join(number(ms, digits=1) for ms in summary["warm_ms"] or []))
        table.add_row("real-time scheduling", ", ".join(granted) or "not permitted")
        return table
    episodes = summary["episodes"]
    judged = [e for e in episodes if "rho" in e]
    table.add_row("ticks, missed", f"{summary['ticks']}, {summary['missed']}")
    table.add_row("lateness p50 / p99 / max", f"{numbers('late_ms')} / {number(summary['late_ms_max'])}")
    table.add_row("planning time p50 / p99", f"{numbers('plan_ms')} ms")
    table.add_row("chunks that came late", str(summary["late_chunks"]))
    table.add_row("real-time scheduling", ", ".join(granted) or "not permitted")
    table.add_row("time stolen from this machine", number(100 * (summary["steal"] or 0.0), "%"))
    table.add_row("episodes satisfied", f"{summary['satisfied']} of {len(judged)}")
    table.add_row("robustness, worst", number(summary["rho_min"], "", 4))
    table.add_row("episodes with a safety violation", str(summary["safety_violations"]))
    table.add_row("commands cut to the limits", str(summary["limited"]))
    for name, share in summary["share"].items():
        table.add_row(f"ticks by {name}", number(100 * share, "%", 1))
    return table


if __name__ == "__main__":
    raise SystemExit(main())
