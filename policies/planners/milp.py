"""Planning as a mixed-integer linear program, solved by SciPy's HiGHS; and proofs that there is no plan at all.

After Raman et al., "Model Predictive Control with Signal Temporal Logic Specifications" (CDC 2014), where dynamics and
predicates are piecewise linear: the task's own code is run on unknowns, and a formula becomes one binary unknown for
every predicate and moment that does not depend on numbers alone.
"""

from __future__ import annotations

import numpy as np
import torch

from policies.planners.config import MilpConfig
from policies.planners.linear import Mode, Model, NotLinear
from policies.planners.plan_once import PlanOnce
from policies.planners.switches import Switches
from policies.symbolic.arrays import SymbolicArray, scalar
from robo.core.errors import TaskError
from tasks.stl import Formula
from tasks.stl.program import plan
from tasks.system import SystemTask

Tensor = torch.Tensor


class Milp(PlanOnce):
    """Any plan whose robustness is at least the aim; without one, any plan that is at least safe.

    Args:
        task: The task.
        config: Settings.

    Raises:
        TaskError: Dynamics or signals of the task are not piecewise linear.
    """

    def __init__(self, task: SystemTask, config: MilpConfig) -> None:
        super().__init__(task, config.aim)
        self.config = config
        start = task.sample(np.random.default_rng(0))["state"]
        program(task, start, self.model.parts, Mode.PLAN, config.aim)

    def solve(self, state: Tensor) -> Tensor:
        """See `PlanOnce`."""
        start = state[0].numpy()
        for parts in (self.model.parts, self.model.safety):
            model, controls = program(self.task, start, parts, Mode.PLAN, self.aim)
            found = model.solve(self.config.time_limit_s)
            if isinstance(found, np.ndarray):
                values = np.vectorize(lambda x, m=model, s=found: m.value(x, s), otypes=[float])(controls.items)
                return torch.from_numpy(self.task.clip(values))
        return torch.from_numpy(self.task.clip(np.zeros(controls.shape)))


def hopeless(task: SystemTask, start: np.ndarray, time_limit_s: float) -> bool | None:
    """Whether no plan satisfies the specification from a start (n,): proven (True), refuted by none (False), unknown.

    Everything that is not linear is rounded in favour of a plan, so True is a proof, up to the solver's tolerance.

    Raises:
        TaskError: Dynamics or signals of the task are not piecewise linear.
    """
    from policies.system_model import SystemModel

    model, _ = program(task, start, SystemModel(task).parts, Mode.PROOF, 0.0)
    found = model.solve(time_limit_s)
    return None if found is None else found is False


def program(
    task: SystemTask, start: np.ndarray, parts: tuple[Formula, ...], mode: Mode, aim: float
) -> tuple[Model, SymbolicArray]:
    """The program whose solutions are plans (T, m) that satisfy all parts from a start (n,).

    Raises:
        TaskError: Dynamics or signals of the task are not piecewise linear.
    """
    model = Model(mode)
    bounds = list(zip(task.control_low, task.control_high, strict=True))
    controls = model.wrap([[model.unknown(*bound) for bound in bounds] for _ in range(task.steps)])
    try:
        states = [model.wrap([float(x) for x in start])]
        for k in range(task.steps):
            states.append(task.advance(states[-1], controls[k]))
        measured = [task.measure(state) for state in states]
        signals = {name: [scalar(m[name]) for m in measured] for name in task.signals}
        switches = Switches(signals, model, aim)
        for part in parts:
            (holds,) = plan(part, task.ctrl_dt_s, task.steps + 1, whole=False).run(switches)
            model.require(holds - 1.0)
    except NotLinear as error:
        raise TaskError(
            f"task {task.name} is no mixed-integer linear program: {error}; try grad, cem, mppi or mpc"
        ) from error
    return model, controls
