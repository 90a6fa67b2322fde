"""Push a puck across the table onto a target."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from tasks.tabletop import parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

RADIUS_M, HALF_HEIGHT_M = 0.03, 0.015
"""Of the puck."""
TARGET_M = 0.03
"""So far from the middle of the target the middle of the puck may rest."""
WAY_M = (0.08, 0.20)
"""How far the puck is from the target at the start."""
ABOVE_M = 0.08
TOOL_M = 0.02
"""Height of the tool while it pushes: every gripper that grasps cubes from the table comes as low."""
CLOSED_M = 0.01
"""Jaws that are less than this apart count as closed."""
BACK_M = 0.03
"""So far the tool backs off at the end."""
TRIES = 4


class Push(TabletopTask):
    """A puck slides onto the target, pushed by closed jaws and never lifted."""

    name = "push"
    instruction = "push the blue puck onto the green target"
    phrases = (
        "slide the blue puck to the green circle",
        "push the blue disc until it lies on the green spot",
        "move the puck to the green target without lifting it",
        "shove the blue puck onto the green disc",
    )
    horizon_s = 8.0
    things, fixtures = ("puck",), ("target",)
    symmetry = {"puck": 0, "target": 0}
    signals = {
        **COMMON,
        "reach_m": truth("m", "distance of the tool from the puck"),
        "away_m": truth("m", "distance of the puck from the middle of the target"),
        "lift_m": truth("m", "height of the puck above the table"),
        "moved_m": truth("m", "how much nearer to the target than at the start the puck is"),
    }
    mission = f"F[0,7](G[0,0.5](away_m < {TARGET_M} and {RELEASED})) and G[0,8](lift_m < 0.01)"
    goal = f"away_m < {TARGET_M} and lift_m < 0.01 and {RELEASED}"
    stages = (
        Stage(name="push", condition="moved_m > 0.02", distance="max(reach_m - 0.05, 0) + max(0.02 - moved_m, 0)"),
        Stage(name="arrive", condition=goal, distance="away_m"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        puck = parts.thing(scene, "puck")
        parts.cylinder(puck, RADIUS_M, HALF_HEIGHT_M, rgba=parts.BLUE, mass=0.08, name="puck")
        target = parts.fixture(scene, "target")
        parts.cylinder(target, TARGET_M + RADIUS_M, 0.0005, (0, 0, 0.0005), parts.GREEN, solid=False)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the arm gets behind the puck, to the target and up again."""
        for _ in range(1000):
            puck, target = self.spots(rng, 2, apart_m=WAY_M[0])
            if np.linalg.norm(puck - target) <= WAY_M[1] and self._goes(puck[:2], target[:2]):
                return {
                    "puck_pos": np.add(puck, (0, 0, HALF_HEIGHT_M)),
                    "puck_quat_wxyz": np.array([1.0, 0, 0, 0]),
                    "target_pos": target,
                    "target_quat_wxyz": np.array([1.0, 0, 0, 0]),
                    "start_m": np.array([np.linalg.norm(puck - target)]),
                }
        raise TaskError(f"task {self.name}: no room for puck and target on the workspace of {self.robot.name}")

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["puck_pos"])
        puck = state["puck_pos"]
        away = xp.sqrt(((puck - instance["target_pos"])[..., :2] ** 2).sum(-1))
        return {
            "reach_m": xp.sqrt(((state["ee_pos"] - puck) ** 2).sum(-1)),
            "away_m": away,
            "lift_m": puck[..., 2] - HALF_HEIGHT_M,
            "moved_m": instance["start_m"][..., 0] - away,
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; looks again after each push and corrects. Places are those of the closed jaws."""
        above, touch = self.low(ABOVE_M), self._behind_m  # how far ahead the puck is while pushed: the first push shows
        for _ in range(TRIES):
            obs = look()
            puck, target = obs["puck_pos"][:2], obs["target_pos"][:2]
            if np.linalg.norm(target - puck) < TARGET_M / 3:
                return
            way, rot = self._course(puck, target)
            aside = self._meet_m * rot[:2, 1]
            start, short = puck - self._behind_m * way - aside, target - touch * way - aside
            yield Waypoint(pos=np.array([*start, above]), rot=rot, width_m=0.0, near_m=0.01)
            while look()["gripper_width_m"][0] > CLOSED_M:  # open jaws would come down on the puck
                yield Waypoint(pos=np.array([*start, above]), rot=rot, width_m=0.0, near_m=0.01)
            yield Waypoint(pos=np.array([*start, TOOL_M]), rot=rot, width_m=0.0)
            yield Waypoint(pos=np.array([*short, TOOL_M]), rot=rot, width_m=0.0, speed_m_s=0.12)
            obs = look()
            touch = min(touch, np.dot((obs["puck_pos"] - obs["ee_pos"])[:2] - aside, way))
            end = target - touch * way - aside
            yield Waypoint(pos=np.array([*end, TOOL_M]), rot=rot, width_m=0.0, speed_m_s=0.12, wait_s=0.1)
            away = end - BACK_M * way
            yield Waypoint(pos=np.array([*away, TOOL_M]), rot=rot, width_m=0.0, near_m=0.01)
            yield Waypoint(pos=np.array([*away, above]), rot=rot, width_m=0.0, near_m=0.02)

    @property
    def _behind_m(self) -> float:
        """From the middle of the puck to the closed jaws behind it: they are thinner than the gripper opens."""
        assert self.robot.gripper is not None
        return RADIUS_M + self.robot.gripper.open_m / 2

    @property
    def _meet_m(self) -> float:
        assert self.robot.gripper is not None
        return self.robot.gripper.meet_m

    def _ends(self, puck: np.ndarray, target: np.ndarray, way: np.ndarray) -> list[np.ndarray]:
        """Where the closed jaws come down behind the puck, where they push it to and where they go up, (3,) each."""
        above = self.low(ABOVE_M)
        start, end = puck - self._behind_m * way, target - RADIUS_M * way
        away = end - BACK_M * way
        return [np.array(place) for place in ((*start, above), (*start, TOOL_M), (*end, TOOL_M), (*away, above))]

    def _course(self, puck: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The direction (2,) from puck to target, (2,) each, and how the tool is turned on the way."""
        way = target - puck
        way = way / np.linalg.norm(way)
        yaw = np.arctan2(way[1], way[0])
        # Closed jaws are about as long as wide: any quarter turn will do; a jaw that stands still had better go ahead.
        yaw = yaw + np.pi / 2 if self._meet_m else (yaw + np.pi / 4) % (np.pi / 2) - np.pi / 4
        return way, self.quarter_turned(yaw, *self._ends(puck, target, way), aside_m=self._meet_m)

    def _goes(self, puck: np.ndarray, target: np.ndarray) -> bool:
        """Whether the arm gets behind the puck, to the target and up again."""
        way, rot = self._course(puck, target)
        return all(self.reaches(end - self._meet_m * rot[:, 1], rot) for end in self._ends(puck, target, way))
