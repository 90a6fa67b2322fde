"""A box with a hinged lid and a pair of shoes: what the tasks around it share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, down, into, nearest_half_turn, out_of, yaw_of, yaw_quat
from tasks.task import Array, Arrays

if TYPE_CHECKING:
    import mujoco

HALF_M, HEIGHT_M = (0.074, 0.090), 0.050
"""Of the box: outer half sizes, along and across the shoes, and height of its walls."""
WALL_M, FLOOR_M = 0.005, 0.004
LID_M = 0.006
"""Thickness of the lid; its hinge is at the far edge of the box."""
HANDLE_M, BAR_M = 0.031, 0.005
"""How far the bar of the handle stands off the lid's edge, in its plane, and the bar's radius."""
GRIP_HALF_M = 0.018
"""Half the width of the handle inside."""
STOP_RAD, PUSH_RAD, OPEN_RAD = 1.95, 1.85, 1.65
"""Where the lid stops, how far the expert takes it, what counts as open: beyond the vertical it falls to its stop."""
LENGTH_M, WIDTH_M = 0.110, 0.036
"""Of a shoe."""
SOLE_M, TOE_M, HEEL_M = 0.010, 0.026, 0.040
"""Heights of a shoe's sole, toe and heel."""
GRIP_M = (-0.008, 0.0, 0.026)
"""Where a shoe is grasped, from its origin, below the middle of its sole."""
SPREAD_M = 0.036
"""From the middle of the box to the middles of the shoes in it."""
OPEN_M = WIDTH_M + 0.014
"""Width of the jaws next to walls and shoes."""
REST_M, UPRIGHT = 0.008, 0.97
"""How high a shoe that stands may be above what it stands on, and how straight up it points."""
OVER_M = 0.16
"""Height of the tool on its way, with a shoe or without."""
YAW_RAD = np.pi / 8
"""How far the box is turned."""
CHORDS = 6
"""Straight pieces of the lid's arc."""
BESIDE_M = 0.06
"""From the side of the box to the tool on its way around the open lid."""
FAST_M_S = 0.5
TRIES = 3


