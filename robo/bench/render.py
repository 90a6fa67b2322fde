"""What pictures cost: the environment beside a bare loop of MuJoCo that does the same physics and pictures."""

from __future__ import annotations

import math
import multiprocessing
import os
import time
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

import numpy as np

from robo.bench import Report
from robo.core.errors import ConfigError, RenderError
from robo.core.protocols import hermite

if TYPE_CHECKING:
    from sim.env import TaskEnv

TASK = "reach_avoid"
SEED = 0
TURN_STEPS = 10
"""Control steps that one side does before the other takes its turn."""


def render_bench(seconds: float = 30.0, sizes: tuple[int, ...] = (64, 96)) -> Report:
    """Frames per second of the environment, three views, beside a bare loop of mj_step + Renderer.render.

    Both sides live in one process and take turns from the same state; before each turn
    their pictures must be equal and not of one colour. The interval is over turns.

    Args:
        seconds: Time to spend in all [s].
        sizes: Heights and widths of pictures [pixels].

    Raises:
        ConfigError: No time or no sizes.
        RenderError: No renderer works, or the two sides take different pictures.
    """
    if not seconds > 0 or not sizes:
        raise ConfigError(f"a benchmark needs time and sizes, not seconds={seconds}, sizes={sizes}")
    # A process of its own: mujoco.Renderer takes its OpenGL library from MUJOCO_GL when mujoco is
    # imported, and whatever else this process has loaded stays out of the figures.
    from sim.render import backend

    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, spawn, initializer=choose_renderer, initargs=(backend(),)) as pool:
        rows = [pool.submit(_measure, size, seconds / len(sizes)).result() for size in sizes]
    return Report(
        title=f"Rendering: {TASK}, 3 views",
        rows=rows,
        seeds=[SEED],
        notes=[
            f"one control step: 50 physics steps and 3 pictures; a turn: {TURN_STEPS} steps",
            "the environment also moves the world, counts violations at every physics step and scores signals",
            "pixels of both sides were equal before every turn",
            "figure to reach: ratio of times (env over bare) at most 1.3",
        ],
    )


def choose_renderer(renderer: str) -> None:
    """Have MuJoCo take an OpenGL library when it is imported; for processes that have not done so."""
    os.environ["MUJOCO_GL"] = renderer


def _measure(size: int, seconds: float) -> dict[str, Any]:
    """One row: both sides at one size, for some time [s]."""
    from sim.open import make
    from sim.render import backend
    from tasks.arm import arm_task
    from tasks.registry import load_task

    task = arm_task(load_task(TASK))
    views = tuple(camera.name for camera in task.cameras)
    with make(task, cameras=views, size=size) as env:
        bare = _Bare(env, size)
        try:
            ours, theirs = _take_turns(env, bare, seconds)
        finally:
            bare.close()
    frames = TURN_STEPS * len(views) * len(ours)
    ratio = np.log(np.divide(ours, theirs))
    spread = 1.96 * ratio.std(ddof=1) / math.sqrt(len(ratio))
    low, middle, high = np.exp(ratio.mean() + spread * np.array([-1, 0, 1]))
    return {
        "size": f"{size}x{size}",
        "gl": backend(),
        "env_fps": round(frames / sum(ours)),
        "bare_fps": round(frames / sum(theirs)),
        "env_steps_s": round(TURN_STEPS * len(ours) / sum(ours), 1),
        "ratio": round(float(middle), 3),
        "ratio_ci95": f"{low:.3f} .. {high:.3f}",
        "turns": len(ours),
    }


def _take_turns(env: TaskEnv, bare: _Bare, seconds: float) -> tuple[list[float], list[float]]:
    """Time of each turn of both sides [s]; at least four each."""
    ours: list[float] = []
    theirs: list[float] = []
    step, seed, began = env.task.steps, SEED, time.perf_counter()
    while len(ours) < 4 or time.perf_counter() - began < seconds:
        if step + TURN_STEPS > env.task.steps:
            obs, info = env.reset(seed=seed)
            path, step, seed = info["instance"]["witness"], 0, seed + 1
            vel = np.gradient(path, env.task.ctrl_dt_s, axis=0)
        bare.take_over(env)
        bare.check(obs)
        knots = range(step, step + TURN_STEPS)
        actions = [np.concatenate([path[k + 1], vel[k + 1]]) for k in knots]
        n = round(env.task.ctrl_dt_s / env.model.opt.timestep)
        phase = np.arange(n)[:, None] / n
        starts = [np.zeros_like(vel[0]) if k == 0 else vel[k] for k in knots]
        controls = [
            np.concatenate(hermite(path[k], v0, path[k + 1], vel[k + 1], phase, env.task.ctrl_dt_s), axis=1)
            for k, v0 in zip(knots, starts, strict=True)
        ]

        def turn_of_env(actions: list[np.ndarray] = actions) -> dict[str, np.ndarray]:
            for action in actions:
                obs, *_ = env.step(action)
            return obs

        def turn_of_bare(controls: list[np.ndarray] = controls) -> None:
            for control in controls:
                bare.step(control)
                bare.pictures()

        # Who goes first changes from turn to turn.
        if len(ours) % 2:
            theirs.append(_timed(turn_of_bare)[0])
        took, obs = _timed(turn_of_env)
        ours.append(took)
        if len(theirs) < len(ours):
            theirs.append(_timed(turn_of_bare)[0])
        step += TURN_STEPS
    return ours, theirs


def _timed(work: Any) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


class _Bare:
    """The plainest loop: set controls and mj_step; then update_scene and render for every view."""

    def __init__(self, env: TaskEnv, size: int) -> None:
        import mujoco

        from sim.coarse import seen
        from sim.render import make_plain
        from sim.scene import Scene

        self._mj, self.views = mujoco, env.pictures.cameras
        self.model = Scene(env.task).model
        make_plain(self.model)
        self.data = mujoco.MjData(self.model)
        self._renderer = mujoco.Renderer(self.model, size, size)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
        self._option = seen(coarse=True)

    def take_over(self, env: TaskEnv) -> None:
        """Go on from the state of the environment."""
        kind = self._mj.mjtState.mjSTATE_INTEGRATION
        state = np.empty(self._mj.mj_stateSize(self.model, kind))
        self._mj.mj_getState(env.model, env.data, state, kind)
        self._mj.mj_setState(self.model, self.data, state, kind)
        self._mj.mj_forward(self.model, self.data)

    def check(self, obs: dict[str, np.ndarray]) -> None:
        """Pictures must be those of the environment, and of something."""
        for view, picture in zip(self.views, self.pictures(), strict=True):
            if np.ptp(picture) == 0:
                raise RenderError(f"view {view} is of one colour; robo-info shows which renderer works")
            if not np.array_equal(picture, obs[f"rgb_{view}"]):
                raise RenderError(f"view {view}: environment and bare loop take different pictures of one state")

    def step(self, controls: np.ndarray) -> None:
        """Physics under controls (n, nu), one physics step each."""
        for control in controls:
            self.data.ctrl[:] = control
            self._mj.mj_step(self.model, self.data)

    def pictures(self) -> list[np.ndarray]:
        """A picture (H, W, 3) of each view."""
        frames = []
        for view in self.views:
            self._renderer.update_scene(self.data, view, self._option)
            frames.append(self._renderer.render())
        return frames

    def close(self) -> None:
        self._renderer.close()
