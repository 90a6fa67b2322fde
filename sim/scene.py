"""A task's world as a MuJoCo model: arm, floor and light, plus what the task builds."""

from __future__ import annotations

from collections.abc import Mapping

import mujoco
import numpy as np

from hardware.robots.robot import FLOOR_BIT, SCENE_BIT
from robo.core.errors import TaskError, UnknownNameError
from sim.coarse import add_coarse
from tasks.arm import Camera, SceneTask

FLOOR = "floor"


def compose(task: SceneTask, arm: mujoco.MjSpec | None = None) -> mujoco.MjSpec:
    """Arm, floor, light, the task's own bodies and its cameras, uncompiled.

    Args:
        task: Any task.
        arm: The task's arm in other shells (`hardware.robots.visual.load_visual`), changed by
            this; None for the model from primitives.

    Raises:
        TaskError: A camera is mounted on a body that does not exist.
    """
    spec = task.robot.mjcf() if arm is None else arm
    add_coarse(spec)
    spec.modelname = task.name
    spec.option.disableflags |= mujoco.mjtDisableBit.mjDSBL_AUTORESET  # a blown-up state must not pass for a fresh one
    spec.stat.extent, spec.stat.center = 1.5, [0.3, 0.0, 0.4]
    spec.visual.map.znear, spec.visual.map.zfar = 0.01, 20.0
    spec.visual.map.shadowclip = 2.5  # the edge of the shadowed square shows as specks
    spec.visual.headlight.ambient = [0.35, 0.35, 0.35]
    spec.visual.headlight.diffuse = [0.28, 0.28, 0.28]
    spec.visual.headlight.specular = [0.1, 0.1, 0.1]
    spec.add_texture(
        name="sky",  # only in pictures for people, see `sim.render`
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=[0.93, 0.95, 0.97],
        rgb2=[0.70, 0.77, 0.84],
        width=256,
        height=256,
    )
    spec.worldbody.add_light(
        name="sun",
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=[0.8, -1.0, 3.0],
        dir=[-0.25, 0.35, -0.9],
        diffuse=[0.6, 0.6, 0.6],
        specular=[0.25, 0.25, 0.25],
        castshadow=True,
    )
    spec.worldbody.add_geom(
        name=FLOOR,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        size=[3, 3, 0.1],
        rgba=[0.50, 0.54, 0.58, 1],
        contype=FLOOR_BIT,
        conaffinity=SCENE_BIT,
    )
    task.build(spec)
    for camera in task.cameras:
        body = spec.worldbody if camera.body is None else spec.body(camera.body)
        if body is None:
            names = [b.name for b in spec.bodies]
            raise TaskError(f"camera {camera.name!r}: {UnknownNameError('body', str(camera.body), names)}")
        body.add_camera(name=camera.name, pos=camera.position, quat=look_at(camera), fovy=camera.fovy_deg)
    return spec


def look_at(camera: Camera) -> np.ndarray:
    """Orientation (4,) wxyz of a camera in its parent's frame, see `Camera.axes`."""
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, camera.axes().ravel())
    return quat


class Scene:
    """A compiled scene and where its parts are.

    Args:
        task: The task it shows.
        spec: What `compose` made of the task, with other looks; by default as it is.

    Attributes:
        task: The task it shows.
        model: MuJoCo model; a scene owns its model, changes stay within it.
        qpos, dof: Indices of the arm's joints in ``data.qpos`` and ``data.qvel``, (J,).
        pos_ctrl, vel_ctrl: Indices of the servos' references in ``data.ctrl``, (J,) each.
        is_arm: Which geoms belong to the arm, (ngeom,) bool.
    """

    def __init__(self, task: SceneTask, spec: mujoco.MjSpec | None = None) -> None:
        self.task = task
        try:
            self.model = (spec or compose(task)).compile()
        except ValueError as error:  # MuJoCo's compiler: a task's `build` made something impossible
            raise TaskError(f"task {task.name}: its scene does not compile: {' '.join(str(error).split())}") from error
        model, joints = self.model, task.robot.joints
        self.qpos = np.array([model.joint(name).qposadr[0] for name in joints])
        self.dof = np.array([model.joint(name).dofadr[0] for name in joints])
        self.pos_ctrl = np.array([model.actuator(f"{name}_pos").id for name in joints])
        self.vel_ctrl = np.array([model.actuator(f"{name}_vel").id for name in joints])
        self.is_arm = model.body_rootid[model.geom_bodyid] == model.body("link0").id
        self._mocap = {
            model.body(i).name: int(model.body_mocapid[i]) for i in range(model.nbody) if model.body_mocapid[i] >= 0
        }

    def place(self, data: mujoco.MjData, poses: Mapping[str, np.ndarray]) -> None:
        """Put mocap bodies at positions (3,) [m], by body name.

        Raises:
            TaskError: A name is no mocap body of the scene.
        """
        for name, position in poses.items():
            if name not in self._mocap:
                raise TaskError(f"task {self.task.name}: {UnknownNameError('mocap body', name, self._mocap)}")
            data.mocap_pos[self._mocap[name]] = position

    def touching(self, data: mujoco.MjData) -> list[str]:
        """Pairs of geoms in contact (overlap > 0) of which one belongs to the arm, as ``"a|b"``, sorted names."""
        contact = data.contact
        pairs = contact.geom[contact.dist < 0.0]
        pairs = pairs[self.is_arm[pairs].any(axis=1)]
        return sorted({"|".join(sorted((self._name(a), self._name(b)))) for a, b in pairs})

    def _name(self, geom: int) -> str:
        return self.model.geom(geom).name or f"{self.model.body(self.model.geom_bodyid[geom]).name}#{geom}"


def geom_rgba(model: mujoco.MjModel, geom: int) -> np.ndarray:
    """Colour (4,) of a geom, 0..1; of a texture its mean."""
    rgba, material = model.geom_rgba[geom].copy(), model.geom_matid[geom]
    if material < 0:
        return rgba
    if np.allclose(rgba, (0.5, 0.5, 0.5, 1.0)):  # MuJoCo takes the material's where the geom keeps the default
        rgba = model.mat_rgba[material].copy()
    texture = model.mat_texid[material, mujoco.mjtTextureRole.mjTEXROLE_RGB]
    if texture >= 0:
        first, channels = model.tex_adr[texture], model.tex_nchannel[texture]
        texels = model.tex_data[first : first + channels * model.tex_width[texture] * model.tex_height[texture]]
        rgba[:3] *= texels.reshape(-1, channels)[:, :3].mean(axis=0) / 255.0
    return rgba
