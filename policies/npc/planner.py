"""The predictive controller of systems at run time: network, search, certificate for the rest of the episode."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch

from policies.npc.config import NpcConfig, PlanConfig
from policies.npc.network import ControlNetwork
from policies.prediction import Course, Prediction
from policies.system import ControlPlan, SystemPolicy
from policies.system_model import SystemModel
from policies.tensors import load_weights
from robo.core.errors import NonFiniteError
from robo.core.protocols import Controller, Obs
from tasks.system import SystemTask

Network = Callable[[Prediction, np.ndarray], np.ndarray]
"""Proposes plans: what is known at a tick (`Prediction.measure` says what) → raw controls (K, P, m), K may be 0."""
SURPRISE = 1e-9
"""A state that lies this far from the predicted one is worth another search."""


@dataclass(frozen=True)
class Plan:
    """A plan of the whole remaining episode.

    Attributes:
        raw: Controls before squashing, (P, m).
        states: What they lead to, (P + 1, n).
        rho: Hard robustness of executed prefix and prediction.
        safety: The same, of the safety part alone.
        maker: Who made it.
    """

    raw: np.ndarray
    states: np.ndarray
    rho: float
    safety: float
    maker: Controller


class NpcPolicy(SystemPolicy):
    """Plans at every step; one `act` per control step.

    The network's plan and the rest of the plan in force are compared by hard robustness over executed prefix and
    prediction. Below the margin a search tries plans at random about them and improves the best by gradient steps: at
    the start of an episode, and whenever the state is not the predicted one. With `certify`, a plan that is unsafe
    somewhere before the end of the episode never replaces one that is safe to the end: under exact dynamics whoever
    starts with such a plan stays safe. Plans are judged in double precision: a verdict must not hang on rounding.

    Args:
        task: The task.
        config: Settings.
        network: Proposes plans.
        ready: Make all predictions now, so that no step of the first episode waits for one.
        courses: By tick, those that are known of this system already; new ones are added.
    """

    def __init__(
        self,
        task: SystemTask,
        config: PlanConfig,
        network: Network,
        ready: bool = True,
        courses: dict[int, Course] | None = None,
    ) -> None:
        self.task, self.task_name, self.config, self.network = task, task.name, config, network
        self.model = SystemModel(task, conformal=config.conformal)
        self._predictions: list[Prediction | None] = [None] * task.steps
        self._courses: dict[int, Course] = {} if courses is None else courses
        for tick in range(task.steps if ready else 0):
            self._ahead(tick).warm_up()

    def _ahead(self, tick: int) -> Prediction:
        """The prediction from a tick on."""
        ahead = self._predictions[tick]
        if ahead is None:
            course = self._courses.get(tick) or Course(self.task, tick)
            self._courses[tick] = course
            ahead = self._predictions[tick] = Prediction(self.task, self.model, course, self.config.smooth)
        return ahead

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `SystemPolicy`."""
        self._plan: Plan | None = None
        self._random = np.random.default_rng(seed)
        self._past = np.zeros((self.task.steps + 1, len(self.task.signals)))

    def act(self, obs: Obs) -> ControlPlan:
        """See `SystemPolicy`."""
        began = time.perf_counter()
        tick = round(float(obs["time_s"][0]) / self.task.ctrl_dt_s)
        state = np.asarray(obs["state"], float)
        if not np.isfinite(state).all():
            raise NonFiniteError(f"observed state of {self.task.name} is not finite: {obs['state']}")
        ahead = self._ahead(tick)
        shared = np.concatenate([self._past[:tick].ravel(), state])
        self._past[tick] = ahead.measure(shared)
        plans = self._candidates(ahead, shared)
        best = max(plans, key=lambda plan: plan.rho)
        # Where all went as predicted a search that failed before is not repeated: nothing new is known.
        expected = self._plan is not None and float(np.abs(state - self._plan.states[1]).max()) < SURPRISE
        if self.config.search and best.rho < self.config.margin and not expected:
            for k in range(self.config.rounds if tick == 0 else 1):
                best = self._search(ahead, shared, best, afresh=k % 2 == 1)
                if best.rho >= self.config.margin:
                    break
        maker = best.maker
        if self.config.certify and best.safety <= 0:
            # Of those that are safe to the end, if there are any, the one that comes nearest to the mission.
            safe = [plan for plan in plans if plan.safety > 0]
            if safe:
                best = max(safe, key=lambda plan: plan.rho)
                maker = "backup"
        self._plan = best
        return ControlPlan(
            control=self.task.squash(best.raw),
            state=best.states,
            controller=maker,
            info={
                "plan_ms": 1e3 * (time.perf_counter() - began),
                "plan_rho": best.rho,
                "certified": float(best.safety > 0),
            },
        )

    # ---- planning --------------------------------------------------------------

    def _candidates(self, ahead: Prediction, shared: np.ndarray) -> list[Plan]:
        """The network's plans, and what is left of the plan in force."""
        raw = [plan for plan in np.asarray(self.network(ahead, shared), float) if np.isfinite(plan).all()]
        makers: list[Controller] = ["policy"] * len(raw)
        if self._plan is not None:
            raw.append(self._plan.raw[1:])
            makers.append(self._plan.maker)
        if not raw:
            raise NonFiniteError("the network's plan holds NaN or infinity, and there is no other yet")
        return self._judge(ahead, shared, np.stack(raw), makers)

    def _judge(self, ahead: Prediction, shared: np.ndarray, raw: np.ndarray, makers: list[Controller]) -> list[Plan]:
        """Plans from raw controls (B, P, m)."""
        parts, states = ahead.outcome(shared, raw)
        rho, safety = parts.min(-1).tolist(), parts[:, len(self.model.mission) :].min(-1).tolist()
        return [Plan(raw[i], states[i], rho[i], safety[i], makers[i]) for i in range(len(raw))]

    def _search(self, ahead: Prediction, shared: np.ndarray, best: Plan, afresh: bool) -> Plan:
        """Plans at random, refitted to their elite (cross-entropy method), then gradient steps from it.

        About the best plan there is, the elite being those whose parts lack least together; or `afresh`, about nothing,
        the elite being those whose worst part is best: where the network goes round the wrong side of something, no
        small change of its plan helps.
        """
        cfg, n, random = self.config, self.config.samples, self._random
        left, m = best.raw.shape
        # A few knots joined linearly: plans that jump at every step seldom lead anywhere.
        knots = max(2, left // 4)
        noise = _ramps(knots, left) @ random.standard_normal((n, knots, m))
        scale = cfg.spread * np.logspace(-1.5, 0.5, n // 2)[:, None, None]
        first = random.standard_normal((n // 2, left, m)) if afresh else best.raw + scale * noise[: n // 2]
        raw = np.concatenate([first, 2.0 * noise[n // 2 :]])
        for k in range(cfg.refits + 1):
            parts = ahead.rhos(shared, raw)
            worst = parts.min(-1)
            i = int(worst.argmax())
            if worst[i] > best.rho:
                best = self._judge(ahead, shared, raw[i][None], ["refinement"])[0]
            if best.rho >= cfg.aim:
                return best
            value = worst if afresh else -np.maximum(cfg.aim - parts, 0.0).sum(-1)
            elite = raw[np.argsort(-value, kind="stable")[: 2 * cfg.starts]]
            if k < cfg.refits:
                spread = np.maximum(elite.std(0, ddof=1), 0.02)
                raw = elite.mean(0) + spread * random.standard_normal((n, left, m))
                raw[: len(elite)] = elite
        return self._climb(ahead, shared, elite[: cfg.starts], best)

    def _climb(self, ahead: Prediction, shared: np.ndarray, raw: np.ndarray, best: Plan) -> Plan:
        """Adam (Kingma & Ba, arXiv 1412.6980) on raw controls (B, P, m), until one plan reaches the aim.

        Written out: a step of torch's takes 50 us, six times this one's and a third of the rest of an iteration.
        """
        cfg = self.config
        raw = raw.clip(-3.0, 3.0)
        mean, square = np.zeros_like(raw), np.zeros_like(raw)
        for k in range(1, cfg.iterations + 1):
            parts, gradient = ahead.slopes(shared, raw, cfg.aim + 0.01)
            worst = parts.min(-1)
            i = int(worst.argmax())
            if worst[i] > best.rho:
                best = self._judge(ahead, shared, raw[i][None], ["refinement"])[0]
            if best.rho >= cfg.aim:
                break
            gradient = np.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
            mean = 0.9 * mean + 0.1 * gradient
            square = 0.999 * square + 0.001 * gradient**2
            step = mean / (1 - 0.9**k) / (np.sqrt(square / (1 - 0.999**k)) + 1e-8)
            raw = raw - cfg.learning_rate * step
        return best


@functools.cache
def _ramps(knots: int, samples: int) -> np.ndarray:
    """Matrix (samples, knots) that joins values at evenly spaced knots linearly."""
    return np.array([np.interp(np.linspace(0, 1, samples), np.linspace(0, 1, knots), row) for row in np.eye(knots)]).T


class NumpyNetwork:
    """The layers of a `ControlNetwork`, for one row at a time: torch's calls alone would take longer than the sums.

    Args:
        network: The trained one.
    """

    def __init__(self, network: ControlNetwork) -> None:
        layers = [layer for layer in network.body if isinstance(layer, torch.nn.Linear)]
        self._layers = [(layer.weight.detach().numpy().copy(), layer.bias.detach().numpy().copy()) for layer in layers]
        self._shape = (network.steps, network.controls)

    def __call__(self, ahead: Prediction, shared: np.ndarray) -> np.ndarray:
        """One plan, (1, P, m)."""
        x = ahead.features(shared).astype(np.float32)
        for i, (weight, bias) in enumerate(self._layers):
            x = weight @ x + bias
            if i < len(self._layers) - 1:
                x = np.maximum(x, 0.0)
        return x.reshape(self._shape)[None, : ahead.left]


def load(task: SystemTask, config: NpcConfig, weights: Mapping[str, torch.Tensor], device: str) -> NpcPolicy:
    """A policy from a network's weights; see `policies.learner.PolicyKind`. Plans are small: they are made on the CPU.

    Raises:
        RunError: Names or shapes of the weights do not fit, or they are not finite.
    """
    torch.manual_seed(0)
    network = ControlNetwork(SystemModel(task), config.train.width, config.train.depth)
    if config.plan.network:
        load_weights(network, {name: value.cpu() for name, value in weights.items()})
    return NpcPolicy(task, config.plan, NumpyNetwork(network))
