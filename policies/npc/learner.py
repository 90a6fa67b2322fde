"""Training by smooth STL robustness of predicted rollouts, on episodes that the network itself drives."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from policies.learner import Tensors
from policies.npc.config import NpcConfig, TrainConfig
from policies.npc.network import ControlNetwork
from policies.pool_learner import KnownLoss, PoolLearner, satisfaction
from policies.prediction import Course, Lesson, Prediction
from policies.system_model import SystemModel
from tasks.system import SystemTask


class NpcLearner(PoolLearner):
    """Trains a `ControlNetwork`; see `policies.learner.Learner`.

    The network learns on the device it is told; predictions and their gradients come from compiled tapes on the CPU,
    which for the small operations of such systems are several times faster than a tensor library.
    """

    config: TrainConfig

    def __init__(self, task: SystemTask, config: NpcConfig, seed: int, device: str) -> None:
        cfg = config.train
        self.task, self.model = task, SystemModel(task)
        self.device = torch.device(device)
        torch.manual_seed(seed)
        network = ControlNetwork(self.model, cfg.width, cfg.depth).to(self.device)
        super().__init__(network, cfg, np.random.default_rng([seed, 1]))
        self._predictions = [Prediction(task, self.model, Course(task, k), cfg.smooth) for k in range(task.steps)]
        self.state_now = np.zeros((cfg.pool, task.state_size))
        self.tick = np.zeros(cfg.pool, np.int64)
        self.past = np.zeros((cfg.pool, task.steps + 1, len(task.signals)))
        """Signals of what was executed; samples before the tick count."""
        self._restart(np.arange(cfg.pool))

    def _restart(self, index: np.ndarray) -> None:
        """Put episodes at a fresh start."""
        if len(index):
            self.state_now[index] = np.stack([self.task.sample(self.rng)["state"] for _ in index])
            self.tick[index] = 0

    def _batch(self, index: np.ndarray) -> tuple[torch.Tensor, Callable[[], dict[str, float]]]:
        # Episodes at the same tick share a tape.
        ticks = self.tick[index]
        groups = [(self._predictions[tick], np.flatnonzero(ticks == tick)) for tick in np.unique(ticks)]
        starts = [self._start(index[group], ahead.tick) for ahead, group in groups]
        features = np.empty((len(index), self.model.feature_size), np.float32)
        for (ahead, group), start in zip(groups, starts, strict=True):
            features[group] = ahead.look(start)
        raw = self.network(torch.from_numpy(features).to(self.device))
        plans = raw.detach().cpu().double().numpy()
        slope, lack, lessons = np.zeros_like(plans), 0.0, []
        for (ahead, group), start in zip(groups, starts, strict=True):
            own = plans[group, : ahead.left].reshape(len(group), -1)
            lesson = ahead.lesson(np.hstack([start, own]), self.config.margin)
            slope[group, : ahead.left] = lesson.gradient
            lack += float(lesson.lack.sum())
            lessons.append((group, lesson))
        loss: Any = KnownLoss.apply(raw, lack / len(index), torch.from_numpy(slope / len(index)))

        def go_on() -> dict[str, float]:
            rho = np.empty(len(index))
            for group, lesson in lessons:
                rho[group] = lesson.parts.min(-1)
            self._advance(index, lessons)
            return satisfaction(torch.from_numpy(rho), torch.from_numpy(ticks == 0))

        return loss, go_on

    def _start(self, index: np.ndarray, tick: int) -> np.ndarray:
        """What episodes at a tick start from: past signals and state, flat, (B, ...)."""
        return np.hstack([self.past[index, :tick].reshape(len(index), -1), self.state_now[index]])

    def _advance(self, index: np.ndarray, lessons: Sequence[tuple[np.ndarray, Lesson]]) -> None:
        """Let every visited episode go on for a while along its plan, or start again."""
        leap = self.rng.integers(1, max(self.task.steps // 3, 2) + 1, len(index))
        over = self.rng.uniform(size=len(index)) < self.config.restart
        over |= self.tick[index] + leap > self.task.steps - 2
        for group, lesson in lessons:
            for row, i in enumerate(group):
                if not over[i]:
                    episode, tick, ahead = index[i], self.tick[index[i]], leap[i]
                    self.past[episode, tick : tick + ahead] = lesson.signals[row, :ahead]
                    self.state_now[episode] = lesson.states[row, ahead]
                    self.tick[episode] = tick + ahead
        self._restart(index[over])

    def _pool(self) -> Tensors:
        return {name: torch.from_numpy(value) for name, value in self._arrays().items()}

    def _load_pool(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, mine in self._arrays().items():
            mine[...] = tensors[name].numpy()

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"state": self.state_now, "tick": self.tick, "past": self.past}
