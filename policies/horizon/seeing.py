"""Training of what sees: autoencoder and marks first, from many pictures, then marks alone, from what is lived."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policies.horizon.config import SenseConfig
from policies.learner import Tensors
from policies.perception.layers import LEAST_STD
from policies.perception.sight import Sight, windows
from policies.precision import compiles, mixed
from policies.steps import clipped, warmed_cosine
from policies.tensors import load_slots, slots_of, under
from robo.core.errors import NonFiniteError, RoboError

CLIP = 1.0
"""Longest gradient of each part."""
ADVICE = "lower sense.learning_rate"


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Pictures of an episode of T moments, in the order they were seen; they share the memory of what they are made of.

    Attributes:
        pictures: View → (T, H, W, 3) uint8.
        rewards: For getting there, (T,) float32.
        truth: What is around the arm, see `policies.horizon.tool.scene`, (T, K) float32.
        pixels: Where that is in pictures, see `policies.horizon.pixels`, (T, V, P, 2) float32.
    """

    pictures: dict[str, torch.Tensor]
    rewards: torch.Tensor
    truth: torch.Tensor
    pixels: torch.Tensor

    @classmethod
    def of(
        cls,
        views: Sequence[str],
        values: Mapping[str, np.ndarray],
        rewards: np.ndarray,
        truth: np.ndarray,
        pixels: np.ndarray,
    ) -> Frames:
        """Of an episode as `policies.learner.Explorer.finish` tells it, with the reward for each action (T,).

        Raises:
            RoboError: It holds no pictures of a view.
        """
        if missing := [view for view in views if f"rgb_{view}" not in values]:
            raise RoboError(f"an episode holds no pictures of {', '.join(missing)}")
        won = np.concatenate([[0.0], rewards[:-1]]).astype(np.float32)
        pictures = {view: torch.from_numpy(np.ascontiguousarray(values[f"rgb_{view}"])) for view in views}
        known = {name: torch.from_numpy(x.astype(np.float32)) for name, x in (("truth", truth), ("pixels", pixels))}
        return cls(pictures=pictures, rewards=torch.from_numpy(won), **known)

    def __len__(self) -> int:
        return len(self.rewards)

    def at(self, row: int) -> Tensors:
        """One frame by itself: view → (H, W, 3), ``truth`` (K,), ``pixels`` (V, P, 2)."""
        return {**{view: x[row] for view, x in self.pictures.items()}, **self._known(row)}

    def until(self, row: int, frames: int) -> Tensors:
        """It and those before: view → (frames, H, W, 3), ``rewards`` (frames,), and of the newest what `at` knows."""
        (rows,) = windows(torch.tensor([row]), torch.tensor([0]), frames)
        found = {view: x[rows] for view, x in self.pictures.items()}
        return found | {"rewards": self.rewards[rows], **self._known(row)}

    def _known(self, row: int) -> Tensors:
        return {"truth": self.truth[row], "pixels": self.pixels[row]}


