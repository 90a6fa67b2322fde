"""A point that is pushed about in the plane and seen through a random projection; and small settings."""

from __future__ import annotations

import numpy as np
import torch

from policies.world.config import ActorConfig, DynamicsConfig, ModelConfig, PlanConfig, RateConfig, WorldConfig
from policies.world.model import Batch
from policies.world.replay import Columns, moments

FEATURES, STEPS, GOAL = 24, 16, np.array([0.5, -0.3], np.float32)
_rng = np.random.default_rng(0)
_project = _rng.normal(size=(2, FEATURES)).astype(np.float32)
_shift = _rng.normal(size=FEATURES).astype(np.float32)


class Points:
    """Several points at once; an action pushes by a fifth of itself, walls are at ±1, and near the goal it pays.

    Attributes:
        place: (N, 2).
    """

    def __init__(self, count: int, seed: int) -> None:
        self.place = np.random.default_rng(seed).uniform(-1, 1, (count, 2)).astype(np.float32)

    def features(self) -> np.ndarray:
        return np.tanh(self.place @ _project + _shift)

    def step(self, action: np.ndarray) -> np.ndarray:
        self.place = np.clip(self.place + 0.2 * np.clip(action, -1, 1), -1, 1).astype(np.float32)
        return np.exp(-2 * np.linalg.norm(self.place - GOAL, axis=1)).astype(np.float32)


def play(count: int, seed: int, act) -> tuple[list[Columns], float]:
    """Episodes of `act(features (N, F), previous action (N, 2), is_first (N,)) -> (N, 2)`, and their mean reward."""
    points, features, places, actions, rewards = Points(count, seed), [], [], [], []
    action = np.zeros((count, 2), np.float32)
    for t in range(STEPS):
        features.append(points.features())
        places.append(points.place)
        action = np.asarray(act(features[-1], action, np.full(count, t == 0)), np.float32)
        actions.append(action)
        rewards.append(points.step(action))
    features.append(points.features())
    places.append(points.place)
    seen, where = np.stack(features, 1), np.stack(places, 1)
    done, paid = np.stack(actions, 1), np.stack(rewards, 1)
    rows = [moments({"features": seen[i], "signals": where[i]}, done[i], paid[i], False) for i in range(count)]
    return rows, float(paid.mean())


def randomly(seed: int):
    rng = np.random.default_rng(seed)
    return lambda features, action, first: np.clip(0.7 * action + rng.normal(size=action.shape), -1, 1)


def tiny(core: str = "gru", **actor) -> WorldConfig:
    model = ModelConfig(
        dynamics=DynamicsConfig(core=core, deter=64, hidden=64, groups=4, classes=8, heads=4, memory=4),  # type: ignore[arg-type]
        units=64,
        layers=1,
        bins=41,
        ensemble=3,
        ensemble_units=32,
    )
    return WorldConfig(
        model=model,
        actor=ActorConfig(**{"units": 64, "layers": 2, "horizon": 6, "starts": 64, "cloning": 0.0} | actor),
        plan=PlanConfig(horizon=4, samples=48, from_actor=8, elites=8, iterations=3),
        rate=RateConfig(model=2e-3, actor=1e-3, critic=1e-3),
    )


def batch(rows: int = 4, length: int = 7, seed: int = 0, signals: int = 2) -> Batch:
    """Noise of the right shape."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> torch.Tensor:
        return torch.randn(rows, length, *shape, generator=generator)

    first = torch.zeros(rows, length, dtype=torch.bool)
    first[:, 0] = True
    return Batch(
        features=noise(FEATURES),
        proprio=noise(3),
        actions=noise(2).tanh(),
        rewards=noise(),
        continues=torch.ones(rows, length),
        is_first=first,
        signals=noise(signals),
        mask=torch.ones(rows, length, dtype=torch.bool),
        horizons=torch.full((rows, length), 99),
        demo=torch.arange(rows) >= rows // 2,
        cloned=noise(2).tanh(),
    )
