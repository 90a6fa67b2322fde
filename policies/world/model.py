"""The world model: encoder, dynamics, heads, and what they learn from sequences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from policies.perception.layers import Standard, layer
from policies.world.config import ModelConfig
from policies.world.heads import ContinueHead, DoubtHead, NumberHead, TargetHead, VectorHead
from policies.world.layers import SimNorm, mean_of
from policies.world.mamba import Mamba
from policies.world.rssm import BEYOND, Dynamics, Rssm, State, balanced, divergence
from robo.core.errors import ConfigError

Tensor = torch.Tensor
LEAST_CHANGE = 1e-3
"""In a step, of numbers in deviations, that is not blown up."""
CORES: dict[str, type[Rssm] | type[Mamba]] = {"gru": Rssm, "mamba": Mamba}


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Sequences of moments (B, T, ...), float32 where nothing else is said. Moment t comes after action t.

    Attributes:
        features: Of pictures, (B, T, F).
        proprio: Numbers beside them, (B, T, P); P may be 0.
        actions: What led to the moment, in [-1, 1], (B, T, A); of a first moment it does not count.
        rewards: For getting there, (B, T); of a first moment 0.
        continues: 0 where the episode is over by itself and nothing more can be won, else 1, (B, T).
        is_first: Where an episode begins, (B, T) bool.
        signals: The task's, in their units, (B, T, S); S may be 0.
        mask: Which moments there are, (B, T) bool, all true ones first; the others must be finite and do not count.
        horizons: Steps that imagination from there may last, (B, T) int: to the next keyframe, for example.
        demo: Which sequences are demonstrations, (B,) bool.
        cloned: What is to be done next, for who imitates demonstrations, in [-1, 1], (B, T, A); of a last moment it
            does not count.
    """

    features: Tensor
    proprio: Tensor
    actions: Tensor
    rewards: Tensor
    continues: Tensor
    is_first: Tensor
    signals: Tensor
    mask: Tensor
    horizons: Tensor
    demo: Tensor
    cloned: Tensor

    def __post_init__(self) -> None:
        rows = self.actions.shape[:2]
        for item in fields(self):
            shape = tuple(getattr(self, item.name).shape)
            if shape[:2] != (rows[:1] if item.name == "demo" else rows):
                raise ConfigError(f"batch.{item.name} is {shape}, but batch.actions {tuple(self.actions.shape)}")

    def named(self) -> dict[str, Tensor]:
        """All of it, by the names above."""
        return {item.name: getattr(self, item.name) for item in fields(self)}

    @classmethod
    def of(cls, columns: Mapping[str, np.ndarray], demo: bool = False) -> Batch:
        """What `policies.world.replay.Replay.sample` drew, all demonstrations or none.

        Without ``proprio`` or ``signals`` there are none, without ``horizons`` each moment has a boundless one, without
        ``cloned`` it is what was done next. Other columns are left out.
        """
        mask = torch.from_numpy(columns["mask"])
        nothing = np.zeros((*mask.shape, 0), np.float32)
        boundless = np.full(mask.shape, np.iinfo(np.int32).max)
        actions = columns["actions"]
        done = np.concatenate([actions[:, 1:], np.zeros_like(actions[:, :1])], axis=1)
        given = {"proprio": nothing, "signals": nothing, "horizons": boundless, "cloned": done, **columns}
        numbers = ("features", "proprio", "actions", "rewards", "continues", "signals", "cloned")
        return cls(
            **{name: torch.from_numpy(given[name]).float() for name in numbers},
            is_first=torch.from_numpy(columns["is_first"]),
            mask=mask,
            horizons=torch.from_numpy(given["horizons"]).long(),
            demo=torch.full((len(mask),), demo),
        )

    def to(self, device: str | torch.device) -> Batch:
        """The same elsewhere."""
        return Batch(**{item.name: getattr(self, item.name).to(device) for item in fields(self)})

    def join(self, other: Batch) -> Batch:
        """The sequences of both, which must be equally long."""
        names = [item.name for item in fields(self)]
        return Batch(**{name: torch.cat([getattr(self, name), getattr(other, name)]) for name in names})


