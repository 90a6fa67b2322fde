"""Empty a container into the tray of a colour."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import down, into, nearest_half_turn, out_of, yaw_of, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

COLOURS = {
    "red": (0.85, 0.12, 0.12),
    "maroon": (0.42, 0.05, 0.10),
    "orange": (0.95, 0.50, 0.10),
    "brown": (0.42, 0.26, 0.13),
    "yellow": (0.96, 0.86, 0.16),
    "beige": (0.90, 0.82, 0.66),
    "lime": (0.62, 0.92, 0.15),
    "green": (0.16, 0.60, 0.22),
    "olive": (0.45, 0.47, 0.12),
    "teal": (0.05, 0.45, 0.45),
    "cyan": (0.20, 0.88, 0.90),
    "azure": (0.35, 0.65, 0.98),
    "blue": (0.12, 0.28, 0.85),
    "navy": (0.06, 0.08, 0.36),
    "purple": (0.45, 0.16, 0.62),
    "magenta": (0.90, 0.12, 0.70),
    "pink": (0.98, 0.66, 0.76),
    "black": (0.07, 0.07, 0.08),
    "grey": (0.52, 0.53, 0.55),
    "white": (0.96, 0.96, 0.96),
}
"""What trays are painted, by name."""
HALF_M = 0.0165
"""Half the size of every thing, from whichever side it is grasped."""
ARM_M = 0.007
"""Half the width of the cross's bars."""
WALL_M, FLOOR_M = 0.004, 0.005
CONTAINER_HALF_M, CONTAINER_M = (0.105, 0.088), 0.032
TRAY_HALF_M, RIM_M = (0.080, 0.056), 0.030
ROOM_M = 0.047
"""From a thing's middle to the walls: the fingers go down there, however they are turned."""
APART_M = 0.068
"""From thing to thing: a finger goes between them."""
SIDE_M, SIDE_MOST_M = 0.172, 0.185
"""From the middle of the container to the middles of the trays."""
OPEN_M = 2 * HALF_M + 0.016
"""Width of the jaws among things and walls."""
FINGER_HALF_M, FINGER_ROOM_M = 0.007, 0.038
"""Half the thickness of a finger, and how far its middle keeps from the middles of other things."""
SLOTS_M = (0.046, 0.0, -0.046)
"""Where things are put down, along the tray."""
OVER_M = 0.13
"""Height of the tool on its way."""
DEPTH_M = 0.002
"""So far below the rim and within the walls counts as in the tray."""
TRIES = 6


