"""Slide a wine bottle into a rack."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, axis_quat, down, into, nearest_half_turn, out_of, yaw_of
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

BODY_M, BODY_HALF_M = 0.022, 0.055
"""Radius and half length of the bottle's body; its origin is the middle of it, its x axis points to the bottom."""
NECK_M, NECK_END_M, SHOULDER_M = 0.010, 0.115, 0.065
"""Radius of the neck; where it and the shoulder end, behind the origin."""
GRASP_M = 0.080
"""The tool grasps the neck so far behind the origin."""
BOTTLE_FRICTION = (0.8, 0.01, 0.002)
"""Sliding, torsional [m], rolling [m]: it does not roll away."""
FLAT = axis_quat((0, 1, 0), np.pi / 2)
"""Turns an upright cylinder along x."""
SLOT_M, DEPTH_M, BOARD_M = 0.070, 0.115, 0.006
"""Of the rack's upper slot: height of its floor, depth; its boards."""
ASIDE_GAP_M, OVER_GAP_M = 0.004, 0.014
"""Free room beside and over the bottle: held by its neck, it droops a little."""
AXIS_M = SLOT_M + BODY_M
"""Height of the axis of a bottle that lies in the slot."""
BEFORE_M, ABOVE_M, LEFT_M = 0.020, 0.009, 0.008
"""Bottom to mouth before it is slid in; play below it on the way; bottom to back at the end."""
OVER_M, OPEN_M, CLOSE_S = 0.22, 0.06, 0.25
"""Height of the tool on its way; width of the jaws before a grasp, and how long they close on after `moves.grasp`."""
IN_M, ASIDE_M, ASKEW_RAD = 0.09, 0.006, 0.17
"""A bottle is in the rack with its bottom so deep behind the mouth, its axis so near to that of the slot."""
BOTTLE_X_M, RACK_X_M, Y_M = (0.43, 0.63), (0.53, 0.73), 0.20
ROOM_M, HAND_HALF_M = 0.055, 0.105
"""Bottle, and hand at its neck (half its width), keep so far from the rack at the start."""


