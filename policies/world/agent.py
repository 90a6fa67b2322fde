"""All that learns together: world model, actor and critic, with their optimisers; exactly resumable."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from functools import cached_property

import torch
from torch import nn

from policies.learner import Tensors
from policies.steps import clipped
from policies.tensors import load_slots, slots_of, stored, under
from policies.world.actor import ActorCritic, Score
from policies.world.aims import AimActor, Aims
from policies.world.config import WorldConfig
from policies.world.layers import uniform
from policies.world.model import Batch, WorldModel
from policies.world.mpc import Planner
from policies.world.rssm import State
from robo.core.errors import NonFiniteError, RunError

Tensor = torch.Tensor


class Agent(nn.Module):
    """See the module.

    Args:
        config: Settings.
        features, actions, proprio, signals, plain: Sizes, as of `WorldModel`.
        seed: Of the first weights.
        aims: What the actor aims at, of which `Aims.fine` has `plain` numbers; None: it decides at every step.

    Attributes:
        model: The world model.
        behaviour: Actor and critic.
        planner: Plans with both.
    """

    def __init__(
        self,
        config: WorldConfig,
        features: int,
        actions: int,
        proprio: int = 0,
        signals: int = 0,
        seed: int = 0,
        plain: int = 0,
        aims: Aims | None = None,
    ) -> None:
        super().__init__()
        self.config = config
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = WorldModel(config.model, features, actions, proprio, signals, plain)
            self.behaviour = ActorCritic(config.actor, self.model.latent_size, actions, config.model.bins, aims)
        self.planner = Planner(self.model, self.behaviour, config.plan, config.actor.gamma)

    @cached_property
    def _optimisers(self) -> dict[str, torch.optim.Adam]:
        # Made when something learns: the first one of a process imports for seconds what playing has no use for.
        parts = {"model": self.model, "actor": self.behaviour.actor, "critic": self.behaviour.critic}
        return {
            name: torch.optim.Adam(part.parameters(), lr=getattr(self.config.rate, name), eps=1e-5)
            for name, part in parts.items()
        }

    def fit_scales(self, batch: Batch, levels: Tensor | None = None) -> None:
        """See `WorldModel.fit_scales`; levels are those of an actor that aims, see `AimActor.levels`."""
        self.model.fit_scales(batch)
        actor, seen = self.behaviour.actor, self.model.seen_scale
        if isinstance(actor, AimActor):
            first = len(seen.mean) - len(actor.fine)
            actor.standard.mean.copy_(seen.mean[first:])
            actor.standard.std.copy_(seen.std[first:])
            if levels is not None:
                actor.levels.copy_(levels)

    def update(
        self,
        batch: Batch,
        generator: torch.Generator,
        score: Score | None = None,
        shown: Sequence[tuple[Tensor, Tensor]] = (),
    ) -> dict[str, float]:
        """One step of everything: the model on the batch, then actor and critic on what it imagines from there.

        Args:
            batch: With demonstrations among its rows, where these are to be cloned.
            generator: Everything random.
            score: As for `ActorCritic.lesson`.
            shown: What is cloned by an actor that aims, see `AimActor.cloning`: the last with all the rest, each before
                it by itself, for that is cheap beside imagination.

        Returns:
            Metrics by name.

        Raises:
            NonFiniteError: A loss or gradient is NaN or infinite; weights, optimisers and generator are as before.
            ConfigError: No moment has a horizon.
        """
        actor, optimiser, weight = self.behaviour.actor, self._optimisers["actor"], self.config.actor.cloning
        before, lessons = generator.get_state(), shown[:-1] if weight else ()
        kept = copy.deepcopy((actor.state_dict(), optimiser.state_dict())) if lessons else None
        try:
            if isinstance(actor, AimActor):
                for each in lessons:
                    self._gradient("actor", weight * actor.cloning(*each))
                    optimiser.step()
            return self._update(batch, generator, score, shown[-1] if shown else None)
        except NonFiniteError:
            generator.set_state(before)
            if kept is not None:
                actor.load_state_dict(kept[0])
                optimiser.load_state_dict(kept[1])
            raise

    def _update(
        self, batch: Batch, generator: torch.Generator, score: Score | None, shown: tuple[Tensor, Tensor] | None
    ) -> dict[str, float]:
        fit = self.model.loss(batch, generator)
        starts, horizons = self._starts(fit.states, batch, generator)
        lesson = self.behaviour.lesson(self.model, starts, horizons, generator, score)
        losses, metrics = {"model": fit.loss, "actor": lesson.actor, "critic": lesson.critic}, {}
        cloning = self._cloning(fit.states, batch, shown)
        if cloning is not None:
            losses["actor"] = losses["actor"] + self.config.actor.cloning * cloning
            metrics["cloning"] = cloning.item()
        for name, loss in losses.items():
            length = self._gradient(name, loss)
            metrics |= {f"{name}_loss": loss.item(), f"{name}_gradient": length}
        for optimiser in self._optimisers.values():
            optimiser.step()
        self.behaviour.commit(lesson.span)
        return metrics | {name: value.item() for name, value in (fit.metrics | lesson.metrics).items()}

    def _gradient(self, name: str, loss: Tensor) -> float:
        """Of a loss with respect to a part, as long as is allowed, for its optimiser; how long it was."""
        held = [p for group in self._optimisers[name].param_groups for p in group["params"]]
        self._optimisers[name].zero_grad(set_to_none=True)
        loss.backward(inputs=held)
        return clipped(held, loss, self.config.rate.clip, f"lower rate.{name}", f" of the {name}")

    def state(self) -> Tensors:
        """Weights, the range of returns and optimisers, on the CPU."""
        tensors = {f"agent.{k}": v for k, v in self.state_dict().items()}
        for name, optimiser in self._optimisers.items():
            tensors |= slots_of(optimiser, f"{name}.")
        return stored(tensors)

    def load_state(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from what `state` returned.

        Raises:
            RunError: Names or shapes do not fit.
        """
        try:
            self.load_state_dict(under(tensors, "agent."))
            for name, optimiser in self._optimisers.items():
                load_slots(optimiser, tensors, f"{name}.")
        except (KeyError, RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this configuration: {reason}") from error

    def _cloning(self, states: State, batch: Batch, shown: tuple[Tensor, Tensor] | None) -> Tensor | None:
        """How far the actor is from what was demonstrated, (); None where nothing is cloned."""
        actor = self.behaviour.actor
        if not self.config.actor.cloning:
            return None
        if isinstance(actor, AimActor):
            return None if shown is None else actor.cloning(*shown)
        if not batch.demo.any():
            return None
        where = batch.mask[:, 1:] & ~batch.is_first[:, 1:] & batch.demo[:, None]
        return self.behaviour.cloning(states.latent[:, :-1], batch.cloned[:, :-1], where)

    def _starts(self, states: State, batch: Batch, generator: torch.Generator) -> tuple[State, Tensor]:
        """Where to imagine from: some moments, drawn among those that exist and have a horizon."""
        horizons = (batch.horizons * batch.mask).flatten()
        flat = states.map(lambda part: part.flatten(0, 1))
        count = self.config.actor.starts
        if not 0 < count < len(horizons):
            return flat, horizons
        order = uniform(tuple(horizons.shape), generator, flat.deter) - (horizons < 1).float()
        chosen = order.topk(count).indices
        return flat.map(lambda part: part[chosen]), horizons[chosen]
