"""What an environment shows of itself: pictures as observations, and one for people."""

from __future__ import annotations

from collections.abc import Sequence

import mujoco
import numpy as np
from gymnasium import spaces

from robo.core.errors import UnknownNameError
from sim.render import Renderer, frame_size

IMAGES = ("rgb", "depth", "seg")
"""Kinds of pictures: colour, depth [m], and which geom (its index in the model, -1 for none)."""


class Pictures:
    """Pictures by some cameras of a model, of its own states and those of its twins; see `Renderer`. Close it.

    Args:
        model: MuJoCo model.
        cameras: Their names; none: no renderer is opened.
        images: Which kinds, of `IMAGES`.
        size: Height and width, or one number for both [pixels].

    Raises:
        RoboError: Unknown camera or kind of picture; no renderer.
    """

    def __init__(
        self, model: mujoco.MjModel, cameras: Sequence[str], images: Sequence[str], size: int | tuple[int, int]
    ) -> None:
        self.model = model
        self.cameras, self.images, self.size = tuple(cameras), tuple(images), frame_size(size)
        self._renderer: Renderer | None = None
        self._pretty: Renderer | None = None
        if self.cameras:
            for kind in self.images:
                if kind not in IMAGES:
                    raise UnknownNameError("kind of picture", kind, IMAGES)
            self._renderer = Renderer(model, self.size, coarse="depth" not in self.images)
            for camera in self.cameras:
                self._renderer.camera(camera)

    def space(self) -> dict[str, spaces.Space]:
        """Spaces of ``rgb_<camera>`` and so on."""
        boxes = {
            "rgb": spaces.Box(0, 255, (*self.size, 3), np.uint8),
            "depth": spaces.Box(0.0, np.inf, self.size, np.float32),
            "seg": spaces.Box(-1, self.model.ngeom - 1, self.size, np.int32),
        }
        return {f"{kind}_{camera}": boxes[kind] for kind in self.images for camera in self.cameras}

    def take(self, data: mujoco.MjData) -> dict[str, np.ndarray]:
        """All pictures of a state whose positions are up to date."""
        if self._renderer is None:
            return {}
        return {
            f"{kind}_{camera}": getattr(self._renderer, kind)(data, camera)
            for camera in self.cameras
            for kind in self.images
        }

    def renew_textures(self, model: mujoco.MjModel) -> None:
        """Take over textures of a model that have changed; `take` shows those last taken over."""
        for renderer in (self._renderer, self._pretty):
            if renderer is not None:
                renderer.renew_textures(model)

    def pretty(self, data: mujoco.MjData, camera: str) -> np.ndarray:
        """A picture for people, (480, 640, 3) uint8.

        Raises:
            RenderError: No renderer works.
        """
        if self._pretty is None:
            self._pretty = Renderer(self.model, (480, 640), pretty=True)
        return self._pretty.rgb(data, camera)

    def close(self) -> None:
        """Free the renderers; safe to call twice."""
        for renderer in (self._renderer, self._pretty):
            if renderer is not None:
                renderer.close()
        self._renderer = self._pretty = None
