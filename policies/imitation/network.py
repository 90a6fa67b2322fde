"""What networks that imitate have in common, and the simplest of them."""

from __future__ import annotations

import itertools
from abc import abstractmethod
from collections.abc import Mapping

import torch
from torch import nn

from policies.imitation.config import BcConfig
from policies.imitation.demos import Window
from policies.imitation.eyes import Eyes, Hands


class Imitator(nn.Module):
    """Maps what is seen to the actions of the next steps.

    Args:
        eyes, hands: See `policies.imitation.eyes`.
        chunk: Steps predicted at once.

    Attributes:
        by_cells: Whether it takes tokens of pictures; else one vector.
    """

    by_cells = False

    def __init__(self, eyes: Eyes, hands: Hands, chunk: int) -> None:
        super().__init__()
        self.eyes, self.hands, self.chunk = eyes, hands, chunk
        self.actions = len(hands.middle)

    @abstractmethod
    def loss(self, window: Window, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """Loss of a batch, and metrics. What is random is drawn on the CPU by the generator."""

    @abstractmethod
    def predict(
        self, numbers: torch.Tensor, pictures: Mapping[str, torch.Tensor], generator: torch.Generator
    ) -> torch.Tensor:
        """Actions (B, chunk, A) of what is seen, in their own units."""


def over(errors: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
    """Mean of errors (B, T, A) where steps (B, T) are valid."""
    return (errors * valid[..., None]).sum() / (valid.sum() * errors.shape[-1]).clamp_min(1)


class Cloner(Imitator):
    """Behaviour cloning by a multi-layer perceptron.

    Args:
        config: Settings.
        eyes, hands: See `Imitator`.
    """

    def __init__(self, config: BcConfig, eyes: Eyes, hands: Hands) -> None:
        super().__init__(eyes, hands, config.do.chunk)
        sizes = [eyes.size, *[config.width] * config.layers]
        layers = [nn.Sequential(nn.Linear(i, o), nn.LayerNorm(o), nn.SiLU()) for i, o in itertools.pairwise(sizes)]
        self.layers = nn.Sequential(*layers, nn.Linear(sizes[-1], self.chunk * self.actions))

    def _ahead(self, seen: torch.Tensor) -> torch.Tensor:
        return self.layers(seen).view(-1, self.chunk, self.actions)

    def loss(self, window: Window, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Imitator`: mean absolute error."""
        found = self._ahead(self.eyes(window.numbers, window.pictures, generator, window.seen))
        return over((found - self.hands.inward(window.actions)).abs(), window.valid), {}

    def predict(
        self, numbers: torch.Tensor, pictures: Mapping[str, torch.Tensor], generator: torch.Generator
    ) -> torch.Tensor:
        """See `Imitator`."""
        return self.hands.outward(self._ahead(self.eyes(numbers, pictures)))
