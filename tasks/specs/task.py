"""A system with a distribution of specifications, each with a start from which it can be satisfied."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Self

import numpy as np

from robo.core.errors import TaskError
from tasks.specs.grammar import Shape, fill
from tasks.stl import Formula, parse
from tasks.stl.syntax import Apply, Expr, Number, Predicate, Until, Variable, Window, conjunction
from tasks.system import SystemTask
from tasks.task import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A specification and a start.

    Attributes:
        mission, safety: Formulas with parameters ``c0 ..``; the safety, if any, is a state formula.
        constants: Their values, by name.
        start: State (n,).
    """

    mission: Formula
    safety: Formula | None
    constants: Mapping[str, float]
    start: np.ndarray


class SpecTask(SystemTask):
    """A system that is given its specification later: `with_spec`; or draws one: `problem`.

    A drawn specification is satisfiable by construction: regions are laid along a way that the system can go from the
    start, obstacles beside it. The class's own `mission` is an example, its `safety` what holds whatever is wanted.
    """

    policy = "spec"
    space: ClassVar[tuple[str, ...]]
    """Signals that are coordinates of a place; regions are balls in them."""
    region_m: ClassVar[tuple[float, float]]
    """Radii of drawn regions."""
    obstacle_m: ClassVar[tuple[float, float]]
    """Radii of drawn obstacles."""

    @abstractmethod
    def wander(self, rng: np.random.Generator) -> np.ndarray:
        """States (T + 1, n) of a safe way of the system from a random start."""

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """The start of a random way."""
        return {"state": self.wander(rng)[0]}

    def problem(self, shape: Shape, rng: np.random.Generator) -> Problem:
        """A problem whose formula has a given shape, with constants and a start at random.

        Raises:
            TaskError: No way fits the shape.
        """
        for _ in range(1000):
            states = self.wander(rng)
            constants = self.fit(shape, states, rng)
            if constants is not None:
                mission, safety = self.formulas(shape)
                return Problem(mission=mission, safety=safety, constants=constants, start=states[0])
        raise TaskError(f"task {self.name}: no way in 1,000 fits {shape}")

    def formulas(self, shape: Shape) -> tuple[Formula, Formula | None]:
        """Mission and safety of a shape, with parameters ``c0 ..``."""
        mission, safety = shape.text(self.space, self.ctrl_dt_s)
        return parse(mission, signals=self.signals), parse(safety, signals=self.signals) if safety else None

    def fit(self, shape: Shape, states: np.ndarray, rng: np.random.Generator) -> dict[str, float] | None:
        """Constants with which a way (T + 1, n) satisfies a shape's formulas; None if there are none."""
        measured = self.measure(states)
        way = np.stack([measured[name] for name in self.space], axis=-1)
        return fill(shape, way, self.region_m, self.obstacle_m, rng)

    def pose(self, problem: Problem) -> Self:
        """The task with a problem's specification."""

        def bound(formula: Formula) -> Formula:
            return formula.bind(**{name: problem.constants[name] for name in formula.parameters})

        return self.with_spec(bound(problem.mission), bound(problem.safety) if problem.safety else None)

    def with_spec(self, mission: str | Formula, safety: str | Formula | None = None) -> Self:
        """The task with another specification.

        Args:
            mission: What is wanted. Parts ``G(...)`` without an interval of what speaks of one moment count as safety.
            safety: State formula besides the system's own.

        Raises:
            SpecError: A text is no formula over the task's signals, or a parameter is not bound.
            TaskError: It looks beyond the episode.
        """
        wanted = parse(mission, signals=self.signals) if isinstance(mission, str) else mission
        kept, always = split_safety(wanted)
        own = type(self).safety
        texts = [own, *([str(safety)] if safety else []), *(str(part) for part in always)]
        task = copy.copy(self)
        for name in {"formula", "safety_formula", "mission_formula"} & set(vars(task)):
            delattr(task, name)  # made of the old one
        task.mission = f"always[0,{self.horizon_s:g}]({own})" if kept is None else str(kept)  # type: ignore[misc]
        task.safety = " and ".join(f"({text})" for text in texts)  # type: ignore[misc]
        task.validate_formulas()
        return task

    def success(self, trace: Mapping[str, Array]) -> bool:
        """There is no measure beside the specification."""
        return bool(self.formula.rho(trace, self.ctrl_dt_s)[0] > 0)

    def draw_regions(self, axes: Axes) -> None:
        """Draw the balls that the specification speaks of, the first two coordinates of each."""
        from matplotlib.patches import Circle

        for predicate in self.formula.predicates:
            ball = _ball(predicate, self.space)
            if ball is not None:
                centre, radius = ball
                colour = "mediumseagreen" if predicate.op.startswith("<") else "0.45"
                axes.add_patch(Circle((centre[0], centre[1]), radius, facecolor=colour, alpha=0.45))


def split_safety(formula: Formula) -> tuple[Formula | None, list[Formula]]:
    """What of a conjunction is wanted, if anything, and what must hold at every moment: ``G(...)``, unbounded."""
    kept: list[Formula] = []
    always: list[Formula] = []
    for part in formula.conjuncts:
        forever = isinstance(part, Window) and part.op == "G" and part.interval.numbers() == (0.0, float("inf"))
        if forever and not any(isinstance(node, Window | Until) for node in part.arg.walk()):  # type: ignore[union-attr]
            always.append(part.arg)  # type: ignore[union-attr]
        else:
            kept.append(part)
    if not kept:
        return None, always
    return (conjunction(kept) if len(kept) > 1 else kept[0]), always


def _ball(predicate: Predicate, space: tuple[str, ...]) -> tuple[list[float], float] | None:
    """Centre and radius of ``norm(x - a, y - b, ...) < r`` (or ``>``); None for anything else."""
    distance, radius = predicate.left, predicate.right
    if not (isinstance(distance, Apply) and distance.op == "norm" and isinstance(radius, Number)):
        return None
    centre = {}
    for arg in distance.args:
        offset: tuple[Expr, Expr] | None = None
        if isinstance(arg, Variable):
            offset = (arg, Number(0.0))
        elif isinstance(arg, Apply) and arg.op in ("-", "+") and isinstance(arg.args[0], Variable):
            offset = (arg.args[0], arg.args[1] if arg.op == "-" else Apply("neg", (arg.args[1],)))
        if offset is None or not isinstance(offset[0], Variable):
            return None
        value = _number(offset[1])
        if value is None:
            return None
        centre[offset[0].name] = value
    return ([centre[name] for name in space], radius.value) if set(centre) == set(space) else None


def _number(expr: Expr) -> float | None:
    if isinstance(expr, Number):
        return expr.value
    if isinstance(expr, Apply) and expr.op == "neg":
        value = _number(expr.args[0])
        return None if value is None else -value
    return None
