"""The predictive controller of systems at run time: network, search, certificate for the rest of the episode."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch

from policies.npc.config import NpcConfig
from policies.npc.model import ControlNetwork, SystemModel
from policies.pool_learner import load_weights
from policies.system import ControlPlan, SystemPolicy
from robo.core.errors import NonFiniteError
from robo.core.protocols import Controller, Obs
from tasks.system import SystemTask

Tensor = torch.Tensor
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

    raw: Tensor
    states: Tensor
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
    """

    def __init__(self, task: SystemTask, config: NpcConfig, network: ControlNetwork) -> None:
        self.task, self.task_name, self.config, self.network = task, task.name, config.plan, network
        self.model = SystemModel(task)

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `SystemPolicy`."""
        self._plan: Plan | None = None
        self._random = torch.Generator().manual_seed(seed)
        blank = torch.zeros(1, self.task.steps + 1, dtype=torch.float64)
        self._prefix = {name: blank.clone() for name in self.task.signals}

    @torch.no_grad()
    def act(self, obs: Obs) -> ControlPlan:
        """See `SystemPolicy`."""
        began = time.perf_counter()
        tick = round(float(obs["time_s"][0]) / self.task.ctrl_dt_s)
        state = torch.as_tensor(np.asarray(obs["state"], float))[None]
        if not torch.isfinite(state).all():
            raise NonFiniteError(f"observed state of {self.task.name} is not finite: {obs['state']}")
        for name, value in self.task.measure(state).items():
            self._prefix[name][0, tick] = value[0]
        plans = self._candidates(state, tick)
        best = max(plans, key=lambda plan: plan.rho)
        # Where all went as predicted a search that failed before is not repeated: nothing new is known.
        expected = self._plan is not None and float((state[0] - self._plan.states[1]).abs().max()) < SURPRISE
        if self.config.search and best.rho < self.config.margin and not expected:
            for k in range(self.config.rounds if tick == 0 else 1):
                best = self._search(state, tick, best, afresh=k % 2 == 1)
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
        control = self.task.squash(best.raw)
        return ControlPlan(
            control=control.numpy(),
            state=best.states.numpy(),
            controller=maker,
            info={
                "plan_ms": 1e3 * (time.perf_counter() - began),
                "plan_rho": best.rho,
                "certified": float(best.safety > 0),
            },
        )

    # ---- planning --------------------------------------------------------------

    def _candidates(self, state: Tensor, tick: int) -> list[Plan]:
        """The network's plan, and what is left of the plan in force."""
        left = self.task.steps - tick
        at = torch.tensor([tick])
        features = self.model.features(state, at, self._prefix)
        raw = [self.network(features.float())[0, :left].double()]
        makers: list[Controller] = ["policy"]
        if self._plan is not None:
            raw.append(self._plan.raw[1:])
            makers.append(self._plan.maker)
        if not torch.isfinite(raw[0]).all():
            del raw[0], makers[0]
        if not raw:
            raise NonFiniteError("the network's plan holds NaN or infinity, and there is no other yet")
        return self._judge(state, tick, torch.stack(raw), makers)

    def _judge(self, state: Tensor, tick: int, raw: Tensor, makers: list[Controller]) -> list[Plan]:
        """Plans from raw controls (B, P, m)."""
        states = self.task.roll_out(state.expand(len(raw), -1), self.task.squash(raw))
        parts = self.model.part_rhos(self._trace(states, tick))
        rho, safety = parts.amin(-1).tolist(), parts[:, len(self.model.mission) :].amin(-1).tolist()
        return [Plan(raw[i], states[i], rho[i], safety[i], makers[i]) for i in range(len(raw))]

    def _trace(self, states: Tensor, tick: int) -> dict[str, Tensor]:
        prefix = {name: value.expand(len(states), -1) for name, value in self._prefix.items()}
        return self.model.trace(prefix, torch.full((len(states),), tick), self.task.measure(states))

    def _search(self, state: Tensor, tick: int, best: Plan, afresh: bool) -> Plan:
        """Plans at random, refitted to their elite (cross-entropy method), then gradient steps from it.

        About the best plan there is, the elite being those whose parts lack least together; or `afresh`, about nothing,
        the elite being those whose worst part is best: where the network goes round the wrong side of something, no
        small change of its plan helps.
        """
        cfg, n = self.config, self.config.samples
        left, m = best.raw.shape
        if left == 0:
            return best
        # A few knots joined linearly: plans that jump at every step seldom lead anywhere.
        knots = max(2, left // 4)
        noise = torch.randn(n, m, knots, generator=self._random, dtype=torch.float64)
        noise = torch.nn.functional.interpolate(noise, size=left, mode="linear", align_corners=True).mT
        scale = cfg.spread * torch.logspace(-1.5, 0.5, n // 2, dtype=torch.float64)[:, None, None]
        white = torch.randn(n, left, m, generator=self._random, dtype=torch.float64)
        raw = torch.cat([white[: n // 2] if afresh else best.raw + scale * noise[: n // 2], 2.0 * noise[n // 2 :]])
        for k in range(cfg.refits + 1):
            states = self.task.roll_out(state.expand(n, -1), self.task.squash(raw))
            parts = self.model.part_rhos(self._trace(states, tick))
            i = int(parts.amin(-1).argmax())
            if parts[i].amin() > best.rho:
                best = self._judge(state, tick, raw[i][None], ["refinement"])[0]
            if best.rho >= cfg.aim:
                return best
            value = parts.amin(-1) if afresh else -torch.relu(cfg.aim - parts).sum(-1)
            elite = raw[value.topk(2 * cfg.starts).indices]
            if k < cfg.refits:
                white = torch.randn(n, left, m, generator=self._random, dtype=torch.float64)
                raw = elite.mean(0) + elite.std(0).clamp_min(0.02) * white
                raw[: len(elite)] = elite
        return self._climb(state, tick, elite[: cfg.starts], best)

    def _climb(self, state: Tensor, tick: int, raw: Tensor, best: Plan) -> Plan:
        """Adam on raw controls (B, P, m), until one plan reaches the aim."""
        cfg = self.config
        raw = raw.clamp(-3.0, 3.0).clone().requires_grad_(True)
        optimiser = torch.optim.Adam([raw], lr=cfg.learning_rate)
        for _ in range(cfg.iterations):
            with torch.enable_grad():
                states = self.task.roll_out(state.expand(len(raw), -1), self.task.squash(raw))
                trace = self._trace(states, tick)
                loss = torch.relu(cfg.aim + 0.01 - self.model.part_rhos(trace, smooth=cfg.smooth)).sum()
                optimiser.zero_grad()
                loss.backward()
            parts = self.model.part_rhos({k: v.detach() for k, v in trace.items()})
            i = int(parts.amin(-1).argmax())
            rho = float(parts[i].amin())
            if rho > best.rho:
                safety = float(parts[i, len(self.model.mission) :].amin())
                best = Plan(raw[i].detach().clone(), states[i].detach(), rho, safety, "refinement")
            if best.rho >= cfg.aim:
                break
            if raw.grad is not None:
                raw.grad.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0)
            optimiser.step()
        return best


def load(task: SystemTask, config: NpcConfig, weights: Mapping[str, torch.Tensor], device: str) -> NpcPolicy:
    """A policy from a network's weights; see `policies.learner.PolicyKind`. Plans are small: they are made on the CPU.

    Raises:
        RunError: Names or shapes of the weights do not fit, or they are not finite.
    """
    torch.manual_seed(0)
    network = ControlNetwork(SystemModel(task), config.train.width, config.train.depth)
    if config.plan.network:
        load_weights(network, {name: value.cpu() for name, value in weights.items()})
    return NpcPolicy(task, config, network.eval())
