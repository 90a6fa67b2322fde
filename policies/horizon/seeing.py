"""Training of what sees: autoencoder and marks first, from many pictures, then marks alone, from what is lived."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policies.horizon.config import SenseConfig
from policies.learner import Tensors
from policies.perception.layers import LEAST_STD
from policies.perception.sight import Sight, windows
from policies.steps import clipped, warmed_cosine
from policies.tensors import load_slots, slots_of, under
from robo.core.errors import NonFiniteError, RoboError

CLIP = 1.0
"""Longest gradient of each part."""
ADVICE = "lower sense.learning_rate"


@dataclass(frozen=True, kw_only=True)
class Frames:
    """Pictures in the order they were seen, one episode after the other.

    Attributes:
        pictures: View → (F, H, W, 3) uint8.
        first: Where the episode of each frame begins, (F,).
        rewards: For getting there, (F,) float32.
        truth: What is around the arm, (F, E) float32.
    """

    pictures: dict[str, torch.Tensor]
    first: torch.Tensor
    rewards: torch.Tensor
    truth: torch.Tensor

    @classmethod
    def of(cls, pictures: Mapping[str, np.ndarray], rewards: np.ndarray, truth: np.ndarray) -> Frames:
        """Those of an episode of T moments."""
        return cls(
            pictures={view: torch.from_numpy(np.ascontiguousarray(x)) for view, x in pictures.items()},
            first=torch.zeros(len(rewards), dtype=torch.int64),
            rewards=torch.from_numpy(rewards.astype(np.float32)),
            truth=torch.from_numpy(truth.astype(np.float32)),
        )

    def alone(self) -> Tensors:
        """View → pictures, and ``truth``: what is told by single frames."""
        return {**self.pictures, "truth": self.truth}

    @classmethod
    def joined(cls, parts: Sequence[Frames]) -> Frames:
        """All of them, in order."""
        starts = np.cumsum([0, *(len(part.first) for part in parts[:-1])])
        return cls(
            pictures={view: torch.cat([part.pictures[view] for part in parts]) for view in parts[0].pictures},
            first=torch.cat([part.first + int(start) for part, start in zip(parts, starts, strict=True)]),
            rewards=torch.cat([part.rewards for part in parts]),
            truth=torch.cat([part.truth for part in parts]),
        )


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
        columns = frames.alone()
        self._make_room(columns)
        for row in self.rng.choice(len(frames.first), min(count, len(frames.first)), replace=False):
            place = self.came if self.came < self.room else int(self.rng.integers(self.came + 1))
            self.came += 1
            if place < self.room:
                for name, x in columns.items():
                    self._kept[name][place] = x[row]

    def draw(self, count: int, rng: np.random.Generator) -> Tensors:
        """So many frames, (count, ...) each, as `Frames.alone`."""
        rows = torch.from_numpy(rng.integers(len(self), size=count))
        return {name: x[rows] for name, x in self._kept.items()}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """All of it: tensors by name, and a JSON object."""
        kept = {name: x[: len(self)] for name, x in self._kept.items()}
        return kept, {"came": self.came, "rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Tensors, meta: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._kept, self.came = {}, int(meta["came"])
        self.rng.bit_generator.state = meta["rng"]
        self._make_room(tensors)
        for name, x in tensors.items():
            self._kept[name][: len(self)] = x

    def _make_room(self, like: Tensors) -> None:
        if not self._kept:
            self._kept = {name: x.new_empty((self.room, *x.shape[1:])) for name, x in like.items()}


class Seeing:
    """Steps of what sees.

    Args:
        sight: That learns.
        config: Settings.
        demos: Frames of all demonstrations.
        seed: Of what is drawn.
        device: Where `sight` is.

    Attributes:
        seen: What the latest step learned from: view → pictures, ``truth``, ``rewards``.
    """

    def __init__(self, sight: Sight, config: SenseConfig, demos: Frames, seed: int, device: str) -> None:
        self.sight, self.config, self.device = sight, config, device
        self.seed = seed
        self.optimiser = torch.optim.AdamW(
            sight.parameters(), lr=config.learning_rate, betas=(0.9, 0.999), weight_decay=0.01
        )
        self.demos = demos
        self.seen: Tensors = {}
        self.others: list[Frames] | None = []
        self.rng, self.generator = np.random.default_rng([seed, 3]), torch.Generator().manual_seed(seed)
        self.pools = {"random": Pool(config.keep, [seed, 4]), "lived": Pool(config.keep, [seed, 5])}

    def add(self, episodes: Sequence[Frames], lived: bool) -> None:
        """Episodes of random motion, or of what has been learned so far."""
        if not lived and self.others is not None:
            self.others = [Frames.joined([*self.others, *episodes])]
        if self._goes_on:
            for each in episodes:
                self.pools["lived" if lived else "random"].add(each, self.config.of_episode)

    @property
    def _goes_on(self) -> bool:
        return self.sight.marks is not None and self.config.refresh > 0

    def fit(self, least: np.ndarray) -> None:
        """Scales of what is told, before the first step; deviations are at least so large, (E,)."""
        if self.sight.marks is not None:
            known = torch.cat([self.demos.truth, *(x.truth for x in self.others or ())])
            self.sight.marks.scale.fit(known, torch.from_numpy(least).float().clamp_min(LEAST_STD))

    def step(self, step: int) -> dict[str, float]:
        """A step of all, half on demonstrations, half on random motion; see `Learner.step`."""
        cfg, marks = self.config, self.sight.marks
        assert self.others
        before = self.rng.bit_generator.state, self.generator.get_state()
        half = cfg.batch // 2
        shown, random = self._windows(self.demos, cfg.batch - half), self._windows(self.others[0], half)
        seen = {name: torch.cat([x, random[name]]).to(self.device) for name, x in shown.items()}
        self.seen = dict(seen)
        rewards, truth = seen.pop("rewards"), seen.pop("truth")
        self.sight.train()
        loss, metrics = self.sight.mae.loss(seen, rewards, self.generator)
        if marks is not None:
            metrics["marks"] = marks.loss({view: x[:, -1] for view, x in seen.items()}, truth)
            loss = loss + metrics["marks"]
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
        """What marks are to learn from a batch at a step of the world model, where it is their turn.

        Nothing moves before `apply`: a step of the world model that fails must leave all as it was.
        """
        cfg, marks = self.config, self.sight.marks
        if marks is None or not self._goes_on or (step + 1) % cfg.refresh:
            return {}
        rng = np.random.default_rng([self.seed, 6, step])
        lived = cfg.batch // 2 if len(self.pools["lived"]) else 0
        random = (cfg.batch - lived) // 2 if len(self.pools["random"]) else 0
        rows = torch.from_numpy(rng.integers(len(self.demos.first), size=cfg.batch - lived - random))
        parts = [{name: x[rows] for name, x in self.demos.alone().items()}]
        parts += [self.pools[name].draw(n, rng) for name, n in (("lived", lived), ("random", random)) if n]
        seen = {name: torch.cat([part[name] for part in parts]).to(self.device) for name in parts[0]}
        self.seen = dict(seen)
        truth = seen.pop("truth")
        marks.train()
        loss = marks.loss(seen, truth)
        marks.eval()
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        clipped(marks.parameters(), loss, CLIP, ADVICE)
        return {"marks": loss.item()}

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
        """Frames of random motion but for those in the pool: the autoencoder learns no more."""
        self.others = None

    def _windows(self, frames: Frames, count: int) -> Tensors:
        """So many windows: view → (B, T, H, W, 3), ``rewards`` (B, T), ``truth`` of the newest (B, E)."""
        rows = torch.from_numpy(self.rng.integers(len(frames.first), size=count))
        time = windows(rows, frames.first[rows], self.sight.mae.config.frames)
        found = {view: x[time] for view, x in frames.pictures.items()}
        return found | {"rewards": frames.rewards[time], "truth": frames.truth[rows]}

    def _step(self, rate: float) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.step()
        self.optimiser.zero_grad(set_to_none=True)


def frames_of(views: Sequence[str], values: Mapping[str, np.ndarray], rewards: np.ndarray, truth: np.ndarray) -> Frames:
    """Of an episode as `Explorer.finish` tells it; see `Frames.of`."""
    if missing := [view for view in views if f"rgb_{view}" not in values]:
        raise RoboError(f"an episode holds no pictures of {', '.join(missing)}")
    won = np.concatenate([[0.0], rewards[:-1]])
    return Frames.of({view: values[f"rgb_{view}"] for view in views}, won, truth)
