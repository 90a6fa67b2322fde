"""Plain videos and pictures of a rollout: the scene with plan and path drawn in, above a strip of robustness."""

from __future__ import annotations

import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robo.core.errors import RunError
from robo.core.files import make_parent, write_bytes
from robo.data.rollout import CONTROLLERS, Rollout
from robo.view import charts
from robo.view.playback import FILM, Playback
from robo.view.style import BAD_RGB, CONTROLLER_RGB, GOOD_RGB, INK_RGB, PLAN_RGB
from sim.render import Renderer
from tasks.task import Task

FPS = 20
STILL_S = 1.0
"""How long the last picture stands [s]."""
VIEW = (720, 540)
"""Width and height of the scene [px]."""
STRIP_HEIGHT = 200
"""Height of the strip of robustness below it [px]."""
SMOOTH = 2
"""Lines are drawn this many times larger and scaled down."""


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
        for picture in frames(task, rollout):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    write_bytes(path, buffer.getvalue())
    return path


def frame_count(rollout: Rollout) -> int:
    """Pictures of the video of a rollout."""
    return round(rollout.time_s[-1] * FPS) + 1 + round(STILL_S * FPS)


def frames(task: Task, rollout: Rollout) -> Iterator[np.ndarray]:
    """Pictures (H, W, 3) uint8 of the video, `FPS` a second."""
    playback = Playback(task, rollout)
    strip = _Strip(task, rollout, (VIEW[0], STRIP_HEIGHT))
    moving = frame_count(rollout) - round(STILL_S * FPS)
    picture = np.zeros(0)
    with Renderer(playback.model, (VIEW[1], VIEW[0]), pretty=True) as renderer:
        for i in range(moving):
            time_s = i / FPS
            view = _view(playback, renderer, time_s)
            picture = np.concatenate([view, strip.at(time_s)])
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
    playback = Playback(task, rollout)
    width, height = 480, 360
    times = np.linspace(0.0, rollout.time_s[-1], columns * rows)
    with Renderer(playback.model, (height, width), pretty=True) as renderer:
        views = [_view(playback, renderer, t, caption=f"{t:.1f} s") for t in times]
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
        units = list(charts.predicates_by_unit(task, rollout))[:1]
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


def _view(playback: Playback, renderer: Renderer, time_s: float, caption: str | None = None) -> np.ndarray:
    """The scene at a time with executed path, predicted plan and a caption, (H, W, 3) uint8."""
    rollout, camera = playback.rollout, FILM
    playback.pose(time_s)
    picture = Image.fromarray(renderer.rgb(playback.data, camera))
    width, height = picture.size
    step = min(playback.sample(time_s)[0], rollout.steps - 1)
    overlay = Image.new("RGBA", (width * SMOOTH, height * SMOOTH), (0, 0, 0, 0))
    draw = ImageDraw.Draw(overlay)

    def line(points: np.ndarray, colour: tuple[int, ...], thickness: float) -> None:
        pixels = SMOOTH * playback.project(points, camera, (width, height))
        pixels = pixels[np.isfinite(pixels).all(axis=1)]
        if len(pixels) > 1:
            draw.line([tuple(p) for p in pixels], fill=colour, width=round(SMOOTH * thickness), joint="curve")

    if time_s < rollout.time_s[-1]:
        line(rollout.plan_ee[step], (*PLAN_RGB, 170), 2.0)
    tip = playback.data.site("tcp").xpos[None]
    for first, last, who in charts.spans(rollout):
        a, b = round(first / rollout.dt_s), round(min(last, time_s) / rollout.dt_s)
        if first <= time_s:
            way = rollout.ee_pos[a : min(b, step) + 1]
            line(np.concatenate([way, tip]) if last > time_s else way, (*CONTROLLER_RGB[who], 230), 3.0)
    _caption(draw, rollout, step, time_s, caption, width)
    small = overlay.resize((width, height), Image.Resampling.BOX)
    return np.asarray(Image.alpha_composite(picture.convert("RGBA"), small).convert("RGB"))


def _caption(
    draw: ImageDraw.ImageDraw, rollout: Rollout, step: int, time_s: float, text: str | None, width: int
) -> None:
    who = CONTROLLERS[rollout.controller[step]]
    size = SMOOTH * 15
    pad, y = SMOOTH * 12, SMOOTH * 10
    if time_s >= rollout.time_s[-1]:
        verdict = f"specification {'satisfied' if rollout.satisfied else 'not satisfied'}, rho {rollout.rho:+.3f}"
        colour = GOOD_RGB if rollout.satisfied else BAD_RGB
        draw.text((pad, y + SMOOTH * 22), verdict, font=_font(size), fill=(*colour, 255))
    if text is not None:
        draw.text((pad, y), text, font=_font(size), fill=(*INK_RGB, 255))
        return
    left = f"{rollout.task}   seed {rollout.seed}   {time_s:4.1f} s"
    draw.text((pad, y), left, font=_font(size), fill=(*INK_RGB, 255))
    chip = _font(SMOOTH * 14)
    end = SMOOTH * width - pad
    box = draw.textbbox((0, 0), who, font=chip)
    draw.rounded_rectangle(
        (end - (box[2] - box[0]) - 2 * pad, y - SMOOTH * 3, end, y + SMOOTH * 21),
        radius=SMOOTH * 11,
        fill=(*CONTROLLER_RGB[who], 235),
    )
    draw.text((end - pad, y + SMOOTH * 9), who, font=chip, fill=(255, 255, 255, 255), anchor="rm")


def _font(size: int) -> ImageFont.FreeTypeFont:
    import matplotlib

    return ImageFont.truetype(f"{matplotlib.get_data_path()}/fonts/ttf/DejaVuSans.ttf", size)
