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

    def _forward(self, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        origins, rotations = self.frames(q)
        return self._attach(torch, origins, rotations, q), origins[..., 1:, :], rotations[..., 1:, :, 2]


class _Points(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, q: torch.Tensor, kinematics: TorchKinematics) -> torch.Tensor:
        points, origins, axes = kinematics._forward(q)
        ctx.save_for_backward(points, origins, axes)
        ctx.moves = kinematics._moves
        return points

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        points, origins, axes = ctx.saved_tensors
        moves = ctx.moves.to(grad)
        # sum_p grad_p . (z_j x (p - o_j)) = z_j . (sum_p p x grad_p - o_j x sum_p grad_p)
        moment = torch.matmul(moves, torch.linalg.cross(points, grad))
        force = torch.matmul(moves, grad)
        return (axes * (moment - torch.linalg.cross(origins, force))).sum(-1), None
