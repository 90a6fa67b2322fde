"""Insert a square peg into a square hole."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, axis_quat, down, nearest_half_turn, yaw_of
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

PEG_HALF_M, PEG_HALF_HEIGHT_M = 0.012, 0.04
CLEARANCE_M = 0.002
"""Between peg and hole, on each side."""
BLOCK_HALF_M, BLOCK_M = 0.045, 0.045
"""Half the side of the block, and its height, which is the depth of the hole."""
CHAMFER_M = 0.008
"""Height and width of the slanted rim above the block."""
DEEP_M, TILT_RAD = 0.02, np.radians(5.0)
"""So deep the peg has to be in the hole, and so upright."""
GRASP_M = 0.024
"""The peg is grasped so far above its middle: the fingers stay above the rim."""
LIFT_M, OVER_M = 0.04, 0.16
"""So high counts as lifted, lower than the rim; so high the expert carries."""


class PegInsertion(TabletopTask):
    """The peg stands in the hole, and nothing is grasped."""

    name = "peg_insertion"
    instruction = "insert the yellow peg into the hole of the block"
    phrases = (
        "put the yellow peg into the square hole",
        "plug the yellow peg into the block",
        "place the square peg in the hole and let go",
        "the yellow peg belongs in the hole",
    )
    horizon_s = 12.0
    things, fixtures = ("peg",), ("block",)
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from where the peg is grasped"),
        "lift_m": truth("m", "height of the peg's lower end above the table"),
        "off_m": truth("m", "distance of the peg from the axis of the hole"),
        "depth_m": truth("m", "how deep the peg's lower end is below the block's upper face"),
        "tilt_rad": truth("rad", "angle of the peg against the vertical"),
    }
    mission = (
        f"F[0,6](held_n > 0.5 and lift_m > {LIFT_M}) and "
        f"F[0,11.5](G[0,0.5](off_m < 0.006 and depth_m > {DEEP_M} and tilt_rad < {TILT_RAD:.4f} and {RELEASED}))"
    )
    goal = f"off_m < 0.006 and depth_m > {DEEP_M} and tilt_rad < {TILT_RAD:.4f} and {RELEASED}"
    stages = (
        Stage(name="grasp", condition="held_n > 0.5", distance="reach_m"),
        Stage(name="lift", condition=f"held_n > 0.5 and lift_m > {LIFT_M}", distance=f"max({LIFT_M} - lift_m, 0)"),
        Stage(name="align", condition="off_m < 0.006 and depth_m > -0.05", distance="off_m", scale=0.05),
        Stage(name="insert", condition=goal, distance=f"off_m + max({DEEP_M} - depth_m, 0)", scale=0.05),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        peg = parts.thing(scene, "peg")
        half = (PEG_HALF_M, PEG_HALF_M, PEG_HALF_HEIGHT_M)
        parts.box(peg, half, rgba=parts.YELLOW, mass=0.05, name="peg")
        block, hole = parts.fixture(scene, "block"), PEG_HALF_M + CLEARANCE_M
        board = (BLOCK_HALF_M - hole) / 2
        for axis, side in ((0, -1.0), (0, 1.0), (1, -1.0), (1, 1.0)):
            pos, size = np.zeros(3), np.array([0.0, 0.0, BLOCK_M / 2])
            pos[axis], pos[2] = side * (hole + board), BLOCK_M / 2
            # Boards along x reach over the corners, those along y fit in between.
            size[axis], size[1 - axis] = board, BLOCK_HALF_M if axis == 0 else hole
            parts.box(block, tuple(size), tuple(pos), parts.GREY)
            slope = CHAMFER_M * np.sqrt(2) / 2
            rim = np.zeros(3)
            rim[axis], rim[2] = side * (hole + CHAMFER_M / 2 + 0.002), BLOCK_M + CHAMFER_M / 2 - 0.002
            thin = np.array([0.0, 0.0, 0.002])
            thin[axis], thin[1 - axis] = slope, hole + CHAMFER_M
            turn = axis_quat((0, 1, 0), -side * np.pi / 4) if axis == 0 else axis_quat((1, 0, 0), side * np.pi / 4)
            parts.box(block, tuple(thin), tuple(rim), parts.BLACK, quat=turn)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        peg, block = self.spots(rng, 2, apart_m=0.14)
        return {
            "peg_pos": np.add(peg, (0, 0, PEG_HALF_HEIGHT_M)),
            "peg_quat_wxyz": self.heading(rng),
            "block_pos": block,
            "block_quat_wxyz": self.heading(rng),
        }

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["peg_pos"])
        up = axis_of(state["peg_quat_wxyz"], 2)
        low, grip = state["peg_pos"] - PEG_HALF_HEIGHT_M * up, state["peg_pos"] + GRASP_M * up
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - grip) ** 2).sum(-1)),
            "lift_m": low[..., 2],
            "off_m": xp.sqrt(((low - instance["block_pos"])[..., :2] ** 2).sum(-1)),
            "depth_m": BLOCK_M - low[..., 2],
            "tilt_rad": xp.acos(xp.clip(up[..., 2], -1.0, 1.0)),
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; the peg is turned so that its sides are parallel to the hole's."""
        assert self.robot.gripper is not None
        open_m = self.robot.gripper.open_m
        for _ in range(3):
            obs = look()
            yaw, wanted = yaw_of(obs["peg_quat_wxyz"]), yaw_of(obs["block_quat_wxyz"])
            turned = (wanted - yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
            grip, start = nearest_half_turn(yaw), np.add(obs["peg_pos"], (0, 0, GRASP_M))
            yield from moves.grasp(start, down(grip), 2 * PEG_HALF_M, open_m)
            rot, held = down(grip + turned), moves.squeezed(2 * PEG_HALF_M)
            yield Waypoint(pos=np.array([*start[:2], OVER_M]), rot=down(grip), width_m=held, near_m=0.015)
            above = np.array([*obs["block_pos"][:2], OVER_M])
            yield Waypoint(pos=above, rot=rot, width_m=held, near_m=0.003, wait_s=0.1)
            # Where the held peg really is: it may have shifted between the jaws.
            off = look()["peg_pos"][:2] - obs["block_pos"][:2]
            above = above - [*off, 0.0]
            end = np.array([*above[:2], PEG_HALF_HEIGHT_M + GRASP_M + 0.003])
            yield Waypoint(pos=above, rot=rot, width_m=held, near_m=0.003)
            yield Waypoint(pos=end, rot=rot, width_m=held, speed_m_s=0.08, near_m=0.006)
            yield from moves.release(end, rot, open_m)
            peg = look()["peg_pos"]
            if np.linalg.norm((peg - obs["block_pos"])[:2]) < 0.006 and peg[2] < PEG_HALF_HEIGHT_M + 0.01:
                return
