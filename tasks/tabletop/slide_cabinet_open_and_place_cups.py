"""Slide the door of a cabinet aside and put a cup into the half behind it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, axis_quat, facing, into, out_of, yaw_of, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

CUP_HALF_M, CUP_M, CUP_WALL_M, SIDES = 0.028, 0.075, 0.004, 8
"""Half the width of the cup, its height, its walls."""
GRIP_M, GRIP_BACK_M = 0.048, 0.004
"""Where the cup is grasped: so high, so far this side of its middle."""
CHINA = (0.3, 0.005, 1e-4)
"""Friction of cup and shelf, as of `parts.FRICTION`: the cup slides when it is pushed low."""
BOARD_M, DEPTH_M, HEIGHT_M = 0.008, 0.16, 0.17
"""Of the cabinet: its boards, its depth, its height."""
FLOOR_M, FRONT_M = 0.010, 0.010
"""Top of its floor; it begins so far behind the outer face of the door."""
ROOM_HALF_M = 0.068
"""Half the width of each half inside."""
TRAVEL_M = 2 * ROOM_HALF_M + BOARD_M
"""Of the door, from one half to the other."""
HANDLE_M, HANDLE_HALF_M, HANDLE_UP_M = 0.025, 0.006, 0.10
"""How far the bar of the handle stands off the door, half its width, and its height."""
SLIDE_M = 0.06
"""So far is open."""
TILT_RAD = np.deg2rad(25)
"""Of the tool against the table: the hand stays before the door, whose plane it is too wide to pass."""
PLACE_M, PUSH_M = 0.022, 0.022
"""How far the tool goes in behind the door's outer face, with the cup and when it pushes it."""
PUSH_UP_M = 0.028
"""Height of the tool when it pushes: low, so that the cup does not topple."""
BEFORE_M, OVER_M = 0.12, 0.11
"""Way in: from so far before the door; on the way there the tool is so high."""
BACK_M = 0.09
FINGER_ROOM_M = 0.02


