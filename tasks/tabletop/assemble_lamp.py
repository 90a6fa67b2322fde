"""Assemble a lamp: the bulb into the base, the hood over it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.tabletop import parts
from tasks.tabletop.base import RELEASED
from tasks.tabletop.furniture import CLEARANCE_M, SMOOTH, Assembly, Part, block, signals_of, socket, stages_of

if TYPE_CHECKING:
    import mujoco

PEG_HALF_M, PEG_M = 0.011, 0.022
WALL_M = 0.009
LEDGE_M, COLLAR_M = 0.046, 0.026
"""Height of the base's ledge, on which the hood rests, and of the collar above it, which holds the bulb."""
COLLAR_HALF_M = PEG_HALF_M + CLEARANCE_M + WALL_M
NECK_HALF_M, NECK_M, SHOULDER_M = 0.015, 0.022, 0.006
GLASS_M = 0.0175
"""Radius of the bulb's glass."""
HOOD_HALF_M, HOOD_WALL_M, HOOD_M = COLLAR_HALF_M + CLEARANCE_M, 0.006, 0.088
"""Of the hood: half its width inside, its walls, its height."""
GLASS = (0.98, 0.93, 0.62, 1.0)
BULB = Part(
    name="bulb",
    onto="base",
    at=(0.0, 0.0, LEDGE_M + COLLAR_M - PEG_M),
    depth_m=PEG_M,
    grip=(0.0, 0.0, 0.045),
    thickness_m=2 * NECK_HALF_M,
    alike=4,
)
HOOD = Part(
    name="hood",
    onto="base",
    at=(0.0, 0.0, LEDGE_M),
    depth_m=HOOD_M,
    grip=(0.0, 0.0, HOOD_M - 0.018),
    thickness_m=2 * (HOOD_HALF_M + HOOD_WALL_M),
    alike=4,
)


class AssembleLamp(Assembly):
    """A bulb is plugged into the base of a lamp, then the hood is put over it, onto the collar of the base.

    After the lamp of FurnitureBench (base, bulb, hood), with plugs in the place of threads.
    """

    name = "assemble_lamp"
    instruction = "assemble the lamp: plug the bulb into the base and put the hood over it"
    phrases = (
        "build the lamp from its base, bulb and hood",
        "insert the bulb into the lamp base, then put the shade on",
        "put the lamp together",
        "plug in the bulb and cover it with the hood",
    )
    horizon_s = 21.0
    things, fixtures = ("bulb", "hood"), ("base",)
    assembly, over_m = (BULB, HOOD), 0.16
    signals = signals_of(assembly)
    goal = f"{BULB.mated} and {HOOD.mated} and {RELEASED}"
    mission = f"F[0,10](G[0,0.5]({BULB.mated})) and F[0,20](G[0,0.5]({goal}))"
    stages = stages_of(assembly)

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        base = parts.fixture(scene, "base")
        parts.cylinder(base, 0.060, 0.006, (0, 0, 0.006), parts.DARK_WOOD, friction=SMOOTH)
        parts.cylinder(base, 0.022, 0.014, (0, 0, 0.026), parts.WOOD, friction=SMOOTH)
        block(base, (0.034, 0.034, 0.003), (0, 0, LEDGE_M - 0.003), parts.DARK_WOOD)
        socket(base, PEG_HALF_M, WALL_M, LEDGE_M + COLLAR_M, COLLAR_M, parts.WOOD)
        bulb = parts.thing(scene, "bulb")
        block(bulb, (PEG_HALF_M, PEG_HALF_M, PEG_M / 2), (0, 0, PEG_M / 2), parts.GREY, mass=0.03)
        top = PEG_M + SHOULDER_M
        block(bulb, (0.0195, 0.0195, SHOULDER_M / 2), (0, 0, PEG_M + SHOULDER_M / 2), parts.BLACK, mass=0.01)
        block(bulb, (NECK_HALF_M, NECK_HALF_M, NECK_M / 2), (0, 0, top + NECK_M / 2), parts.GREY, mass=0.02)
        parts.sphere(bulb, GLASS_M, (0, 0, top + NECK_M + 0.013), GLASS, solid=False)
        hood = parts.thing(scene, "hood")
        half, across = HOOD_WALL_M / 2, HOOD_HALF_M + HOOD_WALL_M
        for side in (-1, 1):
            at = side * (HOOD_HALF_M + half)
            block(hood, (half, across, HOOD_M / 2), (at, 0, HOOD_M / 2), parts.ORANGE, mass=0.025)
            block(hood, (HOOD_HALF_M, half, HOOD_M / 2), (0, at, HOOD_M / 2), parts.ORANGE, mass=0.025)
            edge = across + 0.001
            parts.box(hood, (0.001, edge, 0.006), (side * across, 0, 0.006), parts.WHITE, solid=False)
            parts.box(hood, (edge, 0.001, 0.006), (0, side * across, 0.006), parts.WHITE, solid=False)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the hand that grasps one part stays off the others."""
        found: dict[str, np.ndarray] = {}
        for name, spot in zip(("base", "bulb", "hood"), self.scatter(rng, (0.08, 0.075, 0.075)), strict=True):
            found |= {f"{name}_pos": spot, f"{name}_quat_wxyz": self.heading(rng)}
        return found
