"""Robustness over batches of traces in torch: exact and smooth, with cheap gradients."""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from torch import Tensor

from robo.core.errors import SpecError
from tasks.stl import compiled
from tasks.stl.means import means
from tasks.stl.program import Algebra, Leaf, Plan, check_shapes, plan
from tasks.stl.smooth import LogSumExp, Smoothing, smoothing
from tasks.stl.syntax import Formula, Library, channel, margin

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
    "exp": torch.exp,
    "tanh": torch.tanh,
    "min": lambda *args: functools.reduce(torch.minimum, _tensors(args)),
    "max": lambda *args: functools.reduce(torch.maximum, _tensors(args)),
    "norm": _norm,
}
"""The functions of formulas on tensors."""


Smooth: TypeAlias = float | Smoothing | None


def robustness(formula: Formula, signals: Mapping[str, Any], dt: float, smooth: Smooth) -> Tensor:
    """See `Formula.robustness`."""
    rows, batch, samples = _rows(formula, signals)
    return _evaluate(plan(formula, dt, samples, whole=True), rows, batch, smooth)


def robustness_at_start(formula: Formula, signals: Mapping[str, Any], dt: float, smooth: Smooth) -> Tensor:
    """See `Formula.robustness_at_start`."""
    rows, batch, samples = _rows(formula, signals)
    return _evaluate(plan(formula, dt, samples, whole=False), rows, batch, smooth).squeeze(1)


def bounds_at_start(
    formula: Formula, signals: Mapping[str, Any], dt: float, known: int | Tensor
) -> tuple[Tensor, Tensor]:
    """See `Formula.bounds_at_start`."""
    rows, batch, samples = _rows(formula, signals)
    made = plan(formula, dt, samples, whole=False)
    leaves = _leaves(made, rows, batch)
    device = leaves[0].device
    count = torch.as_tensor(known, device=device).reshape(-1, 1)
    if len(count) not in (1, batch):
        raise SpecError(f"known has {len(count)} entries, expected one, or one for each of {batch} traces")
    low, high = [], []
    firsts = [first for _, first, _ in made.leaves()] or [0]
    for first, leaf in zip(firsts, leaves, strict=True):
        seen = torch.arange(first, first + leaf.shape[1], device=device) < count
        low.append(torch.where(seen, leaf, -math.inf))
        high.append(torch.where(seen, leaf, math.inf))
    # Every leaf enters monotonically, so the two ends are the robustness of two traces.
    both = [torch.cat(ends) for ends in zip(low, high, strict=True)]
    result = _exact(made, both).squeeze(1)
    return result[:batch], result[batch:]


def _rows(formula: Formula, signals: Mapping[str, Any]) -> tuple[dict[str, Tensor], int, int]:
    """The signals used as float tensors (batch or 1, time), the batch and the number of samples."""
    if not formula.signals:
        raise SpecError(f"formula {str(formula)!r} uses no signal, so the shape of its robustness is unknown")
    rows = {v.channel: _tensor(channel(v, signals)) for v in formula.channels}
    batch, samples = check_shapes({name: tuple(tensor.shape) for name, tensor in rows.items()})
    tensors = list(rows.values())
    if any(tensor.dtype != tensors[0].dtype or tensor.device != tensors[0].device for tensor in tensors):
        # Numbers from numpy join the tensors: on their device, in the wider of the dtypes.
        dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors))
        device = next((t.device for t in signals.values() if isinstance(t, Tensor)), torch.device("cpu"))
        rows = {name: tensor.to(device, dtype) for name, tensor in rows.items()}
    return rows, batch, samples


def _tensor(signal: Any) -> Tensor:
    """A signal as a float32 or float64 tensor (batch or 1, time)."""
    tensor = signal if isinstance(signal, Tensor) else torch.from_numpy(np.array(signal))
    if not tensor.is_floating_point():
        tensor = tensor.to(torch.get_default_dtype())
    if tensor.dtype not in (torch.float32, torch.float64):
        raise SpecError(f"signals are {tensor.dtype}; robustness needs float32 or float64")
    return tensor[None] if tensor.ndim == 1 else tensor


