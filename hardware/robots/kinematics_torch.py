"""Forward kinematics for torch with a gradient of its own.

Automatic differentiation through the chain of rotations costs several times the
forward pass; the geometric Jacobian gives the same gradient from what the forward
pass knows already: a point p beyond joint j moves with ``z_j x (p - o_j)``.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from hardware.robots.kinematics import Kinematics
from hardware.robots.robot import Robot
from robo.core.geometry import dot


class TorchKinematics(Kinematics):
    """`Kinematics` whose `points` has a fast backward on any device; q is (..., J), float32 or float64."""

    def __init__(self, robot: Robot) -> None:
        super().__init__(robot)
        joints = np.arange(1, robot.dof + 1)[:, None]
        # (J, P): does point p move with joint j?
        self._moves = torch.from_numpy((self.point_links[None, :] >= joints).astype(np.float64))

    def points(self, q: torch.Tensor) -> torch.Tensor:
        """Capsule ends and tool centre point: (..., J) → (..., P, 3) [m]."""
        return _Points.apply(q, self)


class _Points(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, kinematics: TorchKinematics) -> torch.Tensor:
        origins, axes = kinematics._chain(torch, q)
        points = kinematics._attach(torch, origins, axes, q)  # (3, P, ...)
        z = torch.stack([z for _, _, z in axes[1:]], dim=1)  # (3, J, ...)
        ctx.save_for_backward(points, torch.stack(origins[1:], dim=1), z)
        ctx.moves = kinematics._moves
        return points.movedim((0, 1), (-1, -2))

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        points, origins, axes = ctx.saved_tensors
        grad = grad.movedim((-1, -2), (0, 1))
        moves = ctx.moves.to(grad)
        # sum_p grad_p . (z_j x (p - o_j)) = z_j . (sum_p p x grad_p - o_j x sum_p grad_p)
        both: Any = ([1], [1])  # torch's own types do not know pairs of axes
        moment = torch.tensordot(moves, _cross(points, grad), dims=both).movedim(0, 1)
        force = torch.tensordot(moves, grad, dims=both).movedim(0, 1)
        return dot(axes, moment - _cross(origins, force)).movedim(0, -1), None


def _cross(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cross product over the first axis."""
    return torch.stack([a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]])