class Pool:
    """Single frames of many episodes: as many as there is room for, each of all that came as likely as any other.

    Args:
        room: Most frames.
        seed: Of what is kept.
    """

    def __init__(self, room: int, seed: Sequence[int]) -> None:
        self.room, self.rng, self.came = room, np.random.default_rng(list(seed)), 0
        self._kept: Tensors = {}

    def __len__(self) -> int:
        return min(self.came, self.room)

    def add(self, frames: Frames, count: int) -> None:
        """So many frames of an episode (reservoir sampling, Vitter 1985)."""
        for row in self.rng.choice(len(frames), min(count, len(frames)), replace=False):
            place = self.came if self.came < self.room else int(self.rng.integers(self.came + 1))
            self.came += 1
            if place < self.room:
                frame = frames.at(row)
                self._make_room(frame)
                for name, x in frame.items():
                    self._kept[name][place] = x

    def draw(self, count: int, rng: np.random.Generator) -> list[Tensors]:
        """So many frames, as `Frames.at` tells them; it must hold one, unless none is asked for."""
        rows = rng.integers(len(self), size=count) if count else ()
        return [{name: x[row] for name, x in self._kept.items()} for row in rows]

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """All of it: tensors by name, and a JSON object."""
        kept = {name: x[: len(self)] for name, x in self._kept.items()}
        return kept, {"came": self.came, "rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Tensors, meta: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._kept, self.came = {}, int(meta["came"])
        self.rng.bit_generator.state = meta["rng"]
        if len(self):
            self._make_room({name: x[0] for name, x in tensors.items()})
        for name, x in tensors.items():
            self._kept[name][: len(self)] = x

    def _make_room(self, frame: Tensors) -> None:
        if not self._kept:
            self._kept = {name: x.new_empty((self.room, *x.shape)) for name, x in frame.items()}


class Seeing:
    """Steps of what sees.

    Args:
        sight: That learns.
        config: Settings.
        demos: All demonstrations.
        seed: Of what is drawn.
        device: Where `sight` is.

    Attributes:
        seen: What the latest step learned from: view → pictures, ``truth``, ``pixels``, ``rewards``.
    """

    def __init__(self, sight: Sight, config: SenseConfig, demos: Sequence[Frames], seed: int, device: str) -> None:
        self.sight, self.config, self.device = sight, config, device
        self.seed = seed
        if compiles(device, config.compiled):
            sight.mae.compile_parts()
        self.optimiser = torch.optim.AdamW(
            sight.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=0.01
        )
        self.demos, self.others = list(demos), list[Frames]()
        self.seen: Tensors = {}
        self.rng, self.generator = np.random.default_rng([seed, 3]), torch.Generator().manual_seed(seed)
        self._pointing = sight.config["marks"].pointing
        self.pools = {"random": Pool(config.keep, [seed, 4]), "lived": Pool(config.keep, [seed, 5])}

    def add(self, episodes: Sequence[Frames]) -> None:
        """Episodes of random motion, from which all learns."""
        self.others += episodes

    def keep(self, episodes: Sequence[Frames], pool: str) -> None:
        """Some frames of episodes of random motion (``random``) or of what has been learned so far (``lived``), from
        which marks learn on."""
        for each in episodes:
            self.pools[pool].add(each, self.config.of_episode)

    def fit(self, least: np.ndarray) -> None:
        """Scales of what is told, before the first step; deviations are at least so large, (E,)."""
        if self.sight.marks is not None:
            known = torch.cat([x.truth for x in (*self.demos, *self.others)])
            self.sight.marks.scale.fit(known, torch.from_numpy(least).float().clamp_min(LEAST_STD))

    def step(self, step: int) -> dict[str, float]:
        """A step of all, on demonstrations and random motion; see `Learner.step`."""
        cfg, marks = self.config, self.sight.marks
        before = self.rng.bit_generator.state, self.generator.get_state()
        shown, frames = round(cfg.of_demos * cfg.batch), self.sight.mae.config.frames
        parts = [self.demos[i].until(row, frames) for i, row in drawn_frames(self.demos, shown, self.rng)]
        others = drawn_frames(self.others, cfg.batch - shown, self.rng, cfg.of_episode)
        parts += [self.others[i].until(row, frames) for i, row in others]
        seen = self._put(parts)
        rewards, truth, pixels = (seen.pop(name) for name in ("rewards", "truth", "pixels"))
        self.sight.train()
        with mixed(self.device, cfg.precision):
            loss, metrics = self.sight.mae.loss(seen, rewards, self.generator)
        if marks is not None:
            newest = {view: x[:, -1] for view, x in seen.items()}
            metrics["marks"], metrics["pointing"], metrics["unsure"] = marks.loss(newest, truth, pixels)
            loss = loss + metrics["marks"] + self._pointing * metrics["pointing"] + metrics["unsure"]
        self.sight.eval()
        rate = cfg.learning_rate * warmed_cosine(step, cfg.steps, cfg.warm_up)
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        try:
            for part in self.sight.children():  # apart, so that neither slows the other down
                clipped(part.parameters(), loss, CLIP, ADVICE)
        except NonFiniteError:
            self.rng.bit_generator.state = before[0]
            self.generator.set_state(before[1])
            raise
        self._step(rate)
        return {"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}, "learning_rate": rate}

    def refresh(self, step: int) -> dict[str, float]:
        """What marks are to learn from a batch at a step of the world model.

        Nothing moves before `apply`: a step of the world model that fails must leave all as it was.
        """
        cfg, marks = self.config, self.sight.marks
        assert marks is not None
        rng = np.random.default_rng([self.seed, 6, step])
        others = cfg.batch - round(cfg.of_demos * cfg.batch)
        lived = others // 2 if len(self.pools["lived"]) else 0
        random = others - lived if len(self.pools["random"]) else 0
        parts = [self.demos[i].at(row) for i, row in drawn_frames(self.demos, cfg.batch - lived - random, rng)]
        parts += [*self.pools["lived"].draw(lived, rng), *self.pools["random"].draw(random, rng)]
        seen = self._put(parts)
        truth, pixels = seen.pop("truth"), seen.pop("pixels")
        marks.train()
        told, pointing, unsure = marks.loss(seen, truth, pixels)
        loss = told + self._pointing * pointing + unsure
        marks.eval()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clipped(marks.parameters(), loss, CLIP, ADVICE)
        return {"marks": told.item(), "pointing": pointing.item(), "unsure": unsure.item()}

    def apply(self) -> None:
        """Do what `refresh` found."""
        self._step(self.config.refresh_rate)

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """Everything but frames of random motion, which come again; tensors by name, and a JSON object."""
        tensors = slots_of(self.optimiser, "adam.") | {"generator": self.generator.get_state()}
        meta: dict[str, Any] = {"rng": copy.deepcopy(self.rng.bit_generator.state)}
        for name, pool in self.pools.items():
            kept, meta[name] = pool.state()
            tensors |= {f"{name}.{k}": v for k, v in kept.items()}
        return tensors, meta

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any], pools: bool) -> None:
        """Go on from what `state` returned; pools only where what filled them does not come again."""
        load_slots(self.optimiser, tensors, "adam.")
        self.generator.set_state(tensors["generator"])
        self.rng.bit_generator.state = meta["rng"]
        for name, pool in self.pools.items():
            if pools:
                pool.load_state(under(tensors, f"{name}."), meta[name])

    def forget(self) -> None:
        """Episodes of random motion but for what is kept of them: the autoencoder learns no more."""
        self.others = []

    def _put(self, parts: Sequence[Tensors]) -> Tensors:
        """A batch of them, which is remembered."""
        self.seen = {name: torch.stack([part[name] for part in parts]).to(self.device) for name in parts[0]}
        return dict(self.seen)

    def _step(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def drawn_frames(
    episodes: Sequence[Sized], count: int, rng: np.random.Generator, most: int | None = None
) -> list[tuple[int, int]]:
    """So many frames of all, each as likely as any other: which episode, and which of its frames.

    With `most`, episodes count as if they had no more, for what is where differs between them, hardly within.
    """
    lengths = np.array([len(each) for each in episodes])
    ends = np.cumsum(np.minimum(lengths, most) if most else lengths)
    found = np.searchsorted(ends, rng.integers(ends[-1], size=count), side="right")
    return list(zip(found.tolist(), rng.integers(lengths[found]).tolist(), strict=True))
