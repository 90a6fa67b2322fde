"""Robustness over batches of traces in torch: exact and smooth, with cheap gradients."""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import torch
from torch import Tensor

from robo.core.errors import SpecError
from tasks.stl.program import Algebra, Leaf, Plan, check_shapes, plan
from tasks.stl.syntax import Formula, Library, margin

Pair: TypeAlias = tuple[Tensor, Tensor]
"""Values (batch, n), and (batch or 1, n) the column of the bank each one comes from."""

_UNFOLD_WIDTH = 16
"""Widest smooth window that is unfolded; wider ones are built up from powers of two."""


def _tensors(args: tuple[Tensor | float, ...]) -> list[Tensor]:
    like = next(arg for arg in args if isinstance(arg, Tensor))
    return [arg if isinstance(arg, Tensor) else torch.full_like(like, arg) for arg in args]


def _norm(*args: Tensor | float) -> Tensor:
    # vector_norm has the subgradient zero at zero, where the root of a sum of squares has NaN.
    return torch.linalg.vector_norm(torch.stack(torch.broadcast_tensors(*_tensors(args)), dim=-1), dim=-1)


LIBRARY: Library = {
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "min": lambda *args: functools.reduce(torch.minimum, _tensors(args)),
    "max": lambda *args: functools.reduce(torch.maximum, _tensors(args)),
    "norm": _norm,
}
"""The functions of formulas on tensors."""


def robustness(formula: Formula, signals: Mapping[str, Any], dt: float, smooth: float | None) -> Tensor:
    """See `Formula.robustness`."""
    rows, batch, samples = _rows(formula, signals)
    return _evaluate(plan(formula, dt, samples, whole=True), rows, batch, smooth)


def robustness_at_start(formula: Formula, signals: Mapping[str, Any], dt: float, smooth: float | None) -> Tensor:
    """See `Formula.robustness_at_start`."""
    rows, batch, samples = _rows(formula, signals)
    return _evaluate(plan(formula, dt, samples, whole=False), rows, batch, smooth)[:, 0]


