"""Tasks of any system with known dynamics: a car, a ship, a rover. Neither torch nor mujoco at import."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from tasks.task import Array, Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class SystemTask(Task):
    """A system in discrete time, ``state' = advance(state, control)``, one step every `ctrl_dt_s`.

    All there is to know lies in the state (..., n), obstacles and goals included: `sample` returns ``{"state": (n,)}``,
    the start. States and controls are numpy arrays or torch tensors with any leading axes; `advance`,
    `measure` and `features` are written once for both, and differentiable in torch almost everywhere.
    """

    state: ClassVar[Mapping[str, str]]
    """Components of the state, in order → unit."""
    control: ClassVar[Mapping[str, str]]
    """Components of the control, in order → unit."""
    control_low: ClassVar[tuple[float, ...]]
    control_high: ClassVar[tuple[float, ...]]
    """Bounds of the control; controls beyond them are cut."""
    policy = "npc"

    @abstractmethod
    def advance(self, state: Array, control: Array) -> Array:
        """The state one step later, (..., n), for controls (..., m) within their bounds."""

    @abstractmethod
    def measure(self, state: Array) -> dict[str, Array]:
        """All signals of a state, (...) each."""

    def features(self, state: Array) -> Array:
        """What a network is shown of a state, (..., F), of order one."""
        return state

    @abstractmethod
    def draw(self, axes: Axes, state: np.ndarray) -> None:
        """Draw what a state (n,) shows besides the path: road, obstacles, goals; sets the limits of the axes."""

    @abstractmethod
    def position(self, state: Array) -> Array:
        """Where a state is in the picture, (..., 2)."""

    # ---- what follows from these ---------------------------------------------

    def clip(self, control: Array) -> Array:
        """Controls (..., m) cut to their bounds."""
        xp = array_namespace(control)
        low, high = (
            xp.asarray(bound, dtype=control.dtype, device=control.device)
            for bound in (self.control_low, self.control_high)
        )
        return xp.minimum(xp.maximum(control, low), high)

    def squash(self, raw: Array) -> Array:
        """Controls (..., m) within their bounds from unbounded numbers; what networks and searches work on."""
        xp = array_namespace(raw)
        low, high = (
            xp.asarray(bound, dtype=raw.dtype, device=raw.device) for bound in (self.control_low, self.control_high)
        )
        return (low + high) / 2 + (high - low) / 2 * xp.tanh(raw)

    def roll_out(self, state: Array, controls: Array) -> Array:
        """States (..., N + 1, n) from a start (..., n) under controls (..., N, m)."""
        xp = array_namespace(state)
        states = [state]
        for k in range(controls.shape[-2]):
            states.append(self.advance(states[-1], controls[..., k, :]))
        return xp.stack(states, axis=-2)

    @property
    def state_size(self) -> int:
        """n."""
        return len(self.state)

    @property
    def control_size(self) -> int:
        """m."""
        return len(self.control)

    @cached_property
    def feature_size(self) -> int:
        """F."""
        return int(np.shape(self.features(np.zeros(self.state_size)))[-1])

    def validate(self) -> None:
        """See `Task.validate`.

        Raises:
            TaskError: As there; or bounds of the control do not fit, or a drawn start has another size.
        """
        super().validate()
        low, high = np.array(self.control_low), np.array(self.control_high)
        fits = low.shape == high.shape == (self.control_size,)
        if not (fits and np.isfinite([low, high]).all() and (low < high).all()):
            raise TaskError(
                f"task {self.name}: control_low and control_high must be {self.control_size} finite numbers each, "
                f"low below high, not {self.control_low} and {self.control_high}"
            )
        drawn = np.shape(self.sample(np.random.default_rng(0)).get("state", 0.0))
        if drawn != (self.state_size,):
            raise TaskError(
                f"task {self.name}: sample must return a state of {self.state_size} numbers ({', '.join(self.state)}), "
                f"not {drawn}"
            )


def system_task(task: Task) -> SystemTask:
    """The task, if it is one of a system.

    Raises:
        TaskError: It is of another kind.
    """
    if not isinstance(task, SystemTask):
        raise TaskError(f"task {task.name} is no system with known dynamics; train it with: --policy {task.policy}")
    return task
