"""Bring the tool to a marked point in the air."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import parts
from tasks.tabletop.base import COMMON, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import down
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

NEAR_M = 0.02
"""So close counts as there."""
LOWEST_M, BELOW_TOP_M = 0.08, 0.05
"""How low the point may be, and how far below the upper end of the workspace it stays; less where that is low."""


class Reach(TabletopTask):
    """The tool goes to a point and stays half a second."""

    name = "reach"
    instruction = "bring the gripper to the red ball"
    phrases = (
        "move the gripper to the red marker",
        "reach for the red ball in the air",
        "go to the red point and stay there",
        "touch the red ball with the gripper",
    )
    horizon_s = 3.0
    fixtures = ("marker",)
    symmetry = {"marker": 0}
    signals = {**COMMON, "away_m": truth("m", "distance of the tool from the marked point")}
    mission = f"F[0,2.5](G[0,0.5](away_m < {NEAR_M}))"
    goal = f"away_m < {NEAR_M}"
    stages = (Stage(name="reach", condition=goal, distance="away_m", scale=0.2),)

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        marker = parts.fixture(scene, "marker")
        parts.sphere(marker, NEAR_M, rgba=(*parts.RED[:3], 0.8), solid=False)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        assert self.robot.workspace is not None
        (spot,) = self.spots(rng, 1, apart_m=0.0)
        top = self.robot.workspace.height_m
        height = rng.uniform(min(LOWEST_M, top / 3), top - min(BELOW_TOP_M, top / 5))
        return {"marker_pos": np.array([*spot[:2], height]), "marker_quat_wxyz": np.array([1.0, 0, 0, 0])}

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["ee_pos"])
        return {"away_m": xp.sqrt(((state["ee_pos"] - instance["marker_pos"]) ** 2).sum(-1))}

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`."""
        assert self.robot.gripper is not None
        yield Waypoint(pos=look()["marker_pos"], rot=down(0.0), width_m=self.robot.gripper.open_m)
