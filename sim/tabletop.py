"""A task on a tabletop as a Gymnasium environment: an arm with a gripper moves things by contact."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from hardware.robots.commands import Command, command
from robo.core.errors import NonFiniteError, RoboError, TaskError, UnknownNameError
from robo.core.protocols import ActionChunk, hermite
from sim.pictures import Pictures
from sim.randomise import TABLE_TEXTURE, TEXELS, Randomisation, apply
from sim.scene import FLOOR, compose
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task
from tasks.task import Task

SETTLE_S = 0.1
"""Things come to rest this long before an episode begins; the arm stands still."""
ROOM, TABLE_M = "room", 0.70
"""The geom of the room's floor, and how high the table stands above it, in pictures: its top is the plane z = 0."""

_STATE, _DATA = mujoco.mjtState.mjSTATE_INTEGRATION, mujoco.mjtConDataField
_FOUND, _FORCE = (1 << int(kind) for kind in (_DATA.mjCONDATA_FOUND, _DATA.mjCONDATA_FORCE))
_MAX_FORCE, _NET_FORCE = 2, 3
"""How a contact sensor sums up: the strongest contact, or the sum of all."""
_ATTACH = "attach|"
ATTACH_N, LET_GO_M = 0.5, 0.002
"""With `attach`: so hard both jaws press on a thing before it is fastened; told to open by so much they let it go."""


def compose_tabletop(task: TabletopTask, attach: bool = False) -> mujoco.MjSpec:
    """The scene of `sim.scene.compose` on a table, with firm grips and the sensors that `TabletopScene` reads.

    With `attach` every thing can be fastened to the tool, see `TabletopEnv`.

    Raises:
        TaskError: The task names a thing that it does not build.
    """
    spec = compose(task)
    spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
    spec.option.impratio = 10.0  # what is held does not slip
    spec.stat.center = [0.45, 0.0, 0.1]
    table = spec.worldbody.add_body(name="table")
    looks: dict[str, Any] = dict(contype=0, conaffinity=0, mass=0, type=mujoco.mjtGeom.mjGEOM_BOX)
    texture = spec.add_texture(name=TABLE_TEXTURE, type=mujoco.mjtTexture.mjTEXTURE_2D, width=TEXELS, height=TEXELS)
    texture.builtin, texture.rgb1, texture.rgb2 = mujoco.mjtBuiltin.mjBUILTIN_FLAT, [1, 1, 1], [1, 1, 1]
    material = spec.add_material(name=TABLE_TEXTURE, texrepeat=[3, 3], texuniform=True)
    material.textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = TABLE_TEXTURE
    top = dict(pos=[0.30, 0, -0.02], size=[0.62, 0.70, 0.0199], rgba=[0.80, 0.74, 0.66, 1], material=TABLE_TEXTURE)
    table.add_geom(**(looks | top))
    for x in (-0.24, 0.84):
        for y in (-0.62, 0.62):
            table.add_geom(
                pos=[x, y, -TABLE_M / 2], size=[0.03, 0.03, TABLE_M / 2 - 0.02], rgba=[0.45, 0.42, 0.40, 1], **looks
            )
    room = spec.worldbody.add_geom(name=ROOM, **(looks | {"type": mujoco.mjtGeom.mjGEOM_PLANE}))
    room.pos, room.size, room.rgba = [0, 0, -TABLE_M], [3, 3, 0.1], [0.50, 0.54, 0.58, 1]
    spec.geom(FLOOR).rgba = [0, 0, 0, 0]  # solid, but the table is what is seen
    for thing in task.things:
        if spec.body(thing) is None:
            raise TaskError(f"task {task.name}: {UnknownNameError('body', thing, [b.name for b in spec.bodies])}")
    _add_sensors(spec, task)
    if attach:
        tool = spec.site("tcp").parent.name
        for thing in task.things:
            weld = spec.add_equality(type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY, active=False)
            weld.name, weld.name1, weld.name2 = f"{_ATTACH}{thing}", tool, thing
    return spec


