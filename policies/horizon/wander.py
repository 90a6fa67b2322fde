"""Random motion before anything is learned: places, things, and now and then a thing that is taken along."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from hardware.robots.commands import REACH_M_S, inverse, turn
from robo.core.protocols import Obs
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.turns import down

ERRAND_S, SPEED, STIR, CALM = 1.0, 0.8, 0.3, 0.1
"""Goes to a place for so long at most, with that share of full speed, shaken by so much at every step, or by so little
where something is taken."""
MEDDLING, BESIDE_M = 0.6, 0.03
"""Share of its places that are where something is, and how far beside it."""
TAKING, ABOVE_M, TOUCH_M, GRIP_S = 0.5, 0.08, 0.01, 0.4
"""Share of those at which it is taken: from so far above, about so far beside its middle, closing for so long."""
THERE_M = 0.01
"""From there on a place is reached."""
LOOKING, OVER_M, OFF, TILT_RAD, TRIES = 0.7, (0.02, 0.25), 0.2, 0.1, 10
"""Share of starts above a thing, how high, how far aside for each metre of that and `ABOVE_M`, how tilted, and how many
places are tried that the arm may not reach."""
AJAR = 0.5
"""Share of starts at which a joint of a fixture, each by itself, is not where it begins: what is rarely open is told to
be shut, which is right most of the time."""


class Errand(NamedTuple):
    """One place after the other.

    Attributes:
        place: Of the tool, (3,) [m], in the frame of the base.
        spin: Share of full speed about its x, y, z, (3,) in [-1, 1].
        jaws: Of the gripper, -1 closed to 1 open.
        steps: Control steps, at most.
        stir: Shaken by so much.
        whole: Whether it lasts that long even if the tool is there already.
    """

    place: np.ndarray
    spin: np.ndarray
    jaws: float
    steps: int
    stir: float
    whole: bool


def start(task: TabletopTask, seed: int) -> dict[str, np.ndarray]:
    """The instance of a seed, with the arm anywhere: often above a thing, as it is seen before it is taken; and often
    with joints of fixtures, such as drawers, anywhere."""
    rng, bodies = np.random.default_rng([seed, 1]), (*task.things, *task.fixtures)
    instance, ajar = task.sample(np.random.default_rng(seed)), np.random.default_rng([seed, 2])
    for name, joint in task.mechanisms.items():
        if ajar.uniform() < AJAR:
            instance[name] = ajar.uniform(joint.low, joint.high, size=1)
    for _ in range(TRIES):
        place = _anywhere(task, rng)
        if bodies and rng.uniform() < LOOKING:
            height = rng.uniform(*OVER_M)
            beside = np.array([1.0, 1.0, 0.0]) * rng.normal(size=3) * OFF * (height + ABOVE_M)
            place = instance[f"{bodies[rng.integers(len(bodies))]}_pos"] + np.array([0.0, 0.0, height]) + beside
        rot = turn(TILT_RAD * rng.normal(size=3)) @ down(rng.uniform(-np.pi / 2, np.pi / 2))
        joints = inverse(task.kinematics, np.array(instance["joint_pos"], float), place, rot)
        if np.linalg.norm(task.kinematics.pose_and_jacobian(joints)[0] - place) < THERE_M:
            return {**instance, "joint_pos": joints}
    return instance


class Wanderer:
    """Goes about the workspace.

    Often where something is, which the simulator knows: what is touched, pushed, carried and hidden by the arm has to
    be seen as well.

    Args:
        task: The task.
        seed: Of an episode.
    """

    def __init__(self, task: TabletopTask, seed: int) -> None:
        self.task, self.rng = task, np.random.default_rng(seed)
        self._errands: deque[Errand] = deque()
        self._gone = 0

    def motion(self, obs: Obs) -> np.ndarray:
        """What ``control="ee_delta"`` takes, (7,) in [-1, 1]; see `hardware.robots.commands`."""
        if not self._errands:
            self._errands.extend(self._next(obs))
        errand = self._errands[0]
        way = (errand.place - obs["ee_pos"]) / (REACH_M_S * self.task.ctrl_dt_s)
        self._gone += 1
        there = bool(np.linalg.norm(errand.place - obs["ee_pos"]) < THERE_M)
        if self._gone >= errand.steps or (there and not errand.whole):
            self._errands.popleft()
            self._gone = 0
        motion = np.concatenate([SPEED * way / max(1.0, np.abs(way).max()), errand.spin, [errand.jaws]])
        return np.clip(motion + errand.stir * self.rng.normal(size=len(motion)), -1.0, 1.0)

    def _next(self, obs: Obs) -> list[Errand]:
        anywhere = _anywhere(self.task, self.rng)
        spin, jaws = self.rng.uniform(-1, 1, 3) * STIR, float(self.rng.uniform(-1, 1))
        most = round(ERRAND_S / self.task.ctrl_dt_s)
        steps = int(self.rng.integers(1, most + 1))
        bodies = (*self.task.things, *self.task.fixtures)
        if not bodies or self.rng.uniform() >= MEDDLING:
            return [Errand(anywhere, spin, jaws, steps, STIR, True)]
        body = obs[f"{bodies[self.rng.integers(len(bodies))]}_pos"]
        if self.rng.uniform() >= TAKING:
            return [Errand(body + self.rng.normal(size=3) * BESIDE_M, spin, jaws, steps, STIR, True)]
        still, touch = np.zeros(3), body + self.rng.normal(size=3) * TOUCH_M
        return [
            Errand(touch + np.array([0.0, 0.0, ABOVE_M]), still, 1.0, 2 * most, CALM, False),
            Errand(touch, still, 1.0, most, CALM, False),
            Errand(touch, still, -1.0, round(GRIP_S / self.task.ctrl_dt_s), CALM, True),
            Errand(anywhere, spin, -1.0, steps, STIR, True),
        ]


def _anywhere(task: TabletopTask, rng: np.random.Generator) -> np.ndarray:
    """A place in the arm's workspace, (3,) [m]."""
    area = task.robot.workspace
    assert area is not None
    half = np.array([*area.half_m, area.height_m / 2])
    return np.array([*area.centre_m, area.height_m / 2]) + rng.uniform(-half, half)
