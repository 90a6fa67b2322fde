"""All that ``horizon`` learns, as one module whose weights are the policy's."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from policies.horizon import tool
from policies.horizon.aims import aims
from policies.horizon.config import HorizonConfig
from policies.horizon.pixels import Pixels
from policies.observed import told
from policies.perception.mae import DRAWS
from policies.perception.sight import Sight
from policies.world.agent import Agent
from policies.world.config import WorldConfig
from tasks.tabletop.base import TabletopTask

ACTIONS = 7
"""Numbers of an action of ``ee_delta``."""


def acting(weights: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Of all weights those that a network which only acts has, see `HorizonNetwork.only_act`."""
    return {k: v for k, v in weights.items() if not (k.startswith("sight.mae.") and k.split(".")[2] in DRAWS)}


def truths(task: TabletopTask, config: HorizonConfig) -> int:
    """How many numbers about what is around the arm are learned to be told."""
    return tool.known(task) if config.train.truth else 0


class HorizonNetwork(nn.Module):
    """What sees, world model, actor and critic.

    Args:
        task: The task.
        config: Settings.
        seed: Of the first weights.

    Attributes:
        learns_on: Whether marks go on learning from what is lived.
        pixels: Where in pictures things are, and what follows from that.
        begun: Whether world model and actor have learned anything yet; else whoever acts moves at random.
    """

    begun: torch.Tensor

    def __init__(self, task: TabletopTask, config: HorizonConfig, seed: int = 0) -> None:
        super().__init__()
        known, self.pixels = truths(task, config), Pixels(task, config.mae.views)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.sight = Sight(config.mae, config.marks, known, self.pixels.count)
        self.learns_on = self.sight.marks is not None and config.sense.refresh > 0
        proprio = tool.OWN + len(told(task))
        world: WorldConfig = config.world
        plain, features = proprio, self.sight.mae.feature_size
        if self.sight.marks is not None:  # what is told comes last of all features
            plain, features = plain + tool.count(task), features + tool.count(task)
        signals = len(task.signals) + (tool.count(task) if known else 0)
        self.agent = Agent(world, features, ACTIONS, proprio, signals, seed, plain, aims(task, config))
        self.task = task
        self.register_buffer("begun", torch.zeros((), dtype=torch.bool))

    def only_act(self) -> None:
        """Keep what acting needs; nothing is learned or drawn any more."""
        self.sight.mae.only_see()

    def seen(self, features: torch.Tensor, state: np.ndarray) -> np.ndarray:
        """Features of what sees (T, F) as the world model takes them, (T, F') float32: things are told from the tool.

        Where in pictures marks found something is left out: they learn on, and it would come to mean something else.
        But since it is known where cameras are, it says where things are more exactly than marks do.

        Args:
            features: See `policies.perception.sight.Sight`.
            state: ``observation.state`` then, (T, J + 8).
        """
        marks = self.sight.marks
        if marks is None:
            return features.cpu().numpy()
        scene = marks.scene(features).cpu().numpy().astype(float)
        if marks.things:
            spread, off = marks.off(features)
            believed = (x.detach().cpu().double().numpy() for x in (spread, marks.pointed(features), off))
            scene = self.pixels.corrected(state, scene, *believed)
        told = tool.around_it(self.task, state, scene).astype(np.float32)
        drawn = features[:, : self.sight.mae.feature_size].cpu().numpy()
        return np.concatenate([drawn, told], axis=1)
