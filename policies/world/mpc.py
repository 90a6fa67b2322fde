"""Planning in a world model's latent states at every control step: MPPI as in TD-MPC2 (arXiv 2310.16828)."""

from __future__ import annotations

from typing import NamedTuple

import torch

from policies.world.actor import ActorCritic, Score, judged
from policies.world.config import PlanConfig
from policies.world.layers import normal, picked, uniform
from policies.world.model import Dream, WorldModel
from policies.world.rssm import State

Tensor = torch.Tensor


class Planned(NamedTuple):
    """Plans of a batch of states.

    Attributes:
        action: To do now, in [-1, 1], (B, A).
        mean: Of all steps, (B, H, A); the next call begins with it.
        worth: Score of each row's best plan, (B,).
    """

    action: Tensor
    mean: Tensor
    worth: Tensor


class Planner:
    """Plans are drawn, judged and drawn again around the best ones.

    Every plan is judged on the most likely states, so that none wins by luck.

    Args:
        model: The world model.
        behaviour: Its actor proposes, its slow critic says what lies beyond the horizon.
        config: Settings.
        gamma: What a step later counts.
    """

    def __init__(self, model: WorldModel, behaviour: ActorCritic, config: PlanConfig, gamma: float) -> None:
        self.model, self.behaviour, self.config, self.gamma = model, behaviour, config, gamma

    @torch.no_grad()
    def plan(
        self,
        state: State,
        generator: torch.Generator,
        before: Tensor | None = None,
        horizons: Tensor | None = None,
        score: Score | None = None,
        explore: bool = False,
    ) -> Planned:
        """Plan from states (B, ...).

        Args:
            state: Where things stand.
            generator: Everything random.
            before: `Planned.mean` of the call one control step ago; None: at the start of an episode.
            horizons: Steps to look ahead, (B,) int, at least 1; None or more: `PlanConfig.horizon`.
            score: As for `ActorCritic.lesson`.
            explore: Draw the action from the elites, by their weights, and add noise of their spread; else the mean.
        """
        cfg = self.config
        rows, steps, actions = len(state.deter), cfg.horizon, self.model.actions
        latent = state.latent
        limits = torch.full((rows,), steps, device=latent.device) if horizons is None else horizons.clamp(1, steps)
        mean = torch.zeros(rows, steps, actions, device=latent.device)
        if before is not None:
            mean[:, :-1] = before[:, 1:]
        std = torch.full_like(mean, cfg.max_std)
        proposed = self._proposed(state, generator)
        worth, weights, elites = latent.new_zeros(rows), latent, mean
        for _ in range(cfg.iterations):
            noise = normal((rows, cfg.samples, steps, actions), generator, latent)
            plans = torch.cat([(mean[:, None] + std[:, None] * noise).clamp(-1.0, 1.0), proposed], 1)
            scores = self.judge(state, plans, limits, score)
            best, chosen = scores.topk(cfg.elites, dim=1)
            elites = plans.gather(1, chosen[..., None, None].expand(-1, -1, steps, actions))
            spread = (best[:, :1] - best[:, -1:]).clamp_min(1e-6)
            weights = torch.softmax((best - best[:, :1]) / (cfg.temperature * spread), 1)
            mean = (weights[..., None, None] * elites).sum(1).clamp(-1.0, 1.0)  # weights add up to 1, but for rounding
            variance = (weights[..., None, None] * (elites - mean[:, None]).square()).sum(1)
            std = variance.sqrt().clamp(cfg.min_std, cfg.max_std)
            worth = best[:, 0]
        action = mean[:, 0]
        if explore:
            drawn = picked(weights, uniform((rows,), generator, latent))
            action = elites[torch.arange(rows, device=latent.device), drawn, 0]
            action = (action + std[:, 0] * normal((rows, actions), generator, latent)).clamp(-1.0, 1.0)
        return Planned(action, mean, worth)

    def judge(self, state: State, plans: Tensor, horizons: Tensor, score: Score | None = None) -> Tensor:
        """What plans (B, N, H, A) from states (B, ...) are worth within horizons (B,), (B, N).

        Discounted rewards, less disagreement, the critic's word on where the horizon ends, and robustness.
        """
        rows, count = plans.shape[:2]
        flat = plans.flatten(0, 1)
        dream = self.model.dream(
            _repeat(state, count), lambda _, k: flat[:, k], horizons.repeat_interleave(count), None
        )
        return self._worth(dream, score).view(rows, count)

    def _worth(self, dream: Dream, score: Score | None) -> Tensor:
        cfg, live = self.config, dream.live.float()
        rewards, rho = judged(self.model, dream, cfg.doubt, cfg.robustness, score)
        # A step that is not there neither discounts nor pays; the last state is where the row ended.
        discounts = torch.where(dream.live, self.gamma * self.model.goes_on(dream.latents[:, 1:]), 1.0)
        reached = torch.cumprod(discounts, 1)
        before = torch.cat([torch.ones_like(reached[:, :1]), reached[:, :-1]], 1)
        beyond = reached[:, -1] * self.behaviour.slow(dream.latents[:, -1])
        return (before * rewards * live).sum(1) + beyond + cfg.robustness * rho

    def _proposed(self, state: State, generator: torch.Generator) -> Tensor:
        """Plans of the actor, (B, from_actor, H, A)."""
        count, steps = self.config.from_actor, self.config.horizon
        rows = len(state.deter)
        if not count:
            return state.deter.new_zeros(rows, 0, steps, self.model.actions)
        horizons = torch.full((rows * count,), steps, device=state.deter.device)
        many = _repeat(state, count)
        dream = self.model.dream(many, self.behaviour.actor.course(many.latent, generator), horizons, None)
        return dream.actions.view(rows, count, steps, -1)


def _repeat(state: State, count: int) -> State:
    """Every state so many times, in a row."""
    return state.map(lambda part: part.repeat_interleave(count, 0))
