"""Pull a drawer of a chest open and put an item into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, down, facing, into, nearest_half_turn, out_of, yaw_of, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

LEVELS = ("bottom", "middle", "top")
HALF_M = 0.018
"""Half the side of the item."""
WIDTH_M, DEPTH_M, BOARD_M, FOOT_M = 0.17, 0.20, 0.008, 0.012
PITCH_M = 0.060
"""From drawer to drawer."""
HEIGHT_M = FOOT_M + 3 * PITCH_M + BOARD_M
"""Of the chest."""
FRONT_M = 0.012
"""Thickness of a drawer's front, which stands before the chest."""
GAP_M, WALL_M = 0.003, 0.005
INNER_HALF_M, INNER_DEPTH_M = WIDTH_M / 2 - BOARD_M - GAP_M - WALL_M, DEPTH_M - BOARD_M - GAP_M - WALL_M
FLOOR_M, RIM_M = 0.009, 0.046
"""Heights within a drawer: of its floor, of its walls."""
HANDLE_M, HANDLE_WIDTH_M = 0.020, 0.012
"""How far the bar of a handle stands off the front, and its width."""
HANDLE_UP_M = 0.030
SPAN_M = 0.145
"""As far as a drawer goes."""
PULL_M, OPEN_M = 0.135, 0.10
"""How far the expert pulls, and how far counts as open."""
PASS_M = 2 * HALF_M + FRONT_M
"""The item goes through no narrower opening."""
TILT_RAD = np.deg2rad(35)
"""Of the tool at a handle, against the table."""
DROP_M = 0.098
"""From the chest to where the item is let go: the hand stays off the handles above."""
OVER_M = 0.30
"""Height of the tool on its way above everything."""
FINGER_ROOM_M = 0.02
FAST_M_S = 0.5
AWAY_M = 0.33
"""So far before the chest the hand gets down to the table, whatever is open."""


