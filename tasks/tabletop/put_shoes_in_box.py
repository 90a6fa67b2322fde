"""Open a box and put a pair of shoes into it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop.base import RELEASED, Look, Waypoint, truth
from tasks.tabletop.shoe_box import (
    FLOOR_M,
    HALF_M,
    LENGTH_M,
    OPEN_RAD,
    REST_M,
    SPREAD_M,
    TRIES,
    UPRIGHT,
    ShoeBoxTask,
)
from tasks.tabletop.turns import into, out_of
from tasks.task import Array, Stage

ROOM_M = 0.068
"""From the box to the middle of a shoe, however both are turned: so far the hand stays clear of it."""
LID_M = 0.15
"""From the open lid, and from what is beyond it, to the middle of a shoe."""
APART_M = 0.115
"""From shoe to shoe."""
AREA_M = ((0.36, -0.24), (0.62, 0.24))
"""Where shoes may stand: ahead and to the left, from and to."""


class PutShoesInBox(ShoeBoxTask):
    """The lid of a box is opened by its handle; two shoes that stand beside it are put into it."""

    name = "put_shoes_in_box"
    instruction = "open the box and put the shoes into it"
    phrases = (
        "put the shoes in the box",
        "open the lid, then place both shoes inside the box",
        "pack the pair of shoes into the shoe box",
        "pick up the two shoes and put them away in the box",
    )
    horizon_s = 23.0
    signals = {
        **ShoeBoxTask.shared,
        "one_m": truth("m", "how far within the box, standing on its floor, the better of the two shoes is"),
        "both_m": truth("m", "the same of the other one"),
    }
    goal = f"both_m > 0 and {RELEASED}"
    mission = f"F[0,8](lid_rad > {OPEN_RAD}) and F[0,22.5](G[0,0.5]({goal}))"
    stages = (
        Stage(
            name="open the lid",
            condition=f"lid_rad > {OPEN_RAD}",
            distance=f"handle_m + 0.1 * max({OPEN_RAD} - lid_rad, 0)",
        ),
        Stage(name="grasp a shoe", condition="grip_n > 0.5 or one_m > 0", distance="reach_m"),
        Stage(name="put it into the box", condition=f"one_m > 0 and {RELEASED}", distance="max(carry_m, 0)"),
        Stage(name="grasp the other", condition="grip_n > 0.5 or both_m > 0", distance="reach_m"),
        Stage(name="put it there too", condition=goal, distance="max(carry_m, 0)"),
    )

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the box on the left or right, the shoes on the other side of it."""
        drawn = self.place_box(rng, (0.08, 0.12) if rng.random() < 0.5 else (-0.12, -0.08))
        while True:
            spots = np.column_stack([rng.uniform(*AREA_M, (2, 2)), np.zeros(2)])
            rel = into(drawn["box_quat_wxyz"], spots - drawn["box_pos"])
            beside = np.maximum(np.abs(rel[:, :2]) - HALF_M, 0.0)
            behind = np.column_stack([np.maximum(HALF_M[0] - rel[:, 0], 0.0), beside[:, 1]])
            box, lid = (np.linalg.norm(gap, axis=-1).min() for gap in (beside, behind))
            if box > ROOM_M and lid > LID_M and np.linalg.norm(spots[0] - spots[1]) > APART_M:
                break
        for name, spot in zip(self.things, spots, strict=True):
            drawn |= {f"{name}_pos": spot, f"{name}_quat_wxyz": self.heading(rng)}
        return drawn

    def rest_m(self, rel: Array, upright: Array) -> Array:
        """See `ShoeBoxTask.rest_m`: within the box, standing on its floor."""
        xp = array_namespace(rel)
        within = xp.minimum(HALF_M[0] - LENGTH_M / 2 + REST_M - xp.abs(rel[..., 0]), HALF_M[1] - xp.abs(rel[..., 1]))
        return xp.minimum(xp.minimum(within, FLOOR_M + REST_M - rel[..., 2]), upright - UPRIGHT)

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; comes back for a shoe that was lost."""
        yield from self.open_lid(look)
        for _ in range(TRIES):
            for name, side in zip(self.things, (1, -1), strict=True):
                box, turn = look()["box_pos"], look()["box_quat_wxyz"]
                rel = into(turn, look()[f"{name}_pos"] - box)
                if (np.abs(rel[:2]) > HALF_M).any():
                    yield from self.move_shoe(look, name, box + out_of(turn, np.array([0.0, side * SPREAD_M, FLOOR_M])))
