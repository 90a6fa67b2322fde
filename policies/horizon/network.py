"""All that ``horizon`` learns, as one module whose weights are the policy's."""

from __future__ import annotations

import torch
from torch import nn

from policies.horizon.config import HorizonConfig
from policies.observed import around, told
from policies.perception.sight import Sight
from policies.world.agent import Agent
from policies.world.config import WorldConfig
from tasks.tabletop.base import TabletopTask

ACTIONS = 7
"""Numbers of an action of ``ee_delta``."""


def truths(task: TabletopTask, config: HorizonConfig) -> int:
    """How many numbers about what is around the arm are learned to be told."""
    return sum(around(task).values()) if config.train.truth else 0


class HorizonNetwork(nn.Module):
    """What sees, world model, actor and critic.

    Args:
        task: The task.
        config: Settings.
        seed: Of the first weights.

    Attributes:
        begun: Whether world model and actor have learned anything yet; else whoever acts moves at random.
    """

    begun: torch.Tensor

    def __init__(self, task: TabletopTask, config: HorizonConfig, seed: int = 0) -> None:
        super().__init__()
        known = truths(task, config)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.sight = Sight(config.mae, config.marks, known)
        proprio = task.robot.dof + 8 + len(told(task))
        world: WorldConfig = config.world
        plain = proprio + (known if self.sight.marks is not None else 0)  # what is told comes last of all features
        signals = len(task.signals) + known
        self.agent = Agent(world, self.sight.feature_size, ACTIONS, proprio, signals, seed, plain)
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))
