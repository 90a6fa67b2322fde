"""The transformer of ACT (Zhao et al., arXiv 2304.13705)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from policies.imitation.config import ActConfig
from policies.imitation.demos import Window
from policies.imitation.eyes import Eyes, Hands
from policies.imitation.network import Imitator, over


class Chunker(Imitator):
    """A conditional variational autoencoder of action chunks.

    In training a variable, the *style*, is read off the demonstrated chunk; it is kept near a normal distribution, and
    is its mean, zero, at run time. Encoder: style, numbers and the tokens of the pictures;
    decoder: one query for every step.

    Args:
        config: Settings.
        eyes, hands: See `Imitator`.
    """

    by_cells = True

    def __init__(self, config: ActConfig, eyes: Eyes, hands: Hands) -> None:
        super().__init__(eyes, hands, config.do.chunk)
        net = config.net
        self.kl, width = net.kl, net.width

        def layer(kind: type[nn.Module]) -> nn.Module:
            return kind(width, net.heads, 4 * width, dropout=0.0, batch_first=True, norm_first=True)

        def encoder(layers: int) -> nn.TransformerEncoder:
            one: nn.TransformerEncoderLayer = layer(nn.TransformerEncoderLayer)  # type: ignore[assignment]
            return nn.TransformerEncoder(one, layers, nn.LayerNorm(width), enable_nested_tensor=False)

        numbers = len(eyes.mean)
        self.reader = encoder(max(net.encoder - 1, 1))
        self.read_numbers, self.read_action = nn.Linear(numbers, width), nn.Linear(self.actions, width)
        self.read_out = nn.Linear(width, 2 * net.style)
        self.read_place = nn.Parameter(0.02 * torch.randn(2 + self.chunk, width))
        self.see_style, self.see_numbers = nn.Linear(net.style, width), nn.Linear(numbers, width)
        cells, size = eyes.cells
        self.see_cells = nn.Linear(size, width) if cells else None
        self.places = nn.Parameter(0.02 * torch.randn(cells, width))
        self.kinds = nn.Parameter(0.02 * torch.randn(2, width))
        self.encoder = encoder(net.encoder)
        one: nn.TransformerDecoderLayer = layer(nn.TransformerDecoderLayer)  # type: ignore[assignment]
        self.decoder = nn.TransformerDecoder(one, net.decoder, nn.LayerNorm(width))
        self.queries = nn.Parameter(0.02 * torch.randn(self.chunk, width))
        self.out = nn.Linear(width, self.actions)

    def _style(self, numbers: torch.Tensor, actions: torch.Tensor, valid: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Mean and logarithm of the variance (B, style) of what a chunk (B, T, A) tells."""
        first = self.read_place[:1].expand(len(numbers), 1, -1)
        tokens = torch.cat([first, self.read_numbers(numbers)[:, None], self.read_action(actions)], dim=1)
        tokens = tokens + self.read_place
        padding = torch.cat([valid.new_zeros(len(valid), 2), ~valid], dim=1)
        return self.read_out(self.reader(tokens, src_key_padding_mask=padding)[:, 0]).chunk(2, dim=-1)

    def _ahead(self, numbers: torch.Tensor, cells: torch.Tensor | None, style: torch.Tensor) -> torch.Tensor:
        tokens = [
            (self.see_style(style) + self.kinds[0])[:, None],
            (self.see_numbers(numbers) + self.kinds[1])[:, None],
        ]
        if self.see_cells is not None:
            tokens.append(self.see_cells(cells) + self.places)
        memory = self.encoder(torch.cat(tokens, dim=1))
        return self.out(self.decoder(self.queries.expand(len(numbers), -1, -1), memory))

    def loss(self, window: Window, generator: torch.Generator) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """See `Imitator`: mean absolute error, and the divergence of the style."""
        numbers, actions = self.eyes.numbers(window.numbers), self.hands.inward(window.actions)
        mean, log_var = self._style(numbers, actions, window.valid)
        noise = torch.randn(mean.shape, generator=generator).to(mean.device)
        found = self._ahead(numbers, self.eyes.tokens(window.pictures, generator), mean + (0.5 * log_var).exp() * noise)
        error = over((found - actions).abs(), window.valid)
        divergence = 0.5 * (mean**2 + log_var.exp() - 1.0 - log_var).sum(1).mean()
        return error + self.kl * divergence, {"error": error, "divergence": divergence}

    def predict(
        self, numbers: torch.Tensor, pictures: Mapping[str, torch.Tensor], generator: torch.Generator
    ) -> torch.Tensor:
        """See `Imitator`."""
        seen = self.eyes.numbers(numbers)
        style = seen.new_zeros(len(seen), self.see_style.in_features)
        return self.hands.outward(self._ahead(seen, self.eyes.tokens(pictures), style))
