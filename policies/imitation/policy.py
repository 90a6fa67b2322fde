"""A network that has learned from demonstrations, at run time."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch

from policies.commanded import Commanded
from policies.imitation.config import DoConfig, SeeConfig
from policies.imitation.eyes import Eyes, Hands, described_trunk
from policies.imitation.learner import Make, Settings
from policies.imitation.network import Imitator
from policies.observed import around, proprioception, surroundings, told
from policies.policy import PolicyInfo
from policies.tensors import load_weights
from robo.core.protocols import ActionChunk, Obs
from tasks.tabletop.base import TabletopTask

DECAY = 0.01
"""Of weights in the average over predictions, per step that they are younger (m of ACT, arXiv 2304.13705)."""


class ImitationPolicy(Commanded):
    """Predicts some steps at once, and executes them, or the average of all that was predicted for a step.

    Args:
        task: The task.
        network: What predicts.
        see, do: What is seen and done.
        device: Where the network is.
    """

    def __init__(self, task: TabletopTask, network: Imitator, see: SeeConfig, do: DoConfig, device: str) -> None:
        info = replace(PolicyInfo.of(task), views=see.views, size=see.size)
        super().__init__(task, do.action, info)
        self.network, self.see, self.do, self.device = network.eval().to(device), see, do, device
        self._told = told(task)

    def _begin(self, obs: Obs, seed: int) -> None:
        self._generator = torch.Generator().manual_seed(seed)
        self._predicted: list[np.ndarray] = []

    def act(self, obs: Obs) -> ActionChunk:
        """See `policies.policy.Policy`."""
        began = time.perf_counter()
        chunk = super().act(obs)
        return replace(chunk, info={"plan_ms": 1e3 * (time.perf_counter() - began)})

    def _action(self, obs: Obs) -> np.ndarray:
        if self.do.execute:
            if not self._predicted:
                self._predicted = list(self._predict(obs)[: self.do.execute])
            return self._predicted.pop(0)
        # Each prediction loses its first step as time goes by; gone ones are dropped.
        self._predicted = [rest for rest in (p[1:] for p in self._predicted) if len(rest)] + [self._predict(obs)]
        weights = np.exp(-DECAY * np.arange(len(self._predicted)))
        return np.average([p[0] for p in self._predicted], axis=0, weights=weights)

    @torch.no_grad()
    def _predict(self, obs: Obs) -> np.ndarray:
        """Actions (chunk, A) from now on."""
        rest = surroundings(self.task, obs)
        numbers = np.concatenate([proprioception(obs), rest if self.see.around else rest[self._told]])
        pictures = {
            view: torch.from_numpy(np.ascontiguousarray(obs[f"rgb_{view}"]))[None].to(self.device)
            for view in self.see.views
        }
        seen = torch.from_numpy(numbers.astype(np.float32))[None].to(self.device)
        return self.network.predict(seen, pictures, self._generator)[0].cpu().double().numpy()


def load(
    task: TabletopTask, config: Settings, make: Make, weights: Mapping[str, torch.Tensor], device: str
) -> ImitationPolicy:
    """A policy of weights; see `policies.learner.PolicyKind`."""
    rest = sum(around(task).values()) if config.see.around else len(told(task))
    actions = task.robot.dof + 1 if config.do.action == "joint_pos" else 7
    numbers = task.robot.dof + 8 + rest
    trunk = described_trunk(config.see, weights)
    eyes = Eyes(config.see, torch.zeros(numbers), torch.ones(numbers), trunk)
    network = make(config, eyes, Hands(torch.zeros(actions), torch.ones(actions)))
    load_weights(network, weights)
    return ImitationPolicy(task, network, config.see, config.do, device)
