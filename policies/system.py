"""The policy interface of systems with known dynamics: state in, a plan of controls out."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from robo.core.errors import NonFiniteError
from robo.core.protocols import Controller, Obs


@dataclass(frozen=True, kw_only=True)
class ControlPlan:
    """Controls from now on; the first is applied now, the rest is what comes if nobody plans again.

    Attributes:
        control: (P, m), within the bounds.
        state: (P + 1, n) states it predicts, the present one first.
        controller: Who made it.
        info: Numbers for recordings (``plan_rho``, ``plan_ms``, ``certified`` ...).
    """

    control: np.ndarray
    state: np.ndarray
    controller: Controller
    info: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not np.all(np.isfinite(self.control)):
            raise NonFiniteError("plan of controls holds NaN or infinity; nothing of it is executed")


class SystemPolicy(ABC):
    """Maps observations of a system to plans, one call every ``ctrl_dt_s`` of the task.

    Observations hold ``state`` (n,) and ``time_s`` (1,).
    """

    task_name: str
    """Name of the task it was made for."""

    @abstractmethod
    def reset(self, obs: Obs, seed: int = 0) -> None:
        """Start an episode from its first observation."""

    @abstractmethod
    def act(self, obs: Obs) -> ControlPlan:
        """The plan from this observation on."""