def _add_sensors(spec: mujoco.MjSpec, task: TabletopTask) -> None:
    kinds, objects = mujoco.mjtSensor, mujoco.mjtObj
    gripper = task.robot.gripper
    assert gripper is not None

    def pose(name: str, objtype: mujoco.mjtObj) -> None:
        spec.add_sensor(name=f"{name}_pos", type=kinds.mjSENS_FRAMEPOS, objtype=objtype, objname=name)
        spec.add_sensor(name=f"{name}_quat", type=kinds.mjSENS_FRAMEQUAT, objtype=objtype, objname=name)

    pose("tcp", objects.mjOBJ_SITE)
    for thing in task.things:
        pose(thing, objects.mjOBJ_XBODY)
        for jaw in gripper.jaws:
            spec.add_sensor(
                name=f"{jaw}|{thing}",
                type=kinds.mjSENS_CONTACT,
                objtype=objects.mjOBJ_XBODY,
                objname=jaw,
                reftype=objects.mjOBJ_XBODY,
                refname=thing,
                intprm=[_FORCE, _NET_FORCE, 1],
            )
    for link in _links(task):
        spec.add_sensor(
            name=f"touch|{link}",
            type=kinds.mjSENS_CONTACT,
            objtype=objects.mjOBJ_BODY,  # XBODY would be the body with all that hangs on it
            objname=link,
            intprm=[_FOUND, _MAX_FORCE, 1],
        )


def _links(task: TabletopTask) -> list[str]:
    """Bodies of the arm that are solid, without the jaws and what hangs on them."""
    arm, gripper = task.robot.mjcf(), task.robot.gripper
    assert gripper is not None
    jaws = {below.name for jaw in gripper.jaws for below in [arm.body(jaw), *arm.body(jaw).bodies]}
    return [b.name for b in arm.bodies if b.name not in jaws and any(g.contype or g.conaffinity for g in b.geoms)]


