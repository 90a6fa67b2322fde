"""Smooth robustness by means that are not folded two by two: softmax and D-GMSR, in torch, by autograd.

A max over a window is a sum of something (an *account*) over its samples and then a function of that sum. Sums over all
windows of a width cost O(log width) additions each, whatever the width, without a sample being counted twice.
"""

from __future__ import annotations

import functools
import math
from abc import abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from tasks.stl.program import Algebra, Leaf
from tasks.stl.smooth import Dgmsr, Smoothing, Softmax


class Means(Algebra[Tensor]):
    """Values (batch, n); accounts (entries, batch, n).

    Args:
        leaves: Values of the plan's leaves, in order.
        far: Stands for infinity where infinity would make NaN.
    """

    def __init__(self, leaves: Sequence[Tensor], far: float) -> None:
        self.like, self.far = leaves[0], far
        self.leaves = iter(leaves)

    @abstractmethod
    def account(self, y: Tensor) -> Tensor:
        """What is summed, for a max over values y: (entries, batch, n). Minus infinity counts for nothing."""

    @abstractmethod
    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """The account of two sets of samples together."""

    @abstractmethod
    def settle(self, account: Tensor) -> Tensor:
        """The smooth max of what is in an account: (batch, n)."""

    def leaf(self, leaf: Leaf, first: int, last: int) -> Tensor:
        """The next leaf."""
        return next(self.leaves)

    def fill(self, top: bool, count: int) -> Tensor:
        """Infinities, (batch, count)."""
        return self.like.new_full((self.like.shape[0], count), math.inf if top else -math.inf)

    def cut(self, x: Tensor, start: int, stop: int) -> Tensor:
        """Samples start..stop - 1 of values or accounts."""
        return x[..., start:stop]

    def join(self, pieces: Sequence[Tensor]) -> Tensor:
        """Pieces one after the other in time."""
        return torch.cat(tuple(pieces), dim=-1)

    def flip(self, x: Tensor) -> Tensor:
        """Time reversed."""
        return x.flip(-1)

    def length(self, x: Tensor) -> int:
        """Number of samples."""
        return x.shape[-1]

    def pick(self, x: Tensor, y: Tensor, largest: bool) -> Tensor:
        """Smooth max or min of two."""
        return self.extreme([(x, 1), (y, 1)], largest)

    def reduce(self, x: Tensor, largest: bool) -> Tensor:
        """Smooth max or min over all of time."""
        return self.window(x, x.shape[-1], largest)

    def window(self, x: Tensor, width: int, largest: bool) -> Tensor:
        """Smooth max or min over every window of `width` samples."""
        return self.extreme([(x, width)], largest)

    def extreme(self, windows: Sequence[tuple[Tensor, int]], largest: bool) -> Tensor:
        """Smooth max or min over several windows at once."""
        if len(windows) == 1 and windows[0][1] == 1:
            return windows[0][0]
        sums = [self._sum(self.account(x if largest else -x), width) for x, width in windows]
        y = self.settle(functools.reduce(self.add, sums))
        return y if largest else -y

    def _sum(self, account: Tensor, width: int) -> Tensor:
        """Sums over every window: those of the binary digits of `width`, side by side."""
        count = account.shape[-1] - width + 1
        pieces: list[Tensor] = []
        offset, size = 0, 1
        while True:
            if width & size:
                pieces.append(account[..., offset : offset + count])
                offset += size
            if offset == width:
                return functools.reduce(self.add, pieces)
            length = account.shape[-1]
            account = self.add(account[..., : length - size], account[..., size:])
            size *= 2


class SoftmaxMeans(Means):
    """See `tasks.stl.smooth.Softmax`. An account: log of the sum of weights, and the weighted mean so far."""

    def __init__(self, leaves: Sequence[Tensor], smooth: Softmax, far: float) -> None:
        super().__init__(leaves, far)
        self.temperature = smooth.temperature

    def account(self, y: Tensor) -> Tensor:
        """See `Means`."""
        y = y.clamp(-self.far, self.far)
        return torch.stack([self.temperature * y, y])

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """See `Means`."""
        share = torch.sigmoid(a[0] - b[0])
        return torch.stack([torch.logaddexp(a[0], b[0]), share * a[1] + (1 - share) * b[1]])

    def settle(self, account: Tensor) -> Tensor:
        """See `Means`."""
        mean = account[1]
        return torch.where(mean.abs() < 0.1 * self.far, mean, mean.sign() * math.inf)


class DgmsrMeans(Means):
    """See `tasks.stl.smooth.Dgmsr`. The max over y is minus the min over z = -y.

    An account: sum of log z^2 over positive z, number of z that are not positive, sum of (-z)^(2 p) over these,
    number of samples.
    """

    def __init__(self, leaves: Sequence[Tensor], smooth: Dgmsr, far: float) -> None:
        super().__init__(leaves, far)
        self.epsilon, self.power = smooth.epsilon, smooth.power

    def account(self, y: Tensor) -> Tensor:
        """See `Means`."""
        z = -y
        there, good = z < math.inf, z > 0
        # What `where` leaves out must be finite all the same, or its gradient would be NaN.
        log = torch.where(good & there, 2 * torch.where(good & there, z, 1.0).log(), 0.0)
        bad = torch.where(good | (z == -math.inf), 0.0, -z).square().pow(self.power)
        bad = torch.where(z == -math.inf, self.far, bad)
        return torch.stack([log, (~good).to(z), bad, there.to(z)])

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        """See `Means`."""
        return a + b

    def settle(self, account: Tensor) -> Tensor:
        """See `Means`."""
        log, violated, bad, count = account
        n = count.clamp(min=1)
        root = math.sqrt(self.epsilon)
        product = torch.logaddexp(n * math.log(self.epsilon), log)
        held = (0.5 * product / n).exp() - root
        broken = root - (self.epsilon**self.power + bad / n).pow(0.5 / self.power)
        z = torch.where(violated > 0, broken, held)
        z = torch.where(bad >= self.far, -math.inf, z)
        return -torch.where(count > 0, z, math.inf)


def means(smooth: Smoothing, leaves: Sequence[Tensor], far: float) -> Means:
    """The algebra of a smoothing."""
    if isinstance(smooth, Softmax):
        return SoftmaxMeans(leaves, smooth, far)
    if isinstance(smooth, Dgmsr):
        return DgmsrMeans(leaves, smooth, far)
    raise TypeError(f"not a smoothing by means: {type(smooth).__name__}")
