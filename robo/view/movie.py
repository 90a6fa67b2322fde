"""Plain videos and pictures of a rollout: the scene with plan and path drawn in, above a strip of robustness."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from robo.core.errors import RunError
from robo.core.files import make_parent, write_bytes
from robo.core.progress import progress
from robo.data.rollout import Rollout
from robo.view import charts
from robo.view.style import INK_RGB
from robo.view.views import open_view
from tasks.task import Task

FPS = 20
STILL_S = 1.0
"""How long the last picture stands [s]."""
VIEW = (720, 540)
"""Width and height of the scene [px]."""
STRIP_HEIGHT = 200
"""Height of the strip of robustness below it [px]."""


def film(task: Task, rollout: Rollout, path: Path) -> Path:
    """Write a rollout as an H.264 video (``.mp4``), seen like by the task's first camera but from farther away.

    Raises:
        RoboError: The rollout does not fit the task, no renderer works, or there is no room on the disk.
    """
    import av

    path = Path(path)
    if path.suffix != ".mp4":
        raise RunError(f"a video ends in .mp4, not {path.name!r}; try --mp4 {path.stem}.mp4")
    make_parent(path)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "22", "preset": "veryfast"})
        stream.width, stream.height = VIEW[0], VIEW[1] + STRIP_HEIGHT
        stream.pix_fmt = "yuv420p"
        with progress("frames", frame_count(rollout)) as drawn:
            for picture in frames(task, rollout):
                container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
                drawn("")
        container.mux(stream.encode(None))
    write_bytes(path, buffer.getvalue())
    return path


def frame_count(rollout: Rollout) -> int:
    """Pictures of the video of a rollout."""
    return round(rollout.time_s[-1] * FPS) + 1 + round(STILL_S * FPS)


def frames(task: Task, rollout: Rollout) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 of the video, `FPS` a second."""
    strip = _Strip(task, rollout, (VIEW[0], STRIP_HEIGHT))
    moving = frame_count(rollout) - round(STILL_S * FPS)
    picture = np.zeros(0)
    with open_view(task, rollout, VIEW) as view:
        for i in range(moving):
            time_s = i / FPS
            picture = np.concatenate([view.picture(time_s), strip.at(time_s)])
            yield picture
    for _ in range(frame_count(rollout) - moving):
        yield picture


def poster(task: Task, rollout: Rollout, path: Path, *, columns: int = 3, rows: int = 2) -> Path:
    """Write one ``.png`` of a rollout: moments of it in a grid, above the strip of robustness.

    Raises:
        RoboError: As `film`.
    """
    path = Path(path)
    if path.suffix != ".png":
        raise RunError(f"a picture ends in .png, not {path.name!r}; try --png {path.stem}.png")
    width, height = 480, 360
    times = np.linspace(0.0, rollout.time_s[-1], columns * rows)
    with open_view(task, rollout, (width, height)) as view:
        views = [view.picture(t, caption=f"{t:.1f} s") for t in times]
    grid = np.concatenate([np.concatenate(views[r * columns : (r + 1) * columns], 1) for r in range(rows)])
    strip = _Strip(task, rollout, (width * columns, 260)).picture
    make_parent(path)
    write_bytes(path, png(np.concatenate([grid, strip])))
    return path


def png(picture: np.ndarray) -> bytes:
    """A picture (H, W, 3) uint8 as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="png", optimize=True)
    return buffer.getvalue()


class _Strip:
    """The chart below a view, drawn once; only its cursor moves."""

    def __init__(self, task: Task, rollout: Rollout, size: tuple[int, int]) -> None:
        # Of the panels the one where most happens.
        groups = charts.predicates_by_unit(task, rollout)
        lively = {u: sum(np.ptp(rollout.predicates[text]) > 0 for text, _ in group) for u, group in groups.items()}
        units = [max(lively, key=lambda u: lively[u])]
        figure = charts.timeline(task, rollout, size, units=units)
        self.picture = charts.pixels(figure)
        left, right = (figure.axes[0].transData.transform((t, 0))[0] for t in (0.0, rollout.time_s[-1]))
        boxes = [axes.get_window_extent() for axes in figure.axes]
        top, bottom = (size[1] - max(b.y1 for b in boxes), size[1] - min(b.y0 for b in boxes))
        self._x = (left, (right - left) / max(rollout.time_s[-1], 1e-9))
        self._rows = slice(round(top), round(bottom))

    def at(self, time_s: float) -> np.ndarray:
        """The strip with its cursor at a time."""
        picture = self.picture.copy()
        x = round(self._x[0] + self._x[1] * time_s)
        picture[self._rows, max(x - 1, 0) : x + 1] = INK_RGB
        return picture