class TabletopScene:
    """A compiled scene, where its parts are, and the state of a task as its sensors tell it.

    Args:
        task: The task it shows.
        spec: What `compose_tabletop` made of the task, with other looks; by default as it is.

    Raises:
        TaskError: The task names a body or joint that it does not build.
    """

    def __init__(self, task: TabletopTask, spec: mujoco.MjSpec | None = None) -> None:
        self.task = task
        try:
            self.model = model = (spec or compose_tabletop(task)).compile()
        except ValueError as error:  # MuJoCo's compiler: a task's `build` made something impossible
            raise TaskError(f"task {task.name}: its scene does not compile: {' '.join(str(error).split())}") from error
        self.nominal = copy.copy(model)
        gripper = task.robot.gripper
        assert gripper is not None
        self.gripper = gripper
        self.qpos, self.dof = self._joints(task.robot.joints)
        self.jaw_qpos, _ = self._joints(gripper.joints)
        self.pos_ctrl = np.array([model.actuator(f"{name}_pos").id for name in task.robot.joints])
        self.vel_ctrl = np.array([model.actuator(f"{name}_vel").id for name in task.robot.joints])
        self.grip_ctrl = model.actuator("gripper").id
        self.joint_qpos = {name: int(self._joints((name,))[0][0]) for name in task.joints}
        self.thing_qpos = {name: int(self._joints((name,))[0][0]) for name in task.things}
        for name in task.fixtures:
            if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, name) < 0:
                bodies = [model.body(i).name for i in range(model.nbody)]
                raise TaskError(f"task {task.name}: {UnknownNameError('body', name, bodies)}")

    def _joints(self, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        model = self.model
        for name in names:
            if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_JOINT, name) < 0:
                known = [model.joint(i).name for i in range(model.njnt)]
                raise TaskError(f"task {self.task.name}: {UnknownNameError('joint', name, known)}")
        return tuple(
            np.array([getattr(model.joint(name), kind)[0] for name in names], int) for kind in ("qposadr", "dofadr")
        )  # type: ignore[return-value]

    def twin(self) -> TabletopScene:
        """The same scene with a model of its own, without compiling it again."""
        other = copy.copy(self)
        other.model = copy.copy(self.nominal)
        return other

    @cached_property
    def _sensed(self) -> dict[str, slice]:
        model = self.model
        return {
            model.sensor(i).name: slice(model.sensor_adr[i], model.sensor_adr[i] + model.sensor_dim[i])
            for i in range(model.nsensor)
        }

    @cached_property
    def touch(self) -> list[tuple[str, int]]:
        """Links of the arm, without jaws, and where in the sensor data it says whether they touch anything."""
        names = [name for name in self._sensed if name.startswith("touch|")]
        return [(name.removeprefix("touch|"), self._sensed[name].start) for name in names]

    def breaches(
        self, qpos: np.ndarray, qvel: np.ndarray, sensordata: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """At how many of n physics steps limits are not kept, from arrays (..., n, nq), (..., n, nv) and
        (..., n, nsensordata) of MuJoCo.

        Returns:
            touches: (..., links), a link of `touch` touches anything.
            beyond: (...), a joint of the arm is out of its range.
            fast: (...), a joint of the arm is faster than it may be.
        """
        limits, pos = self.task.robot.limits, qpos[..., self.qpos]
        touches = sensordata[..., [at for _, at in self.touch]] > 0
        beyond = ((pos < limits.lower_rad) | (pos > limits.upper_rad)).any(-1)
        fast = (np.abs(qvel[..., self.dof]) > limits.velocity_rad_s).any(-1)
        return touches.sum(-2), beyond.sum(-1), fast.sum(-1)

    def state(self, qpos: np.ndarray, qvel: np.ndarray, sensordata: np.ndarray) -> dict[str, np.ndarray]:
        """The state of `TabletopTask`, from arrays (..., n) of MuJoCo whose sensors are up to date."""
        sensed, gripper = self._sensed, self.gripper
        state = {
            "joint_pos": qpos[..., self.qpos],
            "joint_vel": qvel[..., self.dof],
            "gripper_width_m": qpos[..., self.jaw_qpos] @ gripper.width_per_joint_m + gripper.offset_m,
            "ee_pos": sensordata[..., sensed["tcp_pos"]],
            "ee_quat_wxyz": sensordata[..., sensed["tcp_quat"]],
            "link_contacts": (sensordata[..., [at for _, at in self.touch]] > 0).sum(-1).astype(float),
        }
        for name in self.task.things:
            state[f"{name}_pos"] = sensordata[..., sensed[f"{name}_pos"]]
            state[f"{name}_quat_wxyz"] = sensordata[..., sensed[f"{name}_quat"]]
            forces = [np.linalg.norm(sensordata[..., sensed[f"{jaw}|{name}"]], axis=-1) for jaw in gripper.jaws]
            state[f"{name}_held_n"] = np.minimum(*forces)
        return state | {name: qpos[..., at] for name, at in self.joint_qpos.items()}

    def arrange(self, instance: Mapping[str, np.ndarray]) -> np.ndarray:
        """Set up the model for an instance; returns the positions (nq,) it starts from."""
        model, task = self.model, self.task
        for name in task.fixtures:
            body = model.body(name).id
            model.body_pos[body] = instance[f"{name}_pos"]
            model.body_quat[body] = instance[f"{name}_quat_wxyz"]
        for geom, rgba in task.paint(instance).items():
            model.geom(geom).rgba = rgba
        qpos = model.qpos0.copy()
        qpos[self.qpos] = instance["joint_pos"]
        per_joint = self.gripper.width_per_joint_m
        qpos[self.jaw_qpos] = (self.gripper.open_m - self.gripper.offset_m) * per_joint / (per_joint @ per_joint)
        for name, at in self.thing_qpos.items():
            qpos[at : at + 7] = [*instance[f"{name}_pos"], *instance[f"{name}_quat_wxyz"]]
        for name, at in self.joint_qpos.items():
            qpos[at] = instance[name][0] if name in instance else 0.0
        return qpos

    def controls(self, joint_pos: np.ndarray, joint_vel: np.ndarray, width_m: np.ndarray | float) -> np.ndarray:
        """``data.ctrl`` (..., nu) for references (..., J), (..., J) and (...)."""
        ctrl = np.zeros((*joint_pos.shape[:-1], self.model.nu))
        ctrl[..., self.pos_ctrl], ctrl[..., self.vel_ctrl], ctrl[..., self.grip_ctrl] = joint_pos, joint_vel, width_m
        return ctrl


class TabletopEnv(gymnasium.Env[dict[str, Any], np.ndarray]):
    """One arm with a gripper doing one task.

    Action: as `control` says. ``"reference"``: (2 J + 1,) float64, joint positions [rad], velocities [rad/s] and width
    of the gripper [m] that the reference has at the end of the control step, executed as they are; within the step it
    is cubic Hermite, for the width linear. Others: see `hardware.robots.commands`, whose bounds are kept.

    Observation: float64 ``joint_pos`` (J,) [rad], ``joint_vel`` (J,) [rad/s], ``time_s`` (1,) and the keys of
    ``task.observation``; on request pictures, as of `sim.env.TaskEnv`.

    Reward: `tasks.task.Task.staged_reward`, in [0, 1]. Never terminated; truncated after ``task.steps`` steps.

    Info, all of it truth: ``signals``, ``predicates``, ``stage``, ``time_s`` as of `sim.env.TaskEnv`; ``success``
    (now), ``reference`` (2 J + 1,), what is due now, ``qpos`` (nq,); ``violations``: ``contacts`` (link → physics steps
    at which it touched anything), ``joint_limit``, ``velocity`` (physics steps); after a reset ``instance``,
    ``instruction`` and ``drawn`` (what was drawn of `Randomisation`). ``world`` and ``bodies`` are empty: nothing moves
    by itself.

    Args:
        task: A task, its registered name, or the path of a task file.
        control: What an action is.
        randomise: How far worlds differ; every episode draws afresh.
        scene: The task's, compiled already and used by nobody else; see `TabletopScene.twin`.
        attach: What both jaws press on is fastened to the tool until they are told to open, as RLBench has it. Without,
            friction has to hold it, as everywhere else in this project.
        cameras, images, size: Pictures in the observation; see `sim.pictures.Pictures`.
        render_mode: ``"rgb_array"`` for `render`; None.

    Raises:
        RoboError: Unknown task, control, camera or kind of picture; a scene that does not compile; no renderer.
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 20}

    def __init__(
        self,
        task: Task | str | Path,
        *,
        control: str = "reference",
        randomise: Randomisation | None = None,
        scene: TabletopScene | None = None,
        attach: bool = False,
        cameras: Sequence[str] = (),
        images: Sequence[str] = ("rgb",),
        size: int | tuple[int, int] = 96,
        render_mode: str | None = None,
    ) -> None:
        self.task = tabletop_task(task if isinstance(task, Task) else load_task(task))
        self.render_mode = render_mode
        if render_mode not in (None, *self.metadata["render_modes"]):
            raise UnknownNameError("render mode", str(render_mode), self.metadata["render_modes"])
        robot = self.task.robot
        self.command: Command = command(control if control != "reference" else "joint_pos", robot, self.task.ctrl_dt_s)
        self.control, self.randomise = control, randomise or Randomisation()
        self.scene = scene or TabletopScene(self.task, compose_tabletop(self.task, attach))
        self._attachable = self.task.things if attach else ()
        self.model = self.scene.model
        self.substeps = round(self.task.ctrl_dt_s / self.model.opt.timestep)
        if abs(self.substeps * self.model.opt.timestep - self.task.ctrl_dt_s) > 1e-9:
            raise TaskError(f"task {self.task.name}: ctrl_dt_s is no multiple of {self.model.opt.timestep:g} s")
        self._phase = np.arange(1, self.substeps + 1)[:, None] / self.substeps
        self.stages = [self.task.parsed(stage.condition) for stage in self.task.stages]
        self._predicates = {str(p): p for p in self.task.formula.predicates}
        self.goal = self.task.goal_formula
        self._open(cameras, images, size)
        shapes = {"joint_pos": (robot.dof,), "joint_vel": (robot.dof,), "time_s": (1,)} | dict(self.task.observation)
        self._numbers = {name: spaces.Box(-np.inf, np.inf, shape, np.float64) for name, shape in shapes.items()}
        self.observation_space = spaces.Dict(self._numbers | self.pictures.space())
        limits, low, high = robot.limits, self.command.low, self.command.high
        if control == "reference":
            low = np.concatenate([limits.lower_rad, -limits.velocity_rad_s, [0.0]])
            high = np.concatenate([limits.upper_rad, limits.velocity_rad_s, [self.scene.gripper.open_m]])
        self.action_space = spaces.Box(low, high, dtype=np.float64)
        self._episode: _Episode | None = None
        self._drawn: dict[str, np.ndarray] | None = None

    # ---- Gymnasium -----------------------------------------------------------

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode.

        Args:
            seed: Makes everything of the episode (and of those that follow) repeatable.
            options: ``{"instance": ...}`` starts from a given instance instead of a drawn one; it may also say where
                joints of fixtures start.

        Raises:
            UnknownNameError: An option that does not exist.
            RoboError: The given instance is none of this task.
        """
        super().reset(seed=seed)
        for name in options or {}:
            if name != "instance":
                raise UnknownNameError("reset option", name, ["instance"])
        # Streams of their own: where things are does not depend on how the worlds differ.
        draw, differ = (np.random.default_rng(s) for s in self.np_random.integers(2**63, size=2))
        instance = self.task.sample(draw)
        if (given := (options or {}).get("instance")) is not None:
            instance = self._like(instance, given)
        scene, drawn = self.scene, self.randomise.draw(differ, self.scene.nominal)
        self._differ(drawn)
        start, still = np.array(instance["joint_pos"], float), np.zeros(self.task.robot.dof)
        ctrl = scene.controls(start[None], still[None], scene.gripper.open_m)[0]
        self._begin(scene.arrange(instance), ctrl, round(SETTLE_S / self.model.opt.timestep))
        late = round(drawn["delay_s"][0] / self.model.opt.timestep)
        self._episode = _Episode(
            instance=instance,
            drawn=drawn,
            reference=np.concatenate([start, still, [scene.gripper.open_m]]),
            late=np.repeat(ctrl[None], late, axis=0),
            contacts={},
            trace=[],
            attached={},
        )
        self._finish_sample()
        info = self._info()
        return self._observe(), info | {
            "instance": copy.deepcopy(instance),
            "instruction": self.task.instruct(instance),
            "drawn": copy.deepcopy(drawn),
        }

    def step(self, action: np.ndarray) -> tuple[dict[str, np.ndarray], float, bool, bool, dict[str, Any]]:
        """One control step.

        Raises:
            RoboError: The action has another shape or is not numeric; `reset` was not called.
            NonFiniteError: NaN, infinity or a huge number in the action (nothing is executed), or the physics blew up.
        """
        episode, dof = self._running(), self.task.robot.dof
        target = self._target(action)
        before, episode.reference = episode.reference, target
        path_pos, path_vel = hermite(
            before[:dof], before[dof:-1], target[:dof], target[dof:-1], self._phase, self.task.ctrl_dt_s
        )
        widths = before[-1] + self._phase[:, 0] * (target[-1] - before[-1])
        data, scene = self.data, self.scene
        controls = scene.controls(path_pos, path_vel, widths)
        if len(episode.late):
            arrived = np.concatenate([episode.late, controls])
            controls, episode.late = arrived[: self.substeps], arrived[self.substeps :]
        moved = [(data.qpos.copy(), data.qvel.copy(), data.sensordata.copy()) for _ in self._advance(controls)]
        qpos, qvel, sensed = (np.array(part) for part in zip(*moved, strict=True))
        if not (np.isfinite(qpos[-1]).all() and np.isfinite(qvel[-1]).all()):
            raise NonFiniteError(f"physics of {self.task.name} blew up at {data.time:g} s; reset() to go on")
        touches, beyond, fast = scene.breaches(qpos, qvel, sensed)
        for (link, _), steps in zip(scene.touch, touches.tolist(), strict=True):
            if steps:
                episode.contacts[link] = episode.contacts.get(link, 0) + steps
        episode.joint_limit += int(beyond)
        episode.velocity += int(fast)
        episode.step += 1
        self._finish_sample()
        self._attach()
        reward = float(self.task.staged_reward(episode.trace[-1], episode.stage))
        return self._observe(), reward, False, episode.step >= self.task.steps, self._info()

    def action(self, chunk: ActionChunk) -> np.ndarray:
        """The action (of ``control="reference"``) that executes the first sample of a chunk.

        Raises:
            RoboError: The chunk does not move the gripper.
        """
        if chunk.gripper_width_m is None:
            raise RoboError(f"task {self.task.name} needs a gripper, which this policy does not move")
        return np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0], chunk.gripper_width_m[:1]])

    def render(self) -> np.ndarray | None:  # type: ignore[override]
        """A picture for people from the task's first camera, (480, 640, 3) uint8; None without a render mode.

        Raises:
            RenderError: No renderer works.
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

        Raises:
            RoboError: `reset` was not called.
        """
        episode, streams = self._running(), {"env": self.np_random.bit_generator.state}
        return copy.deepcopy({"physics": self._physics(), "streams": streams} | vars(episode))

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, of this or another environment of the same task: bit-equal to the original.

        Raises:
            RoboError: The state is not one of this task's scene.
        """
        kept = copy.deepcopy(dict(state))
        try:
            physics, streams = kept.pop("physics"), kept.pop("streams")
            generator = np.random.default_rng(0)
            generator.bit_generator.state = streams["env"]
            episode = _Episode(**kept)
        except (KeyError, TypeError, ValueError) as error:
            raise RoboError(f"not a state of an environment: {error}; pass what env.state() returned") from error
        size = self._physics().size
        if np.shape(physics) != (size,):
            raise RoboError(
                f"state of another scene: its physics has {np.size(physics)} numbers, {self.task.name} has {size}"
            )
        self._np_random, self._episode = generator, episode
        self._differ(episode.drawn)
        self.scene.arrange(episode.instance)
        for thing in self._attachable:
            held = episode.attached.get(thing)
            self._fasten(thing, None if held is None else held[1:])
        self._go_on_from(physics)

    # ---- the physics: what an environment on another engine overrides --------------

    def _open(self, cameras: Sequence[str], images: Sequence[str], size: int | tuple[int, int]) -> None:
        """Make ``data``, whose ``qpos``, ``qvel`` and ``sensordata`` hold the present state, and ``pictures``."""
        self.data = mujoco.MjData(self.model)
        self.pictures = Pictures(self.model, cameras, images, size)

    def _begin(self, qpos: np.ndarray, ctrl: np.ndarray, steps: int) -> None:
        """Start at rest from positions (nq,) and let things settle for so many physics steps; that is time 0."""
        mujoco.mj_resetData(self.model, self.data)
        self.data.qpos[:], self.data.ctrl[:] = qpos, ctrl
        mujoco.mj_step(self.model, self.data, nstep=steps)
        self.data.time = 0.0

    def _advance(self, controls: np.ndarray) -> Iterator[None]:
        """Go on by a physics step for each row of controls (steps, nu), one whenever asked; brings ``data`` up to date.

        What follows depends on the physical state at the beginning alone.
        """
        data = self.data
        data.qacc_warmstart[:] = 0.0
        for row in controls:
            data.ctrl[:] = row
            mujoco.mj_step(self.model, data)
            yield

    def _fasten(self, thing: str, pose: np.ndarray | None) -> None:
        """Hold a thing at a pose (7,) in the frame of the tool's body; None: let it go."""
        weld = self.model.equality(f"{_ATTACH}{thing}").id
        self.data.eq_active[weld] = pose is not None
        if pose is not None:
            self.model.eq_data[weld, :3], self.model.eq_data[weld, 3:10] = 0.0, pose

    def _sense(self) -> None:
        """Bring all of ``data`` up to date with the present state."""
        mujoco.mj_forward(self.model, self.data)

    def _physics(self) -> np.ndarray:
        """The physical state as numbers, a copy."""
        physics = np.empty(mujoco.mj_stateSize(self.model, _STATE))
        mujoco.mj_getState(self.model, self.data, physics, _STATE)
        return physics

    def _go_on_from(self, physics: np.ndarray) -> None:
        """Take a physical state over; the model is set up for the episode that it is of."""
        mujoco.mj_setState(self.model, self.data, physics, _STATE)
        mujoco.mj_forward(self.model, self.data)

    # ---- within ------------------------------------------------------------------

    def _like(self, sample: Mapping[str, np.ndarray], given: Mapping[str, Any]) -> dict[str, np.ndarray]:
        """A given instance as numbers, if it is one such as the task draws; any joint may start elsewhere than at 0."""
        known = {**sample, **{name: np.zeros(1) for name in self.task.joints if name not in sample}}
        for name in given:
            if name not in known:
                raise RoboError(f"instance of {self.task.name}: {UnknownNameError('key', name, known)}")
        for name in sample:
            if name not in given:
                raise RoboError(f"instance of {self.task.name} lacks {name!r}; it needs {', '.join(sample)}")
        instance = {}
        for name, numbers in given.items():
            like = known[name]
            try:
                value = np.array(numbers, float)
            except (TypeError, ValueError) as error:
                raise RoboError(f"instance of {self.task.name}: {name} is {numbers!r}, no numbers") from error
            if value.shape != like.shape or not np.isfinite(value).all():
                raise RoboError(
                    f"instance of {self.task.name}: {name} must be {like.shape} finite numbers, not {value}"
                )
            joint = self.task.mechanisms.get(name)
            if joint and not joint.low <= float(value[0]) <= joint.high:
                raise RoboError(
                    f"instance of {self.task.name}: {name} must lie in [{joint.low:g}, {joint.high:g}], not {value}"
                )
            instance[name] = value
        return instance

    def _attach(self) -> None:
        """Fasten what both jaws press on; let go of what they open for."""
        episode = self._running()
        width = episode.reference[-1]
        for thing in self._attachable:
            held = episode.attached.get(thing)
            if held is not None and width > held[0] + LET_GO_M:
                del episode.attached[thing]
                self._fasten(thing, None)
            elif held is None and self._state[f"{thing}_held_n"] > ATTACH_N and width < self._state["gripper_width_m"]:
                pose = self._in_tool(thing)
                episode.attached[thing] = np.array([self._state["gripper_width_m"], *pose])
                self._fasten(thing, pose)

    def _in_tool(self, thing: str) -> np.ndarray:
        """Pose of a thing in the frame of the body that the tool is part of: position, quaternion wxyz, (7,)."""
        data, model = self.data, self.model
        body, tool = model.body(thing).id, model.site_bodyid[model.site("tcp").id]
        back, quat, pose = np.empty(4), np.empty(4), np.empty(7)
        mujoco.mju_negQuat(back, data.xquat[tool])
        mujoco.mju_rotVecQuat(pose[:3], data.xpos[body] - data.xpos[tool], back)
        mujoco.mju_mulQuat(quat, back, data.xquat[body])
        pose[3:] = quat
        return pose

    def _differ(self, drawn: dict[str, np.ndarray]) -> None:
        """Make the world the one that was drawn, if it is another than the last."""
        before = self._drawn
        if before is None or any(not np.array_equal(before[name], value) for name, value in drawn.items()):
            apply(self.scene, drawn)
            self.pictures.renew_textures(self.model)
            self._drawn = drawn

    def _running(self) -> _Episode:
        if self._episode is None:
            raise RoboError("the environment has no episode yet; call reset() first")
        return self._episode

    def _target(self, action: np.ndarray) -> np.ndarray:
        """Reference (2 J + 1,) at the end of the step."""
        reference, dof = self._running().reference, self.task.robot.dof
        if self.control != "reference":
            pos, width = self.command.reference(action, reference[:dof], float(reference[-1]))
            return np.concatenate([pos, (pos - reference[:dof]) / self.task.ctrl_dt_s, [width]])
        return as_reference(action, (2 * dof + 1,))

    def _finish_sample(self) -> None:
        """Bring what depends on the state up to date and take the sample's signals."""
        episode, data = self._running(), self.data
        self._sense()
        self._state = self.scene.state(data.qpos, data.qvel, data.sensordata)
        signals = {k: float(v) for k, v in self.task.measure(self._state, episode.instance).items()}
        episode.trace.append(signals)
        while episode.stage < len(self.stages) and self._holds(self.stages[episode.stage], signals):
            episode.stage += 1

    def _holds(self, formula: Any, signals: Mapping[str, float]) -> bool:
        moment = {name: np.array([value]) for name, value in signals.items()}
        return bool(formula.rho(moment, self.task.ctrl_dt_s)[0] > 0)

    def _observe(self) -> dict[str, np.ndarray]:
        episode, state = self._running(), self._state
        known = {**episode.instance, **state, "time_s": episode.step * self.task.ctrl_dt_s}
        obs = {name: np.array(known[name], np.float64).reshape(space.shape) for name, space in self._numbers.items()}
        return obs | self.pictures.take(self.data)

    def _info(self) -> dict[str, Any]:
        episode = self._running()
        signals = episode.trace[-1]
        return {
            "signals": dict(signals),
            "predicates": {text: float(p.value(signals)) for text, p in self._predicates.items()},
            "stage": episode.stage,
            "success": episode.stage == len(self.stages) and self._holds(self.goal, signals),
            "reference": episode.reference.copy(),
            "qpos": self.data.qpos.copy(),
            "violations": {
                "contacts": dict(episode.contacts),
                "joint_limit": episode.joint_limit,
                "velocity": episode.velocity,
            },
            "time_s": episode.step * self.task.ctrl_dt_s,
            "world": {},
            "bodies": {},
        }


