"""Diffusion Policy (Chi et al., arXiv 2303.04137): actions are noise that is removed step by step."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import nn

from policies.imitation.config import DiffusionConfig
from policies.imitation.demos import Window
from policies.imitation.eyes import Eyes, Hands
from policies.imitation.network import Imitator, over

TIME = 128
"""Size of what tells how much noise there is."""


class Block(nn.Module):
    """Two convolutions over time; in between what is known scales and shifts channels (FiLM, arXiv 1709.07871)."""

    def __init__(self, before: int, after: int, known: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv1d(before, after, 5, padding=2), nn.GroupNorm(8, after), nn.Mish())
        self.film = nn.Linear(known, 2 * after)
        self.second = nn.Sequential(nn.Conv1d(after, after, 5, padding=2), nn.GroupNorm(8, after), nn.Mish())
        self.past = nn.Conv1d(before, after, 1) if before != after else nn.Identity()

    def forward(self, x: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        """(B, before, T) → (B, after, T)."""
        scale, shift = self.film(known)[..., None].chunk(2, dim=1)
        return self.second(self.first(x) * (1 + scale) + shift) + self.past(x)


class OverTime(nn.Module):
    """A U-Net over time.

    Args:
        actions: Channels in and out.
        known: Size of what is known.
        channels: From the full rate down; each next has half the rate.
    """

    def __init__(self, actions: int, known: int, channels: tuple[int, ...]) -> None:
        super().__init__()
        self.time = nn.Sequential(nn.Linear(TIME, 2 * TIME), nn.Mish(), nn.Linear(2 * TIME, TIME))
        self.know = nn.Sequential(nn.Mish(), nn.Linear(TIME + known, 256), nn.Mish())
        down, up, before = [], [], actions
        for size in channels:
            down.append(nn.ModuleList([Block(before, size, 256), Block(size, size, 256)]))
            before = size
        for above, size in zip(channels[-2::-1], channels[:0:-1], strict=True):
            up.append(nn.ModuleList([Block(size + above, above, 256), Block(above, above, 256)]))
        self.down, self.up = nn.ModuleList(down), nn.ModuleList(up)
        self.halve = nn.ModuleList(nn.Conv1d(size, size, 3, stride=2, padding=1) for size in channels[:-1])
        self.twice = nn.ModuleList(nn.ConvTranspose1d(size, size, 4, stride=2, padding=1) for size in channels[:0:-1])
        self.middle = Block(channels[-1], channels[-1], 256)
        self.out = nn.Conv1d(channels[0], actions, 1)

    def forward(self, x: torch.Tensor, step: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
        """Noisy actions (B, T, A), steps of noise (B,) and what is seen (B, known) → the noise (B, T, A)."""
        rates = torch.exp(torch.arange(TIME // 2, device=x.device) * (-math.log(1e4) / (TIME // 2 - 1)))
        phase = step[:, None].float() * rates
        known = self.know(torch.cat([self.time(torch.cat([phase.sin(), phase.cos()], dim=1)), seen], dim=1))
        x, kept = x.mT, []
        for i, (one, two) in enumerate(self.down):  # type: ignore[misc]
            x = two(one(x, known), known)
            if i < len(self.halve):
                kept.append(x)
                x = self.halve[i](x)
        x = self.middle(x, known)
        for larger, (one, two) in zip(self.twice, self.up, strict=True):  # type: ignore[misc]
            x = two(one(torch.cat([larger(x), kept.pop()], dim=1), known), known)
        return self.out(x).mT


class Diffuser(Imitator):
    """Predicts the noise in demonstrated chunks; acts by removing it from noise alone (DDIM).

    Args:
        config: Settings.
        eyes, hands: See `Imitator`.
    """

    def __init__(self, config: DiffusionConfig, eyes: Eyes, hands: Hands) -> None:
        super().__init__(eyes, hands, config.do.chunk)
        self.noise = config.noise
        self.net = OverTime(self.actions, eyes.size, config.noise.channels)
        self.schedule = DDIMScheduler(
            num_train_timesteps=config.noise.steps, beta_schedule="squaredcos_cap_v2", clip_sample=True
        )
        self.schedule.set_timesteps(config.noise.samples)

    def loss(self, window: Window, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Imitator`: mean squared error of the noise."""
        seen = self.eyes(window.numbers, window.pictures, generator, window.seen)
        actions = self.hands.inward(window.actions)
        noise = torch.randn(actions.shape, generator=generator).to(actions.device)
        step = torch.randint(0, self.noise.steps, (len(actions),), generator=generator).to(actions.device)
        noisy = self.schedule.add_noise(actions, noise, step)  # type: ignore[arg-type]
        return over((self.net(noisy, step, seen) - noise) ** 2, window.valid), {}

    def predict(
        self, numbers: torch.Tensor, pictures: Mapping[str, torch.Tensor], generator: torch.Generator
    ) -> torch.Tensor:
        """See `Imitator`."""
        seen = self.eyes(numbers, pictures)
        x = torch.randn(len(seen), self.chunk, self.actions, generator=generator).to(seen.device)
        for step in self.schedule.timesteps:
            noise = self.net(x, step.to(x.device).expand(len(x)), seen)
            x = self.schedule.step(noise, int(step), x).prev_sample  # type: ignore[union-attr, arg-type]
        return self.hands.outward(x)
