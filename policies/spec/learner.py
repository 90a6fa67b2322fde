"""Training on problems of many shapes: formulas with constants and starts drawn anew all the time."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from policies.learner import Tensors
from policies.pool_learner import KnownLoss, PoolLearner, satisfaction
from policies.prediction import Course, Prediction
from policies.spec.config import SpecConfig, TrainConfig
from policies.spec.encode import Probe, Tree, tree
from policies.spec.network import Forest, SpecNetwork
from policies.symbolic.formulas import open_constants
from policies.system_model import SystemModel
from tasks.specs.grammar import Shape, draw_shape
from tasks.specs.task import SpecTask

TRIES = 50
"""A shape that so many ways do not fit is drawn anew."""


@dataclass(frozen=True)
class Exercise:
    """A shape, ready to be trained on.

    Attributes:
        shape: The shape.
        tree: Of the whole specification.
        constants: Names of its parameters.
        ahead: What plans lead to; constants are inputs.
    """

    shape: Shape
    tree: Tree
    constants: tuple[str, ...]
    ahead: Prediction


class SpecLearner(PoolLearner):
    """Trains a `SpecNetwork`; see `policies.learner.Learner`."""

    config: TrainConfig

    def __init__(self, task: SpecTask, config: SpecConfig, seed: int, device: str) -> None:
        cfg = config.train
        self.task, self.device = task, torch.device(device)
        torch.manual_seed(seed)
        network = SpecNetwork(task, cfg).to(self.device)
        super().__init__(network, cfg, np.random.default_rng([seed, 1]))
        self._probe = Probe(task)
        # Shapes follow from the seed alone; ways, and what is drawn along them, are part of the state.
        rng = np.random.default_rng([seed, 2])
        self._ways = np.stack([task.wander(rng) for _ in range(cfg.ways)])
        self._exercises, drawn = [], []
        while len(self._exercises) < cfg.pool:
            shape = draw_shape(task.steps, rng)
            first = self._draw(shape, rng)
            if first is not None:
                self._exercises.append(self._exercise(shape, cfg.smooth))
                more = (self._draw(shape, rng) or first for _ in range(cfg.problems - 1))
                drawn.append([first, *more])
        most = max(len(exercise.constants) for exercise in self._exercises)
        self.constants = np.zeros((cfg.pool, cfg.problems, most))
        self.starts = np.zeros((cfg.pool, cfg.problems, task.state_size))
        for i, problems in enumerate(drawn):
            for j, problem in enumerate(problems):
                self._put(i, j, problem)

    def _exercise(self, shape: Shape, smooth: float) -> Exercise:
        posed = self.task.with_spec(*self.task.formulas(shape))
        whole = posed.formula
        made = tree(open_constants(whole), self.task.ctrl_dt_s, self.task.steps)
        names = whole.parameters
        ahead = Prediction(posed, SystemModel(posed), Course(posed, 0, names), smooth)
        return Exercise(shape, made, names, ahead)

    def _draw(self, shape: Shape, rng: np.random.Generator) -> tuple[dict[str, float], np.ndarray] | None:
        """Constants and a start for a shape; None where it seems to fit no way."""
        for _ in range(TRIES):
            way = self._ways[rng.integers(len(self._ways))]
            constants = self.task.fit(shape, way, rng)
            if constants is not None:
                return constants, way[0]
        return None

    def _put(self, exercise: int, place: int, problem: tuple[Mapping[str, float], np.ndarray]) -> None:
        constants, start = problem
        names = self._exercises[exercise].constants
        self.constants[exercise, place, : len(names)] = [constants[name] for name in names]
        self.starts[exercise, place] = start

    def _batch(self, index: np.ndarray) -> tuple[torch.Tensor, Callable[[], dict[str, float]]]:
        cfg, exercises = self.config, [self._exercises[i] for i in index]
        places = np.stack([self.rng.choice(cfg.problems, cfg.rows, replace=False) for _ in index])
        starts = self.starts[index[:, None], places]
        probed = []
        for exercise, i, rows in zip(exercises, index, places, strict=True):
            given = self.constants[i, rows]
            probed.append(self._probe(exercise.tree.leaves, {n: given[:, j] for j, n in enumerate(exercise.constants)}))
        leaves = torch.from_numpy(np.concatenate(probed)).to(self.device)
        features = torch.from_numpy(np.asarray(self.task.features(starts), np.float32)).to(self.device)
        raw = self.network(Forest.of([exercise.tree for exercise in exercises]), leaves, features)
        plans = raw.detach().cpu().double().numpy().reshape(len(index), cfg.rows, cfg.plans, -1)
        slope, loss, best = np.zeros_like(plans), 0.0, np.empty((len(index), cfg.rows))
        for k, (exercise, i) in enumerate(zip(exercises, index, strict=True)):
            own = np.hstack([starts[k], self.constants[i, places[k], : len(exercise.constants)]])
            rows = np.hstack([np.repeat(own, cfg.plans, axis=0), plans[k].reshape(cfg.rows * cfg.plans, -1)])
            lesson = exercise.ahead.lesson(rows, cfg.margin)
            lack = lesson.lack.reshape(cfg.rows, cfg.plans)
            # The best of the plans is what counts; the others learn a little, lest they never become it.
            weight = np.full(lack.shape, cfg.others / cfg.plans)
            weight[np.arange(cfg.rows), lack.argmin(1)] += 1.0 - cfg.others
            loss += float((weight * lack).sum())
            slope[k] = weight[:, :, None] * lesson.gradient.reshape(cfg.rows, cfg.plans, -1)
            best[k] = lesson.parts.min(-1).reshape(cfg.rows, cfg.plans).max(1)
        count = best.size
        made: Any = KnownLoss.apply(raw, loss / count, torch.from_numpy(slope / count).reshape(raw.shape))

        def go_on() -> dict[str, float]:
            for place in self.rng.choice(cfg.ways, cfg.new_ways, replace=False):
                self._ways[place] = self.task.wander(self.rng)
            for i, rows in zip(index, places, strict=True):
                for place in rows[: cfg.fresh]:
                    problem = self._draw(self._exercises[i].shape, self.rng)
                    if problem is not None:
                        self._put(int(i), int(place), problem)
            rho = torch.from_numpy(best.ravel())
            return satisfaction(rho, torch.ones(len(rho), dtype=torch.bool))

        return made, go_on

    def _pool(self) -> Tensors:
        return {name: torch.from_numpy(value) for name, value in self._arrays().items()}

    def _load_pool(self, tensors: Mapping[str, torch.Tensor]) -> None:
        for name, mine in self._arrays().items():
            mine[...] = tensors[name].numpy()

    def _arrays(self) -> dict[str, np.ndarray]:
        return {"constants": self.constants, "starts": self.starts, "ways": self._ways}
