"""An arm in the shells of a detailed model, for pictures that people look at; and where files of models are."""

from __future__ import annotations

import difflib
import importlib
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from hardware.robots.mjcf import VISUAL_GROUP, quat
from hardware.robots.robot import Robot
from robo.core.errors import MissingDependencyError, RobotError, UnknownNameError


def load_visual(robot: Robot, source: str | Path) -> mujoco.MjSpec:
    """The model of a robot in the shells of a detailed one: for pictures that people look at.

    Kinematics, masses, collision capsules and servos stay those of ``robot.mjcf()``; only looks are taken over.

    Args:
        robot: An arm whose maker's frames its links have, such as the Panda.
        source: Path of an MJCF (or URDF) file with bodies ``link0`` .. ``link7``, ``hand`` (also ``panda_link0`` ..)
            in the maker's frames, or a name in the `robot_descriptions` package, such as ``panda_mj_description``,
            which is downloaded on first use.

    Raises:
        UnknownNameError: No such file and no such name.
        MissingDependencyError: The model cannot be had: package not installed, or no network and no copy kept.
        RobotError: The file is no model of this arm.
    """
    path = model_path(str(source))
    mend = "give the path of another MJCF file, or leave it out for the model from primitives"
    try:
        detailed = mujoco.MjSpec.from_file(str(path))
        model = detailed.compile()
    except ValueError as error:
        raise RobotError(f"{path} is no MuJoCo model ({' '.join(str(error).split())}); {mend}") from error
    spec = robot.mjcf()
    own = spec.copy().compile()
    data, own_data = mujoco.MjData(model), mujoco.MjData(own)
    # At qpos0 all joints of both models are at zero (fingers: closed).
    mujoco.mj_kinematics(model, data)
    mujoco.mj_kinematics(own, own_data)
    wanted = [f"link{i}" for i in range(robot.dof + 1)] + ["hand"]
    found = {name: body.id for body in detailed.bodies if (name := body.name.removeprefix(f"{robot.name}_")) in wanted}
    for name in wanted:
        if name not in found:
            raise RobotError(f"{path} has no body {name!r}; {mend}")
        if (
            np.abs(_relative(data, found["link0"], found[name]) - _relative(own_data, 1, own.body(name).id)).max()
            > 1e-3
        ):
            raise RobotError(f"{path} is no {robot.name}: its {name!r} sits elsewhere; {mend}")
    for geom in [g for g in spec.geoms if g.group == VISUAL_GROUP]:
        spec.delete(geom)
    looks = _Looks(spec, detailed, path)
    for body in detailed.bodies:
        carrier = _carrier(model, body.id, set(found.values()))
        if carrier is not None:
            target = spec.body(next(name for name, i in found.items() if i == carrier))
            looks.move(body, target, _relative(data, carrier, body.id))
    if not looks.moved:
        raise RobotError(f"{path} has no geoms that are only seen (contype = conaffinity = 0); {mend}")
    return spec


def model_path(source: str) -> Path:
    """The file of a model: a path, or a name in the `robot_descriptions` package, downloaded on first use.

    Raises:
        UnknownNameError: No such file and no such name.
        MissingDependencyError: Package not installed, or no network and no copy kept.
    """
    if Path(source).is_file():
        return Path(source).resolve()
    try:
        names = importlib.import_module("robot_descriptions._descriptions").DESCRIPTIONS
        git = importlib.import_module("git")
    except ImportError as error:
        raise MissingDependencyError(
            f"{source!r} is no file, and names of models need a package: pip install robot_descriptions"
        ) from error
    if source not in names:
        near = difflib.get_close_matches(source, names, n=8, cutoff=0.0)
        raise UnknownNameError("robot description (nor is it a file)", source, near)
    try:
        description = importlib.import_module(f"robot_descriptions.{source}")
    except (git.exc.GitError, OSError) as error:
        raise MissingDependencyError(
            f"{source} is not kept here and cannot be downloaded ({type(error).__name__}); "
            "connect to the network once, or give the path of an MJCF file"
        ) from error
    return Path(description.MJCF_PATH if hasattr(description, "MJCF_PATH") else description.URDF_PATH)


def _relative(data: mujoco.MjData, parent: int, child: int) -> np.ndarray:
    """Pose (4, 4) of a body in the frame of another."""
    poses = []
    for body in (parent, child):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body]
        poses.append(pose)
    return np.linalg.solve(poses[0], poses[1])


def _carrier(model: mujoco.MjModel, body: int, links: set[int]) -> int | None:
    """The nearest of some links that a body hangs on; None if there is none."""
    while body != 0:
        if body in links:
            return body
        body = int(model.body_parentid[body])
    return None


class _Looks:
    """Takes visual geoms, with their meshes and materials, from one spec over to another."""

    def __init__(self, spec: mujoco.MjSpec, detailed: mujoco.MjSpec, path: Path) -> None:
        self.spec, self.moved = spec, 0
        self._folder = path.parent / detailed.meshdir
        self._meshes = {mesh.name or Path(mesh.file).stem: mesh for mesh in detailed.meshes}
        self._materials = {material.name: material for material in detailed.materials}
        self._have: set[str] = set()

    def move(self, body: Any, target: Any, pose: np.ndarray) -> None:
        """Copy what is only seen of a body to another whose frame it has a pose (4, 4) in."""
        for geom in body.geoms:
            if geom.contype or geom.conaffinity:
                continue
            mesh = geom.type == mujoco.mjtGeom.mjGEOM_MESH
            turned = np.empty(4)
            mujoco.mju_mulQuat(turned, quat(pose[:3, :3]), np.asarray(geom.quat))
            target.add_geom(
                type=geom.type,
                pos=pose[:3, :3] @ geom.pos + pose[:3, 3],
                quat=turned,
                size=[0, 0, 0] if mesh else geom.size,
                meshname=self._mesh(geom.meshname) if mesh else "",
                material=self._material(geom.material),
                rgba=geom.rgba,
                group=VISUAL_GROUP,
                contype=0,
                conaffinity=0,
                mass=0,
            )
            self.moved += 1

    def _mesh(self, name: str) -> str:
        new = f"visual/{name}"
        if new not in self._have:
            mesh = self._meshes[name]
            file = str((self._folder / mesh.file).resolve())
            self.spec.add_mesh(name=new, file=file, scale=mesh.scale, refpos=mesh.refpos, refquat=mesh.refquat)
            self._have.add(new)
        return new

    def _material(self, name: str) -> str:
        if not name:
            return ""
        new = f"visual/{name}"
        if new not in self._have:
            m = self._materials[name]
            self.spec.add_material(
                name=new, rgba=m.rgba, specular=m.specular, shininess=m.shininess, reflectance=m.reflectance
            )
            self._have.add(new)
        return new
