"""Formulas as mixed-integer linear constraints."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from policies.planners.linear import Affine, Mode, Model, NotLinear, Truth
from policies.symbolic.arrays import Symbol
from policies.symbolic.formulas import Lists, Signals
from tasks.stl.program import Leaf
from tasks.stl.syntax import SCALAR_LIBRARY, Apply, Expr, Predicate, evaluate

FACES = 16
"""Sides of the polygon that stands for a circle."""


class Switches(Lists[Truth]):
    """A formula as implications: what is positive holds with at least a margin.

    Args:
        signals: Of the whole trace; numbers and `Affine`.
        model: Whose unknowns they are.
        aim: The margin; 0 in proofs.
    """

    def __init__(self, signals: Signals, model: Model, aim: float) -> None:
        super().__init__(signals)
        self.model, self.aim = model, aim

    def at(self, signals: Mapping[str, Symbol], leaf: Leaf) -> Truth:
        """See `Lists`."""
        predicate: Predicate = leaf.predicate
        upper, lower = predicate.left, predicate.right
        if predicate.op.startswith("<") != leaf.negated:
            upper, lower = lower, upper
        return self._above(upper, lower, signals)

    def both(self, x: Truth, y: Truth, largest: bool) -> Truth:
        """See `Lists`."""
        return self._of([x, y], largest)

    def reduce(self, x: list[Truth], largest: bool) -> list[Truth]:
        """See `Algebra`."""
        return [self._of(x, largest)]

    def fill(self, top: bool, count: int) -> list[Truth]:
        """See `Algebra`."""
        return [top] * count

    def _of(self, truths: Sequence[Truth], any_of: bool) -> Truth:
        return self.model.any_of(truths) if any_of else self.model.all_of(truths)

    def _above(self, upper: Expr, lower: Expr, signals: Mapping[str, Symbol]) -> Truth:
        """Whether ``upper - lower >= aim``."""
        for this, other, above in ((upper, lower, True), (lower, upper, False)):
            if not (isinstance(this, Apply) and this.op in ("abs", "norm", "min", "max")):
                continue
            if this.op in ("min", "max"):
                pairs = [(arg, other) if above else (other, arg) for arg in this.args]
                return self._of([self._above(a, b, signals) for a, b in pairs], (this.op == "max") == above)
            radius = evaluate(other, signals, _LIBRARY)
            if not isinstance(radius, Affine):
                args = [evaluate(arg, signals, _LIBRARY) for arg in this.args]
                return self._outside(args, radius + self.aim) if above else self._inside(args, radius - self.aim)
        difference = evaluate(upper, signals, _LIBRARY) - evaluate(lower, signals, _LIBRARY)
        return self.model.implied(difference - self.aim)

    def _inside(self, args: Sequence[Symbol], radius: float) -> Truth:
        """Whether a point lies in a ball."""
        faces, size, shrink = self._faces(args, radius)
        if size is None:
            return False
        reach = size * (shrink if self.model.mode is Mode.PLAN else 1.0)
        return self.model.all_of([self.model.implied(reach - face) for face in faces])

    def _outside(self, args: Sequence[Symbol], radius: float) -> Truth:
        """Whether a point lies outside a ball."""
        faces, size, shrink = self._faces(args, radius)
        if size is None:
            return True
        reach = size * (1.0 if self.model.mode is Mode.PLAN else shrink)
        return self.model.any_of([self.model.implied(face - reach) for face in faces])

    def _faces(self, args: Sequence[Symbol], radius: float) -> tuple[list[Symbol], float | None, float]:
        """What of a point's unknown coordinates is along each face's direction, the radius left for these, cos(pi/n).

        The radius is None where the known coordinates alone are beyond it.
        """
        rest = [x for x in args if isinstance(x, Affine)]
        left = radius**2 - sum(x**2 for x in args if not isinstance(x, Affine))
        if radius <= 0 or left < 0:
            return [], None, 1.0
        size = math.sqrt(left)
        if not rest:
            return [0.0], size, 1.0
        if len(rest) == 1:
            return [rest[0], -rest[0]], size, 1.0
        if len(rest) > 2:
            raise NotLinear("a distance in more than two unknown coordinates is not written as linear")
        angles = 2 * np.pi * np.arange(FACES) / FACES
        return [np.cos(a) * rest[0] + np.sin(a) * rest[1] for a in angles], size, math.cos(math.pi / FACES)


def _of_numbers(name: str):
    def apply(*args: Symbol) -> float:
        if any(isinstance(arg, Affine) for arg in args):
            raise NotLinear(f"{name} of an unknown within arithmetic is not written as linear")
        return SCALAR_LIBRARY[name](*args)

    return apply


_LIBRARY = {name: _of_numbers(name) for name in SCALAR_LIBRARY}