def _leaves(made: Plan, rows: Mapping[str, Tensor], batch: int) -> list[Tensor]:
    """Values of the leaves a plan needs, (batch, n) each."""
    leaves = []
    for leaf, first, last in made.leaves():
        whole = first == 0 and last == made.samples - 1
        channels = [v.channel for v in leaf.predicate.channels]
        cut = {n: rows[n] if whole else rows[n][:, first : last + 1] for n in channels}
        value = margin(leaf.predicate, cut, LIBRARY, leaf.negated)
        leaves.append(value if value.shape[0] == batch else value.expand(batch, -1))
    # A formula such as `x > 0 or true` reads nothing, but still has a batch, a dtype, a device, and a gradient: zero.
    return leaves or [functools.reduce(torch.add, (row[:, :0] for row in rows.values())).expand(batch, 0)]


def _evaluate(made: Plan, rows: Mapping[str, Tensor], batch: int, smooth: Smooth) -> Tensor:
    leaves = _leaves(made, rows, batch)
    if smooth is None:
        return _exact(made, leaves)
    how = smoothing(smooth)
    if isinstance(how, LogSumExp):
        return _smooth(made, leaves, how.temperature)
    value = _own(made.run(means(how, leaves, _far(leaves[0].dtype))), leaves)
    # A formula whose windows all lie beyond the trace is a constant; its gradient is zero, not absent.
    return value if value.requires_grad else value + torch.stack([leaf[:, :0].sum() for leaf in leaves]).sum()


# ---- exact -----------------------------------------------------------------------


def _exact(made: Plan, leaves: Sequence[Tensor]) -> Tensor:
    differentiable = torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves)
    if _is_compiled(leaves):
        return _Compiled.apply(made, *leaves) if differentiable else _run(made, leaves)[0]  # type: ignore[return-value]
    if differentiable:
        return _Exact.apply(made, *leaves)  # type: ignore[return-value]
    return _own(made.run(_Values(leaves)), leaves)


def _is_compiled(leaves: Sequence[Tensor]) -> bool:
    """Whether there is a compiled path for where these live; torch's own gives the same numbers everywhere."""
    return leaves[0].device.type == "cpu"


def _run(made: Plan, leaves: Sequence[Tensor], track: bool = False) -> tuple[Tensor, Tensor]:
    """Compiled: values (batch, n), and (`track`) the column of the bank each comes from, (batch, n) int32."""
    table = made.derived("table", compiled.table)
    bank = torch.cat([leaf.detach() for leaf in leaves], dim=1) if len(leaves) > 1 else leaves[0].detach()
    bank = bank.contiguous()
    value = bank.new_empty(len(bank), table.samples)
    scratch = bank.new_empty(table.scratch)
    if not track:
        compiled.run_values(table.rows, bank.numpy(), value.numpy(), scratch.numpy())
        return value, value.new_empty(0)
    # Two bytes are enough for most banks, and what is not written need not be moved.
    narrow = table.columns < torch.iinfo(torch.int16).max
    column = torch.empty(value.shape, dtype=torch.int16 if narrow else torch.int32)
    columns = np.empty(table.scratch, np.int32)
    compiled.run_tracked(table.rows, bank.numpy(), value.numpy(), column.numpy(), scratch.numpy(), columns)
    return value, column


class _Compiled(torch.autograd.Function):
    """Exact robustness on the CPU; backward is one scatter to the samples the values came from."""

    @staticmethod
    def forward(ctx: Any, made: Plan, *leaves: Tensor) -> Tensor:
        value, column = _run(made, leaves, track=True)
        ctx.save_for_backward(column)
        ctx.widths = [leaf.shape[1] for leaf in leaves]
        return value

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (column,) = ctx.saved_tensors
        bank = grad.new_empty(grad.shape[0], sum(ctx.widths))
        compiled.run_scatter(grad.contiguous().numpy(), column.numpy(), bank.numpy())
        return (None, *bank.split(ctx.widths, dim=1))