class EmptyContainer(TabletopTask):
    """Three things are taken out of a container and put into one of two trays; its colour says which.

    The slots ``{colour}`` of `phrases` are filled by `instruct`'s word.
    """

    name = "empty_container"
    instruction = "empty the container into one of the trays"
    phrases = (
        "take everything out of the container and put it into the {colour} tray",
        "move all the things from the box to the {colour} tray",
        "put the three things in the container on the {colour} tray",
        "clear out the big container, everything goes into the {colour} tray",
    )
    horizon_s = 18.5
    things, fixtures = ("cube", "cylinder", "cross"), ("container", "target", "other")
    variation = {"target_rgb": (3,), "other_rgb": (3,)}
    signals = {
        **COMMON,
        "grip_n": truth("N", "force with which both jaws press on a thing that is not in the named tray"),
        "reach_m": truth("m", "distance of the tool from the nearest thing that is not in the named tray"),
        "carry_m": truth("m", "how far that thing is from within the named tray"),
        "first_m": truth("m", "how deep the deepest thing is within the named tray; negative: how far away it is"),
        "second_m": truth("m", "the same of the next"),
        "third_m": truth("m", "the same of the last"),
    }
    goal = f"third_m > {DEPTH_M} and {RELEASED}"
    mission = f"F[0,8](first_m > {DEPTH_M}) and F[0,18](G[0,0.5]({goal}))"
    stages = tuple(
        stage
        for nth in ("first", "second", "third")
        for stage in (
            Stage(name=f"grasp {nth}", condition=f"grip_n > 0.5 or {nth}_m > {DEPTH_M}", distance="reach_m"),
            Stage(
                name=f"drop {nth}",
                condition=f"{nth}_m > {DEPTH_M} and {RELEASED}",
                distance="max(carry_m, 0)",
            ),
        )
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; the origins of container and trays lie below their middle."""
        parts.box(parts.thing(scene, "cube"), (HALF_M,) * 3, rgba=parts.RED, mass=0.04)
        parts.cylinder(parts.thing(scene, "cylinder"), HALF_M, HALF_M, rgba=parts.YELLOW, mass=0.04)
        cross = parts.thing(scene, "cross")
        for x, y in ((HALF_M, ARM_M), (ARM_M, HALF_M)):
            parts.box(cross, (x, y, HALF_M), rgba=parts.BLUE, mass=0.02)
        parts.tray(parts.fixture(scene, "container"), CONTAINER_HALF_M, CONTAINER_M, WALL_M, parts.WOOD, FLOOR_M)
        for name in ("target", "other"):
            tray = parts.fixture(scene, name)
            parts.tray(tray, TRAY_HALF_M, RIM_M, WALL_M, parts.GREY, FLOOR_M)
            for i, geom in enumerate(tray.geoms):
                geom.name = f"{name}_{i}"

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: a container with things apart from each other, a tray on either side of it."""
        container = np.array([rng.uniform(0.46, 0.54), rng.uniform(-0.03, 0.03), 0.0])
        turn = yaw_quat(rng.uniform(-0.2, 0.2))
        room = np.subtract(CONTAINER_HALF_M, ROOM_M)
        while True:
            spots = rng.uniform(-room, room, (3, 2))
            if np.linalg.norm(spots - np.roll(spots, 1, axis=0), axis=1).min() > APART_M:
                break
        side = rng.choice([-1.0, 1.0])
        target, other = rng.choice(len(COLOURS), 2, replace=False)
        rgb = np.array(list(COLOURS.values()))
        drawn = {
            "container_pos": container,
            "container_quat_wxyz": turn,
            "target_rgb": rgb[target],
            "other_rgb": rgb[other],
        }
        for name, sign in (("target", side), ("other", -side)):
            at = np.array([rng.uniform(-0.05, 0.05), sign * rng.uniform(SIDE_M, SIDE_MOST_M), 0.0])
            drawn[f"{name}_pos"] = container + out_of(turn, at)
            drawn[f"{name}_quat_wxyz"] = yaw_quat(yaw_of(turn) + rng.uniform(-0.15, 0.15))
        for name, spot in zip(self.things, spots, strict=True):
            drawn[f"{name}_pos"] = container + out_of(turn, np.array([*spot, FLOOR_M + HALF_M]))
            drawn[f"{name}_quat_wxyz"] = self.heading(rng)
        return drawn

    def instruct(self, instance: Arrays) -> str:
        """See `TabletopTask.instruct`."""
        off = [np.abs(np.subtract(rgb, instance["target_rgb"])).sum() for rgb in COLOURS.values()]
        return f"empty the container into the {list(COLOURS)[int(np.argmin(off))]} tray"

    def paint(self, instance: Arrays) -> dict[str, tuple[float, ...]]:
        """See `TabletopTask.paint`."""
        return {
            f"{name}_{i}": (*(float(c) for c in instance[f"{name}_rgb"]), 1.0)
            for name in ("target", "other")
            for i in range(5)
        }

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["cube_pos"])
        target, turn = instance["target_pos"], instance["target_quat_wxyz"]
        depths, forces, reaches = [], [], []  # of every thing
        for name in self.things:
            pos = state[f"{name}_pos"]
            rel = into(turn, pos - target)
            walls = (TRAY_HALF_M[0] - xp.abs(rel[..., 0]), TRAY_HALF_M[1] - xp.abs(rel[..., 1]), RIM_M - rel[..., 2])
            depth = xp.amin(xp.stack(walls, axis=-1), axis=-1)
            out = depth < DEPTH_M
            depths.append(depth)
            forces.append(state[f"{name}_held_n"] * out)
            reaches.append(xp.sqrt(((state["ee_pos"] - pos) ** 2).sum(-1)) + 1.0 * ~out)
        depth, reach = xp.stack(depths, axis=-1), xp.stack(reaches, axis=-1)
        nearest, ranked = xp.amin(reach, axis=-1), xp.sort(depth, axis=-1)
        return {
            "grip_n": xp.amax(xp.stack(forces, axis=-1), axis=-1),
            "reach_m": nearest,
            "carry_m": xp.amax(xp.where(reach <= nearest[..., None], DEPTH_M - depth, 0.0), axis=-1),
            "first_m": ranked[..., 2],
            "second_m": ranked[..., 1],
            "third_m": ranked[..., 0],
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; takes what is nearest to the tray and comes back for what was lost."""
        for _ in range(TRIES):
            obs = look()
            target, turn = obs["target_pos"], obs["target_quat_wxyz"]
            rel = {name: into(turn, obs[f"{name}_pos"] - target) for name in self.things}
            out = [name for name in self.things if not self._within(rel[name])]
            if not out:
                return
            name = min(out, key=lambda name: float(np.linalg.norm(rel[name])))
            pos, yaw = obs[f"{name}_pos"], self._jaws(obs, name)
            slot = max(SLOTS_M, key=lambda x: min([abs(x - rel[n][0]) for n in self.things if n not in out] or [x]))
            end = target + out_of(turn, np.array([slot, 0.0, FLOOR_M + HALF_M + 0.003]))
            yield Waypoint(pos=_over(pos), rot=down(yaw), width_m=OPEN_M, near_m=0.02, speed_m_s=0.5)
            yield from moves.grasp(pos, down(yaw), 2 * HALF_M, OPEN_M, back_m=0.04)
            width = moves.squeezed(2 * HALF_M)
            yield Waypoint(pos=_over(pos), rot=down(yaw), width_m=width, near_m=0.02)
            rot = down(nearest_half_turn(yaw_of(turn)))
            yield Waypoint(pos=_over(end), rot=rot, width_m=width, near_m=0.01, speed_m_s=0.5)
            yield Waypoint(pos=end, rot=rot, width_m=width, speed_m_s=0.2)
            yield from moves.release(end, rot, OPEN_M, back_m=0.06)

    def _within(self, rel: np.ndarray) -> bool:
        return bool((np.abs(rel[:2]) < TRAY_HALF_M).all() and rel[2] < RIM_M)

    def _jaws(self, obs: Arrays, name: str) -> float:
        """The yaw of the tool for a thing: of two quarter turns the one whose fingers are farther from other things."""
        yaw = (yaw_of(obs[f"{name}_quat_wxyz"]) + np.pi / 4) % (np.pi / 2) - np.pi / 4
        others = [obs[f"{n}_pos"] - obs[f"{name}_pos"] for n in self.things if n != name]

        def room(yaw: float) -> float:
            across = down(yaw)[:, 1] * (OPEN_M / 2 + FINGER_HALF_M)
            return min(float(np.linalg.norm((other - sign * across)[:2])) for other in others for sign in (-1, 1))

        turned = yaw - np.sign(yaw) * np.pi / 2 if yaw else np.pi / 2
        return yaw if room(yaw) > FINGER_ROOM_M else max(yaw, turned, key=room)


def _over(pos: np.ndarray) -> np.ndarray:
    """Above everything."""
    return np.array([*pos[:2], OVER_M])
