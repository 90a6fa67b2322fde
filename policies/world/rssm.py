"""How latent states follow each other: what all dynamics share, and Dreamer's recurrent state-space model.

A moment t comes after action t: ``actions[:, t]`` is what led from moment t - 1 to moment t.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import nn

from policies.perception.layers import Standard, layer, mlp
from policies.world.config import DynamicsConfig
from policies.world.heads import VectorHead
from policies.world.layers import picked, uniform

Tensor = torch.Tensor
BEYOND = 10.0
"""Deviations beyond which nothing is expected."""


class State(NamedTuple):
    """Latent states of any leading shape.

    Attributes:
        deter: What is remembered and can be read, (..., D).
        stoch: What was drawn, groups of one-hot numbers in a row, (..., G C); gradients pass straight through.
        carry: What the core remembers beyond that, (..., K); K may be 0.
        plain: Numbers that were seen and need no code, or are expected, standardised, (..., P); P may be 0.
    """

    deter: Tensor
    stoch: Tensor
    carry: Tensor
    plain: Tensor

    @property
    def latent(self) -> Tensor:
        """What heads, actor and critic see, (..., D + G C + P)."""
        return torch.cat([self.deter, self.stoch, self.plain], -1)

    def map(self, change: Callable[[Tensor], Tensor]) -> State:
        """The same change of every part."""
        return State(*(change(part) for part in self))

    def where(self, chosen: Tensor, other: State) -> State:
        """These where a mask (...) is true, others elsewhere."""
        return State(*(torch.where(chosen.unsqueeze(-1), a, b) for a, b in zip(self, other, strict=True)))


class Seen(NamedTuple):
    """What a sequence of observations told, (B, T, ...).

    Attributes:
        states: After each observation.
        posterior: Log-probabilities of what was drawn, given the observation, (B, T, G, C).
        prior: The same, not knowing it.
    """

    states: State
    posterior: Tensor
    prior: Tensor


class Dynamics(nn.Module, ABC):
    """States that follow each other, expected (`imagine`) or corrected by what is observed (`correct`, `observe`).

    Args:
        config: Settings.
        actions: Numbers of an action.
        code: E, numbers of an encoded observation.
        plain: P of `State`; they follow the code wherever an observation (..., E + P) is given.
        carry: K of `State`.

    Attributes:
        latent_size: Of `State.latent`.
        change: How plain numbers change in a step; its scale is that of such changes. None where there are none.
    """

    def __init__(self, config: DynamicsConfig, actions: int, code: int, plain: int, carry: int) -> None:
        super().__init__()
        self.config, self.code_size, self.plain_size, self.carry_size = config, code, plain, carry
        self.stoch_size = config.groups * config.classes
        self.latent_size = config.deter + self.stoch_size + plain
        self.enter = layer(self.stoch_size + plain + actions, config.hidden)
        self.expect = mlp(config.deter, config.hidden, 1, self.stoch_size)
        self.change = VectorHead(config.deter + self.stoch_size, config.hidden, 1, Standard(plain)) if plain else None

    def initial(self, batch: int) -> State:
        """Nothing is known yet, (batch, ...)."""
        like = next(self.parameters())
        sizes = (self.config.deter, self.stoch_size, self.carry_size, self.plain_size)
        return State(*(torch.zeros(batch, size, device=like.device) for size in sizes))

    @abstractmethod
    def advance(self, state: State, action: Tensor) -> tuple[Tensor, Tensor]:
        """`deter` and `carry` one action (N, A) after states (N, ...)."""

    @abstractmethod
    def posterior(self, deter: Tensor, code: Tensor) -> Tensor:
        """Log-probabilities (..., G, C) given memory (..., D) and the code of an observation (..., E)."""

    def prior(self, deter: Tensor) -> Tensor:
        """Log-probabilities (..., G, C) given memory (..., D)."""
        return self.log_probs(self.expect(deter))

    def log_probs(self, logits: Tensor) -> Tensor:
        """Log-probabilities (..., G, C) of logits (..., G C), mixed with a little of every class."""
        mix = self.config.unimix
        probs = torch.softmax(logits.unflatten(-1, (self.config.groups, self.config.classes)), -1)
        return torch.log((1 - mix) * probs + mix / self.config.classes)

    def draw(self, log_probs: Tensor, noise: Tensor | None) -> Tensor:
        """A class of each group.

        Args:
            log_probs: (..., G, C).
            noise: Uniform in [0, 1), (..., G); None: the most likely class.

        Returns:
            `State.stoch`.
        """
        probs = log_probs.exp()
        chosen = probs.argmax(-1) if noise is None else picked(probs.detach(), noise)
        drawn = torch.zeros_like(probs).scatter(-1, chosen.unsqueeze(-1), 1.0)
        return (drawn + probs - probs.detach()).flatten(-2)

    def noise(self, shape: tuple[int, ...], generator: torch.Generator | None, like: Tensor) -> Tensor | None:
        """For `draw`, (*shape, G); None without a generator."""
        return None if generator is None else uniform((*shape, self.config.groups), generator, like)

    def imagine(self, state: State, action: Tensor, generator: torch.Generator | None) -> State:
        """States (N, ...) expected one action (N, A) later, drawn; the most likely ones without a generator."""
        deter, carry = self.advance(state, action)
        stoch = self.draw(self.prior(deter), self.noise(deter.shape[:1], generator, deter))
        return State(deter, stoch, carry, self.expected(state.plain, deter, stoch))

    def expected(self, before: Tensor, deter: Tensor, stoch: Tensor) -> Tensor:
        """Plain numbers (..., P) of a state whose other parts are known, and those of the state before."""
        if self.change is None:
            return before
        return (before + self.change(torch.cat([deter, stoch], -1))).clamp(-BEYOND, BEYOND)

    def change_loss(self, seen: Seen, generator: torch.Generator) -> Tensor:
        """Of what is expected of plain numbers, of every moment but the first of sequences (B, T, ...): (B, T - 1)."""
        assert self.change is not None
        deter, plain = seen.states.deter[:, 1:], seen.states.plain
        stoch = self.draw(seen.prior[:, 1:], self.noise(deter.shape[:2], generator, deter))
        return self.change.loss(torch.cat([deter, stoch], -1), plain[:, 1:] - plain[:, :-1])

    def correct(
        self, state: State, action: Tensor, embed: Tensor, is_first: Tensor, generator: torch.Generator | None
    ) -> State:
        """States (N, ...) one action (N, A) later, given what is observed then.

        Args:
            state: Before.
            action: What was done since.
            embed: Observation: its code and plain numbers, (N, E + P).
            is_first: Where an episode begins, (N,) bool: there, neither state nor action count.
            generator: As for `imagine`.
        """
        noise = self.noise(action.shape[:1], generator, action)
        return self._correct(state, action, embed, is_first, noise)[0]

    def observe(
        self,
        embed: Tensor,
        actions: Tensor,
        is_first: Tensor,
        generator: torch.Generator | None,
        state: State | None = None,
    ) -> Seen:
        """`correct` along sequences.

        Args:
            embed: Observations, (B, T, E + P).
            actions: (B, T, A).
            is_first: (B, T) bool.
            generator: As for `imagine`.
            state: Before the first moment, (B, ...); None: nothing is known.
        """
        noise = self.noise(actions.shape[:2], generator, actions)
        return self.follow(embed, actions, is_first, noise, self.initial(len(embed)) if state is None else state)

    def follow(self, embed: Tensor, actions: Tensor, is_first: Tensor, noise: Tensor | None, state: State) -> Seen:
        """`observe` with the noise (B, T, G) that draws states, one moment after the other."""
        states, posteriors = [], []
        for t in range(actions.shape[1]):
            drawn = None if noise is None else noise[:, t]
            state, posterior = self._correct(state, actions[:, t], embed[:, t], is_first[:, t], drawn)
            states.append(state)
            posteriors.append(posterior)
        stacked = State(*(torch.stack(parts, 1) for parts in zip(*states, strict=True)))
        return Seen(stacked, torch.stack(posteriors, 1), self.prior(stacked.deter))

    def _correct(
        self, state: State, action: Tensor, embed: Tensor, is_first: Tensor, noise: Tensor | None
    ) -> tuple[State, Tensor]:
        known = (~is_first).unsqueeze(-1).to(action.dtype)
        deter, carry = self.advance(state.map(lambda part: part * known), action * known)
        code, plain = self.parts(embed)
        posterior = self.posterior(deter, code)
        return State(deter, self.draw(posterior, noise), carry, plain), posterior

    def parts(self, embed: Tensor) -> tuple[Tensor, Tensor]:
        """Code (..., E) and plain numbers (..., P) of an observation."""
        code, plain = embed.split((self.code_size, self.plain_size), -1)
        return code, plain


class Rssm(Dynamics):
    """Dreamer's: a gated recurrent unit with layer norm; what is seen is judged by what is remembered."""

    def __init__(self, config: DynamicsConfig, actions: int, code: int, plain: int = 0) -> None:
        super().__init__(config, actions, code, plain, carry=0)
        self.gates = nn.Linear(config.hidden + config.deter, 3 * config.deter, bias=False)
        self.norm = nn.LayerNorm(3 * config.deter, eps=1e-3)
        self.look = mlp(config.deter + code, config.hidden, 1, self.stoch_size)

    def advance(self, state: State, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `Dynamics`."""
        entered = self.enter(torch.cat([state.stoch, state.plain, action], -1))
        reset, candidate, update = self.norm(self.gates(torch.cat([entered, state.deter], -1))).chunk(3, -1)
        candidate = torch.tanh(torch.sigmoid(reset) * candidate)
        # Minus 1: at first, what is remembered mostly stays.
        return torch.lerp(state.deter, candidate, torch.sigmoid(update - 1)), state.carry

    def posterior(self, deter: Tensor, code: Tensor) -> Tensor:
        """See `Dynamics`."""
        return self.log_probs(self.look(torch.cat([deter, code], -1)))


def divergence(left: Tensor, right: Tensor) -> Tensor:
    """Kullback-Leibler divergence of log-probabilities (..., G, C) from others [nats], summed over groups, (...)."""
    return (left.exp() * (left - right)).sum((-2, -1))


def balanced(posterior: Tensor, prior: Tensor, balance: float) -> Tensor:
    """Their divergence (...), of whose gradient a share `balance` moves the prior, the rest the posterior."""
    return balance * divergence(posterior.detach(), prior) + (1 - balance) * divergence(posterior, prior.detach())