class ShoeBoxTask(TabletopTask):
    """Two shoes and a box with a lid that is closed at the start.

    The box's origin is on the table below its middle, its x axis points towards the hinge. A shoe's origin is below the
    middle of its sole, its x axis points towards the toe.
    """

    things, fixtures, joints = ("shoe_left", "shoe_right"), ("box",), ("lid",)
    shared = {
        **COMMON,
        "lid_rad": truth("rad", "how far the lid is open"),
        "handle_m": truth("m", "distance of the tool from the lid's handle"),
        "grip_n": truth("N", "force with which both jaws press on a shoe that is not yet where it belongs"),
        "reach_m": truth("m", "distance of the tool from the nearest shoe that is not yet where it belongs"),
        "carry_m": truth("m", "how far that shoe is from where it belongs"),
    }
    """Signals of all these tasks."""

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        for name, side in (("shoe_left", 1), ("shoe_right", -1)):
            shoe, half = parts.thing(scene, name), WIDTH_M / 2
            parts.box(shoe, (LENGTH_M / 2, half, SOLE_M / 2), (0, 0, SOLE_M / 2), parts.WHITE, mass=0.05)
            for start, end, top in ((-0.050, 0.014, HEEL_M), (0.014, 0.053, TOE_M)):
                at, size = ((start + end) / 2, 0, (SOLE_M + top) / 2), ((end - start) / 2, half, (top - SOLE_M) / 2)
                parts.box(shoe, size, at, parts.BLUE, mass=0.03)
            parts.box(shoe, (0.022, half - 0.007, 0.0005), (-0.022, 0, HEEL_M), parts.BLACK, solid=False)
            parts.box(shoe, (0.012, half + 0.0004, 0.004), (-0.010, 0, 0.022), parts.YELLOW, solid=False)
            for x in (0.018, 0.026):
                parts.box(shoe, (0.002, half - 0.006, 0.001), (x, 0.002 * side, TOE_M), parts.WHITE, solid=False)
        box = parts.fixture(scene, "box")
        parts.tray(box, HALF_M, HEIGHT_M, WALL_M, parts.WOOD, FLOOR_M)
        lid = box.add_body(name="lid", pos=(HALF_M[0], 0, HEIGHT_M))
        parts.hinge(lid, "lid", (0, 1, 0), (0.0, STOP_RAD))
        light, middle = {"density": 300.0}, LID_M / 2
        parts.box(lid, (HALF_M[0], HALF_M[1], middle), (-HALF_M[0], 0, middle), parts.ORANGE, **light)
        edge, end = 2 * HALF_M[0], GRIP_HALF_M + BAR_M
        bar = -edge - HANDLE_M
        parts.handle(lid, "lid", (bar, 0, middle))
        parts.capsule(lid, BAR_M, (bar, -end, middle), (bar, end, middle), parts.GREY, **light)
        for side in (-1, 1):
            at = (-edge - HANDLE_M / 2, side * end, middle)
            parts.box(lid, (HANDLE_M / 2, 0.004, middle), at, parts.GREY, **light)

    @staticmethod
    def place_box(rng: np.random.Generator, y_m: tuple[float, float]) -> dict[str, np.ndarray]:
        """Draw where the box stands; `y_m`: to the left, from and to."""
        pos = np.array([rng.uniform(0.48, 0.54), rng.uniform(*y_m), 0.0])
        return {"box_pos": pos, "box_quat_wxyz": yaw_quat(rng.uniform(-YAW_RAD, YAW_RAD))}

    @abstractmethod
    def rest_m(self, rel: Array, upright: Array) -> Array:
        """Above 0 where shoes stand where they belong, below 0 how far they are from there [m], (...).

        `rel` (..., 3) is where they are in the box's frame, `upright` (...) how straight up they point.
        """

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`: the shared signals, and `one_m` and `both_m`, the larger and smaller `rest_m`."""
        xp = array_namespace(state["ee_pos"])
        box, turn = instance["box_pos"], instance["box_quat_wxyz"]
        rests, forces, reaches = [], [], []
        for name in self.things:
            pos, quat = state[f"{name}_pos"], state[f"{name}_quat_wxyz"]
            rest = self.rest_m(into(turn, pos - box), axis_of(quat, 2)[..., 2])
            gap = state["ee_pos"] - pos - GRIP_M[2] * axis_of(quat, 2)
            rests.append(rest)
            forces.append(state[f"{name}_held_n"] * (rest <= 0))
            reaches.append(xp.sqrt((gap**2).sum(-1)) + 1.0 * (rest > 0))
        nearest = xp.minimum(*reaches)
        far = [xp.where(reach <= nearest, -rest, 0.0) for reach, rest in zip(reaches, rests, strict=True)]
        ahead, up = _handle(xp, state["lid"])
        tool = into(turn, state["ee_pos"] - box)
        gap = (tool[..., 0] - ahead, tool[..., 1], tool[..., 2] - up)
        return {
            "lid_rad": state["lid"],
            "handle_m": xp.sqrt((xp.stack(gap, axis=-1) ** 2).sum(-1)),
            "grip_n": xp.maximum(*forces),
            "reach_m": nearest,
            "carry_m": xp.maximum(*far),
            "one_m": xp.maximum(*rests),
            "both_m": xp.minimum(*rests),
        }

    # ---- pieces of scripts -------------------------------------------------------

    def open_lid(self, look: Look) -> Iterator[Waypoint]:
        """Take the handle from above and move it along its arc; again when it slipped."""
        box, turn = look()["box_pos"], look()["box_quat_wxyz"]
        rot = down(yaw_of(turn) + np.pi / 2)
        wide, width = 2 * BAR_M + 0.014, moves.squeezed(2 * BAR_M)

        def bar(angle: float) -> np.ndarray:
            ahead, up = _handle(np, angle)
            return box + out_of(turn, np.array([ahead, 0.0, up]))

        for _ in range(TRIES):
            lid = float(look()["lid"][0])
            if lid > OPEN_RAD:
                return
            yield from moves.grasp(bar(lid), rot, 2 * BAR_M, wide, back_m=0.07)
            for angle in np.linspace(lid, PUSH_RAD, CHORDS + 1)[1:]:
                yield Waypoint(pos=bar(angle), rot=rot, width_m=width, speed_m_s=0.4, near_m=0.02)
            yield from moves.release(bar(PUSH_RAD), rot, wide, back_m=0.05)

    def move_shoe(self, look: Look, name: str, end: np.ndarray) -> Iterator[Waypoint]:
        """Grasp a shoe and put it down with its origin at `end`, turned like the box."""
        obs = look()
        quat, turn = obs[f"{name}_quat_wxyz"], obs["box_quat_wxyz"]
        pos, rot = obs[f"{name}_pos"] + out_of(quat, np.array(GRIP_M)), down(nearest_half_turn(yaw_of(quat)))
        yield from self._round_the_lid(obs, pos, rot, OPEN_M)
        yield Waypoint(pos=_over(pos), rot=rot, width_m=OPEN_M, near_m=0.02, speed_m_s=FAST_M_S)
        yield Waypoint(pos=pos, rot=rot, width_m=OPEN_M, speed_m_s=0.3)
        yield moves.close(pos, rot, WIDTH_M)
        width = moves.squeezed(WIDTH_M)
        yield Waypoint(pos=_over(pos), rot=rot, width_m=width, near_m=0.02)
        yaw = yaw_of(quat) + nearest_half_turn(yaw_of(turn) - yaw_of(quat))  # of the shoe, where it comes to stand
        end = end + out_of(yaw_quat(yaw), np.array(GRIP_M)) + 0.003 * moves.UP
        rot = down(nearest_half_turn(yaw))
        yield from self._round_the_lid(obs, pos, rot, width)
        yield Waypoint(pos=_over(end), rot=rot, width_m=width, near_m=0.01, speed_m_s=FAST_M_S)
        yield Waypoint(pos=end, rot=rot, width_m=width, speed_m_s=0.25)
        yield from moves.release(end, rot, OPEN_M, back_m=OVER_M - end[2])

    @staticmethod
    def _round_the_lid(obs: Arrays, pos: np.ndarray, rot: np.ndarray, width_m: float) -> Iterator[Waypoint]:
        """Pass beside the box between it and a place from where the straight way would cross the open lid."""
        rel = into(obs["box_quat_wxyz"], pos - obs["box_pos"])
        if rel[0] > 0.0 and abs(rel[1]) > HALF_M[1]:
            beside = np.array([-0.02, np.sign(rel[1]) * (HALF_M[1] + BESIDE_M), 0.0])
            at = _over(obs["box_pos"] + out_of(obs["box_quat_wxyz"], beside))
            yield Waypoint(pos=at, rot=rot, width_m=width_m, near_m=0.03, speed_m_s=FAST_M_S)


def _handle(xp: Any, angle: Array) -> tuple[Array, Array]:
    """Where the bar of the handle is while the lid is open by an angle: ahead and up from the box [m]."""
    arm, rise = 2 * HALF_M[0] + HANDLE_M, LID_M / 2
    cos, sin = xp.cos(angle), xp.sin(angle)
    return HALF_M[0] - arm * cos + rise * sin, HEIGHT_M + arm * sin + rise * cos


def _over(pos: np.ndarray) -> np.ndarray:
    """Above everything but the open lid."""
    return np.array([*pos[:2], OVER_M])
