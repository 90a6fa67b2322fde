"""Put some of three books on a bookshelf."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
from array_api_compat import array_namespace

from tasks.tabletop import moves, parts
from tasks.tabletop.base import COMMON, RELEASED, Look, TabletopTask, Waypoint, truth
from tasks.tabletop.turns import axis_of, down, into, out_of, yaw_of, yaw_quat
from tasks.task import Array, Arrays, Stage

if TYPE_CHECKING:
    import mujoco

DEPTH_M, THICK_M = 0.080, 0.025
"""Of a book, from spine to edge and from cover to cover."""
HEIGHTS_M = (0.118, 0.112, 0.106)
PITCH_M, SLOT_M = 0.064, 0.033
"""From slot to slot, in the holder and on the shelf, and the width of one."""
BOARD_M, GUIDE_M = 0.006, 0.030
"""Thickness of boards, and height of what is between the slots."""
HOLDER_HALF_M = (0.046, 1.5 * PITCH_M)
SHELF_HALF_M, SIDE_M = (0.052, 1.5 * PITCH_M), 0.040
"""Of the shelf, and how high its sides rise above the upper board."""
DECK_M = 0.100
"""Height of the upper board, on which the books are put."""
GRIP_M = 0.020
"""Books are grasped so far below their upper edge."""
OPEN_M = THICK_M + 0.016
"""Width of the jaws between books."""
OVER_M, HIGH_M = 0.27, 0.34
"""Heights of the tool above the holder and, with a book, above the shelf: books that stand there are passed over."""
LOW_M, UPRIGHT = 0.012, 0.95
"""How far from the board a shelved book may be, and how straight up it points."""
PASS_M = 0.02
"""What the signals of books that are not asked for read."""
FAST_M_S = 0.5
TRIES = 6


class PutBooksOnBookshelf(TabletopTask):
    """As many books as are asked for are taken out of a holder and put upright on the upper board of a shelf.

    Which of the three is free to choose; the others stay. The slots ``{books}`` of `phrases` are filled by how many,
    such as `1 book` or `2 books`.
    """

    name = "put_books_on_bookshelf"
    instruction = "put books on the bookshelf"
    phrases = (
        "place {books} on the shelf",
        "take {books} from the holder and stand them on the bookshelf",
        "shelve {books}, leave the rest where they are",
        "move {books} from the table to the top of the bookshelf",
    )
    horizon_s = 23.0
    things, fixtures = ("book_red", "book_green", "book_blue"), ("holder", "shelf")
    variation = {"count": (3,)}
    signals = {
        **COMMON,
        "grip_n": truth("N", "force with which both jaws press on a book that is not on the shelf"),
        "reach_m": truth("m", "distance of the tool from the nearest book that is not on the shelf"),
        "carry_m": truth("m", "how far that book is from standing on the shelf"),
        "first_m": truth("m", "how well the best book stands on the shelf; negative: how far away it is"),
        "second_m": truth("m", f"the same of the next; {PASS_M} where one book is asked for"),
        "third_m": truth("m", f"the same of the last; {PASS_M} where fewer than three are asked for"),
        "left_m": truth("m", f"how far books beyond those asked for are from the shelf; {PASS_M} where there are none"),
    }
    goal = f"third_m > 0 and second_m > 0 and first_m > 0 and left_m > 0 and {RELEASED}"
    mission = f"F[0,8](first_m > 0) and F[0,22.5](G[0,0.5]({goal}))"
    stages = tuple(
        stage
        for nth in ("first", "second", "third")
        for stage in (
            Stage(name=f"grasp {nth}", condition=f"grip_n > 0.5 or {nth}_m > 0", distance="reach_m"),
            Stage(name=f"shelve {nth}", condition=f"{nth}_m > 0 and {RELEASED}", distance="max(carry_m, 0)"),
        )
    )

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `SceneTask.build`; origins are below the middle, the shelf's x axis points to its back."""
        for name, height, rgba in zip(self.things, HEIGHTS_M, (parts.RED, parts.GREEN, parts.BLUE), strict=True):
            book, half, middle = parts.thing(scene, name), (DEPTH_M / 2, THICK_M / 2, height / 2), height / 2
            parts.box(book, half, (0, 0, middle), rgba, mass=0.12)
            inner = (half[0] - 0.001, half[1] - 0.003, middle + 0.0004)
            parts.box(book, inner, (0.0025, 0, middle), parts.WHITE, solid=False)
            parts.box(book, (0.001, half[1] - 0.006, 0.012), (-half[0], 0, 0.7 * height), parts.YELLOW, solid=False)
        holder = parts.fixture(scene, "holder")
        parts.box(holder, (*HOLDER_HALF_M, BOARD_M / 2), (0, 0, BOARD_M / 2), parts.DARK_WOOD)
        self._guides(holder, HOLDER_HALF_M, BOARD_M, parts.DARK_WOOD)
        shelf = parts.fixture(scene, "shelf")
        x, y = SHELF_HALF_M
        for z in (BOARD_M / 2, DECK_M - BOARD_M / 2):
            parts.box(shelf, (x, y, BOARD_M / 2), (0, 0, z), parts.WOOD)
        rise = (DECK_M + SIDE_M) / 2
        for side in (-1, 1):
            parts.box(shelf, (x, BOARD_M / 2, rise), (0, side * (y + BOARD_M / 2), rise), parts.WOOD)
        parts.box(shelf, (BOARD_M / 2, y + BOARD_M, rise), (x + BOARD_M / 2, 0, rise), parts.WOOD)
        self._guides(shelf, SHELF_HALF_M, DECK_M, parts.WOOD)
        decor = (parts.PURPLE, parts.ORANGE, parts.GREY, parts.YELLOW, parts.BLACK)
        for i, rgba in enumerate(decor):  # books that stand below, for good
            at = (0.008, -0.078 + 0.024 * i, BOARD_M + 0.040 - 0.002 * (i % 3))
            parts.box(shelf, (0.040, 0.011, at[2] - BOARD_M), at, rgba)

    @staticmethod
    def _guides(body, half: tuple[float, float], floor: float, rgba: parts.Rgba) -> None:
        """What keeps books in their slots, above a floor."""
        wall = (PITCH_M - SLOT_M) / 2
        for y, half_y in ((PITCH_M / 2, wall), (1.5 * PITCH_M - wall / 2, wall / 2)):
            for side in (-1, 1):
                parts.box(body, (half[0], half_y, GUIDE_M / 2), (0, side * y, floor + GUIDE_M / 2), rgba)

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `TabletopTask.arrange`: the shelf on the left or right, facing inwards; books in any order."""
        side = rng.choice([-1.0, 1.0])
        holder = np.array([rng.uniform(0.45, 0.55), -side * rng.uniform(0.0, 0.12), 0.0])
        turn = yaw_quat(np.pi / 2 + rng.uniform(-0.5, 0.5))
        drawn = {
            "holder_pos": holder,
            "holder_quat_wxyz": turn,
            "shelf_pos": np.array([rng.uniform(0.45, 0.53), side * rng.uniform(0.24, 0.27), 0.0]),
            "shelf_quat_wxyz": yaw_quat(side * np.pi / 2 + rng.uniform(-0.25, 0.25)),
            "count": np.eye(3)[rng.integers(3)],
        }
        for slot, name in zip(rng.permutation(3), self.things, strict=True):
            at = np.array([rng.uniform(-0.003, 0.003), _slot(slot) + rng.uniform(-0.002, 0.002), BOARD_M])
            drawn |= {f"{name}_pos": holder + out_of(turn, at), f"{name}_quat_wxyz": turn}
        return drawn

    def instruct(self, instance: Arrays) -> str:
        """See `TabletopTask.instruct`."""
        return f"put {('1 book', '2 books', '3 books')[int(np.argmax(instance['count']))]} on the bookshelf"

    def derive(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `TabletopTask.derive`."""
        xp = array_namespace(state["ee_pos"])
        shelf, turn, count = instance["shelf_pos"], instance["shelf_quat_wxyz"], instance["count"]
        rests, forces, reaches = [], [], []  # of every book
        for name, height in zip(self.things, HEIGHTS_M, strict=True):
            pos, up = state[f"{name}_pos"], axis_of(state[f"{name}_quat_wxyz"], 2)
            rel = into(turn, pos - shelf)
            fits = (
                SHELF_HALF_M[0] - xp.abs(rel[..., 0]),
                SHELF_HALF_M[1] - xp.abs(rel[..., 1]),
                LOW_M - xp.abs(rel[..., 2] - DECK_M),
                up[..., 2] - UPRIGHT,
            )
            rest = xp.amin(xp.stack(fits, axis=-1), axis=-1)
            gap = state["ee_pos"] - pos - (height - GRIP_M) * up
            rests.append(rest)
            forces.append(state[f"{name}_held_n"] * (rest <= 0))
            reaches.append(xp.sqrt((gap**2).sum(-1)) + 1.0 * (rest > 0))
        rest, reach = xp.stack(rests, axis=-1), xp.stack(reaches, axis=-1)
        nearest, ranked = xp.amin(reach, axis=-1), xp.sort(rest, axis=-1)
        first, second, third = ranked[..., 2], ranked[..., 1], ranked[..., 0]
        one, two, three = count[..., 0], count[..., 1], count[..., 2]
        return {
            "grip_n": xp.amax(xp.stack(forces, axis=-1), axis=-1),
            "reach_m": nearest,
            "carry_m": xp.amax(xp.where(reach <= nearest[..., None], -rest, 0.0), axis=-1),
            "first_m": first,
            "second_m": (1 - one) * second + one * PASS_M,
            "third_m": three * third + (1 - three) * PASS_M,
            "left_m": -one * second - two * third + three * PASS_M,
        }

    def script(self, look: Look) -> Iterator[Waypoint]:
        """See `TabletopTask.script`; comes back for a book that was lost."""
        wanted = int(np.argmax(look()["count"])) + 1
        for _ in range(TRIES):
            obs = look()
            shelf, turn = obs["shelf_pos"], obs["shelf_quat_wxyz"]
            rel = {name: into(turn, obs[f"{name}_pos"] - shelf) for name in self.things}
            shelved = [name for name in self.things if (np.abs(rel[name][:2]) < SHELF_HALF_M).all()]
            if len(shelved) >= wanted:
                return
            name = next(name for name in self.things if name not in shelved)
            free = [_slot(i) for i in range(3) if all(abs(_slot(i) - rel[n][1]) > PITCH_M / 2 for n in shelved)]
            up = (HEIGHTS_M[self.things.index(name)] - GRIP_M) * moves.UP
            pos, rot = obs[f"{name}_pos"] + up, _jaws(obs[f"{name}_quat_wxyz"])
            width = moves.squeezed(THICK_M)
            yield Waypoint(pos=_at(pos, OVER_M), rot=rot, width_m=OPEN_M, near_m=0.02, speed_m_s=FAST_M_S)
            yield Waypoint(pos=pos, rot=rot, width_m=OPEN_M, speed_m_s=0.3)
            yield moves.close(pos, rot, THICK_M)
            yield Waypoint(pos=_at(pos, OVER_M), rot=rot, width_m=width, near_m=0.02, speed_m_s=FAST_M_S)
            end = shelf + out_of(turn, np.array([0.0, free[0], DECK_M + 0.003])) + up
            rot = _jaws(turn)
            yield Waypoint(pos=_at(end, HIGH_M), rot=rot, width_m=width, near_m=0.005, speed_m_s=FAST_M_S)
            yield Waypoint(pos=end, rot=rot, width_m=width, speed_m_s=0.3)
            yield from moves.release(end, rot, OPEN_M)


def _slot(index: int) -> float:
    """Middle of a slot, to the left of the middle [m]."""
    return (index - 1) * PITCH_M


def _jaws(quat: np.ndarray) -> np.ndarray:
    """The tool points down, its jaws close from cover to cover; of both half turns the one that suits the wrist."""
    return down(yaw_of(quat) % np.pi)


def _at(pos: np.ndarray, height_m: float) -> np.ndarray:
    """Above a place."""
    return np.array([*pos[:2], height_m])
