"""A real run folder, hardly trained."""

from __future__ import annotations

import os
from pathlib import Path

from robo.cli.train import main

ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1"}


def train(folder: Path) -> Path:
    """Train `reach_avoid` for one small step; returns the run folder."""
    options = ["--train.steps", "1", "--train.batch", "8", "--train.pool", "8", "--runs", str(folder)]
    assert main(["reach_avoid", *options]) == 0
    return (folder / "reach_avoid" / "last").resolve()
