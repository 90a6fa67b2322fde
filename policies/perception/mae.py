"""A masked autoencoder over views and frames: RoboHorizon (arXiv 2501.06605), MV-MWM (ICML 2023). torch.

Pictures are cut into cells. A convolutional stem makes a token of each cell that is shown, and of that cell alone, so
what is hidden reaches nothing. All is seen and predicted as its difference from the mean picture of training. What is
hidden is asked for cell by cell: queries read the encoded cells and not each other (CrossMAE, arXiv 2401.14391), so
training may ask for a part, and an answer does not depend on what else is asked. Attention finds out slowly what one
view says of another, for all tokens pass through the same weights wherever they are; so queries are also given a
summary of all that is shown, by a perceptron to which every place speaks, and which speaks to every place, with weights
of their own.
Which view a token is of, where in it and when, is told by embeddings; so any of the views can be missing.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from policies.perception.attention import Block, places
from policies.perception.mae_config import MaeConfig
from policies.perception.twohot import TwoHot
from robo.core.errors import ConfigError, UnknownNameError

Tensor = torch.Tensor
Pictures = Mapping[str, Tensor]
"""View → (B, T, H, W, 3) uint8, or (B, H, W, 3) for one frame."""
MEMORY = 1000.0
"""Batches after which the mean pictures of training begin to forget the oldest."""
DRAWS = ("widen", "decoder", "summary", "hidden", "ask_reward", "pixels", "rewards", "seen")
"""What takes no part in `MultiViewMae.features`: it is for training, and for pictures of features."""
PLACE = 32
"""Numbers that a summary says of a place."""
LEAST = 0.01
"""Deviation that a view has at least, colours being in 0..1."""


class MultiViewMae(nn.Module):
    """Encoder, decoder, and heads for pixels and rewards.

    Args:
        config: Sizes and masks.
    """

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        self.config = config
        side = config.size // config.patch
        self.stem = Stem(config.patch, config.width)
        self.encoder = Coder(config, config.width, config.encoder_layers, loud=0.5)
        self.decoder = Coder(config, config.decoder_width, config.decoder_layers, loud=0.1)
        self.narrow = nn.Linear(config.width, config.numbers)
        self.widen = nn.Linear(config.numbers, config.decoder_width)
        self.summary = Summary(config)
        self.hidden = nn.Parameter(torch.zeros(config.decoder_width))
        self.ask_reward = nn.Parameter(torch.zeros(config.decoder_width))
        self.pixels = nn.Linear(config.decoder_width, config.patch**2 * 3)
        self.rewards = nn.Linear(config.decoder_width, config.reward_bins)
        self.reward_scale = TwoHot(bins=config.reward_bins)
        self.usual: Tensor
        self.register_buffer("usual", torch.zeros(len(config.views) * config.cells, config.patch**2 * 3))
        self.spread: Tensor
        self.register_buffer("spread", torch.ones(len(config.views) * config.cells, 1))
        self.seen: Tensor
        self.register_buffer("seen", torch.zeros(len(config.views) * config.cells, 1))
        self.feature_size = len(config.views) * config.cells * config.numbers
        self._side = side
        self._initialise()

    @torch.no_grad()
    def _initialise(self) -> None:
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for parameter in (self.hidden, self.ask_reward):
            nn.init.normal_(parameter, std=0.02)
        nn.init.zeros_(self.pixels.weight)  # so that pictures begin as the usual ones
        nn.init.zeros_(self.rewards.weight)  # as in DreamerV3: rewards begin as 0

    # ---- for policies ------------------------------------------------------------

    def only_see(self) -> None:
        """Keep what `tokens` and `features` need, and nothing of what draws."""
        for name in DRAWS:
            delattr(self, name)

    def tokens(self, pictures: Pictures) -> Tensor:
        """All cells of all given views, as what leaves the encoder of each: (B, N, numbers), by frame, then view in the
        order of the config, then cell.

        Raises:
            UnknownNameError: A view is not in the config.
            ConfigError: Pictures of another size or type, too many frames, or none.
        """
        cells, where, frames = self._cut(pictures)
        return self._encode(cells.flatten(1, 2), where.expand(len(cells), -1), frames)

    def features(self, pictures: Pictures) -> Tensor:
        """`tokens` of the newest frame in a row, (B, F); 0 for views that are not given. Raises as `tokens`."""
        config, found = self.config, self.tokens(pictures)
        newest = found.reshape(len(found), -1, len(pictures), config.cells, config.numbers)[:, -1]
        if len(pictures) == len(config.views):
            return newest.flatten(1)
        whole = newest.new_zeros(len(found), len(config.views), config.cells, config.numbers)
        whole[:, [i for i, view in enumerate(config.views) if view in pictures]] = newest
        return whole.flatten(1)

    def drawn(self, features: Tensor) -> dict[str, Tensor]:
        """What `features` (B, F) of all views say that these look like: view → (B, H, W, 3), as of `imagine`."""
        everything = torch.arange(len(self.usual), device=features.device).expand(len(features), -1)
        guess, _ = self._decode(features.unflatten(1, (-1, self.config.numbers)), everything, everything, 1)
        return {view: picture[:, 0] for view, picture in self._join(self.usual + self.spread * guess).items()}

    def imagine(self, pictures: Pictures, generator: torch.Generator | None = None) -> tuple[dict[str, Tensor], Tensor]:
        """What all views of the config look like, judged by those given, and rewards. Raises as `tokens`.

        Args:
            pictures: What is shown.
            generator: With one, of each given view only so many cells are shown as in training, drawn by it.

        Returns:
            pictures: View → (B, T, H, W, 3) in [0, 1]; where the config is `normalised`, of each cell in its own units.
            rewards: (B, T).
        """
        cells, where, frames = self._cut(pictures)
        batch, total = len(cells), len(self.usual)
        if generator is None:
            seen, where = cells, where.expand(batch, -1)
        else:
            shown = self._some(batch, cells.shape[2] // self.config.cells, generator).to(cells.device)
            seen, where = _pick(cells, where, shown)
        everything = torch.arange(total, device=cells.device).repeat(frames).expand(batch, -1)
        encoded = self._encode(seen.flatten(1, 2), where, frames)
        guess, logits = self._decode(encoded, where, everything, frames)
        return self._join(self.usual + self.spread * guess), self.reward_scale.mean(logits)

    # ---- for training --------------------------------------------------------------

    def compile_parts(self, **options: Any) -> None:
        """Compile what takes the time, as `torch.compile` does with options; what it computes stays the same."""
        for part in (self.stem, self.encoder, self.decoder, self.summary):
            part.compile(**options)

    def draw(self, batch: int, views: int, generator: torch.Generator) -> Tensor:
        """Cells that are shown, drawn for every sample: (B, K) in [0, views · cells), ascending by view as drawn.

        Args:
            batch: B.
            views: How many there are; which of them are hidden whole is drawn uniformly.
            generator: Of the numbers; they come from its device.
        """
        left = max(views - self.config.masked_views, 1)
        view = torch.rand(batch, views, generator=generator, device=generator.device).argsort(dim=1)[:, :left]
        cell = self._some(batch, left, generator).reshape(batch, left, -1) % self.config.cells
        return (view[..., None] * self.config.cells + cell).flatten(1)

    def _some(self, batch: int, views: int, generator: torch.Generator) -> Tensor:
        """As `draw`, of every view."""
        config, device = self.config, generator.device
        order = torch.rand(batch, views, config.cells, generator=generator, device=device).argsort(dim=2)
        start = config.cells * torch.arange(views, device=device)[:, None]
        return (start + order[..., : config.shown]).flatten(1)

    def loss(
        self, pictures: Pictures, rewards: Tensor | None, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Loss () of one batch under freshly drawn masks, and what it consists of.

        Metrics, 0-d and detached: ``pixels``, mean squared error over all cells of the given views, in units of each
        view's variance, so that 1 is as good as the mean picture; ``views``, the same over views that are hidden whole;
        ``reward``, cross entropy, where rewards are given. In training mode it goes on with the means.

        Args:
            pictures: Of at least one view.
            rewards: (B, T), or None: pixels alone.
            generator: Of the masks.

        Raises:
            UnknownNameError, ConfigError: See `tokens`.
        """
        config, (cells, where, frames) = self.config, self._cut(pictures)
        batch, count = len(cells), cells.shape[2]
        shown = self.draw(batch, count // config.cells, generator).to(cells.device)
        asked = torch.arange(count, device=cells.device).expand(batch, -1)
        if self.training and config.asked < 1.0:
            order = torch.rand(batch, count, generator=generator, device=generator.device).argsort(dim=1)
            asked = order[:, : max(1, round(config.asked * count))].to(cells.device)
        seen, seen_at = _pick(cells, where, shown)
        wanted, wanted_at = _pick(cells, where, asked)
        encoded = self._encode(seen.flatten(1, 2), seen_at, frames)
        guess, logits = self._decode(encoded, seen_at, wanted_at, frames)
        error = (guess - self._unusual(wanted, wanted_at)).square().mean(dim=(1, 3))  # (B, k)
        loss = error.mean()
        metrics = {"pixels": loss.detach()}
        views = count // config.cells
        lit = torch.zeros(batch, views, dtype=torch.bool, device=cells.device).scatter(1, shown // config.cells, True)
        dark = ~lit.gather(1, asked // config.cells)
        if config.masked_views and views > 1:
            metrics["views"] = ((error * dark).sum() / dark.sum().clamp_min(1)).detach()
        if rewards is not None:
            reward = self.reward_scale.loss(logits, rewards).mean()
            loss = loss + config.reward_weight * reward
            metrics["reward"] = reward.detach()
        if self.training:
            self._remember(cells, where[:count])  # not before: what is hidden must not reach what is seen
        return loss, metrics

    # ---- within --------------------------------------------------------------------

    def _cut(self, pictures: Pictures) -> tuple[Tensor, Tensor, int]:
        """Cells of the given views (B, T, V C, P) uint8, their places (T V C,) among all tokens, and T."""
        config, side, p = self.config, self._side, self.config.patch
        for name in pictures:
            if name not in config.views:
                raise UnknownNameError("view", name, config.views)
        if not pictures:
            raise ConfigError(f"no picture given; at least one of the views {', '.join(config.views)} is needed")
        given = [(i, name) for i, name in enumerate(config.views) if name in pictures]
        cut = []
        for _, name in given:
            x = pictures[name]
            x = x[:, None] if x.ndim == 4 else x
            shape, like = tuple(x.shape), (config.size, config.size, 3)
            if x.dtype != torch.uint8 or x.ndim != 5 or shape[2:] != like or not 1 <= shape[1] <= config.frames:
                raise ConfigError(
                    f"pictures of view {name!r} must be (B, 1..{config.frames}, {config.size}, {config.size}, 3) uint8"
                    f", not {tuple(pictures[name].shape)} {x.dtype}"
                )
            x = x.reshape(*shape[:2], side, p, side, p, 3).transpose(3, 4)
            cut.append(x.reshape(*shape[:2], side * side, p * p * 3))
        frames = cut[0].shape[1]
        if any(x.shape[:2] != cut[0].shape[:2] for x in cut):
            shapes = {name: tuple(pictures[name].shape[:2]) for _, name in given}
            raise ConfigError(f"all views must have as many samples and frames, not {shapes}")
        device = cut[0].device
        views = torch.tensor([i for i, _ in given], device=device)
        one = (views[:, None] * config.cells + torch.arange(config.cells, device=device)).flatten()
        return torch.cat(cut, dim=2), one.expand(frames, -1).flatten(), frames

    def _encode(self, cells: Tensor, where: Tensor, frames: int) -> Tensor:
        """Shown cells (B, T K, P) uint8 of places (B, T K), frame after frame → (B, T K, numbers)."""
        x = self.stem(self._unusual(cells[:, None], where)[:, 0])
        return self.narrow(self.encoder(x + self.encoder.code(where, frames)))

    def _decode(self, encoded: Tensor, where: Tensor, asked: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """How cells differ from usual, see `_unusual`, and rewards.

        Args:
            encoded: What the encoder says of cells that are shown, (B, T K, numbers).
            where: Their places, (B, T K).
            asked: Places of the cells asked for, (B, T A), frame after frame.
            frames: T.

        Returns:
            guess: (B, T, A, P).
            logits: (B, T, bins).
        """
        read = encoded.shape[1]
        told = self.widen(encoded) + self.decoder.code(where, frames)
        of_cells, of_rewards = self.summary(encoded, where, asked, frames)
        ask = self.hidden + self.decoder.code(asked, frames) + of_cells
        reward = self.ask_reward + self.decoder.time[-frames:] + of_rewards
        x = self.decoder(torch.cat([told, ask.to(told.dtype), reward.to(told.dtype)], dim=1), read)
        guess = self.pixels(x[:, read:-frames]).unflatten(1, (frames, -1))
        return guess.float(), self.rewards(x[:, -frames:]).float()

    def _unusual(self, cells: Tensor, where: Tensor) -> Tensor:
        """How cells (B, T, k, P) uint8 at places (B, T k) differ from usual, in units of how their view does."""
        usual, spread = (x[where].unflatten(1, cells.shape[1:3]) for x in (self.usual, self.spread))
        return (self._colour(cells) - usual) / spread

    def _colour(self, cells: Tensor) -> Tensor:
        x = cells.float() / 255
        if not self.config.normalised:
            return x
        return (x - x.mean(-1, keepdim=True)) / (x.var(-1, keepdim=True) + 1e-6).sqrt()

    @torch.no_grad()
    def _remember(self, cells: Tensor, given: Tensor) -> None:
        """Go on with the means of all cells (B, T, k, P) ever trained on, at places (k,), and of what they differ."""
        self.seen[given] += 1
        rate = 1 / self.seen[given].clamp_max(MEMORY)
        colour = self._colour(cells)
        self.usual[given] += rate * (colour.mean(dim=(0, 1)) - self.usual[given])
        variance = (colour - self.usual[given]).square().mean(dim=(0, 1, 3)).reshape(-1, self.config.cells).mean(dim=1)
        variance = variance.repeat_interleave(self.config.cells)[:, None].clamp_min(LEAST**2)
        self.spread[given] = (self.spread[given].square() + rate * (variance - self.spread[given].square())).sqrt()

    def _join(self, cells: Tensor) -> dict[str, Tensor]:
        """Cells of all views (B, T, V C, P) as pictures."""
        config, side, p = self.config, self._side, self.config.patch
        batch, frames = cells.shape[:2]
        x = cells.reshape(batch, frames, len(config.views), side, side, p, p, 3).transpose(4, 5)
        x = x.reshape(batch, frames, len(config.views), config.size, config.size, 3)
        return {name: x[:, :, i] for i, name in enumerate(config.views)}


def _pick(cells: Tensor, where: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """Some of cells (B, T, n, P) at places (T n,), by their numbers (B, k), the same in all frames: tubes in time.

    Returns:
        cells: (B, T, k, P).
        where: (B, T k).
    """
    frames, count = cells.shape[1:3]
    many = index[:, None, :, None].expand(-1, frames, -1, cells.shape[-1])
    return cells.gather(2, many), where.reshape(frames, count)[:, index].transpose(0, 1).flatten(1)


class Stem(nn.Module):
    """Convolutions that halve a cell until one place is left; no cell sees another.

    Args:
        patch: Height and width of a cell, a power of two.
        width: Numbers per token.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.patch = patch
        count = round(math.log2(patch))
        sizes = [3, *(max(width >> (count - 1 - i), 8) for i in range(count))]
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Conv2d(n_in, n_out, 3, stride=2, padding=1), nn.GELU()]
        self.convolutions = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Conv2d):  # as torch begins them, biases would soon outweigh what is seen
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width))

    def forward(self, cells: Tensor) -> Tensor:
        """(B, N, patch² · 3) → (B, N, width)."""
        x = cells.reshape(-1, self.patch, self.patch, 3).permute(0, 3, 1, 2)
        return self.out(self.convolutions(x).flatten(1)).reshape(*cells.shape[:2], -1)


class Summary(nn.Module):
    """All that is shown as one vector, and what that says of every place: a perceptron between whole views.

    It has weights of its own for every place, as attention has not.

    Args:
        config: Sizes.
    """

    def __init__(self, config: MaeConfig) -> None:
        super().__init__()
        size, self.cells = config.summary, len(config.views) * config.cells
        self.gather = nn.Linear(config.frames * self.cells * (config.numbers + 1), size)
        self.norm = nn.LayerNorm(size)
        self.think = nn.Sequential(nn.Linear(size, size), nn.GELU(), nn.Linear(size, size))
        self.place = nn.Linear(size, self.cells * PLACE)
        self.give = nn.Linear(PLACE, config.decoder_width)
        self.time = nn.Parameter(torch.ones(config.frames, size))
        self.reward = nn.Linear(size, config.decoder_width)

    def forward(self, encoded: Tensor, where: Tensor, asked: Tensor, frames: int) -> tuple[Tensor, Tensor]:
        """What queries are given.

        Args:
            encoded: What the encoder says of cells, (B, T K, numbers), frame after frame.
            where: Their places, (B, T K).
            asked: Places asked for, (B, T A), frame after frame.
            frames: T.

        Returns:
            Of these, (B, T A, decoder width), and of the rewards of each frame, (B, T, decoder width).
        """
        batch, frame = len(encoded), torch.arange(frames, device=where.device)
        said = torch.cat([encoded, torch.ones_like(encoded[..., :1])], dim=-1)  # 1: it is shown
        whole = said.new_zeros(batch, len(self.time) * self.cells, said.shape[-1])
        early = len(self.time) - frames  # the newest frame is the last, however many there are
        row = where + self.cells * (early + frame).repeat_interleave(where.shape[1] // frames)
        seen = self.norm(self.gather(whole.scatter(1, row[..., None].expand_as(said), said).flatten(1)))
        told = (seen + self.think(seen))[:, None] * self.time[early:]
        places = self.place(told).reshape(batch, frames * self.cells, -1)
        row = asked + self.cells * frame.repeat_interleave(asked.shape[1] // frames)
        return self.give(places.gather(1, row[..., None].expand(-1, -1, places.shape[-1]))), self.reward(told)


class Coder(nn.Module):
    """Transformer layers, and what tells tokens of different cells apart.

    Args:
        config: Views, frames and cells.
        width: Numbers per token.
        layers: How many.
        loud: Size of what tells cells apart, beside contents of about 1. Of the decoder, whose queries read the mean of
            many cells at first, it has to be small, or nothing is learned of that for long.
    """

    def __init__(self, config: MaeConfig, width: int, layers: int, loud: float) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(width, config.heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)
        self.camera = nn.Parameter(loud * torch.randn(len(config.views), width))
        self.time = nn.Parameter(loud * torch.randn(config.frames, width))
        self.place: Tensor
        self.register_buffer("place", loud * places(config.size // config.patch, width), persistent=False)

    def code(self, where: Tensor, frames: int) -> Tensor:
        """What is added to tokens at places (B, T K) of all views' cells, frame after frame: (B, T K, D)."""
        one = (self.camera[:, None] + self.place).flatten(0, 1)  # (V C, D)
        time = self.time[-frames:].repeat_interleave(where.shape[1] // frames, dim=0)
        return one[where] + time

    def forward(self, x: Tensor, read: int | None = None) -> Tensor:
        """(B, N, D) → (B, N, D); see `Block`."""
        for block in self.blocks:
            x = block(x, read)
        return self.norm(x)
