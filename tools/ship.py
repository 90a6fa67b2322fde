"""Put the trained networks of runs among those that ship with the project.

``python tools/ship.py RUN... [--name NAME] [--half] [--card N]``
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError, RoboError
from robo.core.files import write_json, write_tensors
from robo.evaluate.evaluation import evaluate
from robo.evaluate.loading import load_run
from robo.train.run import CARD, SHIPPED, Run, shipped


def ship(path: str, name: str = "", half: bool = False, episodes: int = 0) -> Path:
    """Copy config, weights and what is known of a finished run; returns where they are now.

    Args:
        path: The run folder.
        name: What it is opened by; empty: its task's name.
        half: Whether numbers of single precision are kept in half of it.
        episodes: Of evaluation of what was copied, from seed 0, which `CARD` tells; 0: there is no card.

    Raises:
        RoboError: The run is not finished or does not load, or the name leads elsewhere or is in the way.
    """
    run = Run.open(path)
    checkpoint = run.latest()
    if run.status != "done" or checkpoint is None:
        raise RoboError(f"{path} is not finished; robo-train --resume {path}")
    target = SHIPPED / (name or run.task().name)
    root, place = SHIPPED.resolve(), target.resolve()
    if not place.is_relative_to(root):
        raise ConfigError(f"--name {name} leads out of {SHIPPED}; give one such as horizon/pick_and_place")
    for other in shipped():
        there = root / other
        if there != place and (there.is_relative_to(place) or place.is_relative_to(there)):
            raise ConfigError(f"--name {name} would take the place of {other}, which ships; give another")
    with tempfile.TemporaryDirectory() as temporary:
        draft = Path(temporary) / "run"
        folder = draft / "checkpoints" / checkpoint.path.name
        folder.mkdir(parents=True)
        for part in ("config.yaml", "run.json"):
            shutil.copyfile(run.path / part, draft / part)
        weights = checkpoint.weights("cpu")
        if half:
            weights = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
        sums = {"weights.safetensors": write_tensors(folder / "weights.safetensors", weights)}
        about = json.loads((checkpoint.path / "train.json").read_text())
        write_json(folder / "train.json", {**about, "meta": {}, "sha256": sums})
        write_json(draft / "checkpoints" / "latest.json", {"step": checkpoint.step})
        Run.open(draft).policy()  # it loads
        if episodes:
            write_json(draft / CARD, _card(draft, run, episodes))
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(draft, target)
    return target


def _card(draft: Path, run: Run, episodes: int) -> dict[str, Any]:
    """What it was trained with, and how it fares on starts that training never saw."""
    found = evaluate(partial(load_run, draft), episodes=episodes, seed=0, workers=2, policy=run.config.policy)
    told = {"policy": run.config.policy, "preset": run.config.preset, "seed": run.config.seed}
    demos = Path(getattr(run.config.settings, "demos", "")) / "meta" / "info.json"
    if demos.is_file():
        info = json.loads(demos.read_text())
        told["demonstrations"] = {"episodes": info["total_episodes"], "frames": info["total_frames"]}
    return {"trained": told | {"minutes": round(run.train_s / 60, 1)}, "evaluation": found.record()}


@run_command
def main(argv: Sequence[str] | None = None) -> None:
    """Ship runs; prints where they are."""
    parser = Parser("ship", "Put the trained networks of finished runs among those that ship with the project.")
    parser.add_argument("runs", nargs="+", metavar="RUN", help="finished run folders")
    parser.add_argument("--name", default="", help="what it is opened by (one RUN only); default: its task's name")
    parser.add_argument("--half", action="store_true", help="keep weights in half precision")
    parser.add_argument("--card", type=int, default=0, metavar="N", help=f"evaluate N episodes, told in {CARD}")
    args = parser.parse_args(argv)
    if args.name and len(args.runs) > 1:
        parser.error("--name is for one run")
    if args.card < 0:
        parser.error(f"--card must be 0 or more, not {args.card}")
    for path in args.runs:
        print(ship(path, args.name, args.half, args.card))


if __name__ == "__main__":
    raise SystemExit(main())
