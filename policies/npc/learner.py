"""Training by smooth STL robustness of differentiable rollouts, on episodes that the network itself drives."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch

from policies.learner import Tensors
from policies.npc.config import NpcConfig, TrainConfig
from policies.npc.model import ControlNetwork, SystemModel
from policies.pool_learner import PoolLearner, satisfaction
from tasks.system import SystemTask


class NpcLearner(PoolLearner):
    """Trains a `ControlNetwork`; see `policies.learner.Learner`."""

    config: TrainConfig

    def __init__(self, task: SystemTask, config: NpcConfig, seed: int, device: str) -> None:
        self.task = task
        self.model = SystemModel(task, device)
        torch.manual_seed(seed)
        network = ControlNetwork(self.model, config.train.width, config.train.depth).to(device)
        super().__init__(network, config.train, np.random.default_rng([seed, 1]))
        n = config.train.pool
        self.state_now = torch.zeros(n, task.state_size)
        self.tick = torch.zeros(n, dtype=torch.long)
        self.prefix = {name: torch.zeros(n, task.steps + 1) for name in task.signals}
        self._restart(np.arange(n))

    def _restart(self, index: np.ndarray) -> None:
        """Put episodes at a fresh start."""
        rows = torch.from_numpy(index)
        starts = np.stack([self.task.sample(self.rng)["state"] for _ in index])
        self.state_now[rows] = torch.as_tensor(starts, dtype=torch.float32)
        self.tick[rows] = 0

    def _batch(self, index: np.ndarray) -> tuple[torch.Tensor, Callable[[], dict[str, float]]]:
        rows = torch.from_numpy(index)
        state, tick = (x[rows].to(self.model.device) for x in (self.state_now, self.tick))
        prefix = {name: value[rows].to(self.model.device) for name, value in self.prefix.items()}
        with torch.no_grad():
            features = self.model.features(state, tick, prefix)
        states = self.task.roll_out(state, self.task.squash(self.network(features)))
        trace = self.model.trace(prefix, tick, self.task.measure(states))
        parts = self.model.part_rhos(trace, smooth=self.config.smooth)

        def go_on() -> dict[str, float]:
            rho = self.model.rho(trace)
            self._advance(index, states.detach().cpu(), {k: v.detach().cpu() for k, v in trace.items()})
            return satisfaction(rho, tick == 0)

        return torch.relu(self.config.margin - parts).sum(-1).mean(), go_on

    def _advance(self, index: np.ndarray, states: torch.Tensor, trace: Mapping[str, torch.Tensor]) -> None:
        """Let every visited episode go on for a while along its plan, or start again."""
        leap = torch.from_numpy(self.rng.integers(1, max(self.task.steps // 3, 2) + 1, len(index)))
        rows = torch.from_numpy(index)
        over = torch.from_numpy(self.rng.uniform(size=len(index)) < self.config.restart)
        over |= self.tick[rows] + leap > self.task.steps - 2
        going = torch.nonzero(~over).flatten()
        kept = rows[going]
        # The trace holds the executed past and the plan: what is now past is a prefix of it.
        for name, mine in self.prefix.items():
            mine[kept] = trace[name][going]
        self.state_now[kept] = states[going, leap[going]]
        self.tick[kept] += leap[going]
        if over.any():
            self._restart(index[over.numpy()])

    def _pool(self) -> Tensors:
        return {"state": self.state_now, "tick": self.tick} | {f"prefix.{k}": v for k, v in self.prefix.items()}

    def _load_pool(self, tensors: Mapping[str, torch.Tensor]) -> None:
        self.state_now.copy_(tensors["state"])
        self.tick.copy_(tensors["tick"])
        for name, mine in self.prefix.items():
            mine.copy_(tensors[f"prefix.{name}"])
