"""Actor and critic, which learn from what a world model imagines (DreamerV2 and V3, RoboHorizon)."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from policies.perception.layers import mlp
from policies.world.aims import AimActor, Aims
from policies.world.config import ActorConfig
from policies.world.heads import NumberHead
from policies.world.layers import mean_of, normal
from policies.world.model import Dream, WorldModel
from policies.world.rssm import State
from robo.core.errors import ConfigError

Tensor = torch.Tensor
EXACT = 0.1
"""Of the range of an action: so far from the demonstrated one costs as much as a nat."""
Score = Callable[[Tensor], Tensor]
"""Robustness of imagined signals (N, H + 1, S), the start first: of every row (N,), or of every step (N, H). Rows that
are shorter than H repeat their last moment. Differentiable, where actors learn through the model."""


class TanhNormal(NamedTuple):
    """Normal numbers squashed into (-1, 1); a sample is told by its number before that.

    Attributes:
        mean, std: (..., A).
    """

    mean: Tensor
    std: Tensor

    def draw(self, generator: torch.Generator) -> Tensor:
        """A sample before tanh, (..., A); it passes gradients to mean and std."""
        return self.mean + self.std * normal(tuple(self.mean.shape), generator, self.mean)

    def log_prob(self, raw: Tensor) -> Tensor:
        """Log-density of the actions tanh(raw), (..., A) → (...)."""
        squash = 2.0 * (math.log(2.0) - raw - F.softplus(-2.0 * raw))
        within = -0.5 * ((raw - self.mean) / self.std).square() - self.std.log() - 0.5 * math.log(2.0 * math.pi)
        return (within - squash).sum(-1)

    def log_prob_of(self, action: Tensor) -> Tensor:
        """Log-density of actions (..., A), those at the edges as if a little within."""
        return self.log_prob(torch.atanh(action.clamp(-0.999, 0.999)))

    def entropy(self, generator: torch.Generator) -> Tensor:
        """Estimate from one sample of each, (...)."""
        return -self.log_prob(self.draw(generator))


class Course:
    """What an `Actor` does along dreams: it draws at every step."""

    def __init__(self, actor: Actor, generator: torch.Generator) -> None:
        self._actor, self._generator, self._raws = actor, generator, list[Tensor]()

    def __call__(self, latent: Tensor, step: int) -> Tensor:
        """What `WorldModel.dream` asks for."""
        self._raws.append(self._actor(latent).draw(self._generator))
        return torch.tanh(self._raws[-1])

    @property
    def choices(self) -> Tensor:
        """What was drawn, before tanh, (N, H, A)."""
        return torch.stack(self._raws, 1)


class Actor(nn.Module):
    """Latents to distributions of actions; it decides at every step.

    Args:
        config: Settings.
        latent, actions: Sizes.
    """

    picks = False
    """Whether it chooses something that no gradient passes through."""

    def __init__(self, config: ActorConfig, latent: int, actions: int) -> None:
        super().__init__()
        self.config = config
        self.network = mlp(latent, config.units, config.layers, 2 * actions, scale=0.1)

    def forward(self, latent: Tensor) -> TanhNormal:
        """Of latents (..., L)."""
        mean, std = self.network(latent).chunk(2, -1)
        cfg = self.config
        # Means beyond 5 would be squashed to where gradients end.
        return TanhNormal(5.0 * torch.tanh(mean / 5.0), cfg.min_std + (cfg.max_std - cfg.min_std) * torch.sigmoid(std))

    def act(self, latent: Tensor, generator: torch.Generator | None) -> Tensor:
        """Actions (..., A), drawn; without a generator the middle ones."""
        says = self(latent)
        if generator is None:
            return torch.tanh(says.mean)
        return torch.tanh(says.draw(generator))

    def course(self, latent: Tensor, generator: torch.Generator) -> Course:
        """What it does from latents (N, L) on."""
        return Course(self, generator)

    def chances(self, latents: Tensor, choices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Log-density of what was chosen along dreams, (N, H), estimates of the entropy, and at which steps it was.

        Args:
            latents: Before each step, (N, H, L).
            choices: Of `Course`, (N, H, A).
            generator: Of the estimates.
        """
        says = self(latents)
        found = says.log_prob(choices.detach())
        return found, says.entropy(generator), torch.ones_like(found, dtype=torch.bool)


