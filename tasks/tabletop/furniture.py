"""Assembly of furniture: parts that fit into each other, and what tasks of putting them together share.

Instead of threads there are square pegs and holes, `CLEARANCE_M` apart on each side; rims are ridges whose slopes guide
a part that comes a little off.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, axis_quat, down, into, matrix, nearest_half_turn, out_of, yaw_of
from tasks.task import Array, Arrays, Signal, Stage

CLEARANCE_M = 0.0012
"""Between what is put together, on each side."""
OFF_M, TILT_RAD = 0.003, np.radians(5.0)
"""Within these of its assembled pose a part is mated."""
SMOOTH = (0.3, 0.005, 1e-4)
"""Friction of furniture, as of `parts.FRICTION`: a part does not stick on its way in."""
ROOM_M = 0.03
"""The jaws open this much more than a part is thick."""
GRIP_S, STEADY_S = 0.5, 0.15
ABOVE_M, SEAT_M = 0.015, 0.001
"""A part is aligned so high above where it enters, and let go so high above where it rests."""
INSERT_M_S = 0.08
ATTEMPTS = 3


@dataclass(frozen=True, kw_only=True)
class Part:
    """A part that is put onto another, upright; the jaws move along its y axis.

    Attributes:
        name: Its body, a thing; the origin is at its lower end.
        onto: The body that it is mated with.
        at: Where its origin then is in that body's frame [m].
        depth_m: From where it enters down to there.
        grip: Where it is grasped, in its own frame [m].
        thickness_m: There, between the jaws.
        alike: So many turns about the vertical look alike.
    """

    name: str
    onto: str
    at: tuple[float, float, float]
    depth_m: float
    grip: tuple[float, float, float]
    thickness_m: float
    alike: int = 1

    @property
    def mated(self) -> str:
        """State formula: it is where it belongs."""
        return f"{self.name}_off_m < {OFF_M} and {self.name}_tilt_rad < {TILT_RAD:.4f}"


def signals_of(assembly: Sequence[Part]) -> dict[str, Signal]:
    """The signals of `Assembly.derive`."""
    found = dict(COMMON)
    for part in assembly:
        name = part.name
        found |= {
            f"{name}_reach_m": truth("m", f"distance of the tool from where the {name} is grasped"),
            f"{name}_held_n": Signal(
                unit="N", source=COMMON["held_n"].source, text=f"how hard jaws press on the {name}"
            ),
            f"{name}_off_m": truth("m", f"distance of the {name} from its assembled place"),
            f"{name}_tilt_rad": truth("rad", f"angle of the {name} to its assembled orientation"),
        }
    return found


def stages_of(assembly: Sequence[Part]) -> tuple[Stage, ...]:
    """For every part: it is grasped, then mated and let go; before the last stage all are."""
    stages: list[Stage] = []
    for i, part in enumerate(assembly):
        name, so_far = part.name, " and ".join(p.mated for p in assembly[: i + 1])
        insert = f"{name}_off_m + 0.05 * {name}_tilt_rad"
        stages += [
            Stage(name=f"grasp_{name}", condition=f"{name}_held_n > 0.5", distance=f"{name}_reach_m"),
            Stage(name=f"insert_{name}", condition=f"{so_far} and {RELEASED}", distance=insert),
        ]
    return tuple(stages)


class Assembly(TabletopTask):
    """Parts are mated one after the other. Subclasses set the attributes below, `build` and `arrange`."""

    assembly: ClassVar[tuple[Part, ...]]
    over_m: ClassVar[float]
    """Height of a part's lower end on its way, above everything."""

    def scatter(self, rng: np.random.Generator, radii_m: Sequence[float]) -> np.ndarray:
        """Places (n, 3) on the table, as far apart as the radii of two bodies add up to.

        Raises:
            TaskError: There is no room.
        """
        needed = np.add.outer(radii_m, radii_m)[np.triu_indices(len(radii_m), 1)]
        for _ in range(10_000):
            found = self.spots(rng, len(radii_m), apart_m=float(needed.min()))
            gaps = np.linalg.norm(found[:, None] - found[None], axis=-1)[np.triu_indices(len(radii_m), 1)]
            if (gaps >= needed).all():
                return found
        raise TaskError(f"task {self.name}: no room for bodies of radii {list(radii_m)} m on the workspace")

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["ee_pos"])
        found: dict[str, Array] = {}
        for part in self.assembly:
            pos, quat = state[f"{part.name}_pos"], state[f"{part.name}_quat_wxyz"]
            bodies = state if part.onto in self.things else instance
            base, turn = bodies[f"{part.onto}_pos"], bodies[f"{part.onto}_quat_wxyz"]
            at, grip = (xp.asarray(p, dtype=pos.dtype, device=pos.device) for p in (part.at, part.grip))
            off = into(turn, pos - base) - at
            up, ahead = into(turn, axis_of(quat, 2)), into(turn, axis_of(quat, 0))
            lean = xp.atan2(xp.sqrt(up[..., 0] ** 2 + up[..., 1] ** 2), up[..., 2])
            step = 2 * np.pi / part.alike
            twist = xp.remainder(xp.atan2(ahead[..., 1], ahead[..., 0]) + step / 2, step) - step / 2
            reach = state["ee_pos"] - pos - out_of(quat, grip)
            found |= {
                f"{part.name}_reach_m": xp.sqrt((reach**2).sum(-1)),
                f"{part.name}_held_n": state[f"{part.name}_held_n"],
                f"{part.name}_off_m": xp.sqrt((off**2).sum(-1)),
                f"{part.name}_tilt_rad": xp.sqrt(lean**2 + twist**2),
            }
        return found

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again where a part is not mated."""
        for part in self.assembly:
            for _ in range(ATTEMPTS):
                yield from self._put(part, look)
                if self._missed_m(part, look()) < OFF_M:
                    break

    def _put(self, part: Part, look: Look) -> Iterator[Waypoint]:
        """Grasp a part, align it by where it is in the hand, let it down, let go."""
        gripper = self.robot.gripper
        assert gripper is not None
        wide, held = min(part.thickness_m + ROOM_M, gripper.open_m), moves.squeezed(part.thickness_m)
        pos, quat = look()[f"{part.name}_pos"], look()[f"{part.name}_quat_wxyz"]
        grip, rot = pos + out_of(quat, np.array(part.grip)), down(nearest_half_turn(yaw_of(quat)))
        yield Waypoint(pos=grip + 0.08 * moves.UP, rot=rot, width_m=wide, near_m=0.01)
        yield Waypoint(pos=grip, rot=rot, width_m=wide, speed_m_s=0.2)
        yield Waypoint(pos=grip, rot=rot, width_m=held, wait_s=GRIP_S)
        yield Waypoint(pos=grip + (self.over_m - pos[2]) * moves.UP, rot=rot, width_m=held, near_m=0.01)
        rise = max(self.over_m - self._goal_pos(part, look())[2], part.depth_m + ABOVE_M)
        for height, speed, wait in (
            (rise, 0.35, 0.0),
            (part.depth_m + ABOVE_M, 0.35, STEADY_S),
            (SEAT_M, INSERT_M_S, STEADY_S),
        ):
            end, rot = self._tool(part, look(), height)
            yield Waypoint(pos=end, rot=rot, width_m=held, speed_m_s=speed, near_m=0.0025, wait_s=wait)
        yield Waypoint(pos=end, rot=rot, width_m=wide, wait_s=moves.RELEASE_S, near_m=0.01)
        yield Waypoint(pos=end + 0.10 * moves.UP, rot=rot, width_m=wide, speed_m_s=0.25, near_m=0.02)

    def _tool(self, part: Part, obs: Arrays, height_m: float) -> tuple[np.ndarray, np.ndarray]:
        """Pose of the tool that brings the part it holds upright above its place."""
        pos, quat, tool = obs[f"{part.name}_pos"], obs[f"{part.name}_quat_wxyz"], matrix(obs["ee_quat_wxyz"])
        step = 2 * np.pi / part.alike
        turned = (yaw_of(obs[f"{part.onto}_quat_wxyz"]) - yaw_of(quat) + step / 2) % step - step / 2
        wanted = matrix(axis_quat((0, 0, 1), yaw_of(quat) + turned))
        move = wanted @ matrix(quat).T  # from the part's orientation to the one it should have
        goal = self._goal_pos(part, obs) + height_m * moves.UP
        return goal + move @ (obs["ee_pos"] - pos), move @ tool

    @staticmethod
    def _goal_pos(part: Part, obs: Arrays) -> np.ndarray:
        return obs[f"{part.onto}_pos"] + out_of(obs[f"{part.onto}_quat_wxyz"], np.array(part.at))

    def _missed_m(self, part: Part, obs: Arrays) -> float:
        return float(np.linalg.norm(obs[f"{part.name}_pos"] - self._goal_pos(part, obs)))


def block(body: Any, half: parts.Vector, pos: parts.Vector, rgba: parts.Rgba, **more: Any) -> None:
    """A box of smooth furniture by half sizes and middle [m]."""
    parts.box(body, half, pos, rgba, **{"friction": SMOOTH, **more})


def wall(body: Any, half: parts.Vector, pos: parts.Vector, along: int, rgba: parts.Rgba, up: float = 1.0) -> None:
    """An upright board whose rim is a ridge with slopes of 45° on both sides.

    Args:
        body: What it belongs to.
        half, pos: Half sizes and middle of board and ridge together [m].
        along: Axis along which the board is long, 0 or 1.
        rgba: Colour.
        up: 1 where the rim is its upper end, -1 where it is its lower end.
    """
    thick = half[1 - along]
    block(body, (*half[:2], half[2] - thick / 2), np.add(pos, (0, 0, -up * thick / 2)), rgba)
    ridge = np.array([thick / np.sqrt(2)] * 3)
    ridge[along] = half[along]
    axis = np.eye(3)[along]
    block(body, ridge, np.add(pos, (0, 0, up * (half[2] - thick))), rgba, quat=axis_quat(axis, np.pi / 4))


def socket(
    body: Any, peg_half: float, thick: float, rim: float, depth: float, rgba: parts.Rgba, up: float = 1.0
) -> None:
    """A square hole for a peg: four walls about the body's z axis.

    Args:
        body: What it belongs to.
        peg_half: Half the side of the peg [m].
        thick: Thickness of the walls [m]; a shoulder of the peg rests on their ridges, ``thick / 2`` from the hole.
        rim: Height of the rim [m].
        depth: Of the hole [m].
        rgba: Colour.
        up: 1 where the hole opens upwards, -1 where downwards.
    """
    hole, half = peg_half + CLEARANCE_M, thick / 2
    for along in (0, 1):
        for side in (-1, 1):
            pos, size = np.array([0.0, 0.0, rim - up * depth / 2]), np.array([0.0, 0.0, depth / 2])
            pos[1 - along], size[1 - along] = side * (hole + half), half
            size[along] = hole + half  # ridges meet in the corners
            wall(body, size, pos, along, rgba, up)
