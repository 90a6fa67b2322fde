"""Dynamics by selective state spaces, after Drama (arXiv 2410.08893) and Mamba-2 (arXiv 2405.21060), in torch alone.

What is seen is judged without what is remembered, so states of a whole sequence are drawn at once and memory follows by
a parallel scan. In imagination a step costs the same however long ago the episode began. Without Mamba's short
convolution: its window would have to be carried and reset beside the state.
"""

from __future__ import annotations

import torch
from torch import nn

from policies.perception.layers import mlp
from policies.world.config import DynamicsConfig
from policies.world.rssm import Dynamics, Seen, State

Tensor = torch.Tensor


def scan(decay: Tensor, push: Tensor) -> Tensor:
    """``h[t] = decay[t] h[t - 1] + push[t]`` from h = 0, in log2 T rounds (Hillis and Steele, 1986).

    Args:
        decay: (B, T, ...), broadcast against push.
        push: (B, T, ...).

    Returns:
        h, as push.
    """
    offset, length = 1, push.shape[1]
    while offset < length:
        later = decay[:, offset:]
        push = torch.cat([push[:, :offset], later * push[:, :-offset] + push[:, offset:]], 1)
        decay = torch.cat([decay[:, :offset], later * decay[:, :-offset]], 1)
        offset *= 2
    return push


class SelectiveLayer(nn.Module):
    """A layer whose channels remember and forget as what enters tells them; residual.

    Args:
        width: Numbers that enter and leave, a multiple of heads.
        heads: Groups of channels that forget at one pace.
        memory: Numbers each channel remembers.
    """

    def __init__(self, width: int, heads: int, memory: int) -> None:
        super().__init__()
        self.sizes = (width, width, memory, memory, heads)
        self.shape = (heads, width // heads, memory)
        self.norm = nn.LayerNorm(width)
        self.into = nn.Linear(width, sum(self.sizes), bias=False)
        # Paces as Mamba's: strides between 1/1000 and 1/10, log-uniform, of rates between 1 and 16.
        stride = torch.exp(torch.empty(heads).uniform_(-6.9, -2.3))
        self.stride = nn.Parameter(stride + torch.log(-torch.expm1(-stride)))
        self.rate = nn.Parameter(torch.log(torch.empty(heads).uniform_(1.0, 16.0)))
        self.skip = nn.Parameter(torch.ones(heads, 1))
        self.after = nn.LayerNorm(width)
        self.out = nn.Linear(width, width, bias=False)

    def forward(self, x: Tensor, carry: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
        """Of sequences.

        Args:
            x: (B, T, width).
            carry: What is remembered before, (B, K).
            known: 1 where memory goes on, 0 where it begins anew, (B, T).

        Returns:
            (B, T, width), and what is remembered after each, (B, T, K).
        """
        decay, push, *rest = self._terms(x)
        decay = decay * known[..., None, None, None]
        before = decay[:, :1] * carry.unflatten(-1, self.shape).unsqueeze(1)
        held = scan(decay, torch.cat([before + push[:, :1], push[:, 1:]], 1))
        return self._read(x, held, *rest), held.flatten(-3)

    def step(self, x: Tensor, carry: Tensor) -> tuple[Tensor, Tensor]:
        """One moment of it: (N, width) and (N, K) to the same."""
        decay, push, *rest = self._terms(x)
        held = decay * carry.unflatten(-1, self.shape) + push
        return self._read(x, held, *rest), held.flatten(-3)

    def _terms(self, x: Tensor) -> tuple[Tensor, ...]:
        gate, channels, write, read, stride = self.into(self.norm(x)).split(self.sizes, -1)
        channels = channels.unflatten(-1, self.shape[:2])
        stride = nn.functional.softplus(stride + self.stride)
        decay = torch.exp(-stride * self.rate.exp())[..., None, None]
        push = (stride[..., None] * channels)[..., None] * write[..., None, None, :]
        return decay, push, channels, read, gate

    def _read(self, x: Tensor, held: Tensor, channels: Tensor, read: Tensor, gate: Tensor) -> Tensor:
        said = (held @ read[..., None, :, None]).squeeze(-1) + self.skip * channels
        return x + self.out(self.after(said.flatten(-2) * nn.functional.silu(gate)))


class Mamba(Dynamics):
    """Some selective layers."""

    def __init__(self, config: DynamicsConfig, actions: int, code: int, plain: int = 0) -> None:
        super().__init__(config, actions, code, plain, carry=config.layers * config.deter * config.memory)
        self.widen = nn.Linear(config.hidden, config.deter)
        sizes = (config.deter, config.heads, config.memory)
        self.blocks = nn.ModuleList(SelectiveLayer(*sizes) for _ in range(config.layers))
        self.last = nn.LayerNorm(config.deter)
        self.look = mlp(code, config.hidden, 1, self.stoch_size)

    def advance(self, state: State, action: Tensor) -> tuple[Tensor, Tensor]:
        """See `Dynamics`."""
        x, carries = self._entered(torch.cat([state.stoch, state.plain, action], -1)), []
        for block, carry in zip(self.blocks, state.carry.chunk(len(self.blocks), -1), strict=True):
            x, held = block.step(x, carry)  # type: ignore[operator]
            carries.append(held)
        return self.last(x), torch.cat(carries, -1)

    def posterior(self, deter: Tensor, code: Tensor) -> Tensor:
        """See `Dynamics`."""
        return self.log_probs(self.look(code))

    def follow(self, embed: Tensor, actions: Tensor, is_first: Tensor, noise: Tensor | None, state: State) -> Seen:
        """See `Dynamics`; all moments at once."""
        known = (~is_first).to(actions.dtype)
        code, plain = self.parts(embed)
        posterior = self.posterior(code, code)
        stoch = self.draw(posterior, noise)
        now, first = torch.cat([stoch, plain], -1), torch.cat([state.stoch, state.plain], -1)
        before = torch.cat([first.unsqueeze(1), now[:, :-1]], 1)
        x, carries = self._entered(torch.cat([before, actions], -1) * known.unsqueeze(-1)), []
        for block, carry in zip(self.blocks, state.carry.chunk(len(self.blocks), -1), strict=True):
            x, held = block(x, carry, known)
            carries.append(held)
        deter = self.last(x)
        return Seen(State(deter, stoch, torch.cat(carries, -1), plain), posterior, self.prior(deter))

    def _entered(self, known: Tensor) -> Tensor:
        return self.widen(self.enter(known))
