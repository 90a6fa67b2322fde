"""Transformer layers of the autoencoder. torch."""

from __future__ import annotations

import math

import torch
from torch import nn

Tensor = torch.Tensor


class Block(nn.Module):
    """A pre-norm layer: attention, then two linear maps with GELU between, both added to what came in.

    Args:
        width: Numbers per token.
        heads: Of attention.
        ratio: Width between the linear maps, over `width`.
    """

    def __init__(self, width: int, heads: int, ratio: int = 4) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, ratio * width), nn.GELU(), nn.Linear(ratio * width, width))

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        """(B, N, D) → (B, N, D).

        Args:
            x: Tokens.
            read: Only so many, the first, are attended to, by all; None: all.
        """
        batch, tokens, width = x.shape
        normed, weight, bias = self.norm1(x), self.qkv.weight, self.qkv.bias
        q = nn.functional.linear(normed, weight[:width], bias[:width])
        kv = nn.functional.linear(normed[:, :read], weight[width:], bias[width:])
        q = q.reshape(batch, tokens, self.heads, -1).transpose(1, 2)
        k, v = kv.reshape(batch, kv.shape[1], 2, self.heads, -1).permute(2, 0, 3, 1, 4)
        mixed = nn.functional.scaled_dot_product_attention(q, k, v)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, tokens, width))
        return x + self.mlp(self.norm2(x))


def places(side: int, width: int) -> Tensor:
    """Sines and cosines of row and column of the cells of a square, (side², width), rows first (arXiv 2010.11929)."""
    rate = torch.exp(-math.log(10_000.0) * torch.arange(width // 4) / (width // 4))
    angle = torch.arange(side)[:, None] * rate
    one = torch.cat([angle.sin(), angle.cos()], dim=-1)  # (side, width / 2)
    rows, columns = one[:, None].expand(-1, side, -1), one[None].expand(side, -1, -1)
    return torch.cat([rows, columns], dim=-1).reshape(side * side, width)
