"""What ``horizon`` has learned, at run time."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from policies.commanded import Commanded
from policies.horizon import tool
from policies.horizon.aims import Follower, ToolGuide
from policies.horizon.config import HorizonConfig
from policies.horizon.episodes import proprio
from policies.horizon.network import ACTIONS, HorizonNetwork, acting
from policies.horizon.score import score_of
from policies.horizon.wander import Wanderer, start
from policies.observed import proprioception, surroundings, tool_motion
from policies.policy import PolicyInfo
from policies.tensors import load_weights
from policies.world.aims import AimActor
from robo.core.protocols import ActionChunk, Obs
from tasks.tabletop.base import TabletopTask


class HorizonPolicy(Commanded):
    """At every control step: pictures → features → what is believed → an action of the actor, or of a plan.

    Args:
        task: The task.
        network: What was learned.
        config: Settings.
        device: Where the network is.
    """

    def __init__(self, task: TabletopTask, network: HorizonNetwork, config: HorizonConfig, device: str) -> None:
        info = replace(PolicyInfo.of(task), views=config.mae.views, size=config.mae.size)
        super().__init__(task, "ee_delta", info)
        self.network, self.config, self.device = network.eval().to(device), config, device
        self._score = score_of(task, config)

    def _begin(self, obs: Obs, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._wanderer = Wanderer(self.task, seed)
        self._state = self.network.agent.model.dynamics.initial(1)
        self._frames = {view: deque[np.ndarray](maxlen=self.config.mae.frames) for view in self.config.mae.views}
        self._done: np.ndarray | None = None
        self._plan: torch.Tensor | None = None
        self._follower = Follower(
            ToolGuide(self.config.keys, self.task.ctrl_dt_s), self.config.aims, self.task.ctrl_dt_s
        )

    def begins_at(self, seed: int) -> Mapping[str, Any]:
        """See `policies.policy.Policy`: anywhere, while it moves at random."""
        return {} if self.network.begun else {"instance": start(self.task, seed)}

    def act(self, obs: Obs) -> ActionChunk:
        """See `policies.policy.Policy`."""
        began, before = time.perf_counter(), self.due
        chunk = super().act(obs)
        # What was done, which is what was asked for only where the arm's limits allow it.
        moved = np.clip(tool_motion(self.task, before, self.due), -1.0, 1.0)
        self._done = np.clip(tool.seen_from(proprioception(obs)[None], moved[None])[0], -1.0, 1.0)
        return replace(chunk, info={"plan_ms": 1e3 * (time.perf_counter() - began)})

    def keeps(self, obs: Obs) -> Mapping[str, np.ndarray]:
        """See `policies.policy.Policy`: features, once there are any; pictures, while somebody learns from them."""
        pictures = super().keeps(obs) if self.network.learns_on or not self.network.begun else {}
        return {**pictures, "features": self._features} if self.network.begun else pictures

    @torch.no_grad()
    def _action(self, obs: Obs) -> np.ndarray:
        if not self.network.begun:
            return self._wanderer.motion(obs)
        agent, generator = self.network.agent, self._generator if self.exploring else None
        seen = self.network.sight.features(self._pictures(obs))
        values = self._numbers(obs)
        state, numbers = values["observation.state"], proprio(self.task, values)
        self._features = self.network.seen(seen, state)[0]
        first = self._done is None
        done = np.zeros(ACTIONS) if self._done is None else self._done
        self._state = agent.model.correct(
            self._state,
            self._put(done),
            self._put(self._features),
            self._put(numbers[0]),
            torch.tensor([first], device=self.device),
            generator,
        )
        if self.config.act == "mpc":
            planned = agent.planner.plan(
                self._state, self._generator, self._plan, score=self._score, explore=self.exploring
            )
            action, self._plan = planned.action, planned.mean
        elif isinstance(agent.behaviour.actor, AimActor):
            drawn = self.exploring or self.config.act == "drawn"
            says = agent.behaviour.actor(self._state.latent)
            action = self._follower.motion(state, says, self._generator if drawn else None)
        else:
            drawn = self.exploring or self.config.act == "drawn"
            action = agent.behaviour.actor.act(self._state.latent, self._generator if drawn else None)
        return tool.seen_by_base(state, action.cpu().double().numpy())[0]

    def _numbers(self, obs: Obs) -> dict[str, np.ndarray]:
        """As columns of a dataset, of one frame."""
        return {
            "observation.state": proprioception(obs)[None],
            "observation.environment_state": surroundings(self.task, obs)[None],
        }

    def _pictures(self, obs: Obs) -> dict[str, torch.Tensor]:
        """The newest frames of each view, (1, T, H, W, 3)."""
        for view, frames in self._frames.items():
            frames.extend([obs[f"rgb_{view}"]] * (1 if frames else self.config.mae.frames))
        return {view: torch.from_numpy(np.stack(frames))[None].to(self.device) for view, frames in self._frames.items()}

    def _put(self, values: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(values.astype(np.float32))[None].to(self.device)


def load(task: TabletopTask, config: HorizonConfig, weights: Mapping[str, torch.Tensor], device: str) -> HorizonPolicy:
    """A policy of weights; see `policies.learner.PolicyKind`."""
    network = HorizonNetwork(task, config)
    network.only_act()
    load_weights(network, acting(weights))
    return HorizonPolicy(task, network, config, device)
