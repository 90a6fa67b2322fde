"""robo-data: look at a dataset, and check it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError

FAULTY = 1
"""Exit code of a dataset with something wrong in it."""

_EPILOG = """\
stats      what is in it: episodes, tasks, features with their ranges
view       one episode as a video of all cameras side by side (--mp4), or as a recording for rerun (--save)
validate   files, counts, times, NaN, videos and statistics; prints what is wrong, exit code 1 if anything is

examples:
  robo-data stats datasets/pick_and_place
  robo-data view datasets/pick_and_place --episode 3 --mp4 three.mp4
  robo-data validate datasets/pick_and_place --decode"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Look at a dataset; returns 0, or 1 if `validate` finds something."""
    parser = Parser("robo-data", "Look at a dataset of episodes, and check it.", _EPILOG)
    parser.add_argument("what", choices=("stats", "view", "validate"), metavar="WHAT", help="stats, view or validate")
    parser.add_argument("folder", metavar="FOLDER", help="a dataset, such as datasets/pick_and_place")
    parser.add_argument("--episode", type=int, default=0, metavar="N", help="which episode to view (0)")
    parser.add_argument("--mp4", metavar="X.mp4", help="write the view as a video")
    parser.add_argument("--save", metavar="X.rrd", help="write the view as a recording for rerun")
    parser.add_argument("--decode", action="store_true", help="validate every picture too, which takes a while")
    parser.add_argument("--json", action="store_true", help="validate: print JSON")
    args = parser.parse_args(argv)
    folder = Path(args.folder)

    from robo.dataset import lerobot

    if args.what == "stats":
        print(lerobot.stats(folder))
        return 0
    if args.what == "validate":
        problems = lerobot.validate(folder, decode=args.decode)
        print(json.dumps(problems, indent=2) if args.json else "\n".join(problems) or f"{folder}: nothing is wrong")
        return FAULTY if problems else 0
    for name, ending in (("mp4", ".mp4"), ("save", ".rrd")):
        value = getattr(args, name)
        if value is not None and Path(value).suffix != ending:
            raise ConfigError(f"--{name} takes a name that ends in {ending}, not {value!r}; try {value}{ending}")
    if not (args.mp4 or args.save):
        raise ConfigError("say where the view goes: --mp4 X.mp4 or --save X.rrd")

    from robo.view.episode import film_episode, record_episode

    dataset = lerobot.Dataset(folder)
    if args.mp4:
        print(f"video:     {film_episode(dataset, args.episode, Path(args.mp4))}")
    if args.save:
        print(f"recording: {record_episode(dataset, args.episode, Path(args.save))}")
    dataset.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