class SlideCabinetOpenAndPlaceCups(TabletopTask):
    """The sliding door of a cabinet covers one of its halves; it is slid over the other, and a cup put in where it was.

    The cabinet stands on the left or on the right and faces inwards: there the arm reaches into it from the front. The
    hand is wider than the cabinet's halves and stays outside: it sets the cup down within the opening and pushes it
    further in with closed jaws. The slots ``{way}`` and ``{half}`` of `phrases` are filled by the words of `instruct`.
    """

    name = "slide_cabinet_open_and_place_cups"
    instruction = "slide the cabinet door open and put the cup inside"
    phrases = (
        "slide the door to the {way} and place the cup in the {half} half of the cabinet",
        "open the cabinet by sliding its door {way}, then put the cup inside",
        "move the cabinet door to the {way} and store the cup behind where it was",
        "the cup belongs in the {half} half of the cabinet; slide the door out of the way",
    )
    horizon_s = 20.0
    things, fixtures, joints = ("cup",), ("cabinet",), ("door",)
    variation = {"side": (1,)}
    signals = {
        **COMMON,
        "handle_m": truth("m", "distance of the tool from the handle"),
        "opened_m": truth("m", "how far the door is slid from where it was"),
        "reach_m": truth("m", "distance of the tool from where the cup is grasped"),
        "inside_m": truth("m", "how far the cup is inside the half that the door covered"),
        "tilt_rad": truth("rad", "angle of the cup against the vertical"),
    }
    goal = f"opened_m > {SLIDE_M} and inside_m > 0 and tilt_rad < 0.2 and {RELEASED}"
    mission = f"F[0,7](opened_m > {SLIDE_M}) and F[0,19](G[0,0.5]({goal}))"
    stages = (
        Stage(
            name="grip",
            condition="handle_m < 0.02 and gripper_width_m < 0.03 or opened_m > 0.02",
            distance="handle_m + max(gripper_width_m - 0.03, 0)",
        ),
        Stage(name="slide", condition=f"opened_m > {SLIDE_M}", distance=f"max({TRAVEL_M:g} - opened_m, 0)"),
        Stage(name="release", condition="gripper_width_m > 0.03", distance="max(0.03 - gripper_width_m, 0)"),
        Stage(name="grasp", condition="held_n > 0.5", distance=f"reach_m + max({TRAVEL_M:g} - opened_m, 0)"),
        Stage(name="place", condition=goal, distance="max(0.005 - inside_m, 0)"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the cabinet's origin is on the floor below the middle of the door's outer plane."""
        cup = parts.thing(scene, "cup")
        china: dict[str, Any] = {"friction": CHINA, "density": 1200.0}
        parts.cylinder(cup, CUP_HALF_M - CUP_WALL_M, 0.003, (0, 0, 0.003), parts.BLUE, **china)
        flat = CUP_HALF_M * np.tan(np.pi / SIDES)
        for i in range(SIDES):
            angle, out, up = 2 * np.pi * i / SIDES, CUP_HALF_M - CUP_WALL_M / 2, (CUP_M + 0.001) / 2
            at, turn = (out * np.cos(angle), out * np.sin(angle), up), axis_quat((0, 0, 1), angle)
            size = (CUP_WALL_M / 2, flat, (CUP_M - 0.001) / 2)
            parts.box(cup, size, at, parts.BLUE if i % 2 else parts.WHITE, quat=turn, **china)
        cabinet = parts.fixture(scene, "cabinet")
        still: dict[str, Any] = {"friction": CHINA, "conaffinity": 0}  # its parts need not touch each other
        wide, deep = TRAVEL_M + BOARD_M / 2, (DEPTH_M - FRONT_M) / 2
        middle, half, up = FRONT_M + deep, BOARD_M / 2, HEIGHT_M / 2
        parts.box(cabinet, (deep, wide, FLOOR_M / 2), (middle, 0, FLOOR_M / 2), parts.WOOD, **still)
        parts.box(cabinet, (deep, wide, half), (middle, 0, HEIGHT_M - half), parts.DARK_WOOD, **still)
        parts.box(cabinet, (half, wide, up), (DEPTH_M - half, 0, up), parts.DARK_WOOD, **still)
        for y in (-TRAVEL_M, 0.0, TRAVEL_M):
            parts.box(cabinet, (deep, half, up), (middle, y, up), parts.DARK_WOOD, **still)
        door = cabinet.add_body(name="door")
        parts.slide(door, "door", (0, 1, 0), (-TRAVEL_M / 2, TRAVEL_M / 2))
        light: dict[str, Any] = {"conaffinity": 0, "density": 500.0}
        panel = (0.004, TRAVEL_M / 2, (HEIGHT_M - FLOOR_M) / 2)
        parts.box(door, panel, (0.004, 0, HEIGHT_M / 2), parts.GREEN, **light)
        parts.box(door, (0.005, HANDLE_HALF_M, 0.020), (-HANDLE_M, 0, HANDLE_UP_M), parts.GREY, **light)
        parts.handle(door, "door", (-HANDLE_M, 0, HANDLE_UP_M))
        for end in (-1, 1):
            at = (-HANDLE_M / 2, 0, HANDLE_UP_M + end * 0.016)
            parts.box(door, (HANDLE_M / 2, 0.004, 0.004), at, parts.GREY, **light)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        hand, side = rng.choice([-1.0, 1.0]), rng.choice([-1.0, 1.0])
        return {
            "cabinet_pos": np.array([rng.uniform(0.46, 0.52), hand * rng.uniform(0.22, 0.25), 0.0]),
            "cabinet_quat_wxyz": yaw_quat(hand * np.pi / 2 + rng.uniform(-0.17, 0.17)),
            "cup_pos": np.array([rng.uniform(0.38, 0.60), hand * rng.uniform(-0.20, 0.10), 0.0]),
            "cup_quat_wxyz": self.heading(rng),
            "door": np.array([side * TRAVEL_M / 2]),
            "side": np.array([side]),
        }

    def instruct(self, instance: Arrays) -> str:
        """See `TabletopTask.instruct`: left and right of one who stands before the cabinet."""
        half, way = ("left", "right") if instance["side"][0] > 0 else ("right", "left")
        return f"slide the cabinet door to the {way} and put the cup into the {half} half"

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["cup_pos"])
        cabinet, turn, side = instance["cabinet_pos"], instance["cabinet_quat_wxyz"], instance["side"][..., 0]
        tool, cup = into(turn, state["ee_pos"] - cabinet), into(turn, state["cup_pos"] - cabinet)
        gap = (tool[..., 0] + HANDLE_M, tool[..., 1] - state["door"], tool[..., 2] - HANDLE_UP_M)
        aside = ROOM_HALF_M - xp.abs(cup[..., 1] - side * TRAVEL_M / 2)
        inside = (cup[..., 0] - FRONT_M, DEPTH_M - BOARD_M - cup[..., 0], aside, HEIGHT_M - BOARD_M - cup[..., 2])
        up = axis_of(state["cup_quat_wxyz"], 2)
        reach = state["ee_pos"] - state["cup_pos"] - GRIP_M * up
        return {
            "handle_m": xp.sqrt((xp.stack(gap, axis=-1) ** 2).sum(-1)),
            "opened_m": TRAVEL_M / 2 - side * state["door"],
            "reach_m": xp.sqrt((reach**2).sum(-1)),
            "inside_m": xp.amin(xp.stack(inside, axis=-1), axis=-1) - CUP_HALF_M,
            "tilt_rad": xp.atan2(xp.sqrt(up[..., 0] ** 2 + up[..., 1] ** 2), up[..., 2]),
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; slides again when the handle slipped, places again when the cup was lost."""
        gripper = self.robot.gripper
        assert gripper is not None
        obs = look()
        cabinet, turn, side = obs["cabinet_pos"], obs["cabinet_quat_wxyz"], float(obs["side"][0])
        rot, narrow = _level(yaw_of(turn)), 2 * (HANDLE_HALF_M + FINGER_ROOM_M)

        def spot(ahead: float, aside: float, up: float) -> np.ndarray:
            return cabinet + out_of(turn, np.array([ahead, aside, up]))

        for _ in range(3):
            door = float(look()["door"][0])
            if TRAVEL_M / 2 - side * door > SLIDE_M:
                break
            bar, end = spot(-HANDLE_M, door, HANDLE_UP_M), spot(-HANDLE_M, -side * TRAVEL_M / 2, HANDLE_UP_M)
            yield from moves.grasp(bar, rot, 2 * HANDLE_HALF_M, narrow)
            held = moves.squeezed(2 * HANDLE_HALF_M)
            yield Waypoint(pos=end, rot=rot, width_m=held, speed_m_s=0.25, near_m=0.01)
            yield from moves.release(end, rot, narrow)
        middle = side * TRAVEL_M / 2
        for _ in range(2):
            obs = look()
            yaw = yaw_of(turn) + _fold(yaw_of(obs["cup_quat_wxyz"]) - yaw_of(turn))
            grip = _level(yaw)
            ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
            start = obs["cup_pos"] + GRIP_M * moves.UP - GRIP_BACK_M * ahead
            behind = start - BACK_M * grip[:, 2]
            yield Waypoint(pos=behind + 0.06 * moves.UP, rot=grip, width_m=gripper.open_m, near_m=0.02)
            yield from moves.grasp(start, grip, 2 * CUP_HALF_M, gripper.open_m, back_m=BACK_M)
            held, up = moves.squeezed(2 * CUP_HALF_M), FLOOR_M + GRIP_M + 0.002
            yield Waypoint(pos=np.array([*start[:2], OVER_M]), rot=grip, width_m=held, near_m=0.01)
            yield Waypoint(pos=spot(-BEFORE_M, middle, OVER_M), rot=rot, width_m=held, near_m=0.01)
            yield Waypoint(pos=spot(-BEFORE_M / 2, middle, up), rot=rot, width_m=held, near_m=0.005)
            end = spot(PLACE_M, middle, up)
            yield Waypoint(pos=end, rot=rot, width_m=held, speed_m_s=0.15)
            yield from moves.release(end, rot, gripper.open_m)
            yield Waypoint(pos=spot(-BACK_M, middle, PUSH_UP_M + 0.02), rot=rot, width_m=0.0, near_m=0.01, wait_s=0.3)
            yield Waypoint(pos=spot(-0.5 * BACK_M, middle, PUSH_UP_M), rot=rot, width_m=0.0)
            end = spot(PUSH_M, middle, PUSH_UP_M)
            yield Waypoint(pos=end, rot=rot, width_m=0.0, speed_m_s=0.12)
            yield Waypoint(pos=end - BACK_M * rot[:, 2], rot=rot, width_m=0.0, speed_m_s=0.25, near_m=0.02)
            if into(turn, look()["cup_pos"] - cabinet)[0] > FRONT_M + CUP_HALF_M:
                return


def _level(yaw: float) -> np.ndarray:
    """The tool ahead and a little down; this way round the wrist is above it."""
    ahead = np.array([np.cos(yaw), np.sin(yaw), 0.0])
    return facing(np.cos(TILT_RAD) * ahead - np.sin(TILT_RAD) * moves.UP, (-np.sin(yaw), np.cos(yaw), 0.0))


def _fold(angle: float) -> float:
    """The least turn after which the jaws are parallel to sides of the cup."""
    step = 2 * np.pi / SIDES
    return (angle + step / 2) % step - step / 2