def as_reference(action: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """An action of ``control="reference"`` as numbers of a shape.

    Raises:
        RoboError: It has another shape or is not numeric.
        NonFiniteError: NaN, infinity or a huge number in it.
    """
    try:
        target = np.array(action, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RoboError(f"an action is {shape} numbers, not {action!r}") from error
    if target.shape != shape:
        raise RoboError(
            f"an action has shape {shape}, joint positions, as many velocities and the width of the gripper, "
            f"not {target.shape}"
        )
    if not (np.abs(target) < mujoco.mjMAXVAL).all():  # MuJoCo would put 0 in the place of larger numbers
        raise NonFiniteError(f"action holds NaN, infinity or a huge number: {target}; nothing of it is executed")
    return target


@dataclass(kw_only=True)
class _Episode:
    """What an episode's future depends on besides the physics."""

    instance: dict[str, np.ndarray]
    drawn: dict[str, np.ndarray]
    reference: np.ndarray
    late: np.ndarray
    """Controls that are still on their way, (delay in physics steps, nu)."""
    contacts: dict[str, int]
    trace: list[dict[str, float]]
    attached: dict[str, np.ndarray]
    """Thing that is fastened → width of the jaws when it was, its pose in the frame of the tool's body, (8,)."""
    joint_limit: int = 0
    velocity: int = 0
    stage: int = 0
    step: int = 0
