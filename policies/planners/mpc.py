"""Planning as a nonlinear program, written down with CasADi and solved by IPOPT: multiple shooting, smooth robustness.

The task's own code is run on CasADi's symbols. Every part of the mission, and every part of safety at every moment,
is one constraint, "its smooth robustness is at least r"; r is maximised as far as is worthwhile.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import casadi
import numpy as np
import torch

from policies.planners.config import MpcConfig
from policies.planners.plan_once import PlanOnce
from policies.symbolic.arrays import SmoothNamespace, Symbol, SymbolicArray, Unknown, scalar
from policies.symbolic.formulas import SmoothMargins
from tasks.stl.program import plan
from tasks.system import SystemTask

Tensor = torch.Tensor
ENOUGH = 0.05
"""More robustness than this is not worth any effort."""
STEEPER = 4.0
"""Steps of the dynamics are this much steeper than the gentle ones that others follow the gradient of."""
EFFORT = 1e-4
"""What the mean square of a control, in shares of its range, costs in robustness."""


class Expression(Unknown):
    """A scalar of CasADi that numpy takes for one object; CasADi's own passes for an array of 1 x 1.

    Attributes:
        sx: CasADi's.
    """

    def __init__(self, namespace: Casadi, sx: Any) -> None:
        super().__init__(namespace)
        self.sx = sx


def _sx(x: Symbol) -> Any:
    return x.sx if isinstance(x, Expression) else float(x)  # type: ignore[arg-type]


class Casadi(SmoothNamespace):
    """Functions of CasADi's symbols."""

    def __init__(self) -> None:
        self._functions: dict[str, Callable[..., Any]] = {
            "negative": operator.neg,
            "abs": casadi.fabs,
            "maximum": casadi.fmax,
            "minimum": casadi.fmin,
            "add": operator.add,
            "subtract": operator.sub,
            "multiply": operator.mul,
            "divide": operator.truediv,
            "pow": operator.pow,
            "greater_equal": operator.ge,
            "greater": operator.gt,
        }

    def unary(self, name: str, x: Unknown) -> Symbol:
        """See `Namespace`."""
        return Expression(self, (self._functions.get(name) or getattr(casadi, name))(_sx(x)))

    def binary(self, name: str, x: Symbol, y: Symbol) -> Symbol:
        """See `Namespace`."""
        return Expression(self, (self._functions.get(name) or getattr(casadi, name))(_sx(x), _sx(y)))

    def unit_step(self, x: Unknown, gentle: float, sharp: float) -> Symbol:
        """See `Namespace`: the gentle step, for a solver follows gradients."""
        return Expression(self, 0.5 + 0.5 * casadi.tanh(min(STEEPER * gentle, sharp) * _sx(x)))

    def soft_extreme(self, x: Symbol, y: Symbol, temperature: float, largest: bool) -> Symbol:
        """See `SmoothNamespace`."""
        a, b, sign = _sx(x), _sx(y), 1.0 if largest else -1.0
        excess = casadi.log1p(casadi.exp(-temperature * casadi.fabs(a - b))) / temperature
        return Expression(self, (casadi.fmax(a, b) if largest else casadi.fmin(a, b)) + sign * excess)


class Mpc(PlanOnce):
    """Maximises the least robustness of all parts; begins anew from other controls while the plan does not satisfy.

    Args:
        task: The task.
        config: Settings.
    """

    def __init__(self, task: SystemTask, config: MpcConfig) -> None:
        super().__init__(task, config.aim)
        self.config, self._symbols = config, Casadi()
        self._solver, self._bounds = self._program()

    def solve(self, state: Tensor) -> Tensor:
        """See `PlanOnce`."""
        task, start = self.task, state[0].numpy()
        best, best_rho = task.squash(torch.zeros(task.steps, task.control_size, dtype=torch.float64)), -np.inf
        for k in range(self.config.starts):
            guess = task.squash(self.noise(1)[0]) if k else best
            states = task.roll_out(state, guess[None])[0, 1:]
            shares = self._share(guess.numpy(), inverse=False)
            found = self._solver(
                x0=np.concatenate([shares.ravel(), states.numpy().ravel(), [0.0]]), p=start, **self._bounds
            )
            solution = np.asarray(found["x"]).ravel()[: shares.size].reshape(shares.shape)
            if not np.isfinite(solution).all():
                continue
            control = torch.from_numpy(task.clip(self._share(solution, inverse=True)))
            rho = self.rho(state, control)
            if rho > best_rho:
                best, best_rho = control, rho
            if rho >= self.aim:
                break
        return best

    def _share(self, control: Any, inverse: bool) -> Any:
        """Controls (T, m) as shares -1..1 of their ranges, or back."""
        low, high = np.array(self.task.control_low), np.array(self.task.control_high)
        middle, half = (low + high) / 2, (high - low) / 2
        return control * half + middle if inverse else (control - middle) / half

    def _program(self) -> tuple[Any, dict[str, np.ndarray]]:
        """IPOPT on controls (as shares), states 1 .. T and r, with the start as parameter; and all bounds."""
        task, symbols = self.task, self._symbols
        steps, n, m = task.steps, task.state_size, task.control_size
        start, shares = casadi.SX.sym("start", n), casadi.SX.sym("u", steps * m)
        later, least = casadi.SX.sym("x", steps * n), casadi.SX.sym("r")

        def array(vector: Any, begin: int, size: int) -> SymbolicArray:
            return symbols.wrap([Expression(symbols, vector[begin + i]) for i in range(size)])

        controls = [self._share(array(shares, k * m, m), inverse=True) for k in range(steps)]
        states = [array(start, 0, n), *(array(later, k * n, n) for k in range(steps))]
        gaps = [states[k + 1] - task.advance(states[k], controls[k]) for k in range(steps)]
        measured = [task.measure(state) for state in states]
        signals = {name: [scalar(m[name]) for m in measured] for name in task.signals}
        margins = SmoothMargins(signals, symbols, self.config.smooth)
        wanted: list[Symbol] = []
        for part in self.model.mission:
            wanted += plan(part, task.ctrl_dt_s, steps + 1, whole=False).run(margins)
        for part in task.safety_formula.conjuncts:  # at every moment
            wanted += plan(part, task.ctrl_dt_s, steps + 1, whole=True).run(margins)
        constraints = [_sx(x) for gap in gaps for x in gap.items] + [_sx(x) - least for x in wanted if _matters(x)]
        options = {
            "print_time": False,
            "ipopt": {
                "print_level": 0,
                "sb": "yes",
                "max_iter": self.config.iterations,
                "tol": 1e-5,
                "acceptable_tol": 1e-4,
            },
        }
        cost = EFFORT * casadi.sumsqr(shares) / shares.numel() - least
        program = {
            "x": casadi.vertcat(shares, later, least),
            "p": start,
            "f": cost,
            "g": casadi.vertcat(*constraints),
        }
        solver = casadi.nlpsol("mpc", "ipopt", program, options)
        states_free, equations = np.full(steps * n, np.inf), np.zeros(steps * n)
        bounds = {
            "lbx": np.concatenate([-np.ones(steps * m), -states_free, [-np.inf]]),
            "ubx": np.concatenate([np.ones(steps * m), states_free, [ENOUGH]]),
            "lbg": np.zeros(len(constraints)),
            "ubg": np.concatenate([equations, np.full(len(constraints) - steps * n, np.inf)]),
        }
        return solver, bounds


def _matters(x: Symbol) -> bool:
    return isinstance(x, Expression) or not np.isposinf(x)
