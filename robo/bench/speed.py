"""Speed of the tabletop environment: with pictures and without, beside the bare loop and other projects."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np

from robo.bench import Report
from robo.bench.peers import environment, run_together
from robo.bench.render import choose_renderer
from robo.core.errors import ConfigError, MissingDependencyError, RenderError, UnknownNameError

if TYPE_CHECKING:
    from sim.tabletop import TabletopEnv

TASK, VIEWS, SIZE = "pick_and_place", ("front", "left", "right", "overhead"), 64
SLICE_S = 1.0
"""Ours and the bare loop take turns of so long, for the machine is not as fast at all times."""
SHARE = 4
"""Environments with pictures that each process steps."""
_ROBOSUITE = """
import json, sys, time, numpy as np
import robosuite, robosuite.macros as macros
from robosuite.utils import binding_utils
seconds, shadows = float(sys.argv[1]), sys.argv[2] == "shadows"
views = ["frontview", "agentview", "birdview", "sideview"]
env = robosuite.make("Lift", robots="Panda", has_renderer=False, has_offscreen_renderer=True, use_camera_obs=True,
    camera_names=views, camera_heights=64, camera_widths=64, control_freq=20, horizon=10**9)
if not shadows:
    model = env.sim.model._model
    model.vis.quality.shadowsize = model.vis.quality.offsamples = 0
    env.hard_reset = False
    env.sim._render_context_offscreen = None
obs = env.reset()
low, high = env.action_spec
rng, steps, new = np.random.default_rng(0), 0, np.zeros(4)
def turn():
    obs, *_ = env.step(rng.uniform(low, high))
    return [obs[f"{v}_image"] for v in views]
turn()
before = turn()
began = time.perf_counter()
while time.perf_counter() - began < seconds or steps < 3:
    pictures = turn(); steps += 1
    new += [not np.array_equal(p, q) for p, q in zip(pictures, before)]
    before = pictures
taken = time.perf_counter() - began
assert all(p.shape == (64, 64, 3) and np.ptp(p) > 0 for p in pictures)
assert (new > 0.5 * steps).all(), f"pictures do not follow the robot: {new} of {steps} steps gave new ones"
print(json.dumps({"steps": steps, "seconds": taken, "version": robosuite.__version__}))
"""
_FETCH = """
import json, sys, time, numpy as np
import gymnasium, gymnasium_robotics
gymnasium.register_envs(gymnasium_robotics)
seconds = float(sys.argv[1])
env = gymnasium.make("FetchPickAndPlace-v4", render_mode="rgb_array", width=64, height=64).unwrapped
env.reset(seed=0)
steps, new = 0, 0
def turn():
    env.step(env.action_space.sample())
    return [env.render() for _ in range(4)]
before = turn()
began = time.perf_counter()
while time.perf_counter() - began < seconds or steps < 3:
    pictures = turn(); steps += 1
    new += not np.array_equal(pictures[0], before[0])
    before = pictures
