"""robo-view: look at a rollout of a trained policy: in the browser, as a recording, a video or a picture."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robo.cli.main import RUN_HELP, Parser, run_command
from robo.core.errors import ConfigError

if TYPE_CHECKING:
    from robo.data.rollout import Rollout
    from robo.train.run import Run

_EPILOG = """\
Shows the rollout of --rollout SEED, else the newest one in RUN/recordings; it is recorded first if there is
none, or if the policy was trained on since. Seeds are those of robo-eval.

Without an output option the viewer opens in the browser, served to this machine alone (127.0.0.1)
until Ctrl-C. From elsewhere: ssh -L 9090:127.0.0.1:9090 -L 9876:127.0.0.1:9876 HOST, then open the address.
The viewer is rerun's; it tells its makers about its use unless `rerun analytics disable` was run once.
With output options they are written and nothing is served; --mp4 also writes RUN/report.html.

examples:
  robo-view runs/reach_avoid/last
  robo-view bench/rover
  robo-view runs/reach_avoid/last --rollout 7 --save seven.rrd --mp4 seven.mp4"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """View a run; returns when the outputs are written or the viewer is stopped."""
    parser = Parser("robo-view", "Look at a rollout of a trained policy.", _EPILOG)
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--rollout", type=int, metavar="SEED", help="which rollout")
    parser.add_argument("--save", metavar="X.rrd", help="write a recording for rerun")
    parser.add_argument("--mp4", metavar="X.mp4", help="write a video, and RUN/report.html with it")
    parser.add_argument("--png", metavar="X.png", help="write a picture: moments of the rollout and its robustness")
    parser.add_argument("--no-browser", action="store_true", help="serve, but open no browser")
    parser.add_argument("--port", type=int, metavar="N", help="port of the page (default: 9090, or a free one)")
    parser.add_argument("--data-port", type=int, metavar="N", help="port of its data (default: 9876, or a free one)")
    args = parser.parse_args(argv)
    if args.rollout is not None and args.rollout < 0:
        raise ConfigError(f"--rollout must be 0 or more, not {args.rollout}")
    for name in ("save", "mp4", "png"):
        value, ending = getattr(args, name), ".rrd" if name == "save" else f".{name}"
        if value is not None and Path(value).suffix != ending:
            raise ConfigError(f"--{name} takes a name that ends in {ending}, not {value!r}; try {value}{ending}")

    from robo.core.files import make_parent
    from robo.train.loop import shown
    from robo.train.run import Run

    for value in (args.save, args.mp4, args.png):
        if value is not None:
            make_parent(Path(value))
    run = Run.open(args.run)
    rollout = find_rollout(run, args.rollout)
    task = run.task()
    if args.save:
        from robo.view.record import record

        print(f"recording: {record(task, rollout, Path(args.save))}", flush=True)
    if args.mp4:
        from robo.view.movie import film
        from robo.view.report import write_report

        video = film(task, rollout, Path(args.mp4))
        print(f"video:     {video}", flush=True)
        print(f"report:    {shown(write_report(run, rollout, video))}", flush=True)
    if args.png:
        from robo.view.movie import poster

        print(f"picture:   {poster(task, rollout, Path(args.png))}", flush=True)
    if args.save or args.mp4 or args.png:
        return 0
    return _serve(run, rollout, args.port, args.data_port, not args.no_browser)


def find_rollout(run: Run, seed: int | None) -> Rollout:
    """The rollout of a seed, or the newest one; recorded first where there is none that is younger than the policy.

    Raises:
        RoboError: The rollout cannot be read or recorded.
    """
    from robo.data.rollout import Rollout

    folder = run.path / "recordings"
    trained = max((p.stat().st_mtime for p in run.path.glob("checkpoints/latest.json")), default=0.0)
    name = "rollout-*.npz" if seed is None else f"rollout-{seed}.npz"
    fresh = sorted((p for p in folder.glob(name) if p.stat().st_mtime >= trained), key=lambda p: p.stat().st_mtime)
    if fresh:
        return Rollout.load(fresh[-1])

    from robo.evaluate.evaluation import one_thread
    from robo.evaluate.worlds import open_world

    seed = seed or 0
    print(f"recording a rollout of seed {seed} ...", flush=True)
    policy = run.policy()
    world = open_world(run.task())
    try:
        with one_thread():
            rollout = world.roll_out(policy, seed, run.config.policy)
    finally:
        world.close()
    rollout.save(folder / f"rollout-{seed}.npz")
    return rollout


def _serve(run: Run, rollout: Rollout, port: int | None, data_port: int | None, browser: bool) -> int:
    import webbrowser

    from robo.view.record import record
    from robo.view.serve import viewer

    recording = record(run.task(), rollout, run.path / "recordings" / f"rollout-{rollout.seed}.rrd")
    stop = threading.Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        with viewer(recording, web_port=port, data_port=data_port) as url:
            print(f"viewer: {url}\nCtrl-C stops it", flush=True)
            # Without a desktop a text browser would take over the terminal.
            if browser and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
                webbrowser.open(url)
            stop.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
