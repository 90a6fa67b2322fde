"""Prediction for systems: raw controls → states → signals → robustness of every part; and the network. torch."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

import torch
from torch import nn

from tasks.stl import Formula, parse
from tasks.system import SystemTask

Tensor = torch.Tensor
Trace = dict[str, Tensor]
"""Signals by name, (B, T + 1) each, at all steps of an episode."""


class SystemModel:
    """Differentiable, batched prediction of one task.

    Args:
        task: The task.
        device: Where tensors live.
        dtype: Of all numbers; double where plans are judged, for a verdict must not hang on rounding.
    """

    def __init__(self, task: SystemTask, device: str = "cpu", dtype: torch.dtype = torch.float32) -> None:
        self.task, self.device, self.dtype = task, torch.device(device), dtype
        # The specification as a list of parts that must all hold: gradients reach every part at once.
        self.mission = tuple(part for part in task.mission_formula.conjuncts if part.signals)
        always = [f"always[0,{task.horizon_s:g}]({part})" for part in task.safety_formula.conjuncts]
        self.safety: tuple[Formula, ...] = tuple(parse(text, signals=task.signals) for text in always)
        self.parts = (*self.mission, *self.safety)

    def trace(self, prefix: Mapping[str, Tensor], tick: Tensor, states: Tensor) -> Trace:
        """Whole-episode trace: what was executed before `tick` (B,), then states (B, N + 1, n) from it on."""
        predicted = self.task.measure(states)
        times = torch.arange(self.task.steps + 1, device=self.device)
        ahead = times[None, :] - tick[:, None]
        index = ahead.clamp(0, states.shape[1] - 1)
        past = ahead < 0
        return {
            name: torch.where(past, prefix[name], torch.gather(value, 1, index)) for name, value in predicted.items()
        }

    def part_rhos(self, trace: Trace, smooth: float | None = None) -> Tensor:
        """Robustness of every part, (B, parts); smooth with a temperature, else exact. Mission first, then safety."""
        dt = self.task.ctrl_dt_s
        return torch.stack([part.robustness_at_start(trace, dt, smooth=smooth) for part in self.parts], dim=-1)

    def progress(self, prefix: Mapping[str, Tensor], tick: Tensor) -> Tensor:
        """What is already certain of every part of the mission, (B, parts): its robustness' lower bound, in [-1, 1]."""
        dt = self.task.ctrl_dt_s
        low = [part.bounds_at_start(prefix, dt, known=tick)[0] for part in self.mission]
        return torch.stack(low, dim=-1).clamp(-0.1, 0.1) * 10.0

    def features(self, state: Tensor, tick: Tensor, prefix: Mapping[str, Tensor]) -> Tensor:
        """Input of the network, (B, F): the task's features, time, progress."""
        time = tick[:, None].to(state.dtype) / self.task.steps
        return torch.cat([self.task.features(state), time, self.progress(prefix, tick)], dim=-1)

    @property
    def feature_size(self) -> int:
        """F."""
        return int(self.task.features(torch.zeros(1, self.task.state_size)).shape[-1]) + 1 + len(self.mission)


class ControlNetwork(nn.Module):
    """MLP after Meng & Fan (arXiv 2309.05131): state → raw controls of a whole episode, (B, T, m), unbounded."""

    def __init__(self, model: SystemModel, width: int, depth: int) -> None:
        super().__init__()
        self.steps, self.controls = model.task.steps, model.task.control_size
        sizes = [model.feature_size] + [width] * depth
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, self.steps * self.controls))

    def forward(self, features: Tensor) -> Tensor:
        """(B, F) → (B, T, m); row k is for k steps from now, whatever the time."""
        return self.body(features).reshape(-1, self.steps, self.controls)
