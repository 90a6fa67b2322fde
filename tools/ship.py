"""Put the trained networks of runs among those that ship with the project: ``python tools/ship.py RUN...``."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from robo.core.files import write_json
from robo.train.run import SHIPPED, Run


def ship(path: str) -> Path:
    """Copy config, weights and what is known of a finished run; returns where they are now.

    Raises:
        RoboError: The run is not finished or does not load.
    """
    run = Run.open(path)
    run.policy()  # it loads
    checkpoint = run.latest()
    if run.status != "done" or checkpoint is None:
        raise SystemExit(f"{path} is not finished; robo-train --resume {path}")
    target = SHIPPED / run.task().name
    shutil.rmtree(target, ignore_errors=True)
    folder = target / "checkpoints" / checkpoint.path.name
    folder.mkdir(parents=True)
    for name in ("config.yaml", "run.json"):
        shutil.copyfile(run.path / name, target / name)
    shutil.copyfile(checkpoint.path / "weights.safetensors", folder / "weights.safetensors")
    about = json.loads((checkpoint.path / "train.json").read_text())
    sums = {"weights.safetensors": about["sha256"]["weights.safetensors"]}
    write_json(folder / "train.json", {**about, "meta": {}, "sha256": sums})
    write_json(target / "checkpoints" / "latest.json", {"step": checkpoint.step})
    return target


if __name__ == "__main__":
    for path in sys.argv[1:]:
        print(ship(path))
