"""Many episodes of a system at once, with the specification as reward, as stable-baselines3 wants them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from policies.system_model import SystemModel
from tasks.system import SystemTask


def spaces_of(model: SystemModel) -> tuple[spaces.Box, spaces.Box]:
    """Observations (the features a network of ours is shown) and actions (controls before squashing, by tanh)."""
    return (
        spaces.Box(-np.inf, np.inf, (model.feature_size,), np.float32),
        spaces.Box(-1.0, 1.0, (model.task.control_size,), np.float32),
    )


def raw_of(action: np.ndarray) -> np.ndarray:
    """Controls before squashing from actions in -1..1."""
    return np.arctanh(np.clip(np.asarray(action, float), -0.9999, 0.9999))


class SpecificationEnv(VecEnv):
    """Episodes of one task; all are in lockstep and begin anew together.

    The value of what was executed so far is the robustness of every part of the specification, the last sample taken
    to last, each up to a margin, summed. The reward of a step is what it adds: over an episode that is the robustness
    of the executed trace, in instalments (a potential, so it changes no optimum: Ng et al., ICML 1999).

    Args:
        task: The task.
        episodes: How many.
        margin: Robustness of a part beyond which there is no more reward.
        rng: Draws the starts.
    """

    render_mode = None

    def __init__(self, task: SystemTask, episodes: int, margin: float, rng: np.random.Generator) -> None:
        self.task, self.margin, self.rng = task, margin, rng
        self.model = SystemModel(task)
        super().__init__(episodes, *spaces_of(self.model))
        self.trace = np.zeros((episodes, len(task.signals), task.steps + 1))
        self.satisfied = 0.0
        """Share of the last episodes that satisfied."""
        self._begin()

    def _begin(self) -> None:
        self.state = np.stack([self.task.sample(self.rng)["state"] for _ in range(self.num_envs)])
        self.tick = 0
        self._measure()
        self.value = self._worth()

    def _measure(self) -> None:
        signals = self.task.measure(self.state)
        for i, name in enumerate(self.task.signals):
            self.trace[:, i, self.tick :] = signals[name][:, None]

    def _rhos(self) -> torch.Tensor:
        trace = {name: torch.from_numpy(self.trace[:, i]) for i, name in enumerate(self.task.signals)}
        return self.model.part_rhos(trace)

    def _worth(self) -> np.ndarray:
        return self._rhos().clamp_max(self.margin).sum(-1).numpy()

    def _observe(self) -> np.ndarray:
        tick = torch.full((self.num_envs,), self.tick)
        prefix = {name: torch.from_numpy(self.trace[:, i]) for i, name in enumerate(self.task.signals)}
        return self.model.features(torch.from_numpy(self.state), tick, prefix).numpy().astype(np.float32)

    def put(self, tensors: Mapping[str, np.ndarray], tick: int) -> None:
        """Go on where `get` was called."""
        self.state[...], self.trace[...], self.value[...] = tensors["state"], tensors["trace"], tensors["value"]
        self.tick = tick

    def get(self) -> tuple[dict[str, np.ndarray], int]:
        """Where the episodes are."""
        return {"state": self.state.copy(), "trace": self.trace.copy(), "value": self.value.copy()}, self.tick

    # ---- VecEnv ----------------------------------------------------------------

    def reset(self) -> np.ndarray:
        """Observations (B, F); the episodes under way go on."""
        return self._observe()

    def step_async(self, actions: np.ndarray) -> None:
        """Keep actions (B, m) for `step_wait`."""
        self._actions = actions

    def step_wait(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[dict[str, Any]]]:
        """Observations, rewards, whether episodes are over, and the last observations of those."""
        self.state = self.task.advance(self.state, self.task.squash(raw_of(self._actions)))
        self.tick += 1
        self._measure()
        before, self.value = self.value, self._worth()
        reward, over = (self.value - before).astype(np.float32), self.tick == self.task.steps
        info: list[dict[str, Any]] = [{} for _ in range(self.num_envs)]
        seen = self._observe()
        if over:
            self.satisfied = float((self._rhos().amin(-1) > 0).double().mean())
            info = [{"terminal_observation": row} for row in seen]
            self._begin()
            seen = self._observe()
        return seen, reward, np.full(self.num_envs, over), info

    def close(self) -> None:
        """Nothing to close."""

    def get_attr(self, attr_name: str, indices: Any = None) -> list[Any]:
        """See `VecEnv`."""
        return [getattr(self, attr_name)] * self.num_envs

    def set_attr(self, attr_name: str, value: Any, indices: Any = None) -> None:
        """Nothing is set from outside."""
        raise NotImplementedError

    def env_method(self, method_name: str, *args: Any, indices: Any = None, **kwargs: Any) -> list[Any]:
        """Nothing is called from outside."""
        raise NotImplementedError

    def env_is_wrapped(self, wrapper_class: type, indices: Any = None) -> list[bool]:
        """See `VecEnv`."""
        return [False] * self.num_envs

    def seed(self, seed: int | None = None) -> Sequence[int | None]:
        """Starts are drawn by the generator it was given."""
        return [None] * self.num_envs
