"""Pull a drawer open by its handle."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import down, into, nearest_half_turn, out_of, yaw_of, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

HALF_M, HEIGHT_M, WALL_M = (0.09, 0.11), 0.10, 0.006
"""Outer half sizes of the chest, x and y, its height and the thickness of its boards."""
HANDLE_M = (-0.137, 0.0, 0.075)
"""Middle of the handle's bar in the chest's frame, the drawer closed; it stands off far enough for a finger."""
BAR_M, BAR_HALF_M = 0.006, 0.045
"""Radius and half length of the bar."""
TRAVEL_M, PULLED_M, PULL_M = 0.16, 0.12, 0.14
"""How far the drawer goes, how far it has to be open, how far the expert pulls it."""
PLACE_M, TURN_RAD = ((0.58, 0.78), (-0.15, 0.15)), np.pi / 8
"""Where the chest stands, x and y, and how far it is turned."""
WIDTH_M = 0.034
"""Width between the jaws on the way to the handle: the inner finger fits between bar and front."""
GRIPPED = f"reach_m < 0.012 and gripper_width_m > {BAR_M} and gripper_width_m < {3 * BAR_M:.3f}"
LET_GO = f"(reach_m > 0.03 or gripper_width_m > {3 * BAR_M:.3f})"
"""State formulas: the jaws are about as far apart as the bar between them is thick; they are not, or elsewhere."""


class OpenDrawer(TabletopTask):
    """The drawer is pulled open by its handle."""

    name = "open_drawer"
    instruction = "open the drawer"
    phrases = (
        "pull the drawer open by its handle",
        "pull out the drawer of the small chest",
        "grab the handle and open the drawer",
        "the drawer should be open",
    )
    horizon_s = 8.0
    fixtures, joints = ("chest",), ("drawer",)
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the middle line of the handle's bar"),
        "open_m": truth("m", "how far the drawer is open"),
    }
    mission = f"F[0,5]({GRIPPED}) and F[0,7.5](G[0,0.5](open_m > {PULLED_M} and {LET_GO}))"
    goal = f"open_m > {PULLED_M} and {LET_GO}"
    stages = (
        Stage(name="grip handle", condition=GRIPPED, distance=f"reach_m + max(gripper_width_m - {3 * BAR_M:.3f}, 0)"),
        Stage(name="pull", condition=f"open_m > {PULLED_M}", distance=f"max({PULLED_M} - open_m, 0)"),
        Stage(name="let go", condition=goal, distance=f"max({3 * BAR_M:.3f} - gripper_width_m, 0)", scale=0.01),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        chest = parts.fixture(scene, "chest")
        x, y, wall = *HALF_M, WALL_M
        parts.box(chest, (x, y, wall / 2), (0, 0, wall / 2), parts.WOOD)
        parts.box(chest, (x, y, wall / 2), (0, 0, HEIGHT_M - wall / 2), parts.WOOD)
        parts.box(chest, (wall / 2, y, HEIGHT_M / 2 - wall), (x - wall / 2, 0, HEIGHT_M / 2), parts.WOOD)
        for side in (-1.0, 1.0):
            half = (x - wall / 2, wall / 2, HEIGHT_M / 2 - wall)
            parts.box(chest, half, (-wall / 2, side * (y - wall / 2), HEIGHT_M / 2), parts.WOOD)
        drawer = chest.add_body(name="drawer_body", pos=[-wall, 0, wall + 0.001])
        parts.slide(drawer, "drawer", (-1, 0, 0), (0.0, TRAVEL_M), friction=2.0, damping=10.0)
        parts.tray(drawer, (x - wall, y - wall - 0.003), HEIGHT_M - 0.035, rgba=parts.DARK_WOOD)
        front = -x + wall
        parts.box(drawer, (wall / 2, y - wall - 0.002, 0.042), (front, 0, 0.043), parts.DARK_WOOD, mass=0.1)
        bar = np.subtract(HANDLE_M, drawer.pos)
        parts.handle(drawer, "drawer", bar)
        start, end = ((bar[0], bar[1] + side * BAR_HALF_M, bar[2]) for side in (-1.0, 1.0))
        parts.capsule(drawer, BAR_M, start, end, rgba=parts.GREY, mass=0.03, name="bar")
        for x, y, z in (start, end):
            parts.capsule(drawer, BAR_M * 0.8, (x, y, z), (front, y, z), rgba=parts.GREY, mass=0.01)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        (x0, x1), (y0, y1) = PLACE_M
        turned = yaw_quat(rng.uniform(-TURN_RAD, TURN_RAD))
        return {
            "chest_pos": np.array([rng.uniform(x0, x1), rng.uniform(y0, y1), 0.0]),
            "chest_quat_wxyz": turned,
        }

    def _bar(self, seen: Arrays, opened: Array) -> Array:
        """Middle of the bar (..., 3), the drawer open by `opened` (...)."""
        xp = array_namespace(opened)
        quat, at = seen["chest_quat_wxyz"], seen["chest_pos"]
        closed = out_of(quat, xp.asarray(HANDLE_M, dtype=quat.dtype)) + at
        forward = out_of(quat, xp.asarray((1.0, 0.0, 0.0), dtype=quat.dtype))
        return closed - opened[..., None] * forward

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["drawer"])
        off = into(instance["chest_quat_wxyz"], state["ee_pos"] - self._bar(instance, state["drawer"]))
        beyond = xp.maximum(xp.abs(off[..., 1]) - BAR_HALF_M, 0.0 * off[..., 1])
        reach = xp.sqrt(off[..., 0] ** 2 + beyond**2 + off[..., 2] ** 2)
        return {"reach_m": reach, "open_m": state["drawer"]}

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; the handle is gripped from above."""
        for _ in range(3):
            obs = look()
            bar = self._bar(obs, obs["drawer"][0])
            rot = down(nearest_half_turn(yaw_of(obs["chest_quat_wxyz"]) + np.pi / 2))
            yield from moves.grasp(bar, rot, 2 * BAR_M, WIDTH_M)
            end = self._bar(obs, np.array(PULL_M))
            yield Waypoint(pos=end, rot=rot, width_m=0.0, speed_m_s=0.12, wait_s=0.1)
            yield from moves.release(end, rot, WIDTH_M)
            if look()["drawer"][0] > PULLED_M:
                return
