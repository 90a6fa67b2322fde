"""A small kind of policy that trains like a real one: random batches, Adam, momentum in its state."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from policies.learner import Learner, PolicyKind
from policies.policy import Policy, PolicyInfo
from policies.registry import POLICIES
from robo.core.errors import ConfigError, NonFiniteError, RunError
from robo.core.protocols import ActionChunk


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    steps: int = 30
    rate: float = 1e-2
    widths: tuple[int, ...] = (8, 8)
    nan_at: int = 0
    """Step whose loss is NaN; 0 for none."""
    step_s: float = 0.0
    """Time every step takes at least."""
    centred: bool = True

    def __post_init__(self) -> None:
        if self.rate <= 0:
            raise ConfigError(f"config key 'train.rate' must be positive, not {self.rate:g}")


@dataclass(frozen=True, kw_only=True)
class ToyConfig:
    train: TrainConfig = field(default_factory=TrainConfig)


class ToyPolicy(Policy):
    def __init__(self, task, weights) -> None:
        self.weights = weights
        self.info = PolicyInfo(task=task.name, observation={}, joints=7, ctrl_dt_s=task.ctrl_dt_s)

    def reset(self, obs, seed=0) -> None:
        pass

    def act(self, obs) -> ActionChunk:
        still = np.zeros((1, 7))
        return ActionChunk(start_s=0.1, dt_s=0.1, joint_pos=still, joint_vel=still, tail=0, controller="policy")


class ToyLearner(Learner):
    def __init__(self, task, config: ToyConfig, seed: int, device: str) -> None:
        self.config, self.done = config, 0
        self.generator = torch.Generator().manual_seed(seed)
        sizes = (4, *config.train.widths, 1)
        self.params = {
            f"{name}{i}": torch.randn(shape, generator=self.generator).requires_grad_()
            for i, (a, b) in enumerate(itertools.pairwise(sizes))
            for name, shape in (("w", (a, b)), ("b", (b,)))
        }
        self.optimizer = torch.optim.Adam(list(self.params.values()), lr=config.train.rate)

    @property
    def total_steps(self) -> int:
        return self.config.train.steps

    def step(self) -> dict[str, float]:
        time.sleep(self.config.train.step_s)
        before = self.generator.get_state()
        x = torch.randn(16, 4, generator=self.generator)
        h = x
        for i in range(len(self.params) // 2):
            h = torch.tanh(h) @ self.params[f"w{i}"] + self.params[f"b{i}"]
        loss = ((h[:, 0] - x.prod(-1)) ** 2).mean()
        if self.config.train.nan_at == self.done + 1:
            loss = loss * float("nan")
        if not torch.isfinite(loss):
            self.generator.set_state(before)
            raise NonFiniteError(f"loss is {loss.item()}")
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.done += 1
        return {"loss": loss.item()}

    def state(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        tensors = {"generator": self.generator.get_state()} | self.weights()
        for name, param in self.params.items():
            for key, value in self.optimizer.state[param].items():
                tensors[f"{name}.{key}"] = value
        return tensors, {"done": self.done}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        if missing := set(self.params) - set(tensors):
            raise RunError(f"state lacks {', '.join(sorted(missing))}")
        self.generator.set_state(tensors["generator"])
        self.done = meta["done"]
        with torch.no_grad():
            for name, param in self.params.items():
                param.copy_(tensors[name])
                self.optimizer.state[param] = {
                    key: tensors[f"{name}.{key}"].clone()
                    for key in ("step", "exp_avg", "exp_avg_sq")
                    if f"{name}.{key}" in tensors
                }

    def weights(self) -> dict[str, torch.Tensor]:
        return {name: param.detach().clone() for name, param in self.params.items()}


def _load(task, config, weights, device) -> ToyPolicy:
    return ToyPolicy(task, weights)


def register() -> None:
    if "toy" not in POLICIES:
        POLICIES.register("toy", lambda: PolicyKind(name="toy", config=ToyConfig, learner=ToyLearner, load=_load))
