"""Where in pictures things are: what who sees is told, beside where they are in the world. numpy; mujoco."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from hardware.robots.mjcf import hand_in_tool
from policies.horizon import tool
from robo.core.errors import UnknownNameError
from tasks.tabletop.base import TabletopTask

NEAR_M = 0.01
"""What is nearer to a camera, or behind it, is in no picture."""
ROUNDS, OUTLYING = 4, 2.0
"""Steps towards what fits; and what is off by so many times as much as usual counts half."""
GUESSED, LEAST_M = 3.0, 1e-3
"""A guess is off by so many times what is said, for part of it is known by heart and of unseen scenes is not; and it is
never surer than that."""


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
        chosen, hand = [cameras[view] for view in views], hand_in_tool(task.robot)
        self._axes, self._middles = np.array([c.axes() for c in chosen]), np.array([c.position for c in chosen])
        self._focal = 1 / np.tan(np.radians([c.fovy_deg for c in chosen]) / 2)
        # In the frame of the tool. Where else one is mounted, where it looks does not follow from where the tool is.
        self._held = np.array([c.body is not None for c in chosen])
        self._known = np.array([c.body in (None, "hand") for c in chosen])
        self._axes[self._held] = hand[:3, :3] @ self._axes[self._held]
        self._middles[self._held] = self._middles[self._held] @ hand[:3, :3].T + hand[:3, 3]

    def refined(
        self, state: np.ndarray, guess: np.ndarray, spread: np.ndarray, pixels: np.ndarray, off: np.ndarray
    ) -> np.ndarray:
        """Places that fit both a guess and where each view shows them: Gauss-Newton steps from the guess.

        Views that disagree with all the rest count less (Cauchy's weights, Holland and Welsch 1977), and not at all
        where the guess is in none of their pictures.

        Args:
            state: ``observation.state``, (T, J + 8).
            guess: Places in the frame of the base, (T, P, 3) [m].
            spread: How far the guess usually is off, (T, P, 3) [m].
            pixels: Where they are seen, (T, V, P, 2), see `at`.
            off: How far that usually is off, (T, V, P).

        Returns:
            (T, P, 3) [m].
        """
        found, trust = guess, 1 / np.maximum(GUESSED * spread, LEAST_M) ** 2
        cameras = self._cameras(state)
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

    def at(self, state: np.ndarray, around: np.ndarray) -> np.ndarray:
        """Where places are in each view, (T, V, P, 2): right and down, the picture from -1 to 1; infinite behind it.

        What hides them is not asked.

        Args:
            state: ``observation.state``, (T, J + 8).
            around: ``observation.environment_state``, (T, E).
        """
        starts = np.array(self._places, int)[:, None] + np.arange(3)
        there = around[:, starts].reshape(len(state), -1, 3)
        return self._see(self._cameras(state), there)[0]

    def _cameras(self, state: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Axes (T, V, 3, 3), columns right, up and back, and middles (T, V, 3) of cameras in the frame of the base."""
        turned, held = tool.turned(state)[:, None], self._held[:, None]
        axes = np.where(held[..., None], turned @ self._axes, self._axes)
        middles = np.where(held, state[:, None, -7:-4] + (turned @ self._middles[..., None])[..., 0], self._middles)
        return axes, middles

    def _see(self, cameras: tuple[np.ndarray, np.ndarray], there: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
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
