"""What was lived through, to learn from again: episodes in numpy, demonstrations kept apart and for good."""

from __future__ import annotations

import copy
import json
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from policies.learner import Tensors
from robo.core.errors import ConfigError, RunError

Columns = dict[str, np.ndarray]


def moments(observed: Mapping[str, np.ndarray], actions: np.ndarray, rewards: np.ndarray, over: bool) -> Columns:
    """The columns of an episode as a world model sees it: a moment comes after its action.

    Args:
        observed: What was seen before each action and after the last, (T + 1, ...) each.
        actions: Each taken on what was seen at that index, (T, A).
        rewards: Each for the action at that index, (T,).
        over: Whether the episode ended by itself, so that nothing more can be won; not because time was up.

    Returns:
        `observed`, and ``actions``, ``rewards``, ``continues``, ``is_first`` (T + 1, ...).
    """
    columns = {name: np.asarray(values) for name, values in observed.items()}
    steps = len(actions)
    first = np.zeros(steps + 1, bool)
    first[0] = True
    continues = np.ones(steps + 1, np.float32)
    continues[-1] = 0.0 if over else 1.0
    columns["actions"] = np.concatenate([np.zeros_like(actions[:1]), actions]).astype(np.float32)
    columns["rewards"] = np.concatenate([[0.0], rewards]).astype(np.float32)
    return columns | {"continues": continues, "is_first": first}


class Replay:
    """Whole episodes; sequences drawn from them never cross an end.

    Args:
        capacity: Moments of episodes that are no demonstrations; beyond it the oldest episodes go, but never the last.
        seed: Of what is drawn.
        half: Columns kept as float16.

    Raises:
        ConfigError: The capacity is not positive.
    """

    def __init__(self, capacity: int, seed: int, half: Sequence[str] = ("features",)) -> None:
        if capacity < 1:
            raise ConfigError(f"a replay's capacity must be positive, not {capacity}")
        self.capacity, self.half = capacity, frozenset(half)
        self.rng = np.random.default_rng(seed)
        self._lived: deque[Columns] = deque()
        self._demos: deque[Columns] = deque()

    def steps(self, demo: bool = False) -> int:
        """How many moments there are, of demonstrations or of the others."""
        return sum(_length(episode) for episode in self._kept(demo))

    def add(self, episode: Mapping[str, np.ndarray], demo: bool = False) -> None:
        """Keep an episode.

        Args:
            episode: Columns (T, ...), the same names, types and shapes for all episodes; pictures may be among them.
            demo: Whether it is a demonstration.

        Raises:
            ConfigError: It does not fit what is there, is empty, or holds what float16 cannot.
        """
        with np.errstate(over="ignore"):
            columns = {
                name: np.array(values, np.float16 if name in self.half else None) for name, values in episode.items()
            }
        if not columns or len({len(values) for values in columns.values()}) > 1 or not _length(columns):
            shapes = {name: values.shape for name, values in columns.items()}
            raise ConfigError(f"an episode needs columns of one length of at least 1, not {shapes}")
        for name in self.half & columns.keys():
            if not np.isfinite(columns[name]).all():
                raise ConfigError(f"column {name!r} is kept as float16 and holds what is beyond 65504 or no number")
        for other in (*self._lived, *self._demos):
            if _kinds(other) != _kinds(columns):
                raise ConfigError(f"an episode of {_kinds(columns)} does not fit those of {_kinds(other)}")
            break
        kept = self._kept(demo)
        kept.append(columns)
        while not demo and len(kept) > 1 and self.steps() > self.capacity:
            kept.popleft()

    def sample(self, batch: int, length: int, demo: bool = False) -> Columns:
        """Sequences (batch, length, ...), every place where one may begin as likely as any other.

        Of episodes shorter than that, whole ones, followed by zeros.

        Args:
            batch: How many.
            length: Moments.
            demo: Of demonstrations, or of the others.

        Returns:
            The columns, float16 as float32; ``mask`` (batch, length) bool, which moments there are.

        Raises:
            ConfigError: There is nothing yet.
        """
        kept = self._kept(demo)
        if not kept:
            raise ConfigError(f"there are no {'demonstrations' if demo else 'episodes'} to draw from; add some first")
        places = np.cumsum([max(_length(episode) - length, 0) + 1 for episode in kept])
        drawn = self.rng.integers(places[-1], size=batch)
        episodes = np.searchsorted(places, drawn, side="right")
        starts = drawn - np.concatenate([[0], places])[episodes]
        found = {
            name: np.zeros((batch, length, *values.shape[1:]), np.float32 if name in self.half else values.dtype)
            for name, values in kept[0].items()
        }
        mask = np.zeros((batch, length), bool)
        for row, (episode, start) in enumerate(zip(episodes, starts, strict=True)):
            columns = kept[int(episode)]
            stop = min(start + length, _length(columns))
            mask[row, : stop - start] = True
            for name, values in columns.items():
                found[name][row, : stop - start] = values[start:stop]
        return found | {"mask": mask}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """All of it: tensors by name, and a JSON object."""
        tensors: Tensors = {}
        for kind in (False, True):
            kept = self._kept(kind)
            if kept:
                name = _group(kind)
                tensors[f"{name}.lengths"] = torch.tensor([_length(episode) for episode in kept])
                for column in kept[0]:
                    whole = np.concatenate([episode[column] for episode in kept])
                    tensors[f"{name}.columns.{column}"] = torch.from_numpy(whole)
        return tensors, {"rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """Go on from what `state` returned.

        Raises:
            RunError: It is not such a state.
        """
        try:
            for kind in (False, True):
                prefix, kept = f"{_group(kind)}.columns.", self._kept(kind)
                kept.clear()
                if f"{_group(kind)}.lengths" in tensors:
                    ends = np.cumsum(tensors[f"{_group(kind)}.lengths"].numpy())[:-1]
                    cut = {
                        name[len(prefix) :]: np.split(values.numpy(), ends)
                        for name, values in tensors.items()
                        if name.startswith(prefix)
                    }
                    for parts in zip(*cut.values(), strict=True):
                        kept.append({name: part.copy() for name, part in zip(cut, parts, strict=True)})
            self.rng.bit_generator.state = json.loads(json.dumps(meta["rng"]))
        except (KeyError, ValueError, TypeError) as error:
            raise RunError(f"replay does not fit: {error}") from error

    def _kept(self, demo: bool) -> deque[Columns]:
        return self._demos if demo else self._lived


def _group(demo: bool) -> str:
    return "demos" if demo else "lived"


def _length(columns: Columns) -> int:
    return len(next(iter(columns.values())))


def _kinds(columns: Columns) -> dict[str, str]:
    """Types and shapes of moments, by column."""
    return {name: f"{values.dtype}{list(values.shape[1:])}" for name, values in sorted(columns.items())}
