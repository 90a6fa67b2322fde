"""Where in pictures things are: what who sees is told, beside where they are in the world. numpy; mujoco."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardware.robots.mjcf import hand_in_tool
from policies.horizon import tool
from policies.perception.marks import NOWHERE
from robo.core.errors import UnknownNameError
from tasks.tabletop.base import TabletopTask

Cameras = tuple[np.ndarray, np.ndarray]
"""Axes (T, V, 3, 3), columns right, up and back, and middles (T, V, 3), in the frame of the base."""
NEAR_M = 0.01
"""What is nearer to a camera, or behind it, is in no picture."""
ROUNDS, OUTLYING = 4, 2.0
"""Steps towards what fits; and what is off by so many times as much as usual counts half."""
GUESSED, LEAST = 3.0, 1e-3
"""A guess is off by so many times what is said, for part of it is known by heart and of unseen scenes is not; and it is
never surer than that [m, rad]."""
SHARES = 33
"""Of the range of a joint that are tried, and again of what is between those next to the best."""


class Pixels:
    """Projection of places into pictures as high as wide (pinhole cameras).

    Args:
        task: The task.
        views: Names of its cameras.

    Attributes:
        count: Of places: first of bodies, then where those of joints are taken.

    Raises:
        UnknownNameError: It has no such camera.
    """

    def __init__(self, task: TabletopTask, views: Sequence[str]) -> None:
        self._places = np.array(tool.placed(task), int)[:, None] + np.arange(3)
        self._handles = tool.handles(task)
        self.count = len(self._places) + len(self._handles)
        cameras = {camera.name: camera for camera in task.cameras}
        for view in views:
            if view not in cameras:
                raise UnknownNameError("camera", view, cameras)
        chosen, hand = [cameras[view] for view in views], hand_in_tool(task.robot)
        self._axes, self._middles = np.array([c.axes() for c in chosen]), np.array([c.position for c in chosen])
        self._focal = 1 / np.tan(np.radians([c.fovy_deg for c in chosen]) / 2)
        # In the frame of the tool. Where else one is mounted, where it looks does not follow from where the tool is.
        self._held = np.array([c.body is not None for c in chosen])
        self._known = np.array([c.body in (None, "hand") for c in chosen])
        self._axes[self._held] = hand[:3, :3] @ self._axes[self._held]
        self._middles[self._held] = self._middles[self._held] @ hand[:3, :3].T + hand[:3, 3]

    def at(self, state: np.ndarray, scene: np.ndarray) -> np.ndarray:
        """Where places are in each view, (T, V, count, 2): right and down, the picture from -1 to 1; infinite behind
        it.

        What hides them is not asked.

        Args:
            state: ``observation.state``, (T, J + 8).
            scene: See `policies.horizon.tool.scene`, (T, K).
        """
        there = [scene[:, self._places], *(each.at(scene, scene[:, [each.value]]) for each in self._handles)]
        return self._see(self._cameras(state), np.concatenate(there, axis=1))[0]

    def corrected(
        self, state: np.ndarray, scene: np.ndarray, spread: np.ndarray, pixels: np.ndarray, off: np.ndarray
    ) -> np.ndarray:
        """A scene whose places and joints fit both a guess and where each view shows them.

        Views that disagree with all the rest count less (Cauchy's weights, Holland and Welsch 1977).

        Args:
            state: ``observation.state``, (T, J + 8).
            scene: The guess, see `policies.horizon.tool.scene`, (T, K).
            spread: How far it usually is off, (T, K).
            pixels: Where places are seen, (T, V, count, 2), see `at`.
            off: How far that usually is off, (T, V, count).

        Returns:
            (T, K).
        """
        found, unsure, cameras = scene.copy(), np.maximum(GUESSED * spread, LEAST), self._cameras(state)
        places, count = self._places, len(self._places)
        found[:, places] = self._triangulated(
            cameras, scene[:, places], unsure[:, places], pixels[:, :, :count], off[:, :, :count]
        )
        for i, each in enumerate(self._handles, count):
            found[:, each.value] = self._opened(
                cameras, each, found, unsure[:, each.value], pixels[:, :, i], off[:, :, i]
            )
        return found

    def _triangulated(
        self, cameras: Cameras, guess: np.ndarray, unsure: np.ndarray, pixels: np.ndarray, off: np.ndarray
    ) -> np.ndarray:
        """Places (T, P, 3) by Gauss-Newton steps from a guess; of views, those in whose pictures the guess is."""
        found, trust = guess, 1 / unsure**2
        shown = (np.abs(self._see(cameras, guess)[0]) < 1).all(axis=-1)
        for _ in range(ROUNDS):
            seen, slopes = self._see(cameras, found)
            inside = np.logical_and(shown, np.isfinite(seen).all(axis=-1))
            left = np.where(inside[..., None], pixels - seen, 0.0)
            far = np.linalg.norm(left, axis=-1) / off
            weight = np.where(inside, 1 / (1 + (far / OUTLYING) ** 2) / off**2, 0.0)
            # Rows of all views, one below the other.
            weighed = (weight[..., None, None] * slopes).transpose(0, 2, 4, 1, 3).reshape(*guess.shape, -1)
            rows = slopes.transpose(0, 2, 1, 3, 4).reshape(*guess.shape[:2], -1, 3)
            normal = weighed @ rows + trust[..., None] * np.eye(3)
            pull = weighed @ left.transpose(0, 2, 1, 3).reshape(*guess.shape[:2], -1, 1)
            pull += (trust * (guess - found))[..., None]
            found = found + np.linalg.solve(normal, pull)[..., 0]
        return found

    def _opened(
        self,
        cameras: Cameras,
        handle: tool.Handle,
        scene: np.ndarray,
        unsure: np.ndarray,
        pixels: np.ndarray,
        off: np.ndarray,
    ) -> np.ndarray:
        """Of all there is the value (T,) of a joint that fits best: what a scene (T, K) says can be the wrong end."""
        low, high, guess = handle.joint.low, handle.joint.high, scene[:, handle.value]
        middle, reach = np.full(len(scene), (low + high) / 2), (high - low) / 2
        for _ in range(2):
            tried = (middle[:, None] + reach * np.linspace(-1, 1, SHARES)).clip(low, high)
            seen = self._see(cameras, handle.at(scene, tried))[0]
            # Beyond the edge of a picture nothing is pointed at; all that is known is that it is not within.
            inside = (np.abs(seen) < 1).all(axis=-1)
            far = np.where(inside, np.linalg.norm(pixels[:, :, None] - seen, axis=-1), NOWHERE)
            doubt = np.log1p((far / off[..., None] / OUTLYING) ** 2).sum(axis=1)
            doubt += np.log1p(((tried - guess[:, None]) / unsure[:, None] / OUTLYING) ** 2)
            middle = tried[np.arange(len(tried)), doubt.argmin(axis=1)]
            reach = 2 * reach / (SHARES - 1)  # then between those next to the best
        return middle

    def _cameras(self, state: np.ndarray) -> Cameras:
        turned, held = tool.turned(state)[:, None], self._held[:, None]
        axes = np.where(held[..., None], turned @ self._axes, self._axes)
        middles = np.where(held, state[:, None, -7:-4] + (turned @ self._middles[..., None])[..., 0], self._middles)
        return axes, middles

    def _see(self, cameras: Cameras, there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Places (T, P, 3): where they are seen, (T, V, P, 2), and how that changes with them, (T, V, P, 2, 3)."""
        axes, middles = cameras
        at = (there[:, None] - middles[:, :, None]) @ axes
        far = np.maximum(-at[..., 2:], NEAR_M)
        focal = self._focal[:, None, None] * np.array([1.0, -1.0])
        seen = focal * at[..., :2] / far
        along = axes[:, :, None].swapaxes(-1, -2)
        slopes = (focal / far)[..., None] * along[..., :2, :] + (seen / far)[..., None] * along[..., 2:, :]
        shown = self._known[:, None, None] & (-at[..., 2:] > NEAR_M)
        return np.where(shown, seen, np.inf), slopes