def lambda_returns(rewards: Tensor, values: Tensor, discounts: Tensor, live: Tensor, lam: float) -> Tensor:
    """λ-returns of rows that end at different steps, with the value of where each ends.

    Args:
        rewards: For each step, (N, H).
        values: Of where it leads, (N, H).
        discounts: What counts of that, (N, H).
        live: Which steps there are, (N, H) bool, true ones first.
        lam: λ.

    Returns:
        (N, H); 0 where there is no step.
    """
    live_next = F.pad(live[:, 1:], (0, 1)).to(rewards.dtype)
    following, returns = torch.zeros_like(rewards[:, 0]), []
    for k in reversed(range(rewards.shape[1])):
        mix = lam * live_next[:, k]
        following = rewards[:, k] + discounts[:, k] * ((1.0 - mix) * values[:, k] + mix * following)
        returns.append(following)
    return torch.where(live, torch.stack(returns[::-1], 1), 0.0)


def formula_score(formula: Any, names: Mapping[str, int], dt_s: float, smooth: Any = None) -> Score:
    """The robustness of a formula at the start of imagined signals.

    Args:
        formula: `tasks.stl.syntax.Formula`.
        names: Signals in the order in which the world model tells them, and how many numbers each is.
        dt_s: Distance of moments [s].
        smooth: As for `Formula.robustness`.
    """

    def score(signals: Tensor) -> Tensor:
        parts = signals.split(list(names.values()), -1)
        named = {
            name: part.squeeze(-1) if size == 1 else part
            for (name, size), part in zip(names.items(), parts, strict=True)
        }
        return formula.robustness_at_start(named, dt_s, smooth)

    return score


class Lesson(NamedTuple):
    """What imagination teaches.

    Attributes:
        actor, critic: Losses of the two, (); each is to move its own weights only.
        metrics: () each.
        span: Percentiles of returns to be remembered, (2,): see `ActorCritic.commit`.
    """

    actor: Tensor
    critic: Tensor
    metrics: dict[str, Tensor]
    span: Tensor


