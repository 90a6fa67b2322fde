"""An actor that decides where to be next, and keeps to it until it is there: one decision for a key-horizon.

What comes at a keyframe is often one of a few different things, which look alike just before: who decides at every
step, and learns by regression, does a little of each and hesitates. So keyframes are a mixture (Mixture Density
Networks, Bishop 1994; next-best poses of C2F-ARM, arXiv 2106.12534, and PerAct, arXiv 2209.05451), one of which is
taken and followed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import nn
from torch.nn import functional as F

from policies.perception.layers import Standard, mlp
from policies.world.config import ActorConfig
from policies.world.layers import picked, uniform
from policies.world.rssm import BEYOND

Tensor = torch.Tensor
REACH = 10.0
"""What 1 of the network's output means, in scales of an aim."""


class Guide(Protocol):
    """How aims are followed. An aim is where to be, as seen from where one is; it changes while one moves."""

    @property
    def scales(self) -> Sequence[float]:
        """Of the numbers of an aim: how far off is as good as another thing."""
        ...

    def action(self, aim: Tensor) -> Tensor:
        """What to do now, (N, G) → (N, A) in [-1, 1]."""
        ...

    def after(self, aim: Tensor, action: Tensor) -> Tensor:
        """The same aim as seen once that was done, (N, G)."""
        ...


class Aims(NamedTuple):
    """What an `AimActor` is made for.

    Attributes:
        guide: How aims are followed.
        fine: For each of the plain numbers of a latent, the last ones of it, (P,): in what unit small differences count
            and are seen once more, as arcsinh; 0: nowhere.
        levels: The last number of an aim is one of so many, see `AimActor.levels`; 0: any.
    """

    guide: Guide
    fine: Sequence[float]
    levels: int = 0


class Mixture(NamedTuple):
    """Some things to aim at.

    Attributes:
        logits: Log-probability of each, (..., K).
        places: (..., K, G).
    """

    logits: Tensor
    places: Tensor


class Pursuit:
    """What an `AimActor` does along dreams: one aim for each of N latents, drawn at first and then followed.

    Attributes:
        choices: Which of its mixture, (N,).
    """

    def __init__(self, says: Mixture, guide: Guide, generator: torch.Generator) -> None:
        self.choices = picked(says.logits.exp(), uniform((len(says.logits),), generator, says.logits))
        self._guide = guide
        self._aim = says.places[torch.arange(len(self.choices), device=self.choices.device), self.choices]

    def __call__(self, latent: Tensor, step: int) -> Tensor:
        """What `WorldModel.dream` asks for."""
        action = self._guide.action(self._aim)
        self._aim = self._guide.after(self._aim, action)
        return action


class AimActor(nn.Module):
    """Latents to mixtures of aims, of which it sees the plain numbers alone: what is known exactly.

    Args:
        config: Settings.
        aims: What for.

    Attributes:
        levels: What the last number of an aim may be, (V,), to be set to what was demonstrated; which it is, is chosen,
            for half-closed jaws are neither what one nor what the other demonstration meant. Some may be the same.
    """

    picks = True
    """See `policies.world.actor.Actor`."""
    fine: Tensor
    scales: Tensor
    levels: Tensor

    def __init__(self, config: ActorConfig, aims: Aims) -> None:
        super().__init__()
        self.guide = aims.guide
        plain, self.modes, self.size = len(aims.fine), config.modes, len(aims.guide.scales)
        self.standard = Standard(plain)
        self.register_buffer("scales", torch.tensor(aims.guide.scales), persistent=False)
        self.register_buffer("fine", torch.tensor(aims.fine), persistent=False)
        self.register_buffer("levels", torch.linspace(-1.0, 1.0, aims.levels))
        inputs, numbers = plain + int((self.fine > 0).sum()), self.size - (aims.levels > 0)
        self._parts = [1, numbers, aims.levels]
        self.network = mlp(inputs, config.units, config.layers, self.modes * sum(self._parts))
        # Where something is and where to go is often the same but for a constant.
        self.straight = nn.Linear(plain, self.modes * numbers, bias=False)
        nn.init.zeros_(self.straight.weight)

    def forward(self, latent: Tensor) -> Mixture:
        """Of latents (..., L)."""
        return self._says(*self._of(latent[..., latent.shape[-1] - len(self.fine) :]))

    def at(self, plain: Tensor) -> Mixture:
        """Of plain numbers (..., P) as they are, not standardised."""
        return self._says(*self._of(self.standard(plain).clamp(-BEYOND, BEYOND)))

    def _of(self, standard: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probabilities (..., K), places (..., K, G or one less), log-probabilities of levels (..., K, V)."""
        raw, closely = self.standard.back(standard), self.fine > 0
        seen = torch.cat([standard, torch.asinh(raw[..., closely] / self.fine[closely])], -1)
        out = self.network(seen).unflatten(-1, (self.modes, -1))
        chances, places, levels = out.split(self._parts, -1)
        places = places + self.straight(standard).unflatten(-1, (self.modes, -1))
        scales = self.scales[: places.shape[-1]]
        return F.log_softmax(chances.squeeze(-1), -1), REACH * places * scales, F.log_softmax(levels, -1)

    def _says(self, logits: Tensor, places: Tensor, levels: Tensor) -> Mixture:
        """With the likeliest level as the last number, which gradients pass as if it were the mean one."""
        if not len(self.levels):
            return Mixture(logits, places)
        mean = levels.exp() @ self.levels
        last = self.levels[levels.argmax(-1)] + (mean - mean.detach())
        return Mixture(logits, torch.cat([places, last[..., None]], -1))

    def course(self, latent: Tensor, generator: torch.Generator) -> Pursuit:
        """What it does from latents (N, L) on."""
        return Pursuit(self(latent), self.guide, generator)

    def chances(self, latents: Tensor, choices: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Log-probability of what was chosen along dreams, (N, H), their entropy, and at which steps something was.

        Args:
            latents: Before each step, (N, H, L).
            choices: Of `Pursuit`, (N,).
            generator: Not used.
        """
        rest = latents.shape[1] - 1
        logits = self(latents[:, 0]).logits
        chosen = logits.gather(-1, choices[:, None])
        entropy = -(logits.exp() * logits).sum(-1, keepdim=True)
        decided = torch.ones_like(chosen, dtype=torch.bool)
        return F.pad(chosen, (0, rest)), F.pad(entropy, (0, rest)), F.pad(decided, (0, rest))

    def cloning(self, plain: Tensor, aims: Tensor) -> Tensor:
        """How unlikely aims (M, G) are where plain numbers are (M, P), (): Laplacian mixtures of fixed width.

        Absolute errors, for one demonstration that does something else must not count more than it is far.
        """
        logits, places, levels = self._of(self.standard(plain).clamp(-BEYOND, BEYOND))
        numbers = places.shape[-1]
        far = ((places - aims[:, None, :numbers]).abs() / self.scales[:numbers]).sum(-1)
        if len(self.levels):
            meant = (aims[:, -1:] - self.levels).abs().argmin(-1)
            far = far - levels[torch.arange(len(aims), device=aims.device), :, meant]
        return -torch.logsumexp(logits - far, -1).mean()
