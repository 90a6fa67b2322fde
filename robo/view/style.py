"""Colours and words that all pictures share."""

from __future__ import annotations

from robo.data.rollout import CONTROLLERS

RGB = tuple[int, int, int]

CONTROLLER_RGB: dict[str, RGB] = dict(zip(CONTROLLERS, ((46, 139, 87), (235, 160, 30), (214, 60, 60)), strict=True))
"""Who is in control: the policy, the refinement, the backup."""

GOOD_RGB: RGB = (30, 120, 70)
BAD_RGB: RGB = (190, 45, 45)
INK_RGB: RGB = (35, 41, 49)
MUTED_RGB: RGB = (120, 128, 138)
RHO_RGB: RGB = (31, 102, 178)
PLAN_RGB: RGB = (232, 62, 140)
PATH_RGB: RGB = (225, 70, 70)

SERIES_RGB: tuple[RGB, ...] = (
    (46, 139, 87),
    (31, 102, 178),
    (196, 110, 20),
    (137, 80, 160),
    (214, 60, 60),
    (20, 150, 160),
    (120, 120, 40),
    (150, 100, 70),
)
"""Colours of predicates, in order of appearance."""


def unit(rgb: RGB) -> tuple[float, float, float]:
    """Colour in 0..1, as matplotlib and MuJoCo take it."""
    return rgb[0] / 255, rgb[1] / 255, rgb[2] / 255
