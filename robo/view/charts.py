"""Charts of rollouts and trainings (matplotlib, without a screen and without global state)."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from robo.data.rollout import CONTROLLERS, Rollout
from robo.view.style import CONTROLLER_RGB, INK_RGB, MUTED_RGB, PLAN_RGB, RHO_RGB, SERIES_RGB, unit
from tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DPI = 100
_INK, _MUTED = unit(INK_RGB), unit(MUTED_RGB)


def predicates_by_unit(task: Task, rollout: Rollout) -> dict[str, list[tuple[str, tuple[int, int, int]]]]:
    """Unit → its predicates, each text with its colour; predicates of the same unit can share an axis."""
    groups: dict[str, list[tuple[str, tuple[int, int, int]]]] = {}
    for i, predicate in enumerate(task.formula.predicates):
        if str(predicate) in rollout.predicates:
            units = [task.signals[name].unit for name in predicate.signals] or ["1"]
            groups.setdefault(units[0], []).append((str(predicate), SERIES_RGB[i % len(SERIES_RGB)]))
    return groups


def timeline(task: Task, rollout: Rollout, size: tuple[int, int], *, units: Sequence[str] | None = None) -> Figure:
    """Robustness of the predicates over time, one panel per unit, above a band of who was in control.

    Args:
        task: The task of the rollout.
        rollout: What is shown.
        size: Width and height [px].
        units: Which units get a panel; by default all.
    """
    groups = predicates_by_unit(task, rollout)
    shown = {u: groups[u] for u in (groups if units is None else units)}
    figure = blank(size)
    grid = figure.add_gridspec(len(shown) + 1, 1, height_ratios=[*[4.0] * len(shown), 0.55], hspace=0.12)
    times = rollout.time_s
    for row, (unit_name, predicates) in enumerate(shown.items()):
        axes = figure.add_subplot(grid[row])
        for text, colour in predicates:
            axes.plot(
                times,
                rollout.predicates[text],
                color=unit(colour),
                lw=1.6,
                label=text.removesuffix(" > 0"),
                solid_capstyle="round",
            )
        _plain(axes, f"robustness [{unit_name}]")
        axes.axhline(0.0, color=_INK, lw=0.8)
        axes.set_xlim(times[0], times[-1])
        axes.tick_params(labelbottom=False)
        axes.legend(
            loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=5, frameon=False, fontsize=7.5, handlelength=1.2,
            columnspacing=1.2, borderaxespad=0.2, labelcolor=_INK,
        )  # fmt: skip
    band = figure.add_subplot(grid[-1])
    for first, last, controller in spans(rollout):
        band.axvspan(first, last, color=unit(CONTROLLER_RGB[controller]), lw=0)
    band.set_xlim(times[0], times[-1])
    band.set_yticks([])
    band.set_xlabel("time [s]", fontsize=8, color=_MUTED, labelpad=1)
    band.tick_params(labelsize=7.5, colors=_MUTED, length=2)
    band.spines[:].set_visible(False)
    band.set_ylabel("in\ncontrol", fontsize=7.5, color=_MUTED, rotation=0, ha="right", va="center")
    return figure


def spans(rollout: Rollout) -> list[tuple[float, float, str]]:
    """Stretches with one controller: from, to [s], who."""
    edges = [0, *(np.flatnonzero(np.diff(rollout.controller)) + 1).tolist(), rollout.steps]
    pairs = [(a, b) for a, b in pairwise(edges) if a < b]
    return [(a * rollout.dt_s, b * rollout.dt_s, CONTROLLERS[rollout.controller[a]]) for a, b in pairs]


def robustness(rollout: Rollout, size: tuple[int, int]) -> Figure:
    """What the robustness of the whole specification can still become, and what each plan predicted."""
    figure = blank(size)
    axes = figure.add_subplot()
    times = rollout.time_s
    high, low = (np.where(np.isfinite(x), x, np.nan) for x in (rollout.rho_high, rollout.rho_low))
    axes.plot(times, high, color=unit(RHO_RGB), lw=1.6, label="at most, after what was executed")
    axes.plot(times, low, color=unit(RHO_RGB), lw=1.6, ls=":", label="at least")
    axes.plot(times[:-1], rollout.plan_rho, color=unit(PLAN_RGB), lw=1.6, label="predicted by the plan")
    axes.plot(times[-1:], [rollout.rho], "o", color=_INK, ms=4, label=f"final {rollout.rho:+.3f}", clip_on=False)
    axes.axhline(0.0, color=_INK, lw=0.8)
    axes.set_xlim(times[0], times[-1])
    _plain(axes, "robustness of the specification")
    axes.set_xlabel("time [s]", fontsize=8, color=_MUTED, labelpad=1)
    axes.legend(frameon=False, fontsize=7.5, ncols=4, loc="lower left", bbox_to_anchor=(0.0, 1.0), labelcolor=_INK)
    return figure


def training(metrics: Sequence[Mapping[str, float]], size: tuple[int, int]) -> Figure:
    """Curves of a training: one small panel per metric over the steps."""
    names = [name for name in metrics[-1] if name != "step" and isinstance(metrics[-1][name], int | float)][:6]
    columns = min(len(names), 3)
    figure = blank(size)
    for i, name in enumerate(names):
        axes = figure.add_subplot(-(-len(names) // columns), columns, i + 1)
        points = [(row["step"], row[name]) for row in metrics if name in row]
        axes.plot(*zip(*points, strict=True), color=unit(SERIES_RGB[i % len(SERIES_RGB)]), lw=1.5)
        _plain(axes, "")
        axes.set_title(name, fontsize=9, color=_INK, loc="left")
        axes.set_xlabel("step", fontsize=7.5, color=_MUTED, labelpad=1)
    return figure


def pixels(figure: Figure) -> np.ndarray:
    """A figure as a picture (H, W, 3) uint8."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def svg(figure: Figure) -> str:
    """A figure as an ``<svg>`` element for a page; the same figure gives the same text."""
    buffer = io.StringIO()
    FigureCanvasAgg(figure)
    with rc_context({"svg.hashsalt": "robo"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]


def blank(size: tuple[int, int]) -> Figure:
    """An empty figure of a width and height [px]."""
    figure = Figure(figsize=(size[0] / DPI, size[1] / DPI), dpi=DPI, facecolor="white", layout="constrained")
    return figure


def _plain(axes: Axes, label: str) -> None:
    axes.set_ylabel(label, fontsize=8, color=_MUTED)
    axes.tick_params(labelsize=7.5, colors=_MUTED, length=2)
    axes.grid(color="0.92", lw=0.7)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.8")
