"""Put rubbish into a bin and leave the tomatoes beside it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_quat, down, into, nearest_half_turn, quat_times, yaw_of, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

HALF_M = (0.020, 0.019, 0.015)
"""Half sizes of the flat part of the crumpled paper, on which it lies; the jaws press on its sides, along y."""
TOMATOES = ("tomato_1", "tomato_2")
TOMATO_M, TOMATO_FRICTION = 0.023, (0.8, 0.01, 0.005)
"""Radius; sliding, torsional [m] and rolling [m] friction: it does not roll away."""
BIN_HALF_M, BIN_M, WALL_M = 0.080, 0.120, 0.004
"""Half the outer width of the bin, its height, thickness of its walls."""
INNER_M, LOW_M = BIN_HALF_M - WALL_M, 0.060
"""The paper's middle is in the bin within this of its middle, below this height."""
APART_M, BIN_APART_M = 0.10, 0.235
"""Between things, and from each to the middle of the bin: room for the jaws, and for the hand beside the bin."""
BIN_X_M, BIN_Y_M = (0.42, 0.62), (0.20, 0.33)
"""Where the bin stands, on the left or right."""
OVER_M, DROP_M, OPEN_M = 0.23, BIN_M + 0.035, 0.07
"""Heights of the tool on its way, and where it lets go; width of the open jaws."""


class PutRubbishInBin(TabletopTask):
    """Crumpled paper and two tomatoes lie on the table, each anywhere; only the paper goes into the bin."""

    name = "put_rubbish_in_bin"
    instruction = "put the rubbish in the bin"
    phrases = (
        "throw the crumpled paper into the bin",
        "pick up the rubbish and drop it in the bin, leave the tomatoes",
        "put the paper ball in the bin",
        "throw away the rubbish, not the tomatoes",
    )
    horizon_s = 11.0
    things, fixtures = ("rubbish", *TOMATOES), ("bin",)
    signals = {
        **COMMON,
        "rubbish_n": truth("N", "force with which both jaws press on the rubbish"),
        "reach_m": truth("m", "distance of the tool from the rubbish"),
        "inside_m": truth("m", "how deep the rubbish's middle is within the lower half of the bin"),
        "tomatoes_m": truth("m", "distance of the nearer tomato's middle from the outside of the bin"),
    }
    goal = f"inside_m > 0 and tomatoes_m > 0 and {RELEASED}"
    mission = f"F[0,6](rubbish_n > 0.5) and F[0,10.5](G[0,0.5]({goal}))"
    stages = (
        Stage(name="grasp", condition="rubbish_n > 0.5", distance="reach_m"),
        Stage(name="drop", condition=goal, distance="max(-inside_m, 0)"),
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`."""
        rubbish = parts.thing(scene, "rubbish")
        parts.box(rubbish, HALF_M, rgba=(0.88, 0.88, 0.84, 1.0), mass=0.02)
        crumpled = axis_quat((0, 1, 0), 0.7)
        parts.box(rubbish, (0.015, 0.016, 0.015), (0.004, 0, 0.007), (0.95, 0.95, 0.92, 1.0), quat=crumpled, mass=0.01)
        crumpled = quat_times(yaw_quat(0.45), axis_quat((1, 0, 0), 0.5))
        at = (-0.014, 0.001, 0.008)
        parts.box(rubbish, (0.010, 0.012, 0.012), at, (0.80, 0.80, 0.77, 1.0), quat=crumpled, mass=0.005)
        for name in TOMATOES:
            tomato = parts.thing(scene, name)
            parts.sphere(tomato, TOMATO_M, rgba=parts.RED, mass=0.06, friction=TOMATO_FRICTION, condim=6)
            for turn in (0.0, np.pi / 2):
                leaf = (0.010, 0.002, 0.001)
                parts.box(tomato, leaf, (0, 0, TOMATO_M), parts.GREEN, quat=yaw_quat(turn), solid=False)
            parts.capsule(tomato, 0.002, (0, 0, TOMATO_M), (0, 0, TOMATO_M + 0.005), parts.GREEN, solid=False)
        basket = parts.fixture(scene, "bin")
        parts.tray(basket, (BIN_HALF_M, BIN_HALF_M), BIN_M, WALL_M, (0.30, 0.42, 0.50, 1.0))
        for side in (-1, 1):
            at = (0, side * BIN_HALF_M, BIN_M / 2)
            parts.box(basket, (0.03, 0.001, 0.03), at, parts.WHITE, solid=False)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`."""
        stand = np.array([rng.uniform(*BIN_X_M), rng.choice([-1.0, 1.0]) * rng.uniform(*BIN_Y_M), 0.0])
        while True:
            spots = self.spots(rng, 1 + len(TOMATOES), APART_M)
            if (np.linalg.norm(spots - stand, axis=1) > BIN_APART_M).all():
                break
        instance = {"bin_pos": stand, "bin_quat_wxyz": self.heading(rng)}
        for name, spot, height in zip(self.things, spots, (HALF_M[2], TOMATO_M, TOMATO_M), strict=True):
            instance |= {f"{name}_pos": np.add(spot, (0, 0, height)), f"{name}_quat_wxyz": self.heading(rng)}
        return instance

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["rubbish_pos"])
        stand, turn = instance["bin_pos"], instance["bin_quat_wxyz"]
        rubbish = into(turn, state["rubbish_pos"] - stand)
        aside = [xp.amax(xp.abs(into(turn, state[f"{name}_pos"] - stand)[..., :2]), axis=-1) for name in TOMATOES]
        inside = (INNER_M - xp.amax(xp.abs(rubbish[..., :2]), axis=-1), LOW_M - rubbish[..., 2])
        return {
            "rubbish_n": state["rubbish_held_n"],
            "reach_m": xp.sqrt(((state["ee_pos"] - state["rubbish_pos"]) ** 2).sum(-1)),
            "inside_m": xp.minimum(*inside),
            "tomatoes_m": xp.minimum(*aside) - BIN_HALF_M,
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; tries again when the rubbish was lost."""
        thickness = 2 * HALF_M[1]
        for _ in range(3):
            obs = look()
            pos, rot = obs["rubbish_pos"], down(nearest_half_turn(yaw_of(obs["rubbish_quat_wxyz"])))
            yield from moves.grasp(pos, rot, thickness, OPEN_M)
            held, end = moves.squeezed(thickness), np.array([*obs["bin_pos"][:2], DROP_M])
            yield from moves.carry(pos, end, rot, held, OVER_M)
            yield from moves.release(end, rot, OPEN_M)
            if (np.abs(into(obs["bin_quat_wxyz"], look()["rubbish_pos"] - obs["bin_pos"])[:2]) < INNER_M).all():
                return
