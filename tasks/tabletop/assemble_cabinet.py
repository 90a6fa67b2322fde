"""Assemble a cabinet: the door into its grooves, the top onto its body."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.tabletop import parts
from tasks.tabletop.base import RELEASED
from tasks.tabletop.furniture import CLEARANCE_M, Assembly, Part, block, signals_of, stages_of, wall

if TYPE_CHECKING:
    import mujoco

DOOR_HALF_M = (0.035, 0.008, 0.033)
INNER_HALF_M, WALL_M, HEIGHT_M, FLOOR_M = DOOR_HALF_M[0] + CLEARANCE_M, 0.009, 0.082, 0.008
"""Of the body: half its width inside, its walls, its height, its floor."""
OUTER_HALF_M = INNER_HALF_M + WALL_M
SLOT_Y_M, SLOT_HALF_M = -0.030, DOOR_HALF_M[1] + CLEARANCE_M
"""The door slides down between strips of the side walls, in front."""
STRIP_M, STRIP_WIDTH_M = 0.008, 0.010
FRONT_Y_M, BACK_Y_M = SLOT_Y_M - SLOT_HALF_M - STRIP_M, 0.045
"""Outer faces of the body."""
PLUG_FRONT_M, PLUG_BACK_M = SLOT_Y_M + SLOT_HALF_M + STRIP_M, BACK_Y_M - WALL_M
"""Between these the plug below the top fits in."""
PLUG_HALF_M = (INNER_HALF_M - CLEARANCE_M, (PLUG_BACK_M - PLUG_FRONT_M) / 2 - CLEARANCE_M)
PLUG_Y_M, PLUG_M, PLATE_M, CROWN_M = (PLUG_FRONT_M + PLUG_BACK_M) / 2, 0.012, 0.010, 0.024
"""Of the top: where its plug goes, heights of plug, plate and crown."""
CROWN_HALF_M, CROWN_Y_M = (0.025, 0.010), -0.008
DOOR = Part(
    name="door",
    onto="body",
    at=(0.0, SLOT_Y_M, FLOOR_M),
    depth_m=HEIGHT_M - FLOOR_M,
    grip=(0.0, 0.0, 2 * DOOR_HALF_M[2] - 0.012),
    thickness_m=2 * DOOR_HALF_M[1],
)
TOP = Part(
    name="top",
    onto="body",
    at=(0.0, PLUG_Y_M, HEIGHT_M - PLUG_M),
    depth_m=PLUG_M,
    grip=(0.0, CROWN_Y_M, PLUG_M + PLATE_M + 0.014),
    thickness_m=2 * CROWN_HALF_M[1],
)


class AssembleCabinet(Assembly):
    """A door is let down into the grooves at the front of a cabinet's body, then the top is put on.

    After the cabinet of FurnitureBench, with one door instead of two and a plug instead of a thread below the top.
    """

    name = "assemble_cabinet"
    instruction = "assemble the cabinet: slide the door into its grooves and put the top on"
    phrases = (
        "build the cabinet from its body, door and top",
        "let the door down into the front of the cabinet, then close it with the top",
        "put the cabinet together",
        "insert the cabinet door from above and cover the cabinet with its top",
    )
    horizon_s = 20.0
    things, fixtures = ("door", "top"), ("body",)
    assembly, over_m = (DOOR, TOP), 0.12
    signals = signals_of(assembly)
    goal = f"{DOOR.mated} and {TOP.mated} and {RELEASED}"
    mission = f"F[0,10](G[0,0.5]({DOOR.mated})) and F[0,19](G[0,0.5]({goal}))"
    stages = stages_of(assembly)

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the front of the body is where its y axis comes from."""
        body = parts.fixture(scene, "body")
        depth, middle = (BACK_Y_M - FRONT_Y_M) / 2, (BACK_Y_M + FRONT_Y_M) / 2
        up = HEIGHT_M / 2
        block(body, (OUTER_HALF_M, depth, FLOOR_M / 2), (0, middle, FLOOR_M / 2), parts.DARK_WOOD)
        back = BACK_Y_M - WALL_M / 2
        wall(body, (INNER_HALF_M, WALL_M / 2, up), (0, back, up), 0, parts.WOOD)
        for side in (-1, 1):
            at = side * (INNER_HALF_M + WALL_M / 2)
            wall(body, (WALL_M / 2, depth, up), (at, middle, up), 1, parts.WOOD)
            for gap in (-1, 1):
                at = (side * (INNER_HALF_M - STRIP_WIDTH_M / 2), SLOT_Y_M + gap * (SLOT_HALF_M + STRIP_M / 2), up)
                wall(body, (STRIP_WIDTH_M / 2, STRIP_M / 2, up), at, 0, parts.DARK_WOOD)
        door = parts.thing(scene, "door")
        block(door, DOOR_HALF_M, (0, 0, DOOR_HALF_M[2]), parts.WHITE, mass=0.06)
        parts.sphere(door, 0.005, (0.012, -DOOR_HALF_M[1], 0.030), parts.BLACK, solid=False)
        top = parts.thing(scene, "top")
        block(top, (*PLUG_HALF_M, PLUG_M / 2), (0, 0, PLUG_M / 2), parts.DARK_WOOD, mass=0.03)
        plate = (0, middle - PLUG_Y_M, PLUG_M + PLATE_M / 2)
        block(top, (OUTER_HALF_M + 0.004, depth + 0.004, PLATE_M / 2), plate, parts.WOOD, mass=0.06)
        crown = (0, CROWN_Y_M, PLUG_M + PLATE_M + CROWN_M / 2)
        block(top, (*CROWN_HALF_M, CROWN_M / 2), crown, parts.DARK_WOOD, mass=0.03)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: no body stands in the way of the hand that grasps another."""
        found: dict[str, np.ndarray] = {}
        for name, spot in zip(("body", "door", "top"), self.scatter(rng, (0.09, 0.065, 0.085)), strict=True):
            found |= {f"{name}_pos": spot, f"{name}_quat_wxyz": self.heading(rng)}
        return found
