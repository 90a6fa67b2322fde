"""robo-view: look at a rollout of a trained policy in the browser or a file, or live at a task."""

from __future__ import annotations

import argparse
import math
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from robo.cli.main import RUN_HELP, Parser, run_command
from robo.core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from robo.data.rollout import Rollout
    from robo.train.run import Run

_EPILOG = """\
RUN: shows the rollout of --rollout SEED, else the newest one in RUN/recordings; it is recorded first if there is
none, or if the policy was trained on since. Seeds are those of robo-eval. With output options they are written and
nothing is served; --mp4 also writes RUN/report.html.

TASK: plays it live, an arm in its scene: run, pause, step, speed, seed and policy are chosen on the page, which shows
stages, reward, success, robustness, signals, what cameras see and their point cloud (extra `pointcloud`). A tabletop
task takes another robot behind an @. Seed s is the environment's reset(seed=s).

The page opens in the browser, served to this machine alone (127.0.0.1) until Ctrl-C. From elsewhere, open the address
after: ssh -L 9090:127.0.0.1:9090 -L 9876:127.0.0.1:9876 HOST (9876 is for a RUN only). The viewer of a RUN is rerun's;
it tells its makers about its use unless `rerun analytics disable` was run once. The one of a TASK is viser's.

examples:
  robo-view runs/reach_avoid/last
  robo-view bench/rover
  robo-view runs/reach_avoid/last --rollout 7 --save seven.rrd --mp4 seven.mp4
  robo-view pick_and_place                                         # the scripted expert, live
  robo-view stack_cubes --policy random --seed 7 --speed 0.5
  robo-view reach_avoid --policy runs/reach_avoid/last"""

_OF_RUN, _OF_TASK = ("rollout", "save", "mp4", "png", "data_port"), ("policy", "seed", "speed")
"""Options that only a run or only a task takes."""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """View a run or a task; returns when the outputs are written or the viewer is stopped."""
    parser = Parser("robo-view", "Look at a rollout of a trained policy, or live at a task.", _EPILOG)
    parser.add_argument("what", metavar="RUN|TASK", help=f"{RUN_HELP}; or a task of an arm, or a task file")
    of_run = parser.add_argument_group("of a RUN")
    of_run.add_argument("--rollout", type=int, metavar="SEED", help="which rollout")
    of_run.add_argument("--save", metavar="X.rrd", help="write a recording for rerun")
    of_run.add_argument("--mp4", metavar="X.mp4", help="write a video, and RUN/report.html with it")
    of_run.add_argument("--png", metavar="X.png", help="write a picture: moments of the rollout and its robustness")
    of_run.add_argument("--data-port", type=int, metavar="N", help="port of its data (default: 9876, or a free one)")
    of_task = parser.add_argument_group("of a TASK")
    of_task.add_argument("--policy", metavar="P", help="expert, random, zero, or a run folder (default: expert)")
    of_task.add_argument("--seed", type=int, metavar="SEED", help="of the first episode (default: 0)")
    of_task.add_argument("--speed", metavar="X", help="times real time, 0.1 .. 4, or max (default: 1)")
    parser.add_argument("--no-browser", action="store_true", help="serve, but open no browser")
    parser.add_argument("--port", type=int, metavar="N", help="port of the page (default: 9090, or a free one)")
    args = parser.parse_args(argv)
    live = _is_task(args.what, args.policy)
    for name in _OF_RUN if live else _OF_TASK:
        if getattr(args, name) is not None:
            kind, other = ("task", "run") if live else ("run", "task")
            option = name.replace("_", "-")
            raise ConfigError(f"--{option} is for a {other}, and {args.what} is a {kind}; see robo-view --help")
    return _view_task(args) if live else _view_run(args)


def _is_task(what: str, policy: str | None) -> bool:
    """Whether a task is meant, rather than a run.

    Raises:
        UnknownNameError: It is neither.
    """
    from robo.train.run import PRETRAINED, shipped
    from tasks.registry import TASKS, is_task_file

    if is_task_file(what):
        return True
    if Path(what).is_dir() or what.startswith(PRETRAINED) or (what in shipped() and policy is None):
        return False
    if what.partition("@")[0] in TASKS:
        return True
    if len(Path(what).parts) > 1 and Path(what).parent.is_dir():
        return False  # a run that is not there: what is there instead is said where it is opened
    ready = f"trained already: {', '.join(shipped())}"
    hint = f"runs are folders such as runs/reach_avoid/last, robo-train makes one; {ready}"
    raise UnknownNameError("run or task", what, TASKS, hint)


def _view_task(args: argparse.Namespace) -> int:
    speed = _speed(args.speed)

    from robo.evaluate.evaluation import one_thread
    from robo.view.live import Session
    from robo.view.page import Page
    from tasks.registry import load_task

    session = Session(load_task(args.what), args.policy, args.seed or 0, speed=speed)
    with one_thread(), _until_stopped() as stop, closing(session), Page(session, args.port) as page:
        _announce(page.url, not args.no_browser)
        page.serve(stop)
    return 0


def _speed(text: str | None) -> float:
    try:
        return {None: 1.0, "max": math.inf}.get(text) or float(text or "")
    except ValueError as error:
        raise ConfigError(f"--speed takes a number, 1 being real time, or max, not {text!r}") from error


def _view_run(args: argparse.Namespace) -> int:
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
    run = Run.open(args.what)
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
    from robo.view.record import record
    from robo.view.serve import viewer

    recording = record(run.task(), rollout, run.path / "recordings" / f"rollout-{rollout.seed}.rrd")
    with _until_stopped() as stop, viewer(recording, web_port=port, data_port=data_port) as url:
        _announce(url, browser)
        stop.wait()
    return 0


@contextmanager
def _until_stopped() -> Iterator[threading.Event]:
    """An event that Ctrl-C and a request to end set."""
    stop = threading.Event()
    before = {s: signal.signal(s, lambda *_: stop.set()) for s in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _announce(url: str, browser: bool) -> None:
    import webbrowser

    print(f"viewer: {url}\nCtrl-C stops it", flush=True)
    # Without a desktop a text browser would take over the terminal.
    if browser and (sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        webbrowser.open(url)


if __name__ == "__main__":
    raise SystemExit(main())
