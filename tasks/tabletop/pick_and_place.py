"""Put a cube onto a round target."""

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
"""Half the side of the cube."""
TARGET_M = 0.05
"""Radius of the target."""
OVER_M = 0.15
"""So high the expert carries, where the arm reaches as high."""


class PickAndPlace(TabletopTask):
    """A cube is grasped, carried and put down within the target."""

    name = "pick_and_place"
    instruction = "put the red cube onto the green target"
    phrases = (
        "place the red cube on the green disc",
        "pick up the red block and put it on the green circle",
        "move the red cube to the green target and let go",
        "the red cube belongs on the green spot",
    )
    horizon_s = 12.0
    things, fixtures = ("cube",), ("target",)
    symmetry = {"cube": 4, "target": 0}
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the cube"),
        "lift_m": truth("m", "height of the cube above the table"),
        "away_m": truth("m", "distance of the cube from the middle of the target, on the table"),
    }
    mission = f"F[0,11](G[0,0.5](away_m < {TARGET_M} and lift_m < 0.01 and {RELEASED}))"
    goal = f"away_m < {TARGET_M} and lift_m < 0.01 and {RELEASED}"
    stages = (
        Stage(name="grasp", condition="held_n > 0.5", distance="reach_m"),
        Stage(name="lift", condition="held_n > 0.5 and lift_m > 0.03", distance="max(0.03 - lift_m, 0)"),
        Stage(name="carry", condition=f"away_m < {TARGET_M} and lift_m > 0.005", distance="away_m"),
        Stage(name="place", condition=goal, distance="max(lift_m, 0) + away_m"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        cube = parts.thing(scene, "cube")
        parts.box(cube, (HALF_M,) * 3, rgba=parts.RED, mass=0.06, name="cube")
        target = parts.fixture(scene, "target")
        parts.cylinder(target, TARGET_M, 0.0005, (0, 0, 0.0005), parts.GREEN, solid=False)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        cube, target = self.spots(rng, 2, apart_m=0.12)
        return {
            "cube_pos": np.add(cube, (0, 0, HALF_M)),
            "cube_quat_wxyz": self.heading(rng),
            "target_pos": target,
            "target_quat_wxyz": np.array([1.0, 0, 0, 0]),
        }

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["cube_pos"])
        cube, offset = state["cube_pos"], state["cube_pos"] - instance["target_pos"]
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - cube) ** 2).sum(-1)),
            "lift_m": cube[..., 2] - HALF_M,
            "away_m": xp.sqrt((offset[..., :2] ** 2).sum(-1)),
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again when the cube was lost."""
        gripper = self.robot.gripper
        assert gripper is not None
        for _ in range(3):
            obs = look()
            pos, end = obs["cube_pos"], np.add(obs["target_pos"], (0, 0, HALF_M + 0.002))
            rot = self.quarter_turned(nearest_half_turn(yaw_of(obs["cube_quat_wxyz"])), pos, end)
            yield from moves.grasp(pos, rot, 2 * HALF_M, gripper.open_m, self.room_over(pos, 0.10))
            yield from moves.carry(pos, end, rot, moves.squeezed(2 * HALF_M), over_m=self.low(OVER_M))
            yield from moves.release(end, rot, gripper.open_m, self.room_over(end, 0.08))
            if np.linalg.norm((look()["cube_pos"] - obs["target_pos"])[:2]) < TARGET_M:
                return
