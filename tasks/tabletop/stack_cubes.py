"""Stack one cube onto another."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import nearest_half_turn, yaw_of
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

HALF_M = 0.02
"""Half the side of the cubes."""
OFF_M = 0.015
"""So far beside the middle of the lower cube the middle of the upper one may rest."""
LIFT_M, OVER_M = 0.03, 0.14
"""So high counts as lifted, lower than on top of the other; so high the expert carries."""


class StackCubes(TabletopTask):
    """The red cube rests on the green one, and nothing is grasped."""

    name = "stack_cubes"
    instruction = "stack the red cube onto the green cube"
    phrases = (
        "put the red cube on top of the green cube",
        "place the red block on the green one",
        "build a tower with the red cube above the green cube",
        "the red cube goes onto the green cube",
    )
    horizon_s = 9.5
    things = ("red", "green")
    symmetry = {"red": 4, "green": 4}
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the red cube"),
        "lift_m": truth("m", "height of the red cube above the table"),
        "off_m": truth("m", "distance of the red cube from above the green one, on the table"),
        "gap_m": truth("m", "how much higher above the green cube the red one is than when it rests on it"),
        "red_held_n": truth("N", "force with which both jaws press on the red cube"),
    }
    mission = (
        f"F[0,6](red_held_n > 0.5 and lift_m > {LIFT_M}) and "
        f"F[0,9](G[0,0.5](off_m < {OFF_M} and abs(gap_m) < 0.006 and {RELEASED}))"
    )
    goal = f"off_m < {OFF_M} and abs(gap_m) < 0.006 and {RELEASED}"
    stages = (
        Stage(name="grasp", condition="red_held_n > 0.5", distance="reach_m"),
        Stage(name="lift", condition=f"red_held_n > 0.5 and lift_m > {LIFT_M}", distance=f"max({LIFT_M} - lift_m, 0)"),
        Stage(name="align", condition=f"off_m < {OFF_M} and gap_m > -0.006", distance="off_m"),
        Stage(name="stack", condition=goal, distance="off_m + abs(gap_m)", scale=0.05),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        for name, rgba in (("red", parts.RED), ("green", parts.GREEN)):
            parts.box(parts.thing(scene, name), (HALF_M,) * 3, rgba=rgba, mass=0.06, name=name)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        places = np.add(self.spots(rng, 2, apart_m=0.11), (0, 0, HALF_M))
        poses = {f"{name}_pos": place for name, place in zip(self.things, places, strict=True)}
        return poses | {f"{name}_quat_wxyz": self.heading(rng) for name in self.things}

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["red_pos"])
        red, over = state["red_pos"], state["red_pos"] - state["green_pos"]
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - red) ** 2).sum(-1)),
            "lift_m": red[..., 2] - HALF_M,
            "off_m": xp.sqrt((over[..., :2] ** 2).sum(-1)),
            "gap_m": over[..., 2] - 2 * HALF_M,
            "red_held_n": state["red_held_n"],
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again when the cube was lost."""
        assert self.robot.gripper is not None
        open_m = self.robot.gripper.open_m
        for _ in range(3):
            obs = look()
            red, yaw = obs["red_pos"], nearest_half_turn(yaw_of(obs["red_quat_wxyz"]))
            rot = self.quarter_turned(yaw, red, np.add(obs["green_pos"], (0, 0, 2 * HALF_M)))
            yield from moves.grasp(red, rot, 2 * HALF_M, open_m, self.room_over(red, 0.10))
            end = np.add(look()["green_pos"], (0, 0, 2 * HALF_M + 0.002))
            yield from moves.carry(red, end, rot, moves.squeezed(2 * HALF_M), over_m=self.low(OVER_M))
            yield from moves.release(end, rot, open_m, self.room_over(end, 0.08))
            over = look()["red_pos"] - look()["green_pos"]
            if np.linalg.norm(over[:2]) < OFF_M and over[2] > HALF_M:
                return