class StackWine(TabletopTask):
    """A bottle lies on the table; it is grasped by its neck and slid, bottom first, into the upper slot of a rack."""

    name = "stack_wine"
    instruction = "put the wine bottle into the rack"
    phrases = (
        "slide the bottle into the wine rack",
        "pick up the wine bottle by its neck and push it into the rack",
        "store the wine in the upper slot of the rack",
        "lay the bottle in the wine rack, bottom first",
    )
    horizon_s = 12.0
    things, fixtures = ("bottle",), ("rack",)
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the neck of the bottle"),
        "lift_m": truth("m", "height of the bottle above the table"),
        "in_m": truth("m", "how far the bottle's bottom is behind the mouth of the slot"),
        "aside_m": truth("m", "distance of the bottle's middle from the axis of the slot"),
        "askew_rad": truth("rad", "angle between the axes of bottle and slot"),
    }
    goal = f"in_m > {IN_M} and aside_m < {ASIDE_M} and askew_rad < {ASKEW_RAD} and {RELEASED}"
    mission = f"F[0,6](held_n > 0.5 and lift_m > 0.05) and F[0,11.5](G[0,0.5]({goal}))"
    stages = (
        Stage(name="grasp", condition="held_n > 0.5", distance="reach_m"),
        Stage(name="slide in", condition=goal, distance=f"max({IN_M} - in_m, 0) + aside_m + 0.1 * askew_rad"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the rack's origin is on the table below the mouth of its slots, x points into them."""
        _bottle(parts.thing(scene, "bottle"), (0, 0, 0), (0.10, 0.24, 0.14, 1.0), mass=0.04)
        rack = parts.fixture(scene, "rack")
        _bottle(rack, (IN_M - BODY_HALF_M, 0, BOARD_M + BODY_M), (0.38, 0.08, 0.12, 1.0))  # there is one already
        middle, wide = DEPTH_M / 2, BODY_M + ASIDE_GAP_M
        top = AXIS_M + BODY_M + OVER_GAP_M
        for floor in (BOARD_M, SLOT_M):
            parts.box(rack, (middle, wide, BOARD_M / 2), (middle, 0, floor - BOARD_M / 2), parts.WOOD)
        for side in (-1, 1):
            at = (middle, side * (wide + BOARD_M / 2), AXIS_M / 2)
            parts.box(rack, (middle, BOARD_M / 2, AXIS_M / 2), at, parts.WOOD)
            for end in (0.008, DEPTH_M - 0.008):  # posts that carry the bars over the bottle
                at = (end, side * (wide + BOARD_M / 2), (AXIS_M + top) / 2)
                parts.box(rack, (0.008, BOARD_M / 2, (top - AXIS_M) / 2), at, parts.WOOD)
        for end in (0.008, DEPTH_M - 0.008):
            parts.box(rack, (0.008, wide + BOARD_M, BOARD_M / 2), (end, 0, top + BOARD_M / 2), parts.DARK_WOOD)
        parts.box(rack, (BOARD_M / 2, wide + BOARD_M, AXIS_M / 2), (DEPTH_M + BOARD_M / 2, 0, AXIS_M / 2), parts.WOOD)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the rack stands further out, so that the arm has room to come before it."""
        lying = [(x, 0, 0) for x in np.linspace(-NECK_END_M, BODY_HALF_M, 9)]
        hand = [(-GRASP_M, y, 0) for y in np.linspace(-HAND_HALF_M, HAND_HALF_M, 9)]
        while True:
            bottle = np.array([rng.uniform(*BOTTLE_X_M), rng.uniform(-Y_M, Y_M), BODY_M])
            rack = np.array([rng.uniform(*RACK_X_M), rng.uniform(-Y_M, Y_M), 0.0])
            turn, stand = self.heading(rng), self.heading(rng)
            points = into(stand, bottle + out_of(turn, np.array(lying + hand)) - rack) - (DEPTH_M / 2, 0, 0)
            outside = np.maximum(np.abs(points[:, :2]) - (DEPTH_M / 2, BODY_M), 0.0)
            if np.linalg.norm(outside, axis=1).min() > ROOM_M:
                break
        return {"bottle_pos": bottle, "bottle_quat_wxyz": turn, "rack_pos": rack, "rack_quat_wxyz": stand}

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["bottle_pos"])
        bottle, stand = state["bottle_pos"], instance["rack_quat_wxyz"]
        axis = axis_of(state["bottle_quat_wxyz"], 0)
        inside = into(stand, bottle + BODY_HALF_M * axis - instance["rack_pos"])
        middle = into(stand, bottle - instance["rack_pos"])
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - bottle + GRASP_M * axis) ** 2).sum(-1)),
            "lift_m": bottle[..., 2] - BODY_M,
            "in_m": inside[..., 0],
            "aside_m": xp.sqrt(middle[..., 1] ** 2 + (middle[..., 2] - AXIS_M) ** 2),
            "askew_rad": xp.sqrt(((axis - axis_of(stand, 0)) ** 2).sum(-1)),  # a chord is its angle, nearly
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again when the bottle was lost."""
        gripper = self.robot.gripper
        assert gripper is not None
        held = moves.squeezed(2 * NECK_M)
        for _ in range(3):
            obs = look()
            axis = axis_of(obs["bottle_quat_wxyz"], 0)
            pos, rot = obs["bottle_pos"] - GRASP_M * axis, down(nearest_half_turn(yaw_of(obs["bottle_quat_wxyz"])))
            yield from moves.grasp(pos, rot, 2 * NECK_M, OPEN_M)
            yield Waypoint(pos=pos, rot=rot, width_m=held, near_m=0.01, wait_s=CLOSE_S)
            yield Waypoint(pos=np.array([*pos[:2], OVER_M]), rot=rot, width_m=held, near_m=0.015)
            ahead = axis_of(obs["rack_quat_wxyz"], 0)
            rot = down(yaw_of(obs["rack_quat_wxyz"]))
            mouth = obs["rack_pos"] - (BODY_HALF_M + GRASP_M) * ahead + (AXIS_M + ABOVE_M) * moves.UP
            before, end = mouth - BEFORE_M * ahead, mouth + (DEPTH_M - LEFT_M) * ahead
            yield Waypoint(pos=np.array([*before[:2], OVER_M]), rot=rot, width_m=held, near_m=0.01)
            yield Waypoint(pos=before, rot=rot, width_m=held, speed_m_s=0.25, near_m=0.003)
            yield Waypoint(pos=end, rot=rot, width_m=held, speed_m_s=0.15)
            yield from moves.release(end, rot, gripper.open_m)
            bottom = look()["bottle_pos"] + BODY_HALF_M * axis_of(look()["bottle_quat_wxyz"], 0) - obs["rack_pos"]
            if into(obs["rack_quat_wxyz"], bottom)[0] > IN_M:
                return


def _bottle(body: Any, pos: tuple[float, float, float], rgba: parts.Rgba, mass: float = 0.0) -> None:
    """A bottle along x, its label and cork included."""
    x, y, z = pos
    roll = {"friction": BOTTLE_FRICTION, "condim": 6}
    turned = {"quat": FLAT, "mass": mass}
    parts.cylinder(body, BODY_M, BODY_HALF_M, pos, rgba, **turned, **roll)
    neck = (NECK_END_M - BODY_HALF_M) / 2
    parts.cylinder(body, NECK_M, neck, (x - BODY_HALF_M - neck, y, z), rgba, **(turned | {"mass": mass / 4}))
    shoulder = (SHOULDER_M - BODY_HALF_M) / 2
    parts.cylinder(body, 0.017, shoulder, (x - BODY_HALF_M - shoulder, y, z), rgba, quat=FLAT, solid=False)
    parts.cylinder(body, BODY_M + 2e-4, 0.022, (x, y, z), (0.93, 0.89, 0.76, 1.0), quat=FLAT, solid=False)
    parts.cylinder(body, NECK_M + 3e-4, 0.007, (x - NECK_END_M + 0.007, y, z), parts.RED, quat=FLAT, solid=False)
