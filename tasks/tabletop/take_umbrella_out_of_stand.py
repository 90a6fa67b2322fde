"""Take an umbrella out of its stand."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, axis_quat, facing, into, out_of, quat_times, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

SIDES, INNER_M, WALL_M, RIM_M, FLOOR_M = 6, 0.025, 0.002, 0.110, 0.006
"""Of the stand: its walls, their distance from the middle, half their thickness, its height, its floor."""
CANOPY_M, THIN_M = 0.016, 0.012
"""Radii of the folded canopy, above and below."""
GRIP_M, GRIP_HALF_M = 0.215, (0.011, 0.011, 0.025)
"""Height of the middle of the grip above the lower end, and its half sizes."""
GRASP_M = 0.020
"""The tool centre point is so far above the middle of the grip: the hand stays off the crook."""
FOOT_M = 0.004
"""The lower end stands so far off the middle of the stand, away from where the umbrella leans."""
LEAN_RAD = np.arctan2((INNER_M - CANOPY_M) / np.cos(np.pi / SIDES) + FOOT_M, RIM_M) - 0.01
"""Against the upright when the canopy leans in a corner of the rim, nearly."""
OPEN_M, CLOSE_S = 0.07, 0.25
"""Width of the jaws before the grasp, and how long they close on after `moves.grasp`."""
PULL_M, CLEAR_M = 0.145, 0.010
"""How far the expert pulls; how far above the rim the lower end counts as out."""


class TakeUmbrellaOutOfStand(TabletopTask):
    """An umbrella leans in a stand; it is pulled out by its grip. It stays grasped: it cannot stand alone."""

    name = "take_umbrella_out_of_stand"
    instruction = "take the umbrella out of the stand"
    phrases = (
        "pull the umbrella out of the umbrella stand",
        "grasp the umbrella by its handle and lift it out of the stand",
        "remove the blue umbrella from its stand",
        "get the umbrella out of the stand and hold it",
    )
    horizon_s = 6.0
    things, fixtures = ("umbrella",), ("stand",)
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the grip of the umbrella"),
        "clear_m": truth("m", "height of the umbrella's lower end above the rim of the stand"),
    }
    goal = f"clear_m > {CLEAR_M} and held_n > 0.5"
    mission = f"F[0,4.5](held_n > 0.5) and F[0,5.5](G[0,0.5]({goal}))"
    stages = (
        Stage(name="grasp", condition="held_n > 0.5", distance="reach_m"),
        Stage(name="lift", condition=goal, distance=f"max({CLEAR_M} - clear_m, 0)"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the umbrella's origin is its lower end, its x axis points where the crook does."""
        umbrella = parts.thing(scene, "umbrella")
        parts.capsule(umbrella, 0.006, (0, 0, 0.006), (0, 0, 0.03), parts.GREY, mass=0.01)
        parts.cylinder(umbrella, THIN_M, 0.025, (0, 0, 0.045), parts.BLUE, mass=0.04)
        parts.cylinder(umbrella, CANOPY_M, 0.040, (0, 0, 0.110), parts.BLUE, mass=0.06)
        parts.cylinder(umbrella, CANOPY_M + 5e-4, 0.005, (0, 0, 0.110), parts.YELLOW, solid=False)
        parts.cylinder(umbrella, 0.005, 0.020, (0, 0, 0.170), parts.GREY, mass=0.01)
        parts.box(umbrella, GRIP_HALF_M, (0, 0, GRIP_M), parts.DARK_WOOD, mass=0.02)
        top = GRIP_M + GRIP_HALF_M[2]
        bends = ((0, 0, top - 0.004), (0.006, 0, top + 0.010), (0.034, 0, top + 0.010), (0.040, 0, top - 0.012))
        for start, end in pairwise(bends):
            parts.capsule(umbrella, 0.009, start, end, parts.DARK_WOOD, mass=0.003)
        stand = parts.fixture(scene, "stand")
        outer = INNER_M + 2 * WALL_M
        parts.cylinder(stand, 0.045, FLOOR_M / 2, (0, 0, FLOOR_M / 2), parts.DARK_WOOD)
        half = (WALL_M, outer * np.tan(np.pi / SIDES), RIM_M / 2)
        for k in range(SIDES):  # corners at multiples of a turn's share, the first one along x
            turn = yaw_quat((2 * k + 1) * np.pi / SIDES)
            at = out_of(turn, np.array([INNER_M + WALL_M, 0, RIM_M / 2]))
            parts.box(stand, half, at, parts.GREEN, quat=turn)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the umbrella leans in any corner, its crook points forward within ±45°."""
        (stand,) = self.spots(rng, 1, apart_m=0.0)
        yaw = rng.uniform(-np.pi / 4, np.pi / 4)
        towards = yaw + 2 * np.pi / SIDES * rng.integers(SIDES)
        lean = quat_times(yaw_quat(towards), axis_quat((0, 1, 0), LEAN_RAD))
        foot = out_of(yaw_quat(towards), np.array([-FOOT_M, 0, FLOOR_M]))
        return {
            "umbrella_pos": stand + foot,
            "umbrella_quat_wxyz": quat_times(lean, yaw_quat(rng.uniform(-np.pi / 4, np.pi / 4) - towards)),
            "stand_pos": stand,
            "stand_quat_wxyz": yaw_quat(yaw),
        }

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["umbrella_pos"])
        end, axis = state["umbrella_pos"], axis_of(state["umbrella_quat_wxyz"], 2)
        grip = end + (GRIP_M + GRASP_M) * axis
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - grip) ** 2).sum(-1)),
            "clear_m": into(instance["stand_quat_wxyz"], end - instance["stand_pos"])[..., 2] - RIM_M,
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again when the umbrella slipped."""
        thickness = 2 * GRIP_HALF_M[1]
        for _ in range(3):
            axis, pos, rot = _grasp(look())
            yield Waypoint(pos=pos + 0.10 * axis, rot=rot, width_m=OPEN_M, near_m=0.01)
            axis, pos, rot = _grasp(look())  # by now it has come to rest
            yield from moves.grasp(pos, rot, thickness, OPEN_M)
            held = moves.squeezed(thickness)
            yield Waypoint(pos=pos, rot=rot, width_m=held, near_m=0.01, wait_s=CLOSE_S)
            yield Waypoint(pos=pos + PULL_M * axis, rot=rot, width_m=held, speed_m_s=0.2, near_m=0.01, wait_s=0.3)
            if look()["umbrella_pos"][2] > RIM_M + CLEAR_M:
                return


def _grasp(obs: Arrays) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The umbrella's axis, where the tool grasps, and how it is turned: along the axis, jaws beside the crook."""
    axis, side = (axis_of(obs["umbrella_quat_wxyz"], i) for i in (2, 1))
    jaws = -side if side[1] > 0 else side
    return axis, obs["umbrella_pos"] + (GRIP_M + GRASP_M) * axis, facing(-axis, jaws)
