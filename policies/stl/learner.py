"""Training by smooth STL robustness of differentiable rollouts.

Loss: how far every part of the specification stays below a margin, on plans that start
anywhere along episodes which the network itself has driven so far (a pool of instances, each an
episode under way), so the network learns to go on from where its own plans lead.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from policies.learner import Learner, Tensors
from policies.stl.config import StlConfig
from policies.stl.model import PlanModel
from policies.stl.network import PlanNetwork
from robo.core.errors import NonFiniteError, RunError
from tasks.arm import ArmTask


class StlLearner(Learner):
    """Trains a `PlanNetwork`; see `policies.learner.Learner`."""

    def __init__(self, task: ArmTask, config: StlConfig, seed: int, device: str) -> None:
        self.task, self.config, self.device = task, config.train, device
        self.model = PlanModel(task, config.plan.reserve, device)
        torch.manual_seed(seed)
        self.network = PlanNetwork(self.model, self.config.width, self.config.depth).to(device)
        self.optimiser = torch.optim.Adam(self.network.parameters(), lr=self.config.learning_rate, eps=1e-6)
        self.rng = np.random.default_rng([seed, 1])
        self.steps_done = 0
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

    # ---- Learner -------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """See `Learner`."""
        return self.config.steps

    def step(self) -> dict[str, float]:
        """See `Learner`."""
        before = self.rng.bit_generator.state
        index = self.rng.choice(self.config.pool, self.config.batch, replace=False)
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
        loss = torch.relu(self.config.margin - parts).sum(-1).mean()

        progress = self.steps_done / self.config.steps
        rate = self.config.learning_rate * (0.05 + 0.95 * 0.5 * (1.0 + math.cos(math.pi * progress)))
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        size = torch.nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        if not torch.isfinite(size):
            self.rng.bit_generator.state = before
            raise NonFiniteError(f"gradient is {float(size)} at step {self.steps_done}; lower train.learning_rate")
        self.optimiser.step()
        self.steps_done += 1

        with torch.no_grad():
            rho = self.model.rho(trace)
            self._advance(index, plan_q.cpu(), plan_v.cpu(), {k: x.detach().cpu() for k, x in predicted.items()})
        fresh = tick == 1
        at_start = rho[fresh] if fresh.any() else rho
        return {
            "loss": loss.item(),
            "rho": rho.mean().item(),
            "satisfied": (rho > 0).float().mean().item(),
            "satisfied_at_start": (at_start > 0).float().mean().item(),
            "gradient": float(size),
            "learning_rate": rate,
        }

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

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        for i, slot in self.optimiser.state_dict()["state"].items():
            tensors |= {f"adam.{i}.{k}": v for k, v in slot.items()}
        tensors |= {"pool.q": self.q, "pool.v": self.v, "pool.tick": self.tick}
        tensors |= {f"pool.prefix.{k}": v for k, v in self.prefix.items()}
        for name in self.worlds[0]:
            tensors[f"pool.world.{name}"] = torch.as_tensor(np.stack([w[name] for w in self.worlds]))
        tensors = {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}
        return tensors, {"steps_done": self.steps_done, "rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""
        try:
            self.network.load_state_dict(_under(tensors, "network."))
            slots: dict[int, dict[str, torch.Tensor]] = {}
            for key, value in _under(tensors, "adam.").items():
                i, name = key.split(".", 1)
                slots.setdefault(int(i), {})[name] = value
            groups = self.optimiser.state_dict()["param_groups"]
            self.optimiser.load_state_dict({"state": slots, "param_groups": groups})
            for mine, name in ((self.q, "pool.q"), (self.v, "pool.v"), (self.tick, "pool.tick")):
                mine.copy_(tensors[name])
            for name, mine in self.prefix.items():
                mine.copy_(tensors[f"pool.prefix.{name}"])
            worlds = {name: tensors[f"pool.world.{name}"].numpy() for name in self.worlds[0]}
            self.worlds = [{name: value[i] for name, value in worlds.items()} for i in range(self.config.pool)]
            self.steps_done = int(meta["steps_done"])
            self.rng.bit_generator.state = meta["rng"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this task and configuration: {reason}") from error

    def weights(self) -> Tensors:
        """See `Learner`."""
        return {k: v.detach().cpu().clone() for k, v in self.network.state_dict().items()}


def _under(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
