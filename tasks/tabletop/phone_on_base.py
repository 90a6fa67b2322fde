"""Put a phone onto its charging base."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, axis_quat, down, facing, nearest_half_turn, yaw_of
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

HALF_M = (0.060, 0.030, 0.007)
"""Half sizes of the phone: along, across, thick."""
TILT_RAD = np.deg2rad(20)
"""Of the cradle against the table; its low end, with the lip, is at -x."""
SEAT_M = 0.029
"""Height of the middle of the cradle's surface."""
GAP_M, RIM_M = 0.003, 0.004
"""Between phone and rims, and half a rim's thickness."""
GRIP_M = 0.003
"""The tool centre point is so far above the middle of the phone: its tips stay off what is below."""
DROP_M = 0.0015
"""Above its seat the phone is let go."""
OVER_M, ABOVE_M = 0.15, 0.08
"""Heights of the tool on its way, and above the place where it lets go."""
APART_M = 0.19
FURTHER_M = 0.10
"""The base stands so far beyond the area of the phone: at the cradle the tilted arm needs room before it."""
OFF_M, ASKEW_RAD = 0.010, 0.12
"""How far the phone may be from its seat when it lies on the base."""


class PhoneOnBase(TabletopTask):
    """A phone lies flat on the table; it is put onto an inclined charging base with a lip and low rims."""

    name = "phone_on_base"
    instruction = "put the phone on its base"
    phrases = (
        "place the phone on the charging base",
        "pick up the phone and set it on the charger",
        "lay the phone into its cradle",
        "charge the phone: put it on the base and let go",
    )
    horizon_s = 10.0
    things, fixtures = ("phone",), ("base",)
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the phone"),
        "lift_m": truth("m", "height of the phone above the table"),
        "off_m": truth("m", "distance of the phone's middle from where it is when it lies on the base"),
        "askew_rad": truth("rad", "turn of the phone against the cradle, the larger of its long axis and its screen"),
    }
    goal = f"off_m < {OFF_M} and askew_rad < {ASKEW_RAD} and {RELEASED}"
    mission = f"F[0,5.5](held_n > 0.5 and lift_m > 0.03) and F[0,9.5](G[0,0.5]({goal}))"
    stages = (
        Stage(name="grasp", condition="held_n > 0.5", distance="reach_m"),
        Stage(name="place", condition=goal, distance="off_m + 0.1 * askew_rad"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the base's origin is on the table below the middle of its cradle."""
        length, width, thick = HALF_M
        phone = parts.thing(scene, "phone")
        parts.box(phone, HALF_M, rgba=parts.BLACK, mass=0.12)
        parts.box(phone, (length - 0.006, width - 0.003, 5e-4), (0, 0, thick), (0.35, 0.60, 0.85, 1.0), solid=False)
        parts.cylinder(phone, 0.002, 6e-4, (length - 0.003, 0, thick), parts.GREY, solid=False)
        base = parts.fixture(scene, "base")
        parts.box(base, (0.045, 0.035, 0.003), (0.005, 0, 0.003), parts.GREY)
        parts.box(base, (0.012, 0.020, 0.014), (0.030, 0, 0.019), parts.GREY)
        cradle = base.add_body(name="cradle", pos=(0, 0, SEAT_M), quat=axis_quat((0, 1, 0), -TILT_RAD))
        parts.box(cradle, (length, width - 0.006, 0.003), (0, 0, -0.003), parts.WHITE)  # narrower: jaws go past it
        low = -length - GAP_M / 2
        parts.box(cradle, (RIM_M, width + GAP_M + 2 * RIM_M, 0.007), (low - RIM_M, 0, 0.001), parts.WHITE)
        for side in (-1, 1):
            at = (low + 0.013, side * (width + GAP_M + RIM_M), 0.001)
            parts.box(cradle, (0.013, RIM_M, 0.007), at, parts.WHITE)
        parts.box(cradle, (0.002, 0.008, 0.004), (low - 2 * RIM_M, 0, 0.001), parts.GREEN, solid=False)  # its lamp

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: so far apart that the hand at the phone keeps off the base."""
        while True:
            phone, base = self.spots(rng, 2, apart_m=0.0, inset_m=0.01)
            base += (FURTHER_M, 0, 0)
            if np.linalg.norm(phone - base) > APART_M:
                break
        return {
            "phone_pos": np.add(phone, (0, 0, HALF_M[2])),
            "phone_quat_wxyz": self.heading(rng),
            "base_pos": base,
            "base_quat_wxyz": self.heading(rng),
        }

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["phone_pos"])
        phone, turn = state["phone_pos"], state["phone_quat_wxyz"]
        seat, along, normal = _seat(instance["base_pos"], instance["base_quat_wxyz"])
        skew = [xp.sqrt(((axis_of(turn, i) - axis) ** 2).sum(-1)) for i, axis in ((0, along), (2, normal))]
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - phone) ** 2).sum(-1)),
            "lift_m": phone[..., 2] - HALF_M[2],
            "off_m": xp.sqrt(((phone - seat) ** 2).sum(-1)),
            "askew_rad": xp.maximum(*skew),  # a chord is its angle, nearly
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again when the phone was lost."""
        gripper = self.robot.gripper
        assert gripper is not None
        across = 2 * HALF_M[1]
        held = moves.squeezed(across)
        for _ in range(3):
            obs = look()
            pos, rot = obs["phone_pos"] + GRIP_M * moves.UP, down(nearest_half_turn(yaw_of(obs["phone_quat_wxyz"])))
            yield from moves.grasp(pos, rot, across, gripper.open_m)
            yield Waypoint(pos=np.array([*pos[:2], OVER_M]), rot=rot, width_m=held, near_m=0.015)
            seat, along, normal = _seat(obs["base_pos"], obs["base_quat_wxyz"])
            rot = facing(-normal, np.cross(along, normal))
            end = seat + (GRIP_M + DROP_M) * normal
            above = end + ABOVE_M * moves.UP  # straight up: along the tilted tool's axis the arm would fold up
            yield Waypoint(pos=above, rot=rot, width_m=held, near_m=0.006)
            yield Waypoint(pos=end, rot=rot, width_m=held, speed_m_s=0.12, near_m=0.002)
            yield Waypoint(pos=end, rot=rot, width_m=gripper.open_m, wait_s=moves.RELEASE_S, near_m=0.01)
            yield Waypoint(pos=above, rot=rot, width_m=gripper.open_m, speed_m_s=0.25, near_m=0.02)
            if np.linalg.norm(look()["phone_pos"] - seat) < OFF_M:
                return


def _seat(base: Array, turn: Array) -> tuple[Array, Array, Array]:
    """Where the phone's middle is when it lies on the base; the directions of its long axis and of its screen."""
    ahead, up = axis_of(turn, 0), axis_of(turn, 2)
    along = np.cos(TILT_RAD) * ahead + np.sin(TILT_RAD) * up
    normal = np.cos(TILT_RAD) * up - np.sin(TILT_RAD) * ahead
    return base + SEAT_M * up + HALF_M[2] * normal, along, normal