def _own(value: Tensor, leaves: Sequence[Tensor]) -> Tensor:
    """The value in memory of its own: what callers do to a result must not reach their signals."""
    storage = value.untyped_storage().data_ptr()
    return value.clone() if any(leaf.untyped_storage().data_ptr() == storage for leaf in leaves) else value


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
        return _own(value, leaves)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (column,) = ctx.saved_tensors
        bank = grad.new_zeros(grad.shape[0], sum(ctx.widths) + 1)
        bank.scatter_add_(1, column.expand(grad.shape[0], -1), grad)
        return (None, *bank[:, :-1].split(ctx.widths, dim=1))


# ---- smooth ----------------------------------------------------------------------


def _far(dtype: torch.dtype) -> float:
    """Stands for infinity in smooth sums: a finite number keeps gradients free of NaN."""
    return 1e30 if dtype == torch.float32 else 1e300


def _floor(dtype: torch.dtype) -> float:
    """Exponents below this change no sum in that precision; cut off, they cannot make denormals, which are slow."""
    return -40.0 if dtype == torch.float32 else -300.0


def _smooth(made: Plan, leaves: Sequence[Tensor], temperature: float) -> Tensor:
    if torch.is_grad_enabled() and any(leaf.requires_grad for leaf in leaves):
        return _SmoothFunction.apply(made, temperature, *leaves)  # type: ignore[return-value]
    algebra = _Smooth(leaves, temperature, record=False)
    return algebra.result(made.run(algebra))


class _SmoothFunction(torch.autograd.Function):
    """Smooth robustness as one function with a tape of its own: a handful of array operations each way."""

    @staticmethod
    def forward(ctx: Any, made: Plan, temperature: float, *leaves: Tensor) -> Tensor:
        ctx.algebra = _Smooth(leaves, temperature, record=True)
        ctx.root = made.run(ctx.algebra)
        return ctx.algebra.result(ctx.root)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        return (None, None, *ctx.algebra.backward(ctx.root, grad))


class _Traced:
    """Values (n, batch), time first so that windows are whole rows; and the gradient that flows back to them."""

    __slots__ = ("_gradient", "parent", "start", "value")

    def __init__(self, value: Tensor, parent: _Traced | None = None, start: int = 0) -> None:
        self.value, self.parent, self.start = value, parent, start
        self._gradient: Tensor | None = None

    def gradient(self) -> Tensor:
        """The sum of what has flowed back so far; a cut shares its parent's."""
        if self.parent is not None:
            return self.parent.gradient()[self.start : self.start + self.value.shape[0]]
        if self._gradient is None:
            self._gradient = torch.zeros_like(self.value)
        return self._gradient


