"""The STL predictive controller at run time: network, refinement, certificate, backup."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import torch

from policies.policy import Policy, PolicyInfo
from policies.stl.certificate import Certificate, Verdict
from policies.stl.config import StlConfig
from policies.stl.model import PlanModel, Trace
from policies.stl.network import PlanNetwork
from policies.tensors import load_weights
from robo.core.errors import NonFiniteError
from robo.core.protocols import ActionChunk, Controller, Obs
from tasks.arm import ArmTask

Tensor = torch.Tensor
STEP_FACTORS = (1.0, 0.5, 0.25, 1.5)
"""Lengths of refinement's steps, start by start."""
CERTIFIED_AT_ONCE = 3
"""Plans offered to the certificate per period, best first."""


@dataclass(frozen=True)
class Plan:
    """A plan of the whole remaining episode.

    Attributes:
        tick: Control tick of sample 0.
        q, v: Joint reference at ticks, (N + 1, J).
        rho: Hard robustness of executed prefix and prediction, at its worst.
        maker: Who made it.
    """

    tick: int
    q: Tensor
    v: Tensor
    rho: float
    maker: Controller


class StlPolicy(Policy):
    """Receding-horizon planner; one `act` per control tick.

    Every tick: the network's plan and the plan of before are compared by hard robustness of
    the whole specification over executed prefix and prediction; below the margin, gradient
    steps refine several starts at once; the best plan that the certificate accepts is
    committed up to its switch with braking behind it. If none is accepted, the stored
    certified plan goes on; its end is at rest in the safe set.
    """

    def __init__(self, task: ArmTask, config: StlConfig, network: PlanNetwork, model: PlanModel) -> None:
        self.task, self.config, self.network, self.model = task, config, network, model
        margin = config.certificate.margin + config.plan.conformal
        self.certificate = Certificate(task, model.motion, replace(config.certificate, margin=margin))
        self.info = PolicyInfo.of(task)

    # ---- Policy ----------------------------------------------------------------

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `Policy`."""
        start = np.asarray(obs["joint_pos"], float)[None]
        self._chunk = ActionChunk(
            start_s=0.0,
            dt_s=self.task.ctrl_dt_s,
            joint_pos=start,
            joint_vel=np.zeros_like(start),
            tail=0,
            controller="backup",
        )
        self._plan: Plan | None = None
        blank = torch.zeros(1, self.task.steps + 1, device=self.model.device)
        self._prefix = {name: blank.clone() for name in self.task.signals}
        self._known = 0
        self._random = torch.Generator(device=self.model.device).manual_seed(seed)

    @torch.no_grad()
    def act(self, obs: Obs) -> ActionChunk:
        """See `Policy`."""
        began = time.perf_counter()
        dt = self.task.ctrl_dt_s
        tick = round(float(obs["time_s"][0]) / dt) + 1
        self._remember(obs, tick - 1)
        if tick >= self.task.steps:
            return self._go_on(tick, began, Verdict(0, float("nan")))

        q, v = self._chunk.at(tick * dt)
        seen = {k: self._tensor(obs[k])[None] for k in self.task.observation}
        start = self._tensor(q)[None], self._tensor(v)[None]
        plans = self._candidates(start, tick, seen)
        if not plans:  # the network's output is not finite: nothing of it is used, the certified plan goes on
            return self._go_on(tick, began, Verdict(0, float("nan")), fault="network output holds NaN or infinity")
        plans.sort(key=lambda p: p.rho, reverse=True)
        if self.config.plan.refine and plans[0].rho < self.config.plan.margin:
            plans = self._refine(start, tick, seen, plans) + plans
        verdict = Verdict(0, float("nan"))
        for plan in plans[:CERTIFIED_AT_ONCE]:
            # Sample 0 is the reference in force to the last bit; float32 stays inside the planner.
            plan_v = plan.v.cpu().double().numpy().copy()
            plan_v[0] = v
            plan_q = self.model.motion.integrate(q, plan_v)
            if self.config.plan.certify:
                verdict = self.certificate.check(plan_q, plan_v, obs, lead_s=dt)
            else:
                verdict = Verdict(len(plan_q) - 1, float("nan"))
            if verdict.switch:
                return self._commit(plan, plan_q, plan_v, verdict, began)
        self._plan = plans[0]
        return self._go_on(tick, began, verdict)

    # ---- planning ----------------------------------------------------------------

    def _tensor(self, value: np.ndarray) -> Tensor:
        return torch.as_tensor(np.asarray(value), dtype=torch.float32, device=self.model.device)

    def _remember(self, obs: Obs, tick: int) -> None:
        """Signals of an observation into the executed prefix, error bounds subtracted."""
        if tick > self.task.steps or tick < self._known:
            return
        q, v = np.asarray(obs["joint_pos"], float), np.asarray(obs["joint_vel"], float)
        state = {"joint_pos": q[None], "joint_vel": v[None], "points": self.task.kinematics.points(q[None])}
        state |= self.task.forecast(obs, np.zeros(1))
        for name, value in self.task.measure(state, obs).items():
            if not np.isfinite(value[0]):
                raise NonFiniteError(f"signal {name} of the observation is {value[0]}; check the sensors")
            # Ticks at which nobody asked are taken to have been like this one.
            self._prefix[name][0, self._known : tick + 1] = float(value[0]) - self.task.signals[name].error_bound
        self._known = tick + 1

    def _trace(self, q: Tensor, v: Tensor, tick: int, seen: Mapping[str, Tensor]) -> Trace:
        """Executed prefix and worst-case prediction of plans (B, N + 1, J)."""
        batch = len(q)
        obs = {k: x.expand(batch, *x.shape[1:]) for k, x in seen.items()}
        predicted = self.model.predict(q, v, obs, lead_s=self.task.ctrl_dt_s)
        return {
            k: torch.cat([self._prefix[k][:, :tick].expand(batch, -1).to(x), x], dim=1) for k, x in predicted.items()
        }

    def _plans(
        self, q: Tensor, v: Tensor, tick: int, seen: Mapping[str, Tensor], makers: list[Controller]
    ) -> list[Plan]:
        """Plans (B, N + 1, J) with their robustness; those that are not finite are left out."""
        rho = self.model.rho(self._trace(q, v, tick, seen)).tolist()
        finite = (q.isfinite() & v.isfinite()).flatten(1).all(1).tolist()
        return [Plan(tick, q[i], v[i], rho[i], makers[i]) for i in range(len(rho)) if finite[i] and np.isfinite(rho[i])]

    def _candidates(self, start: tuple[Tensor, Tensor], tick: int, seen: Mapping[str, Tensor]) -> list[Plan]:
        """The plan of before, shifted, and the network's."""
        q, v = start
        n = self.task.steps - tick
        at = torch.tensor([tick], device=self.model.device)
        features = self.model.features(q, v, at, seen, self.model.progress(self._prefix, at))
        knots = self.network(features)
        plan_v = self.model.motion.rollout(q, v, knots)[1][:, : n + 1]
        makers: list[Controller] = ["policy"]
        if self.config.plan.refine and self._plan is not None:
            # Where the backup has led away from the plan, come back to its velocities over a knot interval.
            before = self._plan.v[tick - self._plan.tick :][None]
            before = before + self._tensor(self.model.motion.hat[: n + 1, :1]) * (v - before[:, 0])[:, None]
            plan_v = torch.cat([before, plan_v])
            makers.insert(0, self._plan.maker)
        plan_q = self.model.motion.integrate(q.expand(len(plan_v), -1), plan_v)
        return self._plans(plan_q, plan_v, tick, seen, makers)

    def _refine(
        self, start: tuple[Tensor, Tensor], tick: int, seen: Mapping[str, Tensor], plans: list[Plan]
    ) -> list[Plan]:
        """Polyak steps on knots added to the plans, from several starts at once; warm-started from tick to tick.

        A step moves the knots by ``L / |g|^2 * g``: exactly as far as the linearised loss L (how far the
        parts stay below the margin) asks for, times a factor that differs from start to start. Best of all iterates.
        """
        cfg, motion, limit = self.config.plan, self.model.motion, self.model.velocity_rad_s
        q, _ = start
        ticks = self.task.steps - tick + 1
        base = torch.stack([plans[i % len(plans)].v for i in range(cfg.starts)])
        hat = self._tensor(motion.hat[:ticks, 1:])
        shape = (cfg.starts, motion.knots, base.shape[-1])
        knots = torch.randn(shape, generator=self._random, device=self.model.device) * cfg.spread_rad_s
        knots[: (cfg.starts + 1) // 2] = 0.0  # half of the starts are the plans themselves
        factor = self._tensor(np.resize(STEP_FACTORS, cfg.starts))[:, None, None]
        found = plans[0]
        for i in range(cfg.iterations + 1):
            last = i == cfg.iterations
            with torch.set_grad_enabled(not last):
                knots.requires_grad_(not last)
                plan_v = (base + hat @ knots).clamp(-limit, limit)
                plan_q = motion.integrate(q.expand(cfg.starts, -1), plan_v)
                trace = self._trace(plan_q, plan_v, tick, seen)
                if not last:
                    shortfall = torch.relu(cfg.aim - self.model.part_rhos(trace, smooth=cfg.smooth)).sum(-1)
                    (gradient,) = torch.autograd.grad(shortfall.sum(), knots)
            if i:
                rho = self.model.rho({k: x.detach() for k, x in trace.items()})
                best = int(rho.nan_to_num(nan=-torch.inf).argmax())
                if rho[best] > found.rho:
                    found = Plan(tick, plan_q[best].detach(), plan_v[best].detach(), float(rho[best]), "refinement")
            if not last:
                step = shortfall.detach()[:, None, None] / (gradient**2).sum((1, 2), keepdim=True).clamp_min(1e-12)
                change = (factor * step * gradient).nan_to_num_(nan=0.0)
                knots = knots.detach() - change.clamp(-cfg.step_rad_s, cfg.step_rad_s)
        return [found] if found is not plans[0] else []

    # ---- committing ----------------------------------------------------------------

    def _commit(self, plan: Plan, q: np.ndarray, v: np.ndarray, verdict: Verdict, began: float) -> ActionChunk:
        """The plan up to its switch, then braking."""
        s = verdict.switch
        brake_q, brake_v = self.model.motion.brake(q[s], v[s])
        self._plan = plan
        self._chunk = ActionChunk(
            start_s=plan.tick * self.task.ctrl_dt_s,
            dt_s=self.task.ctrl_dt_s,
            joint_pos=np.concatenate([q[: s + 1], brake_q[1:]]),
            joint_vel=np.concatenate([v[: s + 1], brake_v[1:]]),
            tail=s + 1,
            controller=plan.maker,
            stops=verdict.stops,
            info=self._info(plan, verdict, began),
        )
        return self._chunk

    def _go_on(self, tick: int, began: float, verdict: Verdict, fault: str = "") -> ActionChunk:
        """The stored chunk from this tick on."""
        old = self._chunk
        skip = min(max(round(tick - old.start_s / old.dt_s), 0), len(old.joint_pos) - 1)
        tail = max(old.tail - skip, 0)
        self._chunk = ActionChunk(
            start_s=tick * old.dt_s,
            dt_s=old.dt_s,
            joint_pos=old.joint_pos[skip:],
            joint_vel=old.joint_vel[skip:],
            tail=tail,
            controller="backup" if tail == 0 else old.controller,
            stops=tuple(i - skip for i in old.stops if i >= skip),
            info=self._info(self._plan, verdict, began) | ({"fault": fault} if fault else {}),
        )
        return self._chunk

    def _info(self, plan: Plan | None, verdict: Verdict, began: float) -> dict[str, object]:
        info: dict[str, object] = {"plan_ms": 1e3 * (time.perf_counter() - began)}
        info |= {"certified_rho": verdict.rho, "switch": verdict.switch}
        if plan is not None:
            info |= {"plan_rho": plan.rho, "plan_joint_pos": plan.q.cpu().numpy()}
        return info


def load(task: ArmTask, config: StlConfig, weights: Mapping[str, torch.Tensor], device: str) -> StlPolicy:
    """A policy from a network's weights; see `policies.learner.PolicyKind`.

    Raises:
        RunError: Names or shapes of the weights do not fit, or they are not finite.
    """
    model = PlanModel(task, config.plan.reserve, device, config.plan.conformal)
    network = PlanNetwork(model, config.train.width, config.train.depth)
    if not config.plan.network:
        network.scramble(seed=0)
    else:
        load_weights(network, weights)
    return StlPolicy(task, config, network.to(device).eval(), model)
