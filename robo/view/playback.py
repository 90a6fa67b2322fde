"""A rollout shown again in its scene: poses, pictures with shadows, no physics."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from functools import singledispatch
from typing import Any

import mujoco
import numpy as np

from robo.core.errors import RunError, TaskError
from robo.core.protocols import hermite
from robo.data.rollout import ArmRollout, TabletopRollout
from sim.scene import FLOOR, Scene, compose, look_at
from sim.tabletop import ROOM, TabletopScene, compose_tabletop
from tasks.arm import ArmTask, Camera, SceneTask
from tasks.tabletop.base import TabletopTask
from tasks.task import Task

SHADOW_SIZE, SAMPLES = 2048, 4
"""Shadow map [texels] and multisampling of pictures meant for people."""

FILM, FILM_DISTANCE, FILM_RISE_M = "film", 1.3, 0.12
"""Camera of pictures meant for people: like the task's first one that stands, but farther away and higher."""


def check_fits(task: SceneTask, rollout: ArmRollout) -> None:
    """Refuse a rollout of another task or robot.

    Raises:
        RunError: It does not fit.
    """
    if rollout.task != task.name or rollout.joint_pos.shape[1] != task.robot.dof:
        raise RunError(
            f"the rollout is of task {rollout.task!r} with {rollout.joint_pos.shape[1]} joints, "
            f"the run is of {task.name!r} with {task.robot.dof}; record one with: robo-view RUN --rollout SEED"
        )


class Playback(ABC):
    """Poses a task's scene as a rollout was at any time.

    Args:
        task: The task of the rollout.
        rollout: What is shown.

    Attributes:
        model, data: MuJoCo model and state; `pose` moves the state, nothing else does.
    """

    def __init__(self, task: SceneTask, rollout: ArmRollout, model: mujoco.MjModel) -> None:
        self.task, self.rollout, self.model = task, rollout, model
        self.data = mujoco.MjData(model)
        self.pose(0.0)

    def pose(self, time_s: float) -> None:
        """Put everything where it was; between samples the arm moves along a cubic, everything else along a line."""
        k, u = self.sample(time_s)
        self._place(k, min(k + 1, self.rollout.steps), u)
        mujoco.mj_fwdPosition(self.model, self.data)

    @abstractmethod
    def _place(self, k: int, after: int, u: float) -> None:
        """Set positions at phase `u` (0..1) between two samples."""

    def _joints(self, k: int, after: int, u: float) -> np.ndarray:
        r = self.rollout
        return hermite(r.joint_pos[k], r.joint_vel[k], r.joint_pos[after], r.joint_vel[after], u, r.dt_s)[0]

    def project(self, points: np.ndarray, camera: str, size: tuple[int, int]) -> np.ndarray:
        """Where points of the world are in a camera's picture, as posed now.

        Args:
            points: (n, 3) [m].
            camera: Name of a camera of the task.
            size: Width and height of the picture [px].

        Returns:
            (n, 2) pixels from the left and from the top; NaN behind the camera.
        """
        at = self.data.camera(camera)
        x, y, z = ((points - at.xpos) @ at.xmat.reshape(3, 3)).T
        focal = size[1] / 2 / np.tan(np.radians(self.model.camera(camera).fovy[0]) / 2)
        depth = np.where(z < 0.0, -z, np.nan)
        return np.stack([size[0] / 2 + focal * x / depth, size[1] / 2 - focal * y / depth], axis=-1)

    def sample(self, time_s: float) -> tuple[int, float]:
        """Last sample at or before a time, and the phase 0..1 to the next."""
        phase = float(np.clip(time_s / self.rollout.dt_s, 0.0, self.rollout.steps))
        # Rounding must not make sample 3 out of 0.3 / 0.1.
        k = min(int(phase + 1e-9), self.rollout.steps)
        return k, max(phase - k, 0.0)


@singledispatch
def open_playback(task: Task, rollout: Any) -> Playback:
    """A rollout in its scene.

    Args:
        task: The task of the rollout; its class decides.
        rollout: What is shown.

    Raises:
        TaskError: The task has no scene.
        RunError: The rollout is of another task or robot.
    """
    raise TaskError(f"task {task.name} has no scene, it is a {type(task).__name__}")


class ArmPlayback(Playback):
    """An arm, and what moves by itself."""

    def __init__(self, task: ArmTask, rollout: ArmRollout) -> None:
        check_fits(task, rollout)
        self.scene = Scene(task, _dressed(task, compose(task), FLOOR))
        super().__init__(task, rollout, self.scene.model)

    def _place(self, k: int, after: int, u: float) -> None:
        self.data.qpos[self.scene.qpos] = self._joints(k, after, u)
        bodies = self.rollout.bodies.items()
        self.scene.place(self.data, {name: (1 - u) * p[k] + u * p[after] for name, p in bodies})


class TabletopPlayback(Playback):
    """An arm with a gripper, and the things it moves."""

    def __init__(self, task: TabletopTask, rollout: TabletopRollout) -> None:
        check_fits(task, rollout)
        self.scene = TabletopScene(task, _dressed(task, compose_tabletop(task), ROOM))
        self.scene.arrange(rollout.instance)
        self.qpos = rollout.qpos
        if self.qpos.shape[1] != self.scene.model.nq:
            raise RunError(
                f"the rollout has {self.qpos.shape[1]} positions, the scene of {task.name} {self.scene.model.nq}; "
                "record one with: robo-view RUN --rollout SEED"
            )
        super().__init__(task, rollout, self.scene.model)

    def _place(self, k: int, after: int, u: float) -> None:
        velocity = np.empty(self.model.nv)
        mujoco.mj_differentiatePos(self.model, velocity, 1.0, self.qpos[k], self.qpos[after])
        self.data.qpos[:] = self.qpos[k]
        mujoco.mj_integratePos(self.model, self.data.qpos, velocity, u)
        self.data.qpos[self.scene.qpos] = self._joints(k, after, u)


open_playback.register(ArmTask)(ArmPlayback)
open_playback.register(TabletopTask)(TabletopPlayback)


def _dressed(task: SceneTask, spec: mujoco.MjSpec, floor_name: str) -> mujoco.MjSpec:
    """A scene with a tiled floor and the camera `FILM`."""
    spec.visual.quality.shadowsize, spec.visual.quality.offsamples = SHADOW_SIZE, SAMPLES
    floor = spec.add_texture(name="tiles")
    floor.type, floor.builtin = mujoco.mjtTexture.mjTEXTURE_2D, mujoco.mjtBuiltin.mjBUILTIN_CHECKER
    floor.rgb1, floor.rgb2, floor.width, floor.height = [0.80, 0.82, 0.84], [0.76, 0.78, 0.80], 256, 256
    material = spec.add_material(name="tiles", texrepeat=[2, 2], texuniform=True, specular=0.1)
    textures = [""] * mujoco.mjtTextureRole.mjNTEXROLE
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = "tiles"
    material.textures = textures
    standing = [camera for camera in task.cameras if camera.body is None]
    first = standing[0] if standing else Camera(name=FILM, position=(1.75, 0.0, 0.95), target=(0.25, 0.0, 0.40))
    away = np.subtract(first.position, first.target) * FILM_DISTANCE
    target = np.add(first.target, [0.0, 0.0, FILM_RISE_M])
    film = replace(first, name=FILM, position=tuple(target + away), target=tuple(target))
    spec.worldbody.add_camera(name=FILM, pos=film.position, quat=look_at(film), fovy=film.fovy_deg)
    ground = spec.geom(floor_name)
    ground.material, ground.rgba = "tiles", [1.0, 1.0, 1.0, 1.0]
    return spec
