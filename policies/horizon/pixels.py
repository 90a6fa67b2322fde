"""Where in pictures things are: what who sees is told, beside where they are in the world. numpy; mujoco."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from hardware.robots.mjcf import hand_in_tool
from policies.horizon import tool
from robo.core.errors import UnknownNameError
from tasks.arm import Camera
from tasks.tabletop.base import TabletopTask

NEAR_M = 0.01
"""What is nearer to a camera, or behind it, is in no picture."""


class Pixels:
    """Projection of places into pictures as high as wide (pinhole cameras).

    Args:
        task: The task.
        views: Names of its cameras.

    Raises:
        UnknownNameError: It has no such camera.
    """

    def __init__(self, task: TabletopTask, views: Sequence[str]) -> None:
        self._places = tool.places(task)
        cameras = {camera.name: camera for camera in task.cameras}
        for view in views:
            if view not in cameras:
                raise UnknownNameError("camera", view, cameras)
        hand = hand_in_tool(task.robot)
        self._lenses = [_Lens.of(cameras[view], hand) for view in views]

    def at(self, state: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Where places are in each view, (T, V, P, 2): right and down, the picture from -1 to 1; infinite behind it.

        What hides them is not asked.

        Args:
            state: ``observation.state``, (T, J + 8).
            around: ``observation.environment_state``, (T, E).
        """
        starts = np.array(self._places, int)[:, None] + np.arange(3)
        there = around[:, starts].reshape(len(state), -1, 3)
        return np.stack([lens.project(state, there) for lens in self._lenses], axis=1)


@dataclass(frozen=True)
class _Lens:
    """A camera in the frame of the base, or of the tool."""

    axes: np.ndarray
    place: np.ndarray
    focal: float
    held: bool
    known: bool

    @classmethod
    def of(cls, camera: Camera, hand: np.ndarray) -> _Lens:
        axes, place, held = camera.axes(), np.array(camera.position), camera.body is not None
        focal = 1 / np.tan(np.radians(camera.fovy_deg) / 2)
        if held:
            axes, place = hand[:3, :3] @ axes, hand[:3, :3] @ place + hand[:3, 3]
        # Where else a camera is mounted, where it looks does not follow from where the tool is.
        return cls(axes, place, focal, held, camera.body in (None, "hand"))

    def project(self, state: np.ndarray, there: np.ndarray) -> np.ndarray:
        """Places (T, P, 3) of the frame of the base, (T, P, 2)."""
        if self.held:
            there = np.einsum("tji,tpj->tpi", tool.turned(state), there - state[:, None, -7:-4])
        right, up, back = np.moveaxis((there - self.place) @ self.axes, -1, 0)
        far = np.maximum(-back, NEAR_M)[..., None]
        seen = self.known & (-back > NEAR_M)[..., None]
        return np.where(seen, self.focal * np.stack([right, -up], axis=-1) / far, np.inf)
