"""A real run folder, hardly trained."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def train(folder: Path) -> Path:
    """Train `reach_avoid` for one small step; returns the run folder."""
    options = ["--train.steps", "1", "--train.batch", "8", "--train.pool", "8", "--runs", str(folder)]
    command = [Path(sys.executable).with_name("robo-train"), "reach_avoid", *options]
    subprocess.run(command, check=True, env=ONE_THREAD, capture_output=True)
    return (folder / "reach_avoid" / "last").resolve()
