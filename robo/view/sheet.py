"""A contact sheet: a row for every task, a picture for every stage its expert reaches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from policies.registry import POLICIES
from robo.core.errors import RunError
from robo.core.files import make_parent, write_bytes
from robo.evaluate.worlds import open_world
from robo.view.movie import png
from robo.view.style import INK_RGB
from robo.view.views import open_view
from tasks.tabletop.base import TabletopTask

TILE = (200, 150)
"""Width and height of a picture [px]."""
LABEL_H = 22
"""Height of the line above a row [px]."""


def contact_sheet(tasks: Sequence[TabletopTask], path: Path, seed: int = 0) -> Path:
    """Write one ``.png``: each task's start, and the moment at which its scripted expert reached each stage.

    Raises:
        RoboError: An expert reaches no stage, no renderer works, or there is no room on the disk.
    """
    rows = [_row(task, seed) for task in tasks]
    width = max(row.shape[1] for row in rows)
    padded = [np.pad(row, ((0, 0), (0, width - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    make_parent(path)
    write_bytes(path, png(np.concatenate(padded)))
    return path


def _row(task: TabletopTask, seed: int) -> np.ndarray:
    kind = POLICIES.make("expert")
    world = open_world(task)
    rollout = world.roll_out(kind.load(task, kind.config(), {}, "cpu"), seed, "expert")
    world.close()
    times = [at * rollout.dt_s for at in task.stage_samples(rollout.signals)]
    if not times:
        raise RunError(f"the expert of {task.name} reaches no stage with seed {seed}; try another --seed")
    moments = [(0.0, "start"), *zip(times, (stage.name for stage in task.stages), strict=False)]
    with open_view(task, rollout, TILE) as view:
        tiles = [_labelled(view.scene(time_s), f"{name}, {time_s:.1f} s") for time_s, name in moments]
    row = np.concatenate(tiles, axis=1)
    label = Image.new("RGB", (row.shape[1], LABEL_H), (255, 255, 255))
    ImageDraw.Draw(label).text((4, 4), f"{task.name}: {task.instruct(rollout.instance)}", font=_font(13), fill=INK_RGB)
    return np.concatenate([np.asarray(label), row])


def _labelled(picture: np.ndarray, text: str) -> np.ndarray:
    image = Image.fromarray(picture)
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 8 + draw.textlength(text, font=_font(11)), 16), fill=(255, 255, 255))
    draw.text((4, 2), text, font=_font(11), fill=INK_RGB)
    return np.asarray(image)


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
