"""Trainings that take seconds."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Sequence
from typing import Any

from policies.learner import Episode, Tensors
from policies.policy import Policy
from robo.train.config import Config
from robo.train.explore import play
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task

TASK, SIZE, VIEWS = "reach", 32, ("front", "wrist")
TINY: dict[str, Any] = {
    "mae": {
        "views": list(VIEWS),
        "size": SIZE,
        "patch": 8,
        "width": 16,
        "decoder_width": 16,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "numbers": 2,
        "masked_views": 1,
        "reward_bins": 21,
    },
    "marks": {"channels": [8, 8], "points": 4, "units": 16},
    "sense": {"steps": 4, "batch": 4, "warm_up": 2, "refresh": 2, "keep": 5, "of_episode": 2},
    "world": {
        "model": {
            "dynamics": {"deter": 16, "hidden": 16, "groups": 2, "classes": 4, "heads": 2, "memory": 4},
            "units": 16,
            "layers": 1,
            "bins": 21,
            "ensemble": 2,
            "ensemble_units": 8,
        },
        "actor": {"units": 16, "layers": 1, "horizon": 3, "starts": 8},
        "plan": {"horizon": 2, "samples": 8, "from_actor": 2, "elites": 4, "iterations": 2},
        "batch": 3,
        "demos": 2,
        "length": 5,
    },
    "explore": {"babble": 3, "babble_steps": 6, "glances": 0, "episodes": 2, "every": 4, "rest": 0},
    "train": {"steps": 10},
}


_PLAYED: dict[tuple[bytes, tuple[int, int]], Episode] = {}
"""Of some weights and settings, from a seed, so many steps."""


class Here:
    """An explorer that plays in this process what `robo.train.explore.Processes` plays in others: none has to start.

    What the same weights play from the same seed is known already: trainings that go on are compared with those that
    never stopped, and most of their time would be physics.

    Args:
        config: Of `TASK`.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._asked: tuple[Tensors, list[tuple[int, int]]] | None = None

    def begin(self, weights: Tensors, seeds: Sequence[int], steps: int | Sequence[int] = 0) -> None:
        """See `policies.learner.Explorer`."""
        assert self._asked is None
        lengths = [steps] * len(seeds) if isinstance(steps, int) else steps
        kept = {name: value.detach().clone() for name, value in weights.items()}  # learning goes on
        self._asked = kept, list(zip(seeds, lengths, strict=True))

    def finish(self) -> list[Episode]:
        """See `policies.learner.Explorer`."""
        assert self._asked is not None
        (weights, episodes), self._asked = self._asked, None
        whose = hashlib.sha256(self._config.to_yaml().encode())
        for name, value in sorted(weights.items()):
            whose.update(name.encode() + value.numpy().tobytes())
        policy = None
        for each in episodes:
            if (whose.digest(), each) not in _PLAYED:
                policy = policy or self._config.kind.load(
                    self._config.open_task(), self._config.settings, weights, "cpu"
                )
                assert isinstance(policy, Policy)
                policy.exploring = True
                _PLAYED[whose.digest(), each] = play(_world(), policy, *each)
        return [{name: value.copy() for name, value in _PLAYED[whose.digest(), each].items()} for each in episodes]

    def close(self) -> None:
        """See `policies.learner.Explorer`."""
        self._asked = None


@functools.cache
def _world() -> TabletopEnv:
    return TabletopEnv(tabletop_task(load_task(TASK)), cameras=VIEWS, size=SIZE)
