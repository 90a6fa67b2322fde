"""A trained actor at run time: one control per step; the plan shown is what it would go on to do."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np
import torch
from stable_baselines3.sac.policies import Actor, SACPolicy

from policies.prediction import Course, Prediction
from policies.sac.config import SacConfig
from policies.sac.env import raw_of, spaces_of
from policies.system import ControlPlan, SystemPolicy
from policies.system_model import SystemModel
from policies.tensors import load_weights
from robo.core.protocols import Obs
from tasks.system import SystemTask


class ActorPolicy(SystemPolicy):
    """The actor's mean action at every step.

    Args:
        task: The task.
        actor: Features (1, F) → action (1, m) in -1..1.
    """

    def __init__(self, task: SystemTask, actor: Actor) -> None:
        self.task, self.task_name, self.actor = task, task.name, actor
        model = SystemModel(task)
        self._predictions = [Prediction(task, model, Course(task, k), smooth=1.0) for k in range(task.steps)]

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `SystemPolicy`."""
        self._past = np.zeros((self.task.steps, len(self.task.signals)))

    @torch.no_grad()
    def act(self, obs: Obs) -> ControlPlan:
        """See `SystemPolicy`."""
        began = time.perf_counter()
        tick = round(float(obs["time_s"][0]) / self.task.ctrl_dt_s)
        state = np.asarray(obs["state"], float)
        past, raw = self._past.copy(), []
        plan_ms = 0.0
        for k in range(tick, self.task.steps):
            ahead = self._predictions[k]
            shared = np.concatenate([past[:k].ravel(), state])
            features = torch.from_numpy(ahead.features(shared).astype(np.float32))[None]
            raw.append(raw_of(self.actor(features, deterministic=True)[0].numpy()))
            if k == tick:
                plan_ms = 1e3 * (time.perf_counter() - began)
            past[k] = ahead.measure(shared)
            if k == tick:
                self._past[k] = past[k]
            state = np.asarray(self.task.advance(state, self.task.squash(raw[-1])))
        ahead = self._predictions[tick]
        shared = np.concatenate([self._past[:tick].ravel(), np.asarray(obs["state"], float)])
        parts, states = ahead.outcome(shared, np.stack(raw)[None])
        return ControlPlan(
            control=self.task.squash(np.stack(raw)),
            state=states[0],
            controller="policy",
            info={"plan_ms": plan_ms, "plan_rho": float(parts.min())},
        )


def load(task: SystemTask, config: SacConfig, weights: Mapping[str, torch.Tensor]) -> ActorPolicy:
    """A policy from an actor's weights; see `policies.learner.PolicyKind`.

    Raises:
        RunError: Names or shapes of the weights do not fit, or they are not finite.
    """
    width = config.train.width
    whole = SACPolicy(*spaces_of(SystemModel(task)), lr_schedule=lambda _: 0.0, net_arch=[width, width])
    load_weights(whole.actor, {name: value.cpu() for name, value in weights.items()})
    whole.set_training_mode(False)
    return ActorPolicy(task, whole.actor)
