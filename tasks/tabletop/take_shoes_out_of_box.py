"""Open a box and take a pair of shoes out of it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop.base import RELEASED, Look, Waypoint, truth
from tasks.tabletop.shoe_box import FLOOR_M, HALF_M, OPEN_RAD, REST_M, SPREAD_M, TRIES, UPRIGHT, ShoeBoxTask
from tasks.tabletop.turns import into, out_of
from tasks.task import Array, Stage

BESIDE_M = 0.062
"""From the side of the box to the middle of where a shoe is put down."""
AWAY_M = 0.025
"""A shoe whose middle is so far from the box is out."""


class TakeShoesOutOfBox(ShoeBoxTask):
    """The lid of a box is opened by its handle; two shoes are taken out of it and put down beside it."""

    name = "take_shoes_out_of_box"
    instruction = "open the box and take the shoes out of it"
    phrases = (
        "take the shoes out of the box",
        "open the lid, then put both shoes on the table",
        "unpack the pair of shoes from the shoe box",
        "get the two shoes out of the box and place them on the table",
    )
    horizon_s = 18.5
    signals = {
        **ShoeBoxTask.shared,
        "one_m": truth("m", "how far outside the box, standing on the table, the better of the two shoes is"),
        "both_m": truth("m", "the same of the other one"),
    }
    goal = f"both_m > 0 and {RELEASED}"
    mission = f"F[0,8](lid_rad > {OPEN_RAD}) and F[0,18](G[0,0.5]({goal}))"
    stages = (
        Stage(
            name="open the lid",
            condition=f"lid_rad > {OPEN_RAD}",
            distance=f"handle_m + 0.1 * max({OPEN_RAD} - lid_rad, 0)",
        ),
        Stage(name="grasp a shoe", condition="grip_n > 0.5 or one_m > 0", distance="reach_m"),
        Stage(name="put it on the table", condition=f"one_m > 0 and {RELEASED}", distance="max(carry_m, 0)"),
        Stage(name="grasp the other", condition="grip_n > 0.5 or both_m > 0", distance="reach_m"),
        Stage(name="put it there too", condition=goal, distance="max(carry_m, 0)"),
    )

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the shoes stand side by side in the box."""
        drawn = self.place_box(rng, (-0.10, 0.10))
        for name, side in zip(self.things, (1, -1), strict=True):
            at = np.array([rng.uniform(-0.006, 0.006), side * SPREAD_M + rng.uniform(-0.002, 0.002), FLOOR_M])
            drawn[f"{name}_pos"] = drawn["box_pos"] + out_of(drawn["box_quat_wxyz"], at)
            drawn[f"{name}_quat_wxyz"] = drawn["box_quat_wxyz"]
        return drawn

    def rest_m(self, rel: Array, upright: Array) -> Array:
        """See `ShoeBoxTask.rest_m`: outside the box, standing on the table."""
        xp = array_namespace(rel)
        outside = xp.maximum(xp.abs(rel[..., 0]) - HALF_M[0], xp.abs(rel[..., 1]) - HALF_M[1]) - AWAY_M
        return xp.minimum(xp.minimum(outside, REST_M - rel[..., 2]), upright - UPRIGHT)

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; comes back for a shoe that was lost."""
        yield from self.open_lid(look)
        for _ in range(TRIES):
            for name, side in zip(self.things, (1, -1), strict=True):
                box, turn = look()["box_pos"], look()["box_quat_wxyz"]
                rel = into(turn, look()[f"{name}_pos"] - box)
                if (np.abs(rel[:2]) < np.add(HALF_M, AWAY_M)).all():
                    beside = np.array([0.0, side * (HALF_M[1] + BESIDE_M), 0.0])
                    yield from self.move_shoe(look, name, box + out_of(turn, beside))