class Fit(NamedTuple):
    """What a batch says of a model.

    Attributes:
        loss: To make small, ().
        metrics: Parts of it, by name, () each.
        states: After each moment, (B, T, ...), not detached.
    """

    loss: Tensor
    metrics: dict[str, Tensor]
    states: State


class Dream(NamedTuple):
    """What was imagined from N states. Rows shorter than H stay where they ended.

    Attributes:
        latents: (N, H + 1, L), the start first.
        actions: (N, H, A).
        live: Which steps lie within the row's horizon, (N, H) bool.
    """

    latents: Tensor
    actions: Tensor
    live: Tensor


class WorldModel(nn.Module):
    """See the module. New weights come from torch's global generator; nothing else does.

    Args:
        config: Settings.
        features: Numbers that pictures become.
        actions: Numbers of an action.
        proprio: Numbers seen beside features.
        signals: Of the task, as numbers.
        plain: So many of features and proprio, the last, become part of states as they are. A code of few classes
            needs long to learn to be exact; what is exact already, such as the arm's own state, is better left so.
    """

    def __init__(
        self,
        config: ModelConfig,
        features: int,
        actions: int,
        proprio: int = 0,
        signals: int = 0,
        plain: int = 0,
    ) -> None:
        super().__init__()
        self.config, self.actions, self.plain = config, actions, plain
        units, layers = config.units, config.layers
        self.seen_scale, self.signal_scale = Standard(features + proprio), Standard(signals)
        inputs = [features + proprio, *[units] * (layers - 1)]
        self.encoder = nn.Sequential(*(layer(size, units) for size in inputs))
        if config.objective == "target":
            self.encoder = nn.Sequential(*self.encoder, nn.Linear(units, units), SimNorm())
        self.dynamics: Dynamics = CORES[config.dynamics.core](config.dynamics, actions, units, plain)
        latent = self.latent_size = self.dynamics.latent_size
        self.reward = NumberHead(latent, units, layers, config.bins)
        self.goes_on = ContinueHead(latent, units, layers)
        self.signals = VectorHead(latent, units, layers, self.signal_scale) if signals else None
        self.decoder = VectorHead(latent, units, layers, self.seen_scale) if config.objective == "features" else None
        self.target = (
            TargetHead(config.dynamics.deter, units, layers, units, config.target_loss)
            if config.objective == "target"
            else None
        )
        self.price = nn.Parameter(torch.zeros(())) if config.objective == "bottleneck" else None
        self.doubts = (
            DoubtHead(config.ensemble, latent, actions, config.ensemble_units, units) if config.ensemble else None
        )

    def fit_scales(self, batch: Batch) -> None:
        """Take means and deviations of what is seen and of signals from a batch, before the first step."""
        self.seen_scale.fit(torch.cat([batch.features, batch.proprio], -1)[batch.mask])
        if self.signals is not None:
            self.signal_scale.fit(batch.signals[batch.mask])
        if self.dynamics.change is not None:
            _, plain = self.dynamics.parts(self.encode(batch.features, batch.proprio).detach())
            linked = batch.mask[:, 1:] & ~batch.is_first[:, 1:]
            self.dynamics.change.scale.fit((plain[:, 1:] - plain[:, :-1])[linked], least=LEAST_CHANGE)

    def encode(self, features: Tensor, proprio: Tensor) -> Tensor:
        """Features (..., F) and numbers beside them (..., P) → what dynamics take, a code and plain numbers."""
        seen = self.seen_scale(torch.cat([features, proprio], -1))
        plain = seen[..., seen.shape[-1] - self.plain :].clamp(-BEYOND, BEYOND)
        return torch.cat([self.encoder(seen), plain], -1)

    def correct(
        self,
        state: State,
        action: Tensor,
        features: Tensor,
        proprio: Tensor,
        is_first: Tensor,
        generator: torch.Generator | None,
    ) -> State:
        """States after another moment, while acting: see `Dynamics.correct`; `Dynamics.initial` is the first."""
        return self.dynamics.correct(state, action, self.encode(features, proprio), is_first, generator)

    def doubt(self, latents: Tensor, actions: Tensor) -> Tensor:
        """How little the model knows of what follows, (...): see `DoubtHead`.

        Raises:
            ConfigError: There is no ensemble.
        """
        if self.doubts is None:
            raise ConfigError("disagreement needs predictors, but model.ensemble is 0; set it to 2 or more")
        return self.doubts(latents, actions)

    def told_signals(self, latents: Tensor) -> Tensor:
        """The task's signals, (..., S).

        Raises:
            ConfigError: The model was made without.
        """
        if self.signals is None:
            raise ConfigError("robustness needs the task's signals, but the world model was made with none")
        return self.signals(latents)

    def loss(self, batch: Batch, generator: torch.Generator) -> Fit:
        """What a batch says, everything random drawn from the generator."""
        cfg = self.config
        embed = self.encode(batch.features, batch.proprio)
        seen = self.dynamics.observe(embed, batch.actions, batch.is_first, generator)
        latents, mask = seen.states.latent, batch.mask.float()
        code, _ = self.dynamics.parts(embed)
        linked = mask[:, 1:] * (~batch.is_first[:, 1:]).float()
        parts, metrics = {}, {}
        parts["reward"] = cfg.reward_weight * mean_of(self.reward.loss(latents, batch.rewards), mask)
        parts["continue"] = cfg.continue_weight * mean_of(self.goes_on.loss(latents, batch.continues), mask)
        if self.signals is not None:
            parts["signals"] = cfg.signals_weight * mean_of(self.signals.loss(latents, batch.signals), mask)
        if self.decoder is not None:
            what = torch.cat([batch.features, batch.proprio], -1)
            parts["features"] = cfg.features_weight * mean_of(self.decoder.loss(latents, what), mask)
        if self.target is not None:
            distance = self.target.loss(seen.states.deter[:, 1:], code[:, 1:])
            parts["target"] = cfg.target_weight * mean_of(distance, linked)
        if self.doubts is not None:
            error = self.doubts.loss(latents[:, :-1], batch.actions[:, 1:], code[:, 1:])
            parts["doubt"] = mean_of(error, linked)
        if self.dynamics.change is not None:
            parts["plain"] = cfg.plain_weight * mean_of(self.dynamics.change_loss(seen, generator), linked)
        kl = mean_of(balanced(seen.posterior, seen.prior, cfg.kl_balance), mask)
        if self.price is None:
            parts["kl"] = cfg.kl_weight * kl.clamp_min(cfg.kl_free)
        else:
            # The multiplier rises while more is taken from what is seen than allowed, and falls while less is.
            price = self.price.exp()
            parts["kl"] = price.detach() * kl - price * (kl.detach() - cfg.bottleneck_nats)
            metrics["price"] = price.detach()
        metrics["kl_nats"] = mean_of(divergence(seen.posterior, seen.prior), mask).detach()
        metrics |= {name: part.detach() for name, part in parts.items()}
        return Fit(torch.stack(list(parts.values())).sum(), metrics, seen.states)

    def dream(
        self,
        starts: State,
        act: Callable[[Tensor, int], Tensor],
        horizons: Tensor,
        generator: torch.Generator | None,
    ) -> Dream:
        """What becomes of states, (N, ...), as far as the longest horizon.

        Args:
            starts: Where from.
            act: Latents (N, L) and number of the step → actions (N, A).
            horizons: Steps of each row, (N,) int, not all 0.
            generator: Draws states; None: the most likely ones.
        """
        state, latents, actions = starts, [starts.latent], []
        steps = int(horizons.max())
        shortest = int(horizons.min())
        for k in range(steps):
            action = act(latents[-1], k)
            following = self.dynamics.imagine(state, action, generator)
            state = following if k < shortest else following.where(k < horizons, state)
            latents.append(state.latent)
            actions.append(action)
        live = torch.arange(steps, device=horizons.device) < horizons[:, None]
        return Dream(torch.stack(latents, 1), torch.stack(actions, 1), live)
