"""Training by smooth STL robustness of differentiable rollouts.

Loss: how far every part of the specification stays below a margin, on plans that start
anywhere along episodes which the network itself has driven so far (a pool of instances, each an
episode under way), so the network learns to go on from where its own plans lead.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from policies.learner import Tensors
from policies.pool_learner import PoolLearner, satisfaction
from policies.stl.config import StlConfig, TrainConfig
from policies.stl.model import PlanModel
from policies.stl.network import PlanNetwork
from tasks.arm import ArmTask


class StlLearner(PoolLearner):
    """Trains a `PlanNetwork`; see `policies.learner.Learner`."""

    config: TrainConfig

    def __init__(self, task: ArmTask, config: StlConfig, seed: int, device: str) -> None:
        self.task, self.device = task, device
        self.model = PlanModel(task, config.plan.reserve, device)
        torch.manual_seed(seed)
        network = PlanNetwork(self.model, config.train.width, config.train.depth).to(device)
        super().__init__(network, config.train, np.random.default_rng([seed, 1]))
        self._fill_pool(np.random.default_rng([seed, 2]))

    # ---- the pool ----------------------------------------------------------

    def _fill_pool(self, rng: np.random.Generator) -> None:
        n, steps, j = self.config.pool, self.task.steps, self.task.robot.dof
        self.instances = [self.task.sample(rng) for _ in range(n)]
        self.worlds: list[dict[str, Any]] = [{} for _ in range(n)]
        self.q = torch.zeros(n, j)
        self.v = torch.zeros(n, j)
        self.tick = torch.zeros(n, dtype=torch.long)
        self.prefix = {name: torch.zeros(n, steps + 1) for name in self.task.signals}
        self.start = torch.as_tensor(np.stack([i["joint_pos"] for i in self.instances]), dtype=torch.float32)
        self._restart(np.arange(n))

    def _restart(self, index: np.ndarray) -> None:
        """Put episodes at their first tick, the arm at rest at its start."""
        rows = torch.from_numpy(index)
        self.q[rows], self.v[rows] = self.start[rows], 0.0
        self.tick[rows] = 1  # plans apply one tick after the first observation
        for i in index:
            self.worlds[i] = self.task.start_world(self.instances[i], self.rng)
        with torch.no_grad():
            q, obs = self.start[rows].to(self.device), self._observe(index)
            standing = self.model.predict(q[:, None], torch.zeros_like(q)[:, None], obs, lead_s=0.0)
        for name, value in standing.items():
            self.prefix[name][rows, 0] = value[:, 0].cpu()

    def _observe(self, index: np.ndarray) -> dict[str, torch.Tensor]:
        seen = [self.task.observe(self.instances[i], self.worlds[i], self.rng) for i in index]
        return {
            name: torch.as_tensor(np.stack([s[name] for s in seen]), dtype=torch.float32, device=self.device)
            for name in self.task.observation
        }

    # ---- a step ----------------------------------------------------------------

    def _batch(self, index: np.ndarray) -> tuple[torch.Tensor, Callable[[], dict[str, float]]]:
        rows = torch.from_numpy(index)
        q, v, tick = (x[rows].to(self.device) for x in (self.q, self.v, self.tick))
        prefix = {name: value[rows].to(self.device) for name, value in self.prefix.items()}
        obs = self._observe(index)
        with torch.no_grad():
            features = self.model.features(q, v, tick, obs, self.model.progress(prefix, tick))
        knots = self.network(features)
        plan_q, plan_v = self.model.motion.rollout(q, v, knots)
        predicted = self.model.predict(plan_q, plan_v, obs, lead_s=self.task.ctrl_dt_s)
        trace = self.model.trace(prefix, tick, predicted)
        parts = self.model.part_rhos(trace, smooth=self.config.smooth)

        def go_on() -> dict[str, float]:
            rho = self.model.rho(trace)
            self._advance(index, plan_q.cpu(), plan_v.cpu(), {k: x.detach().cpu() for k, x in predicted.items()})
            return satisfaction(rho, tick == 1)

        return torch.relu(self.config.margin - parts).sum(-1).mean(), go_on

    def _advance(
        self, index: np.ndarray, q: torch.Tensor, v: torch.Tensor, predicted: Mapping[str, torch.Tensor]
    ) -> None:
        """Let every visited episode go on for a while along its plan, or start again."""
        leap = self.rng.integers(1, 11, len(index))
        over = (self.rng.uniform(size=len(index)) < self.config.restart) | (
            self.tick[index].numpy() + leap > self.task.steps - 10
        )
        if over.any():
            self._restart(index[over])
        for row in np.flatnonzero(~over):
            i, d = index[row], int(leap[row])
            self.worlds[i] = self.task.advance(self.instances[i], self.worlds[i], d * self.task.ctrl_dt_s, self.rng)
        row, step = torch.from_numpy(np.flatnonzero(~over)), torch.from_numpy(leap[~over])
        rows = torch.from_numpy(index[~over])
        past = torch.arange(self.task.steps + 1)[None, :] - self.tick[rows][:, None]
        done = (past >= 0) & (past < step[:, None])
        for name, mine in self.prefix.items():
            ahead = torch.gather(predicted[name][row], 1, past.clamp(0, predicted[name].shape[1] - 1))
            mine[rows] = torch.where(done, ahead, mine[rows])
        self.q[rows], self.v[rows] = q[row, step], v[row, step]
        self.tick[rows] += step

    def _pool(self) -> Tensors:
        tensors = {"q": self.q, "v": self.v, "tick": self.tick}
        tensors |= {f"prefix.{k}": v for k, v in self.prefix.items()}
        for name in self.worlds[0]:
            tensors[f"world.{name}"] = torch.as_tensor(np.stack([w[name] for w in self.worlds]))
        return tensors

    def _load_pool(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for mine, name in ((self.q, "q"), (self.v, "v"), (self.tick, "tick")):
            mine.copy_(tensors[name])
        for name, mine in self.prefix.items():
            mine.copy_(tensors[f"prefix.{name}"])
        worlds = {name: tensors[f"world.{name}"].numpy() for name in self.worlds[0]}
        self.worlds = [{name: value[i] for name, value in worlds.items()} for i in range(self.config.pool)]
