"""robo-collect: record episodes of a policy on a tabletop task as a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError

_EPILOG = """\
The dataset has the LeRobotDataset v3.0 layout: parquet, one H.264 video file for many episodes, JSON. Every frame
holds joints, tool and gripper, what is around the arm, pictures, action (as joint angles and as motion of the tool),
reward, stage, signals and instruction. Nothing is lost when it is interrupted: the same command goes on, and what is
finished can be read meanwhile. Episode i is drawn by seed SEED + i; training and robo-eval draw from others.

examples:
  robo-collect pick_and_place --episodes 50
  robo-collect pick_and_place --sway 0.2 --out datasets/no_two_alike
  robo-collect stack_cubes --policy random --episodes 20 --views front,left,wrist --size 64 --out datasets/random
  robo-collect pick_and_place --policy runs/pick_and_place/last --successes --looks --workers 2
  robo-data stats datasets/pick_and_place"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Record; returns 0."""
    parser = Parser("robo-collect", "Record episodes of a policy as a dataset.", _EPILOG)
    parser.add_argument("task", metavar="TASK", help="a tabletop task, such as pick_and_place, or a task file")
    parser.add_argument("--policy", default="expert", metavar="P", help="expert, random, zero or a run folder (expert)")
    parser.add_argument("--episodes", type=int, default=50, metavar="N", help="how many (50)")
    parser.add_argument("--seed", type=int, default=0, metavar="SEED", help="first seed (0)")
    parser.add_argument("--views", default="front,wrist", metavar="A,B", help="cameras (front,wrist); empty for none")
    parser.add_argument("--size", type=int, default=96, metavar="PX", help="height and width of pictures (96)")
    parser.add_argument("--looks", action="store_true", help="vary colours, textures, light and cameras")
    parser.add_argument("--successes", action="store_true", help="keep episodes that succeed, try again otherwise")
    parser.add_argument(
        "--sway", type=float, default=0.0, metavar="SHARE", help="bend the expert's ways by so much (0)"
    )
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--out", metavar="FOLDER", help="where (datasets/TASK)")
    args = parser.parse_args(argv)
    if args.workers < 1:
        raise ConfigError(f"--workers must be 1 or more, not {args.workers}")

    from robo.core.progress import progress
    from robo.data.collect import Order, collect
    from robo.train.loop import shown
    from tasks.registry import load_task

    order = Order(
        task=args.task,
        policy=args.policy,
        episodes=args.episodes,
        seed=args.seed,
        views=tuple(filter(None, args.views.split(","))),
        size=args.size,
        looks=args.looks,
        successes=args.successes,
        sway=args.sway,
    )
    folder = Path(args.out or f"datasets/{load_task(args.task).name}")
    succeeded = done = 0
    with progress("episodes", order.episodes) as advance:

        def on_episode(success: bool) -> None:
            nonlocal succeeded, done
            succeeded, done = succeeded + success, done + 1
            advance(f"{100 * succeeded / done:.0f} % success")

        dataset = collect(folder, order, workers=args.workers, on_episode=on_episode)
    print(f"recorded {len(dataset.episodes)} episodes, {len(dataset)} frames; {succeeded} of {done} succeeded")
    print(f"next:    robo-data stats {shown(folder)}")
    dataset.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