class ActorCritic(nn.Module):
    """Actor, critic, slow critic and the range of returns.

    Args:
        config: Settings.
        latent, actions: Sizes.
        bins: Of values.
        aims: What the actor aims at; None: it decides at every step.
    """

    span: Tensor

    def __init__(self, config: ActorConfig, latent: int, actions: int, bins: int, aims: Aims | None = None) -> None:
        super().__init__()
        self.config = config
        self.actor = Actor(config, latent, actions) if aims is None else AimActor(config, aims)
        self.critic = NumberHead(latent, config.units, config.layers, bins)
        self.slow = copy.deepcopy(self.critic).requires_grad_(False)
        self.register_buffer("span", torch.zeros(2))

    def commit(self, span: Tensor) -> None:
        """After the optimisers' steps: the slow critic follows, the range of returns is remembered."""
        self.span.copy_(span)
        with torch.no_grad():
            for slow, value in zip(self.slow.parameters(), self.critic.parameters(), strict=True):
                slow.lerp_(value, self.config.target_rate)

    def imagine(
        self, model: WorldModel, starts: State, horizons: Tensor, generator: torch.Generator
    ) -> tuple[Dream, Tensor]:
        """What the actor would do, for at most `ActorConfig.horizon` steps, from states (N, ...) of horizons (N,).

        Returns:
            The dream, and what the actor chose, see `Actor.chances`.
        """
        course = self.actor.course(starts.latent, generator)
        dream = model.dream(starts, course, horizons.clamp_max(self.config.horizon), generator)
        return dream, course.choices

    def lesson(
        self,
        model: WorldModel,
        starts: State,
        horizons: Tensor,
        generator: torch.Generator,
        score: Score | None = None,
    ) -> Lesson:
        """Losses of what is imagined.

        Args:
            model: The world model, which this does not move.
            starts: States (N, ...); detached here.
            horizons: Steps that each may last, (N,) int; rows of 0 do not count.
            generator: Everything random.
            score: Robustness of signals, weighted by `ActorConfig.robustness`. Where it is of rows, it is added to the
                normalised returns of all steps of a row, undiscounted, and the critic knows nothing of it; where it is
                of steps, to rewards.

        Raises:
            ConfigError: No horizon is positive.
        """
        cfg = self.config
        if not (horizons > 0).any():
            raise ConfigError("there is nothing to imagine: no start has a horizon of one step or more")
        through = cfg.gradient == "dynamics"
        with torch.set_grad_enabled(through):
            dream, choices = self.imagine(model, starts.map(torch.Tensor.detach), horizons, generator)
            rewards, rho = judged(model, dream, cfg.doubt, cfg.robustness, score)
            discounts = cfg.gamma * model.goes_on(dream.latents[:, 1:])
            values = self.slow(dream.latents[:, 1:])
            returns = lambda_returns(rewards, values, discounts, dream.live, cfg.lam)
        weights = _weights(discounts.detach())
        latents = dream.latents[:, :-1].detach()
        told = returns.detach()[dream.live]
        found = torch.quantile(told, torch.tensor([0.05, 0.95], device=told.device))
        # Of no range yet: the first batch's.
        fresh = (self.span == 0).all()
        span = torch.where(fresh, found, torch.lerp(self.span, found, cfg.return_rate))
        scale = (span[1] - span[0]).clamp_min(1.0)

        chance, entropy, decided = self.actor.chances(latents, choices, generator)
        decided = (decided & dream.live).float()
        worth = returns / scale + cfg.robustness * rho[:, None] if through else torch.zeros_like(chance)
        if self.actor.picks or not through:
            baseline = self.critic(latents).detach()
            surplus = rho - mean_of(rho, dream.live[:, 0].float())
            advantage = (returns - baseline) / scale + cfg.robustness * surplus[:, None]
            worth = worth + chance * advantage.detach()
        actor = -mean_of(weights * (worth + cfg.entropy * entropy), decided)
        critic = mean_of(weights * self.critic.loss(latents, returns.detach()), dream.live.float())
        metrics = {
            "return": told.mean(),
            "return_span": scale,
            "entropy": mean_of(entropy, decided),
            "imagined_steps": dream.live.sum(1).float().mean(),
        }
        if score is not None:
            metrics["rho"] = mean_of(rho, dream.live[:, 0].float())
        return Lesson(actor, critic, {name: value.detach() for name, value in metrics.items()}, span)

    def cloning(self, latents: Tensor, actions: Tensor, where: Tensor) -> Tensor:
        """How far from what demonstrators did, per number of an action, () (RoboHorizon's BC loss).

        The middle action is drawn to theirs by the absolute error, in units of `EXACT`: where demonstrators now did one
        thing and now another it takes up one of them, and not what lies between. Its spread, by likelihood.

        Args:
            latents: Where, (..., L); detached here.
            actions: What they did then, (..., A).
            where: Which of these count, (...).
        """
        assert isinstance(self.actor, Actor)
        says = self.actor(latents.detach())
        far = (torch.tanh(says.mean) - actions).abs().sum(-1) / EXACT
        likely = says._replace(mean=says.mean.detach()).log_prob_of(actions)
        return mean_of(far - likely, where.float()) / actions.shape[-1]


def judged(
    model: WorldModel, dream: Dream, doubt: float, robustness: float, score: Score | None
) -> tuple[Tensor, Tensor]:
    """Rewards (N, H) of a dream with what disagreement costs and what steps' robustness pays, and the robustness of
    its rows (N,), 0 where it is of steps or not asked for."""
    rewards = model.reward(dream.latents[:, 1:])
    if doubt:
        rewards = rewards - doubt * model.doubt(dream.latents[:, :-1], dream.actions)
    nothing = torch.zeros_like(rewards[:, 0])
    if score is None:
        return rewards, nothing
    rho = score(model.told_signals(dream.latents))
    if rho.shape == rewards.shape:
        return rewards + robustness * rho, nothing
    if rho.shape != nothing.shape:
        raise ConfigError(
            f"a score of {len(nothing)} rows is ({len(nothing)},) or {tuple(rewards.shape)}, not {tuple(rho.shape)}"
        )
    return rewards, rho


def _weights(discounts: Tensor) -> Tensor:
    """How much each step counts, by what is likely to have ended and by how late it is, (N, H)."""
    before = torch.cat([torch.ones_like(discounts[:, :1]), discounts[:, :-1]], 1)
    return torch.cumprod(before, 1)
