"""Random motion of the tool, and standing still."""

from __future__ import annotations

import numpy as np

from policies.commanded import Commanded
from robo.core.protocols import Obs
from tasks.tabletop.base import TabletopTask

CHANGE_S = 0.5
"""Random motion takes another direction so often."""


class RandomMotion(Commanded):
    """The tool moves at random, in another direction now and then; so does the gripper."""

    def __init__(self, task: TabletopTask) -> None:
        super().__init__(task, "ee_delta")

    def _begin(self, obs: Obs, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def _action(self, obs: Obs) -> np.ndarray:
        if round(float(obs["time_s"][0]) / self.task.ctrl_dt_s) % round(CHANGE_S / self.task.ctrl_dt_s) == 0:
            self._drawn = self._random.uniform(self.command.low, self.command.high)
        return self._drawn


class Still(Commanded):
    """Stays where it is, with open jaws."""

    def __init__(self, task: TabletopTask) -> None:
        super().__init__(task, "ee_delta")

    def _begin(self, obs: Obs, seed: int) -> None:
        pass

    def _action(self, obs: Obs) -> np.ndarray:
        return np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
