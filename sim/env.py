"""A task on MuJoCo as a Gymnasium environment: physical joint servos, scored by truth at every physics step."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from robo.core.errors import ConfigError, NonFiniteError, RoboError, TaskError, UnknownNameError
from robo.core.protocols import ActionChunk, hermite
from sim.pictures import Pictures
from sim.scene import Scene
from tasks.arm import ArmTask, arm_task
from tasks.registry import load_task
from tasks.task import Task

WORLD_DT_S = 0.01
"""What moves by itself moves this often."""

RATED_PAYLOAD_KG = 3.0
"""What the maker says the arm may carry; `EnvOptions.mismatch` takes a share of it."""
LONGEST_DELAY_S = 1.0
"""More is no delay but another mistake, such as milliseconds."""

_STATE = mujoco.mjtState.mjSTATE_INTEGRATION
Range = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class EnvOptions:
    """How the physics differs from the model a policy plans with; every episode draws afresh within (low, high).

    Attributes:
        payload_kg: Mass at the tool that gravity compensation does not know of.
        mass_scale: Factor on mass and inertia of every link, each drawn by itself; gravity
            compensation still carries the nominal weight.
        kp_scale, kd_scale: Factors on the servo gains of every joint, each drawn by itself.
        delay_s: References act this much later, in whole physics steps [s].
    """

    payload_kg: Range = (0.0, 0.0)
    mass_scale: Range = (1.0, 1.0)
    kp_scale: Range = (1.0, 1.0)
    kd_scale: Range = (1.0, 1.0)
    delay_s: Range = (0.0, 0.0)

    def __post_init__(self) -> None:
        for field in fields(self):
            low, high = getattr(self, field.name)
            least = 0.0 if field.name in ("payload_kg", "delay_s") else 1e-3
            if not (np.isfinite([low, high]).all() and least <= low <= high):
                raise ConfigError(f"{field.name} must be (low, high) with {least} <= low <= high, not {(low, high)}")

    @classmethod
    def mismatch(cls, share: float, delay_s: float = 0.0) -> EnvOptions:
        """Masses and gains off by up to ``share`` (0.1: ±10 %), with up to that share of the rated payload in hand.

        References come up to ``delay_s`` too late.
        """
        if not 0.0 <= share < 1.0:
            raise ConfigError(f"mismatch must lie in [0, 1), not {share}; 0.1 means ±10 %")
        scale = (1.0 - share, 1.0 + share)
        if not 0.0 <= delay_s <= LONGEST_DELAY_S:
            raise ConfigError(f"delay must lie in [0, {LONGEST_DELAY_S:g}] s, not {delay_s}")
        payload = (0.0, share * RATED_PAYLOAD_KG)
        return cls(payload_kg=payload, mass_scale=scale, kp_scale=scale, kd_scale=scale, delay_s=(0.0, delay_s))


class TaskEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One arm doing one task.

    Action: (2 J,) float64, joint positions [rad] then velocities [rad/s] that the reference has at the end of the
    control step; within the step it is cubic Hermite from where the last one ended. References out of
    bounds are executed as they are, and what physics makes of them is counted.

    Observation: float64 ``joint_pos`` (J,) [rad], ``joint_vel`` (J,) [rad/s], ``time_s`` (1,) and the keys of
    ``task.observation``; on request pictures of each camera: ``rgb_<camera>`` (H, W, 3) uint8,
    ``depth_<camera>`` (H, W) float32 [m] along the optical axis, ``seg_<camera>`` (H, W) int32. Top row first.

    Reward: hard robustness of the specification over the executed trace at the last step, before that 0.
    Never terminated; truncated after ``task.steps`` steps.

    Info, all of it truth:
        ``signals``: name → value at this sample. ``predicates``: text → robustness at this sample.
        ``stage``: stages reached so far, in order. ``time_s``: since the start of the episode.
        ``violations``: since the start of the episode: ``contacts`` (pair of geoms ``"a|b"`` of which
        one is the arm's → number of physics steps they overlapped), ``joint_limit`` and ``velocity``
        (physics steps in which some joint was beyond its limit).
        ``tracking``: ``joint_pos``, ``joint_vel`` (J,), largest distance from the reference at any physics step so far.
        ``world``: name → state of what moves by itself. ``bodies``: mocap body → position (3,) [m].
        ``instance`` and ``mismatch`` (what was drawn within `EnvOptions`), after a reset only.

    Args:
        task: A task, its registered name, or the path of a task file.
        options: How the physics differs from the nominal model.
        cameras: Cameras of the task to take pictures with at every sample.
        images: Which kinds of pictures, of `sim.pictures.IMAGES`.
        size: Height and width of pictures, or one number for both [pixels].
        render_mode: ``"rgb_array"`` for `render`; None.

    Raises:
        RoboError: Unknown task, camera or kind of picture; a scene that does not compile; no renderer.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}

    def __init__(
        self,
        task: ArmTask | str | Path,
        *,
        options: EnvOptions | None = None,
        cameras: Sequence[str] = (),
        images: Sequence[str] = ("rgb",),
        size: int | tuple[int, int] = 96,
        render_mode: str | None = None,
    ) -> None:
        self.task = arm_task(task if isinstance(task, Task) else load_task(task))
        self.options = options or EnvOptions()
        self.render_mode = render_mode
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UnknownNameError("render mode", str(render_mode), self.metadata["render_modes"])
        self.scene = Scene(self.task)
        self.model = self.scene.model
        self.data = mujoco.MjData(self.model)
        self._nominal = copy.copy(self.model)
        self._substeps = _whole(self.task, WORLD_DT_S, self.model.opt.timestep)
        self._chunks = _whole(self.task, self.task.ctrl_dt_s, WORLD_DT_S)
        n = self._substeps * self._chunks
        self._phase = np.arange(n)[:, None] / n
        self._qpos, self._qvel = np.empty((n, self.model.nq)), np.empty((n, self.model.nv))
        self._stages = [self.task.parsed(stage.condition) for stage in self.task.stages]
        self._predicates = {str(p): p for p in self.task.formula.predicates}

        self.pictures = Pictures(self.model, cameras, images, size)
        self.observation_space = self._observation_space()
        limits = self.task.robot.limits
        self.action_space = spaces.Box(
            np.concatenate([limits.lower_rad, -limits.velocity_rad_s]),
            np.concatenate([limits.upper_rad, limits.velocity_rad_s]),
            dtype=np.float64,
        )
        self._episode: _Episode | None = None

    def _observation_space(self) -> spaces.Dict:
        shapes = {"joint_pos": (self.task.robot.dof,), "joint_vel": (self.task.robot.dof,), "time_s": (1,)}
        shapes |= dict(self.task.observation)
        box: dict[str, spaces.Space] = {
            name: spaces.Box(-np.inf, np.inf, shape, np.float64) for name, shape in shapes.items()
        }
        return spaces.Dict(box | self.pictures.space())

    # ---- Gymnasium -----------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode; see the class.

        Args:
            seed: Makes everything of the episode (and of those that follow) repeatable.
            options: ``{"instance": ...}`` starts from a given instance instead of a drawn one.

        Raises:
            ConfigError: An option that does not exist.
        """
        super().reset(seed=seed)
        for name in options or {}:
            if name != "instance":
                raise UnknownNameError("reset option", name, ["instance"])
        # Streams of their own: what moves by itself does not depend on how often somebody looks.
        draw, move, see, late = (np.random.default_rng(s) for s in self.np_random.integers(2**63, size=4))
        mismatch = self._draw_mismatch(draw) | {"delay_s": late.uniform(*self.options.delay_s, 1)}
        self._set_mismatch(mismatch)
        given = (options or {}).get("instance")
        instance = self.task.sample(draw) if given is None else {k: np.array(v, float) for k, v in given.items()}
        dof = self.task.robot.dof
        self._episode = _Episode(
            instance=instance,
            world=self.task.start_world(instance, move),
            mismatch=mismatch,
            move=move,
            see=see,
            ref_pos=np.array(instance["joint_pos"], float),
            ref_vel=np.zeros(dof),
            contacts={},
            trace=[],
            tracking_pos=np.zeros(dof),
            tracking_vel=np.zeros(dof),
            late=np.zeros((round(mismatch["delay_s"][0] / self.model.opt.timestep), self.model.nu)),
        )
        self._episode.late[:, self.scene.pos_ctrl] = instance["joint_pos"]
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[self.scene.qpos] = instance["joint_pos"]
        self.data.ctrl[self.scene.pos_ctrl] = instance["joint_pos"]
        self.scene.place(self.data, self.task.poses(instance, self._episode.world))
        self._finish_sample()
        info = self._info()
        info["instance"] = copy.deepcopy(instance)
        info["mismatch"] = copy.deepcopy(mismatch)
        return self._observe(), info

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step; see the class.

        Raises:
            RoboError: The action has another shape or is not numeric; `reset` was not called.
            NonFiniteError: NaN, infinity or a huge number in the action (nothing is executed), or the physics blew up.
        """
        episode = self._running()
        pos, vel = self._reference(action)
        data, model, scene = self.data, self.model, self.scene
        dt = self.task.ctrl_dt_s
        path_pos, path_vel = hermite(episode.ref_pos, episode.ref_vel, pos, vel, self._phase, dt)
        references = np.zeros((len(path_pos), model.nu))
        references[:, scene.pos_ctrl], references[:, scene.vel_ctrl] = path_pos, path_vel
        if len(episode.late):
            arrived = np.concatenate([episode.late, references])
            references, episode.late = arrived[: len(references)], arrived[len(references) :]
        qpos, qvel, ctrl = data.qpos, data.qvel, data.ctrl
        row = 0
        for _ in range(self._chunks):
            for _ in range(self._substeps):
                ctrl[:] = references[row]
                mujoco.mj_step(model, data)
                # mj_step finds the contacts of the state it starts from; the first one was counted last time.
                if data.ncon and row:
                    self._count_contacts()
                self._qpos[row], self._qvel[row] = qpos, qvel
                row += 1
            episode.world = self.task.advance(episode.instance, episode.world, WORLD_DT_S, episode.move)
            scene.place(data, self.task.poses(episode.instance, episode.world))
        if not (np.isfinite(qpos).all() and np.isfinite(qvel).all()):
            raise NonFiniteError(f"physics of {self.task.name} blew up at {episode.step * dt:g} s; reset() to go on")
        episode.step += 1
        episode.ref_pos, episode.ref_vel = pos, vel
        joint_pos, joint_vel = self._qpos[:, scene.qpos], self._qvel[:, scene.dof]
        self._count_limits(joint_pos, joint_vel)
        # Row i is the state at the end of physics step i; the reference it should follow then is the next row's.
        for worst, actual, path, end in (
            (episode.tracking_pos, joint_pos, path_pos, pos),
            (episode.tracking_vel, joint_vel, path_vel, vel),
        ):
            error = np.abs(actual - np.concatenate([path[1:], end[None]])).max(axis=0)
            np.maximum(worst, error, out=worst)
        self._finish_sample()
        truncated = episode.step >= self.task.steps
        reward = 0.0
        if episode.step == self.task.steps:
            trace = {name: np.array([s[name] for s in episode.trace]) for name in episode.trace[0]}
            reward = float(self.task.formula.rho(trace, dt)[0])
        return self._observe(), reward, False, truncated, self._info()

    @staticmethod
    def action(chunk: ActionChunk) -> np.ndarray:
        """The action that executes the first sample of a chunk."""
        return np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0]])

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A picture for people from the task's first camera, (480, 640, 3) uint8; None without a render mode.

        Raises:
            RenderError: The task has no camera, or no renderer works.
        """
        if self.render_mode is None:
            return None
        self._running()
        return self.pictures.pretty(self.data, self.task.cameras[0].name)

    def close(self) -> None:
        """Free the renderers; safe to call twice."""
        self.pictures.close()

    # ---- saving and restoring ----------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Everything the future of the episode depends on, random streams included, as a copy.

        Returns:
            Nested dict of arrays, numbers and texts for `set_state`.

        Raises:
            RoboError: `reset` was not called.
        """
        episode = self._running()
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        kept = {name: value for name, value in vars(episode).items() if name not in ("move", "see")}
        streams = {"env": self.np_random, "move": episode.move, "see": episode.see}
        return copy.deepcopy(
            {"physics": physics, "streams": {k: r.bit_generator.state for k, r in streams.items()}} | kept
        )

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, of this or another environment of the same task: bit-equal to the original.

        Raises:
            RoboError: The state is not one of this task's scene.
        """
        kept = copy.deepcopy(dict(state))
        try:
            physics, streams = kept.pop("physics"), kept.pop("streams")
            generators = {name: np.random.default_rng(0) for name in ("env", "move", "see")}
            for name, generator in generators.items():
                generator.bit_generator.state = streams[name]
            episode = _Episode(move=generators["move"], see=generators["see"], **kept)
        except (KeyError, TypeError, ValueError) as error:
            raise RoboError(f"not a state of an environment: {error}; pass what env.state() returned") from error
        if np.shape(physics) != (mujoco.mj_stateSize(self.model, _STATE),):
            raise RoboError(
                f"state of another scene: its physics has {np.size(physics)} numbers, "
                f"{self.task.name} has {mujoco.mj_stateSize(self.model, _STATE)}"
            )
        self._np_random = generators["env"]
        self._set_mismatch(episode.mismatch)
        self._episode = episode
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        mujoco.mj_fwdPosition(self.model, self.data)

    # ---- within ------------------------------------------------------------------

    def _running(self) -> _Episode:
        if self._episode is None:
            raise RoboError("the environment has no episode yet; call reset() first")
        return self._episode

    def _reference(self, action: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        dof = self.task.robot.dof
        try:
            action = np.array(action, dtype=np.float64)
        except (TypeError, ValueError) as error:
            raise RoboError(f"an action is ({2 * dof},) numbers, not {action!r}") from error
        if action.shape != (2 * dof,):
            raise RoboError(
                f"an action has shape ({2 * dof},), {dof} joint positions then {dof} velocities, not {action.shape}"
            )
        if not (np.abs(action) < mujoco.mjMAXVAL).all():  # MuJoCo would put 0 in the place of larger numbers
            raise NonFiniteError(f"action holds NaN, infinity or a huge number: {action}; nothing of it is executed")
        return action[:dof], action[dof:]

    def _count_contacts(self) -> None:
        contacts = self._running().contacts
        for pair in self.scene.touching(self.data):
            contacts[pair] = contacts.get(pair, 0) + 1

    def _count_limits(self, pos: np.ndarray, vel: np.ndarray) -> None:
        """Count physics steps (n, J) in which some joint was beyond its limits."""
        episode, limits = self._running(), self.task.robot.limits
        episode.joint_limit += int(((pos < limits.lower_rad) | (pos > limits.upper_rad)).any(axis=1).sum())
        episode.velocity += int((np.abs(vel) > limits.velocity_rad_s).any(axis=1).sum())

    def _finish_sample(self) -> None:
        """Bring what depends on positions up to date and take the sample's signals."""
        episode, scene = self._running(), self.scene
        mujoco.mj_fwdPosition(self.model, self.data)
        if self.data.ncon:
            self._count_contacts()
        pos, vel = self.data.qpos[scene.qpos], self.data.qvel[scene.dof]
        state = {"joint_pos": pos, "joint_vel": vel, "points": self.task.kinematics.points(pos)}
        state |= self.task.occupied(episode.instance, episode.world)
        signals = {k: float(v) for k, v in self.task.measure(state, episode.instance).items()}
        episode.trace.append(signals)
        moment = {name: np.array([value]) for name, value in signals.items()}
        if episode.stage < len(self._stages) and self._stages[episode.stage].rho(moment, self.task.ctrl_dt_s)[0] > 0:
            episode.stage += 1

    def _observe(self) -> dict[str, np.ndarray]:
        episode, scene = self._running(), self.scene
        obs = {
            "joint_pos": self.data.qpos[scene.qpos],
            "joint_vel": self.data.qvel[scene.dof],
            "time_s": np.array([episode.step * self.task.ctrl_dt_s]),
        }
        seen = self.task.observe(episode.instance, episode.world, episode.see)
        obs |= {name: np.array(seen[name], np.float64) for name in self.task.observation}
        return obs | self.pictures.take(self.data)

    def _info(self) -> dict[str, Any]:
        episode = self._running()
        signals = episode.trace[-1]
        return {
            "signals": dict(signals),
            "predicates": {text: float(p.value(signals)) for text, p in self._predicates.items()},
            "stage": episode.stage,
            "violations": {
                "contacts": dict(episode.contacts),
                "joint_limit": episode.joint_limit,
                "velocity": episode.velocity,
            },
            "tracking": {"joint_pos": episode.tracking_pos.copy(), "joint_vel": episode.tracking_vel.copy()},
            "time_s": episode.step * self.task.ctrl_dt_s,
            "world": copy.deepcopy(dict(episode.world)),
            "bodies": {k: np.array(v, float) for k, v in self.task.poses(episode.instance, episode.world).items()},
        }

    def _draw_mismatch(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Factors of this episode: ``payload_kg`` (1,), ``mass_scale`` (nbody,), ``kp_scale``, ``kd_scale`` (J,)."""
        dof, o = self.task.robot.dof, self.options
        return {
            "payload_kg": rng.uniform(*o.payload_kg, 1),
            "mass_scale": rng.uniform(*o.mass_scale, self.model.nbody),
            "kp_scale": rng.uniform(*o.kp_scale, dof),
            "kd_scale": rng.uniform(*o.kd_scale, dof),
        }

    def _set_mismatch(self, mismatch: Mapping[str, np.ndarray]) -> None:
        model, nominal, scene = self.model, self._nominal, self.scene
        arm = nominal.body_rootid == nominal.body("link0").id
        scale = np.where(arm, mismatch["mass_scale"], 1.0)
        model.body_mass[:] = nominal.body_mass * scale
        model.body_inertia[:] = nominal.body_inertia * scale[:, None]
        model.body_gravcomp[:] = nominal.body_gravcomp / scale
        model.body_mass[model.body("payload").id] = mismatch["payload_kg"][0]
        for ctrl, factor in ((scene.pos_ctrl, mismatch["kp_scale"]), (scene.vel_ctrl, mismatch["kd_scale"])):
            model.actuator_gainprm[ctrl] = nominal.actuator_gainprm[ctrl] * factor[:, None]
            model.actuator_biasprm[ctrl] = nominal.actuator_biasprm[ctrl] * factor[:, None]
        mujoco.mj_setConst(model, mujoco.MjData(model))


@dataclass(kw_only=True)
class _Episode:
    """What an episode's future depends on besides the physics."""

    instance: dict[str, np.ndarray]
    world: dict[str, np.ndarray]
    mismatch: dict[str, np.ndarray]
    move: np.random.Generator
    see: np.random.Generator
    ref_pos: np.ndarray
    ref_vel: np.ndarray
    contacts: dict[str, int]
    trace: list[dict[str, float]]
    tracking_pos: np.ndarray
    tracking_vel: np.ndarray
    late: np.ndarray
    """References that are still on their way, (delay in physics steps, controls)."""
    joint_limit: int = 0
    velocity: int = 0
    stage: int = 0
    step: int = 0


def _whole(task: ArmTask, long_s: float, short_s: float) -> int:
    """How often a short time goes into a long one."""
    n = round(long_s / short_s)
    if n < 1 or abs(n * short_s - long_s) > 1e-9:
        raise TaskError(f"task {task.name}: {long_s:g} s is no multiple of {short_s:g} s; change ctrl_dt_s")
    return n
