"""What a hundred tests would each find out or wait for is settled once, for commands started by tests as well."""

import os
import sys
import typing

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