def bounds_at_start(
    formula: Formula, signals: Mapping[str, Any], dt: float, known: int | Tensor
) -> tuple[Tensor, Tensor]:
    """See `Formula.bounds_at_start`."""
    rows, batch, samples = _rows(formula, signals)
    made = plan(formula, dt, samples, whole=False)
    leaves = _leaves(made, rows, batch)
    device = leaves[0].device
    count = torch.as_tensor(known, device=device).reshape(-1, 1)
    low, high = [], []
    for (_, first, last), leaf in zip(made.leaves(), leaves, strict=True):
        seen = torch.arange(first, last + 1, device=device) < count
        low.append(torch.where(seen, leaf, -math.inf))
        high.append(torch.where(seen, leaf, math.inf))
    # Every leaf enters monotonically, so the two ends are the robustness of two traces.
    both = [torch.cat((a, b)) for a, b in zip(low, high, strict=True)]
    result = _exact(made, both)[:, 0]
    return result[: len(result) // 2], result[len(result) // 2 :]


def _rows(formula: Formula, signals: Mapping[str, Any]) -> tuple[dict[str, Tensor], int, int]:
    """The signals used as float tensors (batch or 1, time), the batch and the number of samples."""
    if not formula.signals:
        raise SpecError(f"formula {str(formula)!r} uses no signal, so the shape of its robustness is unknown")
    rows = {}
    for name in formula.signals:
        if name in signals:
            tensor = torch.as_tensor(signals[name])
            tensor = tensor if tensor.is_floating_point() else tensor.to(torch.get_default_dtype())
            rows[name] = tensor if tensor.ndim != 1 else tensor[None]
    batch, samples = check_shapes(formula, {name: tuple(tensor.shape) for name, tensor in rows.items()})
    return rows, batch, samples


def _leaves(made: Plan, rows: Mapping[str, Tensor], batch: int) -> list[Tensor]:
    """Values of the leaves a plan needs, (batch, n) each."""
    leaves = []
    for leaf, first, last in made.leaves():
        whole = first == 0 and last == made.samples - 1
        cut = {n: rows[n] if whole else rows[n][:, first : last + 1] for n in leaf.predicate.signals}
        value = margin(leaf.predicate, cut, LIBRARY, leaf.negated)
        leaves.append(value if value.shape[0] == batch else value.expand(batch, -1))
    return leaves


def _evaluate(made: Plan, rows: Mapping[str, Tensor], batch: int, smooth: float | None) -> Tensor:
    leaves = _leaves(made, rows, batch)
    if not leaves:
        like = next(iter(rows.values()))
        leaves = [like.new_zeros(batch, 0)]
    if smooth is None:
        return _exact(made, leaves)
    if not (math.isfinite(smooth) and smooth > 0):
        raise SpecError(f"smooth must be a positive temperature, or None for exact robustness; got {smooth!r}")
    return _smooth(made, leaves, smooth)


# ---- exact -----------------------------------------------------------------------


def _exact(made: Plan, leaves: Sequence[Tensor]) -> Tensor:
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
        return _Exact.apply(made, *leaves)  # type: ignore[return-value]
    return made.run(_Values(leaves))


class _Values(Algebra[Tensor]):
    """Plain max and min; leaves are handed out in the order the plan asks for them."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.like = leaves[0]
        self.leaves = iter(leaves)

    def leaf(self, leaf: Leaf, first: int, last: int) -> Tensor:
        return next(self.leaves)

    def fill(self, top: bool, count: int) -> Tensor:
        return self.like.new_full((self.like.shape[0], count), math.inf if top else -math.inf)

    def cut(self, x: Tensor, start: int, stop: int) -> Tensor:
        return x if start == 0 and stop == x.shape[1] else x[:, start:stop]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        return torch.cat(tuple(pieces), dim=1)

    def flip(self, x: Tensor) -> Tensor:
        return x.flip(1)

    def pick(self, x: Tensor, y: Tensor, largest: bool) -> Tensor:
        return torch.maximum(x, y) if largest else torch.minimum(x, y)

    def reduce(self, x: Tensor, largest: bool) -> Tensor:
        return x.amax(1, keepdim=True) if largest else x.amin(1, keepdim=True)

    def length(self, x: Tensor) -> int:
        return x.shape[1]


class _Tracked(Algebra[Pair]):
    """Max and min that also say which leaf sample the value is: all the gradient there is flows to that one."""

    def __init__(self, leaves: Sequence[Tensor]) -> None:
        self.like = leaves[0]
        widths = [leaf.shape[1] for leaf in leaves]
        self.total = sum(widths)
        columns = torch.arange(self.total, device=self.like.device)[None].split(widths, dim=1)
        self.leaves = iter(list(zip(leaves, columns, strict=True)))

    def leaf(self, leaf: Leaf, first: int, last: int) -> Pair:
        return next(self.leaves)

    def fill(self, top: bool, count: int) -> Pair:
        # Column `total` belongs to no leaf; what flows there is dropped.
        values = self.like.new_full((self.like.shape[0], count), math.inf if top else -math.inf)
        return values, torch.full((1, count), self.total, device=self.like.device)

    def cut(self, x: Pair, start: int, stop: int) -> Pair:
        return x[0][:, start:stop], x[1][:, start:stop]

    def join(self, pieces: Sequence[Pair]) -> Pair:
        rows = max(column.shape[0] for _, column in pieces)
        return (
            torch.cat([value for value, _ in pieces], dim=1),
            torch.cat([column.expand(rows, -1) for _, column in pieces], dim=1),
        )

    def flip(self, x: Pair) -> Pair:
        return x[0].flip(1), x[1].flip(1)

    def pick(self, x: Pair, y: Pair, largest: bool) -> Pair:
        value = torch.maximum(x[0], y[0]) if largest else torch.minimum(x[0], y[0])
        return value, torch.where(value == x[0], x[1], y[1])

    def reduce(self, x: Pair, largest: bool) -> Pair:
        value, where = x[0].max(1, keepdim=True) if largest else x[0].min(1, keepdim=True)
        return value, x[1].expand(value.shape[0], -1).gather(1, where)

    def length(self, x: Pair) -> int:
        return x[0].shape[1]


class _Exact(torch.autograd.Function):
    """Exact robustness; backward is one scatter to the samples the values came from."""

    @staticmethod
    def forward(ctx: Any, made: Plan, *leaves: Tensor) -> Tensor:
        algebra = _Tracked(leaves)
        value, column = made.run(algebra)
        ctx.save_for_backward(column)
        ctx.widths = [leaf.shape[1] for leaf in leaves]
        return value if value.data_ptr() != leaves[0].data_ptr() else value.clone()

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (column,) = ctx.saved_tensors
        bank = grad.new_zeros(grad.shape[0], sum(ctx.widths) + 1)
        bank.scatter_add_(1, column.expand(grad.shape[0], -1), grad)
        return (None, *bank[:, :-1].split(ctx.widths, dim=1))


# ---- smooth ----------------------------------------------------------------------

_FAR = 1e30
"""Stands for infinity in smooth sums: a finite number keeps gradients free of NaN."""


def _smooth(made: Plan, leaves: Sequence[Tensor], temperature: float) -> Tensor:
    algebra = _Smooth([leaf * temperature for leaf in leaves])
    result = made.run(algebra)
    if algebra.filled:
        result = torch.where(result.abs() < 0.1 * _FAR, result, result.sign() * math.inf)
    return result / temperature


class _Smooth(_Values):
    """Log-sum-exp for max and its mirror for min, on values already multiplied by the temperature."""

    filled = False

    def fill(self, top: bool, count: int) -> Tensor:
        self.filled = True
        return self.like.new_full((self.like.shape[0], count), _FAR if top else -_FAR)

    def pick(self, x: Tensor, y: Tensor, largest: bool) -> Tensor:
        return torch.logaddexp(x, y) if largest else -torch.logaddexp(-x, -y)

    def reduce(self, x: Tensor, largest: bool) -> Tensor:
        return x.logsumexp(1, keepdim=True) if largest else -(-x).logsumexp(1, keepdim=True)

    def window(self, x: Tensor, width: int, largest: bool) -> Tensor:
        if width == 1:
            return x
        x = x if largest else -x
        result = x.unfold(1, width, 1).logsumexp(2) if width <= _UNFOLD_WIDTH else self._binary(x, width)
        return result if largest else -result

    def _binary(self, x: Tensor, width: int) -> Tensor:
        # Unlike a max a sum may not count a sample twice: windows of the binary digits of `width`, side by side.
        count = x.shape[1] - width + 1
        result: Tensor | None = None
        offset, size = 0, 1
        while offset < width:
            if width & size:
                piece = x[:, offset : offset + count]
                result = piece if result is None else torch.logaddexp(result, piece)
                offset += size
            if offset < width:
                x = torch.logaddexp(x[:, :-size], x[:, size:])
                size *= 2
        assert result is not None
        return result