class PutItemInDrawer(TabletopTask):
    """One of three drawers is pulled open by its handle; an item is grasped and put into it.

    The item lies beside the chest or on its top. The slots ``{drawer}`` of `phrases` are filled by `instruct`'s word.
    """

    name = "put_item_in_drawer"
    instruction = "put the block into a drawer of the chest"
    phrases = (
        "open the {drawer} drawer and put the block in it",
        "place the purple block inside the {drawer} drawer",
        "pull the {drawer} drawer open, then drop the block into it",
        "store the block in the {drawer} drawer of the chest",
    )
    horizon_s = 18.0
    things, fixtures = ("item",), ("chest",)
    symmetry = {"item": 2}
    joints = tuple(f"drawer_{level}" for level in LEVELS)
    variation = {"drawer": (3,)}
    signals = {
        **COMMON,
        "handle_m": truth("m", "distance of the tool from the handle of the named drawer"),
        "opened_m": truth("m", "how far the named drawer is open"),
        "reach_m": truth("m", "distance of the tool from the item"),
        "inside_m": truth("m", "how deep the item's centre is within the named drawer, below its rim"),
    }
    mission = f"F[0,7](opened_m > {OPEN_M}) and F[0,17.5](G[0,0.5](inside_m > 0.005 and {RELEASED}))"
    goal = f"inside_m > 0.005 and {RELEASED}"
    stages = (
        Stage(
            name="grip",
            condition="handle_m < 0.02 and gripper_width_m < 0.03 or opened_m > 0.02",
            distance="handle_m + max(gripper_width_m - 0.03, 0)",
        ),
        Stage(name="pull", condition=f"opened_m > {PASS_M:g}", distance=f"max({OPEN_M} - opened_m, 0)"),
        Stage(name="grasp", condition="held_n > 0.5", distance=f"reach_m + max({OPEN_M} - opened_m, 0)"),
        Stage(name="place", condition=goal, distance="max(0.015 - inside_m, 0)"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the chest's origin is on the floor below the middle of its front."""
        item = parts.thing(scene, "item")
        parts.box(item, (HALF_M,) * 3, rgba=parts.PURPLE, mass=0.06)
        parts.box(item, (HALF_M + 5e-4, 0.006, HALF_M + 5e-4), rgba=parts.YELLOW, solid=False)
        chest = parts.fixture(scene, "chest")
        still = {"rgba": parts.DARK_WOOD, "conaffinity": 0}  # its parts need not touch each other
        middle, half = DEPTH_M / 2, HEIGHT_M / 2
        for side in (-1, 1):
            parts.box(chest, (middle, BOARD_M / 2, half), (middle, side * (WIDTH_M - BOARD_M) / 2, half), **still)
        parts.box(chest, (middle, WIDTH_M / 2, FOOT_M / 2), (middle, 0, FOOT_M / 2), **still)
        parts.box(chest, (middle, WIDTH_M / 2, BOARD_M / 2), (middle, 0, HEIGHT_M - BOARD_M / 2), **still)
        parts.box(chest, (BOARD_M / 2, WIDTH_M / 2, half), (DEPTH_M - BOARD_M / 2, 0, half), **still)
        for i, name in enumerate(self.joints):
            self._drawer(chest.add_body(name=name, pos=(0, 0, _level(i))), name)

    @staticmethod
    def _drawer(body, name: str) -> None:
        parts.slide(body, name, (-1, 0, 0), (0.0, SPAN_M))
        light = {"conaffinity": 0, "density": 500.0}
        front = PITCH_M / 2 - 0.002
        parts.box(body, (FRONT_M / 2, WIDTH_M / 2, front), (-FRONT_M / 2, 0, PITCH_M / 2), parts.WOOD, **light)
        length, rise = (INNER_DEPTH_M + WALL_M) / 2, (RIM_M - FLOOR_M) / 2 + WALL_M / 2
        across, up = INNER_HALF_M + WALL_M, FLOOR_M - WALL_M + rise
        parts.box(body, (length, across, WALL_M / 2), (length, 0, FLOOR_M - WALL_M / 2), parts.WHITE, **light)
        for side in (-1, 1):
            at = (length, side * (across - WALL_M / 2), up)
            parts.box(body, (length, WALL_M / 2, rise), at, parts.WHITE, **light)
        parts.box(body, (WALL_M / 2, across, rise), (2 * length - WALL_M / 2, 0, up), parts.WHITE, **light)
        bar, stand = FRONT_M + HANDLE_M, HANDLE_WIDTH_M / 2
        parts.handle(body, name, (-bar, 0, HANDLE_UP_M))
        parts.box(body, (0.005, stand, 0.018), (-bar, 0, HANDLE_UP_M), parts.GREY, **light)
        for end in (-1, 1):
            at = (-FRONT_M - HANDLE_M / 2, 0, HANDLE_UP_M + end * 0.014)
            parts.box(body, (HANDLE_M / 2, 0.004, 0.004), at, parts.GREY, **light)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the chest on the left or right, facing inwards; the item on it or before it."""
        side = rng.choice([-1.0, 1.0])
        chest = np.array([rng.uniform(0.44, 0.54), side * rng.uniform(0.25, 0.28), 0.0])
        turn = yaw_quat(side * np.pi / 2 + rng.uniform(-0.25, 0.25))
        if rng.random() < 0.5:
            item = chest + out_of(turn, np.array([*rng.uniform((0.03, -0.05), (0.12, 0.05)), HEIGHT_M + HALF_M]))
        else:
            while True:
                item = np.array([rng.uniform(0.38, 0.62), -side * rng.uniform(0.0, 0.20), HALF_M])
                if into(turn, item - chest)[0] < -AWAY_M:
                    break
        return {
            "chest_pos": chest,
            "chest_quat_wxyz": turn,
            "item_pos": item,
            "item_quat_wxyz": self.heading(rng),
            "drawer": np.eye(3)[rng.integers(3)],
        }

    def instruct(self, instance: Arrays) -> str:
        """See `TabletopTask.instruct`."""
        return f"put the block into the {LEVELS[int(np.argmax(instance['drawer']))]} drawer of the chest"

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["item_pos"])
        chest, turn, named = instance["chest_pos"], instance["chest_quat_wxyz"], instance["drawer"]
        opened = (xp.stack([state[name] for name in self.joints], axis=-1) * named).sum(-1)
        level = sum(named[..., i] * _level(i) for i in range(len(LEVELS)))
        item = into(turn, state["item_pos"] - chest)
        tool = into(turn, state["ee_pos"] - chest)
        ahead, up = item[..., 0] + opened, item[..., 2] - level
        inside = (ahead, INNER_DEPTH_M - ahead, INNER_HALF_M - xp.abs(item[..., 1]), up - FLOOR_M, RIM_M - up)
        gap = (tool[..., 0] + opened + FRONT_M + HANDLE_M, tool[..., 1], tool[..., 2] - level - HANDLE_UP_M)
        return {
            "handle_m": xp.sqrt((xp.stack(gap, axis=-1) ** 2).sum(-1)),
            "opened_m": opened,
            "reach_m": xp.sqrt(((state["ee_pos"] - state["item_pos"]) ** 2).sum(-1)),
            "inside_m": xp.amin(xp.stack(inside, axis=-1), axis=-1),
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; pulls again when the handle slipped, grasps again when the item was lost."""
        gripper = self.robot.gripper
        assert gripper is not None
        obs = look()
        named = int(np.argmax(obs["drawer"]))
        chest, turn = obs["chest_pos"], obs["chest_quat_wxyz"]
        ahead, left = axis_of(turn, 0), axis_of(turn, 1)
        rot = facing(np.cos(TILT_RAD) * ahead - np.sin(TILT_RAD) * moves.UP, left)  # this way round the wrist is above
        for _ in range(3):
            opened = float(look()[self.joints[named]][0])
            if opened > OPEN_M:
                break
            handle = chest - (FRONT_M + HANDLE_M) * ahead + (_level(named) + HANDLE_UP_M) * moves.UP
            bar = handle - opened * ahead
            yield from moves.grasp(bar, rot, HANDLE_WIDTH_M, HANDLE_WIDTH_M + 2 * FINGER_ROOM_M)
            end, width = handle - PULL_M * ahead, moves.squeezed(HANDLE_WIDTH_M)
            yield Waypoint(pos=bar, rot=rot, width_m=width, wait_s=0.3, near_m=0.01)
            yield Waypoint(pos=end, rot=rot, width_m=width, speed_m_s=0.25, near_m=0.01)
            yield from moves.release(end, rot, HANDLE_WIDTH_M + 2 * FINGER_ROOM_M)
            clear = _over(end - 0.08 * rot[:, 2])
            yield Waypoint(pos=clear, rot=down(0.0), width_m=gripper.open_m, speed_m_s=FAST_M_S, near_m=0.03)
        drop = chest - DROP_M * ahead + (_level(named) + RIM_M + 0.010) * moves.UP
        for _ in range(3):
            item = look()["item_pos"]
            yaw = (yaw_of(look()["item_quat_wxyz"]) + np.pi / 4) % (np.pi / 2) - np.pi / 4  # any quarter turn will do
            rot = down(yaw)
            yield Waypoint(pos=_over(item), rot=rot, width_m=gripper.open_m, speed_m_s=FAST_M_S, near_m=0.03)
            yield from moves.grasp(item, rot, 2 * HALF_M, gripper.open_m, back_m=0.05)
            width = moves.squeezed(2 * HALF_M)
            yield Waypoint(pos=_over(item), rot=rot, width_m=width, near_m=0.03)
            rot = down(yaw + nearest_half_turn(yaw_of(turn) - yaw))
            yield Waypoint(pos=_over(drop), rot=rot, width_m=width, near_m=0.01)
            yield Waypoint(pos=drop, rot=rot, width_m=width, speed_m_s=0.25)
            yield from moves.release(drop, rot, gripper.open_m)
            rel = into(turn, look()["item_pos"] - chest)
            if abs(rel[1]) < INNER_HALF_M and rel[2] < _level(named) + RIM_M:
                return


def _level(index: int) -> float:
    """Height of the lower edge of a drawer [m]."""
    return FOOT_M + index * PITCH_M


def _over(pos: np.ndarray) -> np.ndarray:
    """Above everything."""
    return np.array([*pos[:2], OVER_M])
