"""Many tabletop worlds that step together, on MuJoCo's own threads."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from mujoco.rollout import Rollout

from robo.core.errors import ConfigError, NonFiniteError, RoboError
from robo.core.protocols import hermite
from sim.pictures import Pictures
from sim.randomise import Randomisation, texels
from sim.tabletop import TabletopEnv, as_reference
from sim.vector import seeds_of
from tasks.task import Task

_STATE = mujoco.mjtState.mjSTATE_FULLPHYSICS


class TabletopBatch(VectorEnv):
    """N worlds of one task; what they tell is what `sim.tabletop.TabletopEnv` tells, stacked: (N, ...).

    World i of ``reset(seed=s)`` is bit for bit the environment of seed s + i. A world whose episode has ended begins
    the next one at the next step, whose action for it is ignored (Gymnasium's ``NEXT_STEP``). Infos hold ``signals``,
    ``stage``, ``success``, ``reference`` and ``violations`` (``link_contacts``: physics steps at which a link touched
    anything, summed over links; ``joint_limit``, ``velocity``).

    Args:
        task: A task, its registered name, or the path of a task file.
        count: How many worlds.
        control: What an action is; see `TabletopEnv`.
        randomise: How far worlds differ.
        cameras, images, size: Pictures in the observation, taken one after the other by one renderer; see
            `sim.pictures.Pictures`. Over several processes: `sim.open.make_vector`.
        threads: Of the physics; None: one for every core.

    Raises:
        RoboError: Unknown task, control, camera or kind of picture; a scene that does not compile; no renderer; a count
            below 1.
    """

    def __init__(
        self,
        task: Task | str | Path,
        count: int,
        *,
        control: str = "reference",
        randomise: Randomisation | None = None,
        cameras: Sequence[str] = (),
        images: Sequence[str] = ("rgb",),
        size: int | tuple[int, int] = 96,
        threads: int | None = None,
    ) -> None:
        if count < 1:
            raise ConfigError(f"a batch needs at least 1 world, not {count}")
        first = TabletopEnv(task, control=control, randomise=randomise)
        # They draw episodes and let things come to rest; after that only their models are used.
        self.worlds = [first] + [
            TabletopEnv(first.task, control=control, randomise=randomise, scene=first.scene.twin())
            for _ in range(count - 1)
        ]
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.task, self.num_envs, self.control, self.scene = first.task, count, control, first.scene
        self.pictures = Pictures(first.model, cameras, images, size)
        self._texels = [texels(world.model) for world in self.worlds]
        self._shown = self._texels[0].copy()
        self._numbers = first.observation_space.spaces  # type: ignore[attr-defined]
        self.single_observation_space = spaces.Dict(self._numbers | self.pictures.space())
        self.single_action_space = first.action_space
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(first.action_space, count)
        threads = min(threads or os.cpu_count() or 1, count)
        self.scratch = [mujoco.MjData(first.model) for _ in range(threads)]
        self.pool = Rollout(nthread=threads if threads > 1 else 0)
        sizes = {"state": mujoco.mj_stateSize(first.model, _STATE), "sensed": first.model.nsensordata}
        self.physics, self._sensed = (np.zeros((count, size)) for size in sizes.values())
        self._reference = np.zeros((count, 2 * first.task.robot.dof + 1))
        self._step, self._stage = np.zeros(count, int), np.zeros(count, int)
        self._counts = {name: np.zeros(count, int) for name in ("link_contacts", "joint_limit", "velocity")}
        self._instance: dict[str, np.ndarray] = {}
        self._late: list[np.ndarray] = [np.zeros((0, first.model.nu))] * count
        self._ended: np.ndarray | None = None

    # ---- Gymnasium -----------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode in every world.

        Args:
            seed: World i gets seed + i, or the i-th of a list.
            options: Of every world, see `TabletopEnv.reset`.

        Raises:
            UnknownNameError: An option that does not exist.
        """
        for i, one in enumerate(seeds_of(seed, self.num_envs)):
            self._begin(i, one, options)
        self._ended = np.zeros(self.num_envs, bool)
        signals = self._finish_sample()
        return self._observe(), self._info(signals)

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of every world.

        Raises:
            RoboError: The actions have another shape or are not numeric; `reset` was not called.
            NonFiniteError: NaN, infinity or a huge number in an action (nothing is executed), or the physics blew up.
        """
        if self._ended is None:
            raise RoboError("the worlds have no episode yet; call reset() first")
        target = self._target(actions)
        fresh, moved = np.flatnonzero(self._ended), np.flatnonzero(~self._ended)
        for i in fresh:
            self._begin(int(i), None, None)
        self._advance(moved, target[moved])
        self._stage[fresh] = 0
        signals = self._finish_sample()
        rewards = np.zeros(self.num_envs)
        for stage in np.unique(self._stage[moved]):
            at = moved[self._stage[moved] == stage]
            rewards[at] = self.task.staged_reward({name: value[at] for name, value in signals.items()}, int(stage))
        self._ended = self._step >= self.task.steps
        return self._observe(), rewards, np.zeros(self.num_envs, bool), self._ended.copy(), self._info(signals)

    def controls(self, actions: np.ndarray) -> np.ndarray:
        """``data.ctrl`` (N, physics steps, nu) that the next step would apply, delays apart."""
        return self._controls(self._reference, self._target(actions))

    def close_extras(self, **kwargs: Any) -> None:
        """Free threads and renderer."""
        self.pool.close()
        self.pictures.close()

    # ---- within ------------------------------------------------------------------

    def _begin(self, i: int, seed: int | None, options: dict[str, Any] | None) -> None:
        world = self.worlds[i]
        _, info = world.reset(seed=seed, options=options)
        mujoco.mj_getState(world.model, world.data, self.physics[i], _STATE)
        self._sensed[i] = world.data.sensordata
        self._reference[i], self._step[i], self._stage[i] = info["reference"], 0, 0
        for count in self._counts.values():
            count[i] = 0
        for name, value in info["instance"].items():
            self._instance.setdefault(name, np.zeros((self.num_envs, *value.shape)))[i] = value
        late = round(info["drawn"]["delay_s"][0] / world.model.opt.timestep)
        self._late[i] = np.repeat(world.data.ctrl[None], late, axis=0)

    def _target(self, actions: np.ndarray) -> np.ndarray:
        """References (N, 2 J + 1) at the end of the step."""
        command, reference, dof = self.worlds[0].command, self._reference, self.task.robot.dof
        if self.control == "reference":
            return as_reference(actions, reference.shape)
        pos, width = command.reference(actions, reference[:, :dof], reference[:, -1])
        velocity = (pos - reference[:, :dof]) / self.task.ctrl_dt_s
        return np.concatenate([pos, velocity, width[:, None]], axis=1)

    def _controls(self, before: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Controls (M, physics steps, nu) on the way between references (M, 2 J + 1)."""
        dof, n = self.task.robot.dof, self.worlds[0].substeps
        phase = np.arange(1, n + 1)[:, None] / n
        p0, v0, p1, v1 = (x[:, None] for whole in (before, target) for x in (whole[:, :dof], whole[:, dof:-1]))
        path_pos, path_vel = hermite(p0, v0, p1, v1, phase, self.task.ctrl_dt_s)
        widths = before[:, -1:] + phase[:, 0] * (target[:, -1:] - before[:, -1:])
        return self.scene.controls(path_pos, path_vel, widths)

    def _advance(self, moved: np.ndarray, target: np.ndarray) -> None:
        """One control step of some worlds."""
        if not len(moved):
            return
        n, scene = self.worlds[0].substeps, self.scene
        controls = self._controls(self._reference[moved], target)
        for row, i in enumerate(moved):
            if len(self._late[i]):
                arrived = np.concatenate([self._late[i], controls[row]])
                controls[row], self._late[i] = arrived[:n], arrived[n:]
        # One step more than needed: it begins by sensing the state after the last one, and is then forgotten.
        controls = np.concatenate([controls, controls[:, -1:]], axis=1)
        states = np.empty((len(moved), n + 1, self.physics.shape[1]))
        sensed = np.empty((len(moved), n + 1, self._sensed.shape[1]))
        models = [self.worlds[i].model for i in moved]
        self.pool.rollout(models, self.scratch, self.physics[moved], controls, state=states, sensordata=sensed)
        model = scene.model
        qpos, qvel = states[:, :n, 1 : 1 + model.nq], states[:, :n, 1 + model.nq : 1 + model.nq + model.nv]
        if not (np.isfinite(qpos[:, -1]).all() and np.isfinite(qvel[:, -1]).all()):
            bad = moved[~(np.isfinite(qpos[:, -1]).all(-1) & np.isfinite(qvel[:, -1]).all(-1))]
            raise NonFiniteError(f"physics of {self.task.name} blew up in worlds {bad.tolist()}; reset() to go on")
        touches, beyond, fast = scene.breaches(qpos, qvel, sensed[:, :n])
        self._counts["joint_limit"][moved] += beyond
        self._counts["velocity"][moved] += fast
        self._counts["link_contacts"][moved] += touches.sum(-1)
        self.physics[moved], self._sensed[moved] = states[:, n - 1], sensed[:, n]
        self._reference[moved] = target
        self._step[moved] += 1

    def _finish_sample(self) -> dict[str, np.ndarray]:
        """Signals (N,) of the present state, and the stages they reach."""
        model = self.scene.model
        qpos, qvel = np.split(self.physics[:, 1 : 1 + model.nq + model.nv], [model.nq], axis=1)
        self._seen = self.scene.state(qpos, qvel, self._sensed)
        measured = self.task.measure(self._seen, self._instance)
        signals = {k: np.broadcast_to(np.asarray(v, float), (self.num_envs,)) for k, v in measured.items()}
        moment = {name: value[:, None] for name, value in signals.items()}
        dt, first = self.task.ctrl_dt_s, self.worlds[0]
        for number, stage in enumerate(first.stages):  # a world may reach several at once
            if (at := self._stage == number).any():
                self._stage += at & (stage.rho(moment, dt)[:, 0] > 0)
        self._success = self._stage == len(first.stages)
        if self._success.any():
            self._success &= first.goal.rho(moment, dt)[:, 0] > 0
        return signals

    def _observe(self) -> dict[str, np.ndarray]:
        known = {**self._instance, **self._seen, "time_s": self._step * self.task.ctrl_dt_s}
        numbers = {
            name: np.array(known[name], np.float64).reshape(self.num_envs, *space.shape)
            for name, space in self._numbers.items()
        }
        return numbers | self._look()

    def _look(self) -> dict[str, np.ndarray]:
        """Pictures (N, ...) of the present state."""
        if not self.pictures.cameras:
            return {}
        taken = []
        for i, world in enumerate(self.worlds):
            if not np.array_equal(self._texels[i], self._shown):
                self.pictures.renew_textures(world.model)
                self._shown = self._texels[i].copy()
            mujoco.mj_setState(world.model, world.data, self.physics[i], _STATE)
            mujoco.mj_kinematics(world.model, world.data)
            mujoco.mj_camlight(world.model, world.data)
            taken.append(self.pictures.take(world.data))
        return {name: np.stack([one[name] for one in taken]) for name in taken[0]}

    def _info(self, signals: dict[str, np.ndarray]) -> dict[str, Any]:
        return {
            "signals": {name: value.copy() for name, value in signals.items()},
            "stage": self._stage.copy(),
            "success": self._success.copy(),
            "reference": self._reference.copy(),
            "violations": {name: value.copy() for name, value in self._counts.items()},
        }
