"""Prediction for systems in torch: states → signals → robustness of every part; what a network is shown."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from policies.spec_model import SpecModel
from tasks.system import SystemTask

Tensor = torch.Tensor


class SystemModel(SpecModel):
    """Differentiable, batched prediction of one task.

    Args:
        task: The task.
        device: Where tensors live.
        conformal: Subtracted from the robustness of every part.
    """

    def __init__(self, task: SystemTask, device: str = "cpu", conformal: float = 0.0) -> None:
        super().__init__(task, device, conformal)
        self.task = task

    def features(self, state: Tensor, tick: Tensor, prefix: Mapping[str, Tensor]) -> Tensor:
        """Input of the network, (B, F): the task's features, time, progress."""
        time = tick[:, None].to(state.dtype) / self.task.steps
        return torch.cat([self.task.features(state), time, self.progress(prefix, tick)], dim=-1)

    @property
    def feature_size(self) -> int:
        """F."""
        return self.task.feature_size + 1 + len(self.mission)
