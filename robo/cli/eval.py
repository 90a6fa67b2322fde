"""robo-eval: run a trained policy in physics and score what was executed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from robo.cli.main import RUN_HELP, Parser, run_command
from robo.core.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

_EPILOG = """\
Episode i has evaluation seed SEED + i. Seed s is a task instance the training never saw (the environment
gets 1,000,000 + s). The same seeds give the same result whatever the number of workers, planning
times apart: workers share the cores, so leave --workers at 1 where planning times matter.

What is reported, over executed traces (the truth of the simulator):
  satisfied            the specification's exact robustness is above 0
  success              the task's own measure of success
  safety violations    episodes with a contact, or a joint or velocity limit exceeded, in any physics step
                       (systems without an arm: episodes with a sample at which the safety formula is false)
  backup, refinement   share of control steps they made
  planning time        of one step [ms]
Rates come with 95 % Wilson intervals. The result is kept in RUN/eval.json. A run that robo-calibrate was run on
plans with the margin it measured, and the title says so.

With --mismatch 0.1 an arm's masses and servo gains are off by up to 10 % and it carries up to a tenth of its rated
payload; the controls of any other system act up to 10 % more or less strongly. With --delay 0.02
commands act up to 20 ms late (of other systems: up to a control step). Drawn anew every episode.

Keys of the policy's config, given as --KEY VALUE, win over the run's for this evaluation: how it acts or plans. What
training made of the network's sizes stays. `robo-train TARGET --dry-run` prints all keys.

examples:
  robo-eval runs/reach_avoid/last --episodes 100 --json out.json
  robo-eval runs/reach_avoid/last --episodes 200 --workers 2 --mismatch 0.1
  robo-eval runs/pick_and_place/last --act mpc --world.plan.robustness 5   # of a run of horizon
  robo-eval bench/rover
  robo-eval --policy pretrained:bench/rover"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate a run; prints a table."""
    parser = Parser("robo-eval", "Run a trained policy in physics and score what was executed.", _EPILOG)
    parser.add_argument("run", metavar="RUN", nargs="?", help=RUN_HELP)
    parser.add_argument("--policy", metavar="RUN", help="the same, said by name: pretrained:bench/car")
    parser.add_argument("--episodes", type=int, default=100, metavar="N", help="how many (default: 100)")
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="first seed (default: 0)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (default: 1)")
    parser.add_argument("--json", metavar="FILE", help="write the result there too")
    parser.add_argument(
        "--mismatch", type=float, default=0.0, metavar="X", help="the world differs from the model by up to X"
    )
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="commands act up to S seconds late")
    parser.add_argument(
        "--record", type=int, default=0, metavar="N", help="keep the first N rollouts in RUN/recordings"
    )
    args, options = parser.parse_keys(argv)
    if (args.run is None) == (args.policy is None):
        parser.error("give a run folder, or --policy pretrained:NAME for a network that ships, and not both")
    _at_least(1, episodes=args.episodes, workers=args.workers)
    _at_least(0, seed=args.seed, record=args.record)

    from functools import partial
    from pathlib import Path

    from rich.console import Console

    from robo.core.files import make_parent, write_json
    from robo.core.progress import progress
    from robo.data.rollout import Rollout
    from robo.evaluate.evaluation import evaluate
    from robo.evaluate.loading import load_run
    from robo.train.config import altered
    from robo.train.loop import shown
    from robo.train.run import Run

    run = Run.open(args.run or args.policy)
    altered(run.config, options)  # what is wrong with them is said before any work
    if args.json:
        make_parent(Path(args.json))
    satisfied = done = 0
    with progress("episodes", args.episodes) as advance:

        def on_rollout(rollout: Rollout) -> None:
            nonlocal satisfied, done
            satisfied, done = satisfied + rollout.satisfied, done + 1
            if rollout.seed - args.seed < args.record:
                rollout.save(run.path / "recordings" / f"rollout-{rollout.seed}.npz")
            advance(f"{100 * satisfied / done:.0f} % satisfied")

        result = evaluate(
            partial(load_run, run.path, options),
            episodes=args.episodes,
            seed=args.seed,
            workers=args.workers,
            mismatch=args.mismatch,
            delay_s=args.delay,
            policy=run.config.policy,
            on_rollout=on_rollout,
        )
    record = result.record() | ({"options": options} if options else {})
    if run.margin is not None and "plan.conformal" not in options:
        record["conformal"] = run.margin
    write_json(run.path / "eval.json", record)
    written = [shown(run.path / "eval.json")]
    if args.json:
        write_json(Path(args.json), record)
        written.append(args.json)
    Console().print(_table(record))
    print(f"written to {' and '.join(written)}")
    return 0


def _at_least(least: int, **values: int) -> None:
    for name, value in values.items():
        if value < least:
            raise ConfigError(f"--{name} must be {least} or more, not {value}; see robo-eval --help")


def _table(record: dict[str, Any]) -> Table:
    from rich.table import Table

    from robo.evaluate.evaluation import rows

    title = f"{record['task']}, policy {record['policy']}: {record['episodes']} episodes from seed {record['seed']}"
    if record["mismatch"]:
        title += f", mismatch ±{100 * record['mismatch']:g} %"
    if record["delay_s"]:
        title += f", delay up to {1e3 * record['delay_s']:g} ms"
    for key, value in record.get("options", {}).items():
        title += f", {key} {value}"
    if "conformal" in record:
        title += f", planned with a margin of {record['conformal']:.4f} (robo-calibrate)"
    table = Table(title=title, title_justify="left")
    table.add_column("executed")
    table.add_column("value", justify="right")
    table.add_column("95 % interval", justify="right")
    for row in rows(record):
        table.add_row(*row)
    return table


if __name__ == "__main__":
    raise SystemExit(main())
