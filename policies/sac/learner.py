"""Training by stable-baselines3, in rounds, exactly resumable."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from stable_baselines3 import SAC
from stable_baselines3.common.logger import Logger

from policies.learner import Learner, Tensors
from policies.sac.config import SacConfig
from policies.sac.env import SpecificationEnv
from policies.tensors import load_slots, slots_of, stored, under
from robo.core.errors import NonFiniteError, RunError
from tasks.system import SystemTask

_BUFFER = ("observations", "next_observations", "actions", "rewards", "dones", "timeouts")


class SacLearner(Learner):
    """Soft actor-critic (Haarnoja et al., arXiv 1812.05905); see `policies.learner.Learner`.

    stable-baselines3 draws from the process's generators: within `step` these are ours.

    Args:
        task: The task.
        config: Settings.
        seed: Seeds everything random.
        device: Where the networks are.
    """

    def __init__(self, task: SystemTask, config: SacConfig, seed: int, device: str) -> None:
        self.config = cfg = config.train
        self.rng = np.random.default_rng([seed, 1])
        self.env = SpecificationEnv(task, cfg.episodes, cfg.margin, self.rng)
        self._torch = torch.Generator().manual_seed(seed).get_state()
        self._numpy: Any = np.random.RandomState(seed).get_state()
        self.steps_done = 0
        with self._ours():
            self.model = SAC(
                "MlpPolicy",
                self.env,
                learning_rate=cfg.learning_rate,
                buffer_size=cfg.buffer,
                learning_starts=cfg.warm_up,
                batch_size=cfg.batch,
                gamma=cfg.discount,
                train_freq=(cfg.collect, "step"),
                gradient_steps=cfg.updates,
                policy_kwargs={"net_arch": [cfg.width, cfg.width]},
                device=device,
            )
        self.model.action_space.seed(seed)  # actions of the warm-up are drawn by it
        self.model.set_logger(Logger(folder=None, output_formats=[]))

    @contextmanager
    def _ours(self) -> Iterator[None]:
        """The process's generators are this learner's; afterwards what they were."""
        before = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
        torch.set_rng_state(self._torch)
        np.random.set_state(self._numpy)  # noqa: NPY002
        try:
            yield
        finally:
            self._torch, self._numpy = torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
            torch.set_rng_state(before[0])
            np.random.set_state(before[1])  # noqa: NPY002

    # ---- Learner -----------------------------------------------------------------

    @property
    def total_steps(self) -> int:
        """See `Learner`."""
        return self.config.steps

    def step(self) -> dict[str, float]:
        """See `Learner`: some control steps of every episode, then some gradient steps."""
        count = self.config.collect * self.config.episodes
        with self._ours():
            self.model.learn(count, reset_num_timesteps=False, log_interval=None)  # type: ignore[arg-type]
        self.steps_done += 1
        told = self.model.logger.name_to_value
        loss = float(told.get("train/critic_loss", 0.0))
        if not np.isfinite(loss):
            raise NonFiniteError(f"loss of the critics is {loss} at step {self.steps_done}; lower train.learning_rate")
        return {
            "loss": loss,
            "satisfied": self.env.satisfied,
            "actor_loss": float(told.get("train/actor_loss", 0.0)),
            "temperature": float(told.get("train/ent_coef", 0.0)),
        }

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        model, buffer = self.model, self.model.replay_buffer
        assert buffer is not None and model.log_ent_coef is not None
        tensors = {f"policy.{k}": v for k, v in model.policy.state_dict().items()}
        tensors["log_temperature"] = model.log_ent_coef
        for name, optimiser in self._optimisers().items():
            tensors |= slots_of(optimiser, f"{name}.")
        filled = buffer.buffer_size if buffer.full else buffer.pos
        tensors |= {f"buffer.{k}": torch.from_numpy(getattr(buffer, k)[:filled]) for k in _BUFFER}
        episodes, tick = self.env.get()
        tensors |= {f"env.{k}": torch.from_numpy(v) for k, v in episodes.items()}
        if model._last_obs is not None:
            tensors["seen"] = torch.from_numpy(np.asarray(model._last_obs))
        tensors["torch"] = self._torch
        tensors = stored(tensors)
        kind, keys, *rest = self._numpy
        meta = {
            "steps_done": self.steps_done,
            "tick": tick,
            "position": buffer.pos,
            "full": buffer.full,
            "timesteps": model.num_timesteps,
            "updates": model._n_updates,
            "satisfied": self.env.satisfied,
            "rng": copy.deepcopy(self.rng.bit_generator.state),
            "warm_up": copy.deepcopy(model.action_space.np_random.bit_generator.state),
            "numpy": [kind, keys.tolist(), *rest],
        }
        return tensors, meta

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""
        model, buffer = self.model, self.model.replay_buffer
        assert buffer is not None and model.log_ent_coef is not None
        try:
            model.policy.load_state_dict(under(tensors, "policy."))
            with torch.no_grad():
                model.log_ent_coef.copy_(tensors["log_temperature"])
            for name, optimiser in self._optimisers().items():
                load_slots(optimiser, tensors, f"{name}.")
            for name, value in under(tensors, "buffer.").items():
                getattr(buffer, name)[: len(value)] = value.numpy()
            self.env.put({k: v.numpy() for k, v in under(tensors, "env.").items()}, int(meta["tick"]))
            self.env.satisfied = float(meta["satisfied"])
            if "seen" in tensors:
                model._last_obs = tensors["seen"].numpy().copy()
            self._torch = tensors["torch"].clone()
            kind, keys, *rest = meta["numpy"]
            self._numpy = (kind, np.array(keys, np.uint32), *rest)
            buffer.pos, buffer.full = int(meta["position"]), bool(meta["full"])
            model.num_timesteps, model._n_updates = int(meta["timesteps"]), int(meta["updates"])
            self.steps_done = int(meta["steps_done"])
            self.rng.bit_generator.state = meta["rng"]
            model.action_space.np_random.bit_generator.state = meta["warm_up"]
        except (KeyError, RuntimeError, ValueError, TypeError, IndexError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this task and configuration: {reason}") from error

    def _optimisers(self) -> dict[str, torch.optim.Optimizer]:
        model = self.model
        assert model.ent_coef_optimizer is not None
        return {
            "adam_actor": model.actor.optimizer,
            "adam_critic": model.critic.optimizer,
            "adam_temperature": model.ent_coef_optimizer,
        }

    def weights(self) -> Tensors:
        """See `Learner`: the actor."""
        return stored(self.model.actor.state_dict())
