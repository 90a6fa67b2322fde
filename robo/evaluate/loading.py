"""Task and policy of a run folder, for any process."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from policies.learner import AnyPolicy
from robo.train.run import Run
from tasks.task import Task


def load_run(path: str | Path, options: Mapping[str, str] | None = None) -> tuple[Task, AnyPolicy]:
    """Task and trained policy of a run folder, on the CPU.

    Args:
        path: The folder.
        options: Keys of the policy that are to be other than in training, see `robo.train.config.altered`.

    Raises:
        RoboError: The run, its task or its checkpoint does not load, or not with other sizes; or an option is wrong.
    """
    run = Run.open(path)
    return run.task(), run.policy(options=options)
