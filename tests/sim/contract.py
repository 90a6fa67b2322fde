"""What every environment of a tabletop task keeps to, whichever engine moves it."""

from __future__ import annotations

import numpy as np
import pytest

from robo.core.errors import NonFiniteError, RoboError, UnknownNameError
from sim.tabletop import TabletopEnv


def check_bad_input_is_refused(env: TabletopEnv) -> None:
    """Actions and options that do not fit are errors, and nothing of them is executed; `env` was not reset yet."""
    with pytest.raises(RoboError, match="reset"):
        env.step(env.action_space.sample())
    env.reset(seed=0)
    before = env.state()["physics"]
    with pytest.raises(NonFiniteError, match="nothing of it is executed"):
        env.step(np.full(env.action_space.shape, np.nan))
    with pytest.raises(RoboError, match="has shape"):
        env.step(np.zeros(3))
    with pytest.raises(RoboError, match="numbers"):
        env.step("up")  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="reset option"):
        env.reset(options={"instanze": {}})
    assert np.array_equal(before, env.state()["physics"])
