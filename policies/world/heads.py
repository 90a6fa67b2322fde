"""What is told from latent states: features, rewards, whether an episode goes on, signals, and how sure all that is."""

from __future__ import annotations

from typing import Literal

import torch
from torch import nn

from policies.perception.layers import Standard, mlp
from policies.perception.twohot import TwoHot, symexp, symlog
from policies.world.layers import Ensemble, SimNorm

Tensor = torch.Tensor


class NumberHead(nn.Module):
    """A number of any size, as a distribution over bins (rewards, values); at first 0.

    Args:
        inputs, units, layers: Sizes of the network.
        bins: Of the distribution, an odd number, so that one lies at 0.
    """

    def __init__(self, inputs: int, units: int, layers: int, bins: int) -> None:
        super().__init__()
        self.bins = TwoHot(-20.0, 20.0, bins)
        self.network = mlp(inputs, units, layers, bins, scale=0.0)

    def forward(self, latent: Tensor) -> Tensor:
        """Latents (..., L) → numbers (...)."""
        return self.bins.mean(self.network(latent))

    def loss(self, latent: Tensor, value: Tensor) -> Tensor:
        """Cross entropy with numbers (...), (...); NaN of what is infinite or NaN."""
        # Such a number has no bin; it must reach the loss, where training stops at it, not an index.
        return self.bins.loss(self.network(latent), torch.nan_to_num(value)) + 0.0 * value


class ContinueHead(nn.Module):
    """How likely an episode goes on."""

    def __init__(self, inputs: int, units: int, layers: int) -> None:
        super().__init__()
        self.network = mlp(inputs, units, layers, 1)

    def forward(self, latent: Tensor) -> Tensor:
        """Latents (..., L) → probabilities (...)."""
        return torch.sigmoid(self.network(latent).squeeze(-1))

    def loss(self, latent: Tensor, goes_on: Tensor) -> Tensor:
        """Cross entropy with 0 or 1, (...)."""
        logits = self.network(latent).squeeze(-1)
        return nn.functional.binary_cross_entropy_with_logits(logits, goes_on, reduction="none")


class VectorHead(nn.Module):
    """Several numbers in their own units (features, proprioception, signals), told as symlogs of deviations from their
    means (DreamerV3): what is far beyond all that was seen before must not drown the rest.

    Args:
        inputs, units, layers: Sizes of the network.
        scale: Their means and deviations, shared with who sets them.
    """

    def __init__(self, inputs: int, units: int, layers: int, scale: Standard) -> None:
        super().__init__()
        self.scale = scale
        self.network = mlp(inputs, units, layers, len(scale.mean))

    def forward(self, latent: Tensor) -> Tensor:
        """Latents (..., L) → (..., size)."""
        return self.scale.back(symexp(self.network(latent)))

    def loss(self, latent: Tensor, values: Tensor) -> Tensor:
        """Half the squared error of symlogs of values (..., size), summed, (...)."""
        return 0.5 * (self.network(latent) - symlog(self.scale(values))).square().sum(-1)


class TargetHead(nn.Module):
    """What the encoder will say, told from memory alone: no decoder is needed (SPR, TD-MPC2).

    Args:
        inputs, units, layers: Sizes of the network.
        outputs: Of the encoder.
        distance: How far from what the encoder said.
    """

    def __init__(self, inputs: int, units: int, layers: int, outputs: int, distance: Literal["cosine", "mse"]) -> None:
        super().__init__()
        self.network = nn.Sequential(mlp(inputs, units, layers, outputs), SimNorm())
        self.distance = distance

    def loss(self, deter: Tensor, embed: Tensor) -> Tensor:
        """Memory (..., D) and what the encoder said (..., E), which is not moved → (...)."""
        told, target = self.network(deter), embed.detach()
        if self.distance == "mse":
            return (told - target).square().sum(-1)
        return 1.0 - nn.functional.cosine_similarity(told, target, -1)


class DoubtHead(nn.Module):
    """Disagreement of one-step predictors of the encoder's next output: what was never seen is unknown (COPlanner,
    arXiv 2310.07220; Plan2Explore, arXiv 2005.05960).

    Args:
        members: How many, at least two.
        latent, actions: Sizes of latents and actions.
        units: Of their hidden layer.
        outputs: Of the encoder.
    """

    def __init__(self, members: int, latent: int, actions: int, units: int, outputs: int) -> None:
        super().__init__()
        self.predictors = Ensemble(members, latent + actions, units, outputs)

    def forward(self, latent: Tensor, action: Tensor) -> Tensor:
        """Latents (..., L) and the actions that follow (..., A) → mean variance between predictors, (...)."""
        return self._told(latent, action).var(0).mean(-1).unflatten(0, latent.shape[:-1])

    def loss(self, latent: Tensor, action: Tensor, following: Tensor) -> Tensor:
        """Squared error of what the encoder says next (..., E), mean over numbers, summed over predictors, (...)."""
        told = self._told(latent.detach(), action)
        error = (told - following.detach().flatten(0, -2)).square().mean(-1).sum(0)
        return error.unflatten(0, latent.shape[:-1])

    def _told(self, latent: Tensor, action: Tensor) -> Tensor:
        return self.predictors(torch.cat([latent, action], -1).flatten(0, -2))