taken = time.perf_counter() - began
assert all(p.shape == (64, 64, 3) and np.ptp(p) > 0 for p in pictures)
assert new > 0.5 * steps, f"pictures do not follow the robot: {new} of {steps} steps gave new ones"
print(json.dumps({"steps": steps, "seconds": taken, "version": gymnasium_robotics.__version__}))
"""
PEERS = {
    "robosuite Lift": ("robosuite", ("robosuite==1.5.2", "mujoco==3.3.0"), _ROBOSUITE, ("shadows",)),
    "robosuite Lift, shadows off": ("robosuite", ("robosuite==1.5.2", "mujoco==3.3.0"), _ROBOSUITE, ("plain",)),
    "gymnasium-robotics FetchPickAndPlace-v4": ("fetch", ("gymnasium-robotics==1.4.2", "mujoco==3.3.0"), _FETCH, ()),
}
"""Row → environment, packages, script, its arguments after the seconds."""


def speed_bench(
    seconds: float = 10.0, worlds: int = 64, processes: int = 2, peers: Sequence[str] = tuple(PEERS), seed: int = 0
) -> Report:
    """Control steps a second, at 20 Hz, of `pick_and_place` under random actions, with four 64 x 64 views and without.

    Bare, with pictures: in as many processes ``mj_step`` as often and ``mujoco.Renderer`` for the same views without
    shadows; its pictures are compared with ours, pixel by pixel, before. Bare, without: ``mujoco.rollout`` on as many
    threads. The peers render the same number of views of the same size at their own 20 and 25 Hz, in as many processes.

    Args:
        seconds: For each row.
        worlds: That step together without pictures.
        processes: With pictures; threads without.
        peers: Which; none: leave them out. They are installed into the user's cache when they are first needed.
        seed: Of actions and episodes.

    Raises:
        RoboError: Pictures differ, or a name is unknown.
    """
    from sim.render import backend

    for name in peers:
        if name and name not in PEERS:
            raise UnknownNameError("peer", name, PEERS)
    if seconds <= 0 or min(worlds, processes) < 1:
        raise ConfigError("seconds, worlds and processes must be positive")
    ours, bare = _pictures(seconds, processes, seed)
    batch, threads = _batch(seconds, worlds, processes, seed)
    rows: list[dict[str, Any]] = [
        {"what": "ours, four views", "control steps/s": ours, "share of bare [%]": 100 * ours / bare},
        {"what": "bare loop, four views", "control steps/s": bare},
        {"what": "ours, state only", "control steps/s": batch, "share of bare [%]": 100 * batch / threads},
        {"what": "mujoco.rollout, state only", "control steps/s": threads},
    ]
    notes = [
        f"{processes} processes or threads; {SHARE * processes} environments with pictures, {worlds} worlds without; "
        "random actions of control=joint_delta",
        "pixels of environment and bare loop were equal; figures to reach: 175 steps/s and 70 %, state only 90 %",
    ]
    for name in filter(None, peers):
        folder, packages, script, more = PEERS[name]
        try:
            python = environment(folder, packages)
            found = run_together(python, script, [str(seconds), *more], processes, 60 + 20 * seconds, backend())
        except MissingDependencyError as error:
            notes.append(f"left out: {name}: {error}")
            continue
        theirs = sum(one["steps"] / one["seconds"] for one in found)
        rows.append(
            {
                "what": f"{name} ({found[0]['version']}), four views",
                "control steps/s": theirs,
                "ours is faster": f"{ours / theirs:.3g} times",
            }
        )
    return Report(title="Speed of the tabletop environment", rows=rows, seeds=[seed], notes=notes)


_WORKER: dict[str, Any] = {}
"""What a process with a bare loop keeps between its slices."""


def _alone(renderer: str, seed: int, barrier: Any) -> None:
    """A process that renders beside others, like those of `sim.open.make_vector`."""
    choose_renderer(renderer)
    os.environ.setdefault("LP_NUM_THREADS", "0")
    from sim.tabletop import TabletopEnv

    check_pictures(seed)
    env = TabletopEnv(TASK, control="joint_delta")
    _, info = env.reset(seed=seed + os.getpid())
    rng, dof = np.random.default_rng(os.getpid()), env.task.robot.dof
    known = {"env": env, "bare": _Bare(env), "rng": rng, "dof": dof, "reference": info["reference"], "barrier": barrier}
    _WORKER.update(known)
    _WORKER["bare"].pictures()


def check_pictures(seed: int) -> None:
    """Pictures of the environment and of the bare renderer must be equal, and of something.

    Raises:
        RenderError: They are not.
    """
    from sim.tabletop import TabletopEnv

    env = TabletopEnv(TASK, cameras=VIEWS, size=SIZE)
    obs, _ = env.reset(seed=seed)
    env.close()
    with closing(_Bare(env)) as bare:
        for view, picture in zip(VIEWS, bare.pictures(), strict=True):
            if np.ptp(picture) == 0 or not np.array_equal(picture, obs[f"rgb_{view}"]):
                raise RenderError(f"view {view}: environment and bare loop take different pictures, or empty ones")


class _Bare:
    """The plainest loop over the model of an environment."""

    def __init__(self, env: TabletopEnv) -> None:
        import mujoco

        from sim.coarse import seen
        from sim.render import make_plain

        self._mj = mujoco
        self.model, self.data, self.substeps = env.model, env.data, env.substeps
        make_plain(self.model)
        self._renderer = mujoco.Renderer(self.model, SIZE, SIZE)
        self._renderer.scene.flags[mujoco.mjtRndFlag.mjRND_SKYBOX] = False
        self._option = seen(coarse=True)

    def close(self) -> None:
        self._renderer.close()

    def step(self, control: np.ndarray) -> None:
        self.data.ctrl[:] = control
        self._mj.mj_step(self.model, self.data, nstep=self.substeps)

    def pictures(self) -> list[np.ndarray]:
        found = []
        for view in VIEWS:
            self._renderer.update_scene(self.data, view, self._option)
            found.append(self._renderer.render())
        return found


def _pictures(seconds: float, processes: int, seed: int) -> tuple[float, float]:
    """Control steps a second, pictures and all, of environments in processes and of bare loops in as many; in turns."""
    from sim.open import make_vector
    from sim.render import backend

    count = SHARE * processes
    vector = make_vector(TASK, count, processes=processes, control="joint_delta", cameras=VIEWS, size=SIZE)
    vector.reset(seed=seed)
    rng, slice_s = np.random.default_rng(seed), min(SLICE_S, seconds / 2)

    def step_ours() -> float:
        began, steps = time.perf_counter(), 0
        while time.perf_counter() - began < slice_s:
            vector.step(rng.uniform(-1, 1, vector.action_space.shape))
            steps += count
        return steps / (time.perf_counter() - began)

    # Processes of their own: mujoco.Renderer takes its OpenGL library from MUJOCO_GL when mujoco is imported.
    spawn = multiprocessing.get_context("spawn")
    barrier = spawn.Barrier(processes)
    with ProcessPoolExecutor(processes, spawn, initializer=_alone, initargs=(backend(), seed, barrier)) as pool:

        def step_bare() -> float:
            return sum(pool.map(_bare_slice, [slice_s] * processes))

        rounds = max(round(seconds / slice_s), 2)
        for warm in (step_ours, step_bare):
            warm()
        found = np.array([(step_ours(), step_bare()) for _ in range(rounds)])
        list(pool.map(_end_bare, range(processes)))
    vector.close()
    ours, bare = found.mean(axis=0).tolist()
    return ours, bare


def _bare_slice(seconds: float) -> float:
    """Steps a second of this process's bare loop, while those of the others run as well."""
    _WORKER["barrier"].wait()
    env, bare, rng, dof = (_WORKER[k] for k in ("env", "bare", "rng", "dof"))
    reference, steps, began = _WORKER["reference"], 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        action = rng.uniform(-1, 1, dof + 1)
        pos, width = env.command.reference(action, reference[:dof], reference[-1])
        reference = np.concatenate([pos, np.zeros(dof), [width]])
        bare.step(env.scene.controls(pos, np.zeros(dof), width))
        bare.pictures()
        steps += 1
    _WORKER["reference"] = reference
    return steps / (time.perf_counter() - began)


def _end_bare(_: int) -> None:
    _WORKER["barrier"].wait()
    _WORKER.pop("bare").close()


def _batch(seconds: float, worlds: int, threads: int, seed: int) -> tuple[float, float]:
    """Control steps a second of a batch, and of ``mujoco.rollout`` on its models from its states; in turns."""
    from sim.batch import TabletopBatch

    batch = TabletopBatch(TASK, worlds, control="joint_delta", threads=threads)
    batch.reset(seed=seed)
    rng, ours, bare, steps = np.random.default_rng(seed), 0.0, 0.0, 0
    while ours + bare < seconds or steps < 3:
        action = rng.uniform(-1, 1, batch.action_space.shape)
        states, controls = batch.physics.copy(), batch.controls(action)
        began = time.perf_counter()
        batch.step(action)
        ours += time.perf_counter() - began
        began = time.perf_counter()
        batch.pool.rollout([w.model for w in batch.worlds], batch.scratch, states, controls)
        bare += time.perf_counter() - began
        steps += 1
        if steps % batch.task.steps == batch.task.steps - 1:
            batch.reset(seed=seed + steps)
    batch.close()
    return worlds * steps / ours, worlds * steps / bare
