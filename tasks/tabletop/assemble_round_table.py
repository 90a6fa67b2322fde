"""Assemble a round table: the leg into the top, which lies upside down, and the cross base onto the leg."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from tasks.tabletop import parts
from tasks.tabletop.base import RELEASED
from tasks.tabletop.furniture import CLEARANCE_M, SMOOTH, Assembly, Part, block, signals_of, socket, stages_of
from tasks.tabletop.turns import axis_quat

if TYPE_CHECKING:
    import mujoco

TOP_M, DISC_M = 0.085, 0.012
"""Of the top: its radius, its thickness."""
PEG_HALF_M, PEG_M = 0.012, 0.020
"""Both ends of the leg."""
HUB_M, WALL_M = 0.024, 0.007
"""Height and walls of what takes them."""
HUB_HALF_M = PEG_HALF_M + CLEARANCE_M + WALL_M
SHOULDER_HALF_M, SHAFT_HALF_M = 0.0195, 0.013
"""Shoulders of the leg rest on the ridges of a hub."""
FOOT_M, SHAFT_M, CAPITAL_M = 0.008, 0.036, 0.022
"""Lower shoulder, shaft and upper shoulder, where the leg is grasped."""
LEG_M = 2 * PEG_M + FOOT_M + SHAFT_M + CAPITAL_M
ARM_M, ARM_HALF_M = 0.075, 0.006
"""Arms of the cross: half their length, half their thickness."""
LEG = Part(
    name="leg",
    onto="top",
    at=(0.0, 0.0, DISC_M + HUB_M - PEG_M),
    depth_m=PEG_M,
    grip=(0.0, 0.0, LEG_M - PEG_M - CAPITAL_M / 2),
    thickness_m=2 * SHOULDER_HALF_M,
    alike=4,
)
CROSS = Part(
    name="cross",
    onto="leg",
    at=(0.0, 0.0, LEG_M - PEG_M),
    depth_m=PEG_M,
    grip=(0.0, 0.0, 0.013),
    thickness_m=2 * HUB_HALF_M,
    alike=4,
)


class AssembleRoundTable(Assembly):
    """A leg is plugged into the hub of a table's top, then a cross base is put onto the leg.

    After the round table of FurnitureBench (top, leg, cross base), with plugs in the place of threads.
    """

    name = "assemble_round_table"
    instruction = "assemble the round table: put the leg into the top and the cross base onto the leg"
    phrases = (
        "build the round table from its top, leg and base",
        "insert the leg into the table top, then put the cross on it",
        "put the round table together upside down",
        "plug the leg into the top and set the base on the leg",
    )
    horizon_s = 19.5
    things, fixtures = ("leg", "cross"), ("top",)
    assembly, over_m = (LEG, CROSS), 0.16
    signals = signals_of(assembly)
    goal = f"{LEG.mated} and {CROSS.mated} and {RELEASED}"
    mission = f"F[0,10](G[0,0.5]({LEG.mated})) and F[0,18.5](G[0,0.5]({goal}))"
    stages = stages_of(assembly)

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        top = parts.fixture(scene, "top")
        parts.cylinder(top, TOP_M, DISC_M / 2, (0, 0, DISC_M / 2), parts.WOOD, friction=SMOOTH)
        parts.cylinder(top, 0.045, 0.0005, (0, 0, DISC_M), parts.DARK_WOOD, solid=False)
        socket(top, PEG_HALF_M, WALL_M, DISC_M + HUB_M, HUB_M, parts.DARK_WOOD)
        leg, low = parts.thing(scene, "leg"), 0.0
        for half, height, rgba in (
            (PEG_HALF_M, PEG_M, parts.GREY),
            (SHOULDER_HALF_M, FOOT_M, parts.DARK_WOOD),
            (SHAFT_HALF_M, SHAFT_M, parts.WOOD),
            (SHOULDER_HALF_M, CAPITAL_M, parts.DARK_WOOD),
            (PEG_HALF_M, PEG_M, parts.GREY),
        ):
            block(leg, (half, half, height / 2), (0, 0, low + height / 2), rgba, density=700.0)
            low += height
        cross = parts.thing(scene, "cross")
        socket(cross, PEG_HALF_M, WALL_M, 0.0, HUB_M, parts.DARK_WOOD, up=-1.0)
        for turn in (-np.pi / 4, np.pi / 4):  # over the corners of the hub: its sides are free for the jaws
            quat = axis_quat((0, 0, 1), turn)
            arm = (ARM_M, ARM_HALF_M, ARM_HALF_M)
            block(cross, arm, (0, 0, HUB_M + ARM_HALF_M), parts.WOOD, quat=quat, density=700.0)
            for end in (-1, 1):
                foot = end * (ARM_M - 0.01) * np.array([np.cos(turn), np.sin(turn), 0.0])
                at = np.add(foot, (0, 0, HUB_M + 2 * ARM_HALF_M + 0.002))
                parts.cylinder(cross, 0.009, 0.002, at, parts.BLACK, solid=False)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: no body stands in the way of the hand that grasps another."""
        found: dict[str, np.ndarray] = {}
        for name, spot in zip(("top", "leg", "cross"), self.scatter(rng, (0.095, 0.05, 0.08)), strict=True):
            found |= {f"{name}_pos": spot, f"{name}_quat_wxyz": self.heading(rng)}
        return found
