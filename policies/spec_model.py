"""A specification as a list of parts that must all hold, over what was executed and what is predicted. torch."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from tasks.stl import Formula, parse
from tasks.task import Task

Tensor = torch.Tensor
Trace = dict[str, Tensor]
"""Signals by name, (B, T + 1) each, at all control ticks of an episode."""


class SpecModel:
    """What predictive controllers ask of a task's specification.

    Args:
        task: The task.
        device: Where tensors live.
        conformal: Subtracted from the robustness of every part.
    """

    def __init__(self, task: Task, device: str = "cpu", conformal: float = 0.0) -> None:
        self.device, self.conformal = torch.device(device), conformal
        self._dt_s, self._steps = task.ctrl_dt_s, task.steps
        # Gradients reach every part at once.
        self.mission = task.mission_formula.conjuncts
        always = [f"always[0,{task.horizon_s:g}]({part})" for part in task.safety_formula.conjuncts]
        self.safety: tuple[Formula, ...] = tuple(parse(text, signals=task.signals) for text in always)
        self.parts = (*self.mission, *self.safety)

    def trace(self, prefix: Mapping[str, Tensor], tick: Tensor, predicted: Mapping[str, Tensor]) -> Trace:
        """Whole-episode trace: what was executed before `tick` (B,), then the prediction, whose sample 0 lies at it."""
        times = torch.arange(self._steps + 1, device=self.device)
        ahead = times[None, :] - tick[:, None]
        index = ahead.clamp(0, next(iter(predicted.values())).shape[1] - 1)
        past = ahead < 0
        return {
            name: torch.where(past, prefix[name], torch.gather(value, 1, index)) for name, value in predicted.items()
        }

    def part_rhos(self, trace: Trace, smooth: float | None = None) -> Tensor:
        """Robustness of every part, (B, parts), mission first; smooth with a temperature, else exact."""
        found = [part.robustness_at_start(trace, self._dt_s, smooth=smooth) for part in self.parts]
        return torch.stack(found, dim=-1) - self.conformal

    def rho(self, trace: Trace) -> Tensor:
        """Exact robustness of the whole specification at the start of the episode: (B,)."""
        return self.part_rhos(trace).amin(-1)

    def progress(self, prefix: Mapping[str, Tensor], tick: Tensor) -> Tensor:
        """What is already certain of every part of the mission, (B, parts): its robustness' lower bound, in [-1, 1]."""
        low = [part.bounds_at_start(prefix, self._dt_s, known=tick)[0] for part in self.mission]
        return torch.stack(low, dim=-1).clamp(-0.1, 0.1) * 10.0