class _Smooth(Algebra[_Traced]):
    """Log-sum-exp for max and its mirror for min, on values multiplied by the temperature.

    The factor goes in at the leaves and out at the root, so gradients need none.
    """

    def __init__(self, leaves: Sequence[Tensor], temperature: float, record: bool) -> None:
        like = leaves[0]
        self.batch, self.temperature = like.shape[0], temperature
        self.floor, self.far = _floor(like.dtype), _far(like.dtype)
        self.like = like
        self.widths = [leaf.shape[1] for leaf in leaves]
        whole = torch.cat([leaf.detach() for leaf in leaves], dim=1) if len(leaves) > 1 else like.detach()
        scaled = torch.mul(whole.t(), temperature, out=like.new_empty(whole.shape[1], self.batch))
        self.bank = _Traced(scaled)
        self.ends = iter(itertools.accumulate(self.widths, initial=0))
        self.start = next(self.ends)
        self.tape: list[Callable[[], None]] | None = [] if record else None
        self.filled = False

    def result(self, root: _Traced) -> Tensor:
        value = root.value
        if self.filled:
            value = torch.where(value.abs() < 0.1 * self.far, value, value.sign() * math.inf)
        return value.t() / self.temperature

    def backward(self, root: _Traced, grad: Tensor) -> list[Tensor]:
        if self.tape is None:
            raise RuntimeError("the gradient of smooth robustness was asked for twice")
        root.gradient().add_(grad.t())
        for step in reversed(self.tape):
            step()
        self.tape = None
        return list(self.bank.gradient().t().split(self.widths, dim=1))

    def leaf(self, leaf: Leaf, first: int, last: int) -> _Traced:
        start, self.start = self.start, next(self.ends)
        return self.cut(self.bank, start, self.start)

    def fill(self, top: bool, count: int) -> _Traced:
        self.filled = True
        return _Traced(self.like.new_full((count, self.batch), self.far if top else -self.far))

    def cut(self, x: _Traced, start: int, stop: int) -> _Traced:
        if start == 0 and stop == x.value.shape[0]:
            return x
        return _Traced(x.value[start:stop], x, start)

    def join(self, pieces: Sequence[_Traced]) -> _Traced:
        y = _Traced(torch.cat([piece.value for piece in pieces]))
        if self.tape is not None:

            def back() -> None:
                parts = y.gradient().split([piece.value.shape[0] for piece in pieces])
                for piece, part in zip(pieces, parts, strict=True):
                    piece.gradient().add_(part)

            self.tape.append(back)
        return y

    def flip(self, x: _Traced) -> _Traced:
        y = _Traced(x.value.flip(0))
        if self.tape is not None:
            self.tape.append(lambda: _discard(x.gradient().add_(y.gradient().flip(0))))
        return y

    def pick(self, x: _Traced, y: _Traced, largest: bool) -> _Traced:
        a, b = x.value, y.value
        z = _Traced(torch.logaddexp(a, b) if largest else torch.logaddexp(-a, -b).neg_())
        if self.tape is not None:
            share = (a - b if largest else b - a).clamp_(self.floor, -self.floor).sigmoid_()

            def back() -> None:
                grad = z.gradient()
                to_x = share * grad
                x.gradient().add_(to_x)
                y.gradient().add_(grad).sub_(to_x)

            self.tape.append(back)
        return z

    def reduce(self, x: _Traced, largest: bool) -> _Traced:
        value, share = self._log_sum_exp(x.value, largest)
        y = _Traced(value[None])
        if self.tape is not None:
            self.tape.append(lambda: _discard(x.gradient().addcmul_(share, y.gradient())))
        return y

    def window(self, x: _Traced, width: int, largest: bool) -> _Traced:
        if width == 1:
            return x
        if width > _UNFOLD_WIDTH:
            return self._wide_window(x, width, largest)
        samples, batch = x.value.shape
        count = samples - width + 1
        unfolded = x.value.as_strided((width, count, batch), (batch, batch, 1), x.value.storage_offset())
        value, share = self._log_sum_exp(unfolded, largest)
        y = _Traced(value)
        if self.tape is not None:

            def back() -> None:
                # Row i of `spread` is row i of the windows' gradients, moved i samples on: their sum is x's gradient.
                spread = x.value.new_zeros(width, samples, batch)
                diagonal = spread.as_strided((width, count, batch), ((samples + 1) * batch, batch, 1))
                torch.mul(share, y.gradient(), out=diagonal)
                x.gradient().add_(spread.sum(0))

            self.tape.append(back)
        return y

    def _wide_window(self, x: _Traced, width: int, largest: bool) -> _Traced:
        # Unlike a max a sum may not count a sample twice: windows of the binary digits of `width`, side by side.
        count = self.length(x) - width + 1
        pieces: list[_Traced] = []
        offset, size = 0, 1
        while True:
            if width & size:
                pieces.append(self.cut(x, offset, offset + count))
                offset += size
            if offset == width:
                return functools.reduce(lambda a, b: self.pick(a, b, largest), pieces)
            length = self.length(x)
            x = self.pick(self.cut(x, 0, length - size), self.cut(x, size, length), largest)
            size *= 2

    def _log_sum_exp(self, x: Tensor, largest: bool) -> Pair:
        """Soft extreme over the first axis, and every element's share of it."""
        extreme = x.amax(0) if largest else x.amin(0)
        share = (x - extreme if largest else extreme - x).clamp_(min=self.floor).exp_()
        total = share.sum(0)
        if self.tape is not None:
            share.div_(total)
        return (extreme + total.log_() if largest else extreme - total.log_()), share

    def length(self, x: _Traced) -> int:
        return x.value.shape[0]


def _discard(_: Tensor) -> None:
    """Nothing: for steps that work in place."""
