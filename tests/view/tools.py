"""What tests of pictures share: a short rollout, colours by hue, a browser."""

from __future__ import annotations

import colorsys
import dataclasses
import io
from collections.abc import Iterator
from contextlib import contextmanager

import mujoco
import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from robo.data.rollout import ArmRollout
from robo.view.playback import Playback

OBSTACLES = {
    "post": (0.05, (0.85, 0.55, 0.10)),
    "ball": (0.08, (0.60, 0.30, 0.70)),
    "mover": (0.07, (0.90, 0.12, 0.12)),
}
"""Radius [m] and colour of the obstacles of reach_avoid."""

_FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
    "--disable-quic",
    "--disable-background-networking",
    "--no-first-run",
)


def in_sight(playback: Playback, eye: np.ndarray, name: str) -> bool:
    """Whether nothing stands between an eye and the middle of an obstacle, as posed now."""
    radius, _ = OBSTACLES[name]
    centre = playback.data.body(name).xpos
    forward = (centre - eye) / np.linalg.norm(centre - eye)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    up = np.cross(right, forward)
    seen = np.array([1, 1, 1, 0, 0, 0], np.uint8)
    for a, b in ((0, 0), (0.7, 0), (-0.7, 0), (0, 0.7), (0, -0.7)):
        ray = centre + radius * (a * right + b * up) - eye
        hit = np.array([-1], np.int32)
        mujoco.mj_ray(playback.model, playback.data, eye, ray, seen, 1, -1, hit)
        if hit[0] < 0 or playback.model.geom(hit[0]).name != name:
            return False
    return True


def shorten(rollout: ArmRollout, steps: int) -> ArmRollout:
    """The first steps of a rollout."""
    samples = steps + 1
    changes = {}
    for field in dataclasses.fields(rollout):
        value = getattr(rollout, field.name)
        if field.name in rollout.GROUPS and field.name != "instance":
            changes[field.name] = {name: array[:samples] for name, array in value.items()}
        elif isinstance(value, np.ndarray):
            changes[field.name] = value[: steps if field.name in rollout.PER_STEP else samples]
    return dataclasses.replace(rollout, **changes)


@contextmanager
def page(width: int, height: int) -> Iterator[Page]:
    """A page of a headless Chromium that draws WebGL in software."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=_FLAGS)
        try:
            yield browser.new_page(viewport={"width": width, "height": height})
        finally:
            browser.close()


def screenshot(page: Page) -> np.ndarray:
    """What the page shows, (H, W, 3) uint8."""
    return np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB"))


def share_of_hue(picture: np.ndarray, at: tuple[float, float], radius: float, rgb: tuple[float, float, float]) -> float:
    """How much of a disc, 0..1, has the hue of a colour: shading changes a colour's value, not its hue."""
    h, w, _ = picture.shape
    y, x = np.mgrid[:h, :w]
    pixels = picture[(x - at[0]) ** 2 + (y - at[1]) ** 2 <= radius**2] / 255.0
    if len(pixels) == 0:
        return 0.0
    hue = colorsys.rgb_to_hsv(*rgb)[0]
    value, low = pixels.max(1), pixels.min(1)
    chroma = value - low
    hues = np.array([colorsys.rgb_to_hsv(*p)[0] for p in pixels])
    off = np.abs((hues - hue + 0.5) % 1.0 - 0.5)
    return float(np.mean((off < 0.06) & (chroma > 0.35 * value) & (value > 0.15)))
