"""A rollout as pictures of its scene: one `View` for each kind of task."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import singledispatch
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from robo.core.errors import RunError, TaskError
from robo.data.rollout import CONTROLLERS, ArmRollout, Rollout, SystemRollout
from robo.view import charts
from robo.view.playback import FILM, Playback, open_playback
from robo.view.style import BAD_RGB, CONTROLLER_RGB, GOOD_RGB, INK_RGB, PLAN_RGB, unit
from sim.render import Renderer
from tasks.arm import SceneTask
from tasks.system import SystemTask
from tasks.task import Task

SMOOTH = 2
"""Lines are drawn this many times larger and scaled down."""


class View(ABC):
    """Pictures of a rollout: the scene with plan and path drawn in. Close it, or use it in a ``with`` block."""

    @abstractmethod
    def picture(self, time_s: float, caption: str | None = None) -> np.ndarray:
        """The scene at a time, (H, W, 3) uint8; a caption instead of task, seed and time."""

    def scene(self, time_s: float) -> np.ndarray:
        """The scene at a time with nothing drawn in, seen by the task's first camera, (H, W, 3) uint8."""
        return self.picture(time_s, "")

    @abstractmethod
    def close(self) -> None:
        """Free what it holds."""

    def __enter__(self) -> View:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


@singledispatch
def open_view(task: Task, rollout: Any, size: tuple[int, int]) -> View:
    """The view of a rollout.

    Args:
        task: The task of the rollout; its class decides.
        rollout: What is shown.
        size: Width and height [px].

    Raises:
        TaskError: No view for this kind of task.
        RunError: The rollout is of another task.
    """
    raise TaskError(f"no pictures for task {task.name}, a {type(task).__name__}")


class SceneView(View):
    """An arm in its scene, rendered."""

    def __init__(self, task: SceneTask, rollout: ArmRollout, size: tuple[int, int]) -> None:
        self.playback = open_playback(task, rollout)
        self.renderer = Renderer(self.playback.model, (size[1], size[0]), pretty=True)

    def picture(self, time_s: float, caption: str | None = None) -> np.ndarray:
        """See `View`."""
        return _view(self.playback, self.renderer, time_s, caption)

    def scene(self, time_s: float) -> np.ndarray:
        """See `View`."""
        self.playback.pose(time_s)
        return self.renderer.rgb(self.playback.data, self.playback.task.cameras[0].name)

    def close(self) -> None:
        """See `View`."""
        self.renderer.close()


class SystemView(View):
    """A system from above, drawn by its task."""

    def __init__(self, task: SystemTask, rollout: SystemRollout, size: tuple[int, int]) -> None:
        if rollout.task != task.name or rollout.state.shape[1] != task.state_size:
            raise RunError(
                f"the rollout is of task {rollout.task!r}, the run is of {task.name!r}; "
                "record one with: robo-view RUN --rollout SEED"
            )
        self.task, self.rollout, self.size = task, rollout, size

    def picture(self, time_s: float, caption: str | None = None) -> np.ndarray:
        """See `View`: states between samples are drawn as at the sample before, positions in between."""
        task, rollout = self.task, self.rollout
        step = min(int(time_s / rollout.dt_s + 1e-9), rollout.steps)
        figure = charts.blank(self.size)
        figure.set_layout_engine("none")
        axes = figure.add_axes((0.02, 0.03, 0.96, 0.85))
        axes.set_axis_off()
        task.draw(axes, rollout.state[step])
        path = task.position(rollout.state)
        if step < rollout.steps:
            plan = rollout.plan_state[step]
            plan = task.position(plan[np.isfinite(plan).all(axis=1)])
            axes.plot(*plan.T, color=unit(PLAN_RGB), lw=2.0, alpha=0.8, zorder=5)
        for k in range(step):
            colour = unit(CONTROLLER_RGB[CONTROLLERS[rollout.controller[k]]])
            axes.plot(*path[k : k + 2].T, color=colour, lw=3.0, solid_capstyle="round", zorder=6)
        here = path[step] + (time_s / rollout.dt_s - step) * (path[min(step + 1, rollout.steps)] - path[step])
        axes.plot(*here, "o", color=unit(INK_RGB), ms=9, zorder=7)
        picture = Image.fromarray(charts.pixels(figure))
        overlay = Image.new("RGBA", (self.size[0] * SMOOTH, self.size[1] * SMOOTH), (0, 0, 0, 0))
        shown = min(step, rollout.steps - 1)
        _caption(ImageDraw.Draw(overlay), rollout, shown, time_s, caption, self.size[0])
        small = overlay.resize(self.size, Image.Resampling.BOX)
        return np.asarray(Image.alpha_composite(picture.convert("RGBA"), small).convert("RGB"))

    def close(self) -> None:
        """See `View`: there is nothing to free."""


open_view.register(SceneTask)(SceneView)
open_view.register(SystemTask)(SystemView)


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
