"""robo-train: train a policy on a task, or go on with a run."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from robo.cli.main import INTERRUPTED, Parser, run_command

if TYPE_CHECKING:
    from robo.train.run import Run

_EPILOG = """\
what to train on:
  reach_avoid                a task that comes with the project
  configs/reach_avoid.yaml   a config file: `task: NAME` and any other key
  path/to/my_task.py         a file of your own that defines one subclass of tasks.task.Task

config keys, given as --KEY VALUE, win over the file:
  --policy NAME              kind of policy: stl for arms, npc for systems; sac; on a tabletop, from demonstrations
                             (--demos PATH): bc, act, diffusion, horizon; or a planner that learns nothing: grad, cem,
                             mppi, mpc, milp (its run is done at once, for robo-eval and robo-view)
  --preset NAME              settings to begin with; horizon: small (a processor), paper (a GPU), mv_mwm, mwm ...
  --seed N                   seeds everything random (0)
  --device cpu|cuda|cuda:N   where to compute (cpu)
  --threads N                CPU threads of torch; part of what makes runs bit-equal
  --name NAME                folder under --runs, instead of the task's name
  --log_every N, --checkpoint_every N, --film_every N
  --train.steps N ...        the policy's own keys; `robo-train TARGET --dry-run` prints them all

examples:
  robo-train reach_avoid
  robo-train configs/reach_avoid.yaml --seed 3 --train.steps 2000
  robo-train open_drawer --policy diffusion --demos datasets/open_drawer
  robo-collect pick_and_place --size 64 --views front,left,right,wrist --sway 0.2 --out datasets/four_views
  robo-train pick_and_place --policy horizon --preset small --demos datasets/four_views
  robo-train --resume runs/reach_avoid/last

Ctrl-C saves a checkpoint. A run that was stopped, or killed at any moment, resumes to the
same result, bit for bit, as one that was not. The run folder holds config, checkpoints,
metrics.jsonl and TensorBoard logs (tensorboard --logdir RUN/tb)."""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Train; returns 0 when the training is complete, 130 when it was stopped."""
    parser = Parser("robo-train", "Train a policy on a task.", _EPILOG)
    parser.add_argument("target", nargs="?", metavar="TARGET", help="a task, a config file or a task file")
    parser.add_argument("--resume", metavar="RUN", help="go on with a run folder, exactly where it stopped")
    parser.add_argument("--runs", default="runs", metavar="DIR", help="folder of run folders (default: runs)")
    parser.add_argument("--dry-run", action="store_true", help="print the config, build all, take one step, write none")
    args, options = parser.parse_keys(argv)
    if args.resume is None and args.target is None:
        parser.error("give a task, a config file or a task file, or --resume RUN")
    if args.resume is not None:
        if args.target or options or args.dry_run:
            parser.error(
                f"--resume goes on with the run's own config and takes nothing else; "
                f"for a new training with other settings: robo-train {args.resume}/config.yaml --KEY VALUE"
            )
        from robo.train.loop import resume

        return _report(resume(args.resume))

    from robo.train.config import resolve
    from robo.train.loop import dry_run, train

    config = resolve(args.target, options)
    if args.dry_run:
        values = dry_run(config)
        print(config.to_yaml(), end="")
        metrics = ", ".join(f"{name} {value:.4g}" for name, value in values.items())
        print(f"# one step: {metrics}" if metrics else "# nothing to learn")
        return 0
    return _report(train(config, args.runs))


def _report(run: Run) -> int:
    from robo.train.loop import shown

    path = shown(run.path)
    if run.status != "done":
        print(f"stopped and saved; go on with: robo-train --resume {path}")
        return INTERRUPTED
    print(f"trained: {path}\nnext:    robo-eval {path}")
    return 0
