"""Task and policy of a run folder, for any process."""

from __future__ import annotations

from pathlib import Path

from policies.learner import AnyPolicy
from robo.train.run import Run
from tasks.task import Task


def load_run(path: str | Path) -> tuple[Task, AnyPolicy]:
    """Task and trained policy of a run folder, on the CPU.

    Raises:
        RoboError: The run, its task or its checkpoint does not load.
    """
    run = Run.open(path)
    return run.task(), run.policy()
