"""What a hundred tests would each find out or wait for is settled once, for commands started by tests as well."""

import os
import sys
import typing
from collections.abc import Iterator

import pytest

# Two test processes share two cores: one thread for torch, and software draws in the thread that asks.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ.setdefault("LP_NUM_THREADS", "0")

# rtamt imports TextIO from here; Python 3.13 has taken the name away.
sys.modules.setdefault("typing.io", typing)


def pytest_configure(config: pytest.Config) -> None:
    """The renderer is looked for once and not in every process; a few tests are another's time."""
    if config.getoption("numprocesses", None) and "MUJOCO_GL" not in os.environ:
        from sim.render import backend

        os.environ["MUJOCO_GL"] = backend()


@pytest.fixture(autouse=True)
def what_torch_draws_does_not_depend_on_other_tests() -> None:
    """Nor on which of them share a process."""
    if "torch" in sys.modules:
        sys.modules["torch"].manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def evidence_is_gathered_once() -> Iterator[None]:
    """Of a task, in a process, for every training and every instruction: seconds of physics that end the same."""
    from robo.train import evidence
    from tasks.registry import load_task
    from tasks.tabletop.base import tabletop_task
    from tasks.task import Task

    gather, known = evidence.gather, {}

    def once(task: Task | str, seeds: tuple[int, ...] = (0,)) -> evidence.Evidence:
        given = tabletop_task(task if isinstance(task, Task) else load_task(task))
        whose = type(given), given.robot_name, tuple(seeds)
        if whose not in known:
            known[whose] = gather(given, seeds)
        return known[whose]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evidence, "gather", once)
        yield
