"""An arm for small pictures: what is seen of each link as one mesh a colour, of few triangles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mujoco
import numpy as np

from robo.core.errors import TaskError

if TYPE_CHECKING:
    import trimesh  # where a scene is built, else lazily: seconds

FINE_GROUP, COARSE_GROUP = 1, 5
"""Geom groups of the shapes as they are, and of the meshes, which MuJoCo's own viewers hide."""
MOST_GROUP = 2
"""Geoms and sites of higher groups are not meant to be seen by people."""
SLICES = 10
"""Corners of a circle."""
RINGS = 4
"""Of a capsule, from pole to pole."""
ENDLESS_M = 20.0
"""Half the side of a plane without end."""
_SHAPE, _MESH = mujoco.mjtGeom, mujoco.mjtMeshInertia
_SHAPES = (
    _SHAPE.mjGEOM_BOX,
    _SHAPE.mjGEOM_CYLINDER,
    _SHAPE.mjGEOM_CAPSULE,
    _SHAPE.mjGEOM_SPHERE,
    _SHAPE.mjGEOM_ELLIPSOID,
)
"""What is merged."""


def add_coarse(spec: mujoco.MjSpec) -> None:
    """Give a model meshes in `COARSE_GROUP` that look like the shapes which they stand for; those go to `FINE_GROUP`.

    Taken are primitives that are only seen, without texture. Software renderers take their time by the shape and by
    the triangle: an arm of forty shapes is drawn twice as fast.
    """
    from trimesh.util import concatenate

    model, merged = spec.compile(), []  # ids of geoms hold until something is added
    for body in spec.bodies:
        alike: dict[tuple[str, tuple[float, ...]], list[Any]] = {}
        for geom in body.geoms:
            if _only_seen(spec, geom) and geom.type in _SHAPES:
                alike.setdefault((geom.material, tuple(geom.rgba)), []).append(geom)
        for looks, geoms in alike.items():
            merged.append((body, looks, geoms, concatenate([_placed(model, geom.id) for geom in geoms])))
    for number, (body, (material, rgba), geoms, shape) in enumerate(merged):
        mesh = spec.add_mesh(name=f"{body.name}/coarse{number}", inertia=_MESH.mjMESH_INERTIA_SHELL)
        mesh.uservert, mesh.userface = shape.vertices.ravel(), shape.faces.ravel()
        form: dict[str, Any] = dict(type=_SHAPE.mjGEOM_MESH, meshname=mesh.name, contype=0, conaffinity=0, mass=0)
        body.add_geom(material=material, rgba=rgba, group=COARSE_GROUP, **form)
        for geom in geoms:
            geom.group = FINE_GROUP


def seen(coarse: bool) -> mujoco.MjvOption:
    """What MuJoCo draws: the meshes instead of the shapes, if `coarse`."""
    option = mujoco.MjvOption()
    if coarse:
        option.geomgroup[FINE_GROUP], option.geomgroup[COARSE_GROUP] = 0, 1
    return option


def _only_seen(spec: mujoco.MjSpec, geom: Any) -> bool:
    material = spec.material(geom.material) if geom.material else None
    textured = material is not None and any(material.textures)
    return not (geom.contype or geom.conaffinity or textured) and geom.group <= MOST_GROUP


def _placed(model: mujoco.MjModel, geom: int) -> trimesh.Trimesh:
    """A geom's shape in the frame of its body."""
    pose = np.eye(4)
    turn = np.empty(9)
    mujoco.mju_quat2Mat(turn, model.geom_quat[geom])
    pose[:3, :3], pose[:3, 3] = turn.reshape(3, 3), model.geom_pos[geom]
    return surface(model, geom, SLICES, RINGS).apply_transform(pose)


def surface(model: mujoco.MjModel, geom: int, slices: int, rings: int) -> trimesh.Trimesh:
    """What is seen of a geom, in its own frame [m]; what is round has so many corners around and from pole to pole.

    Raises:
        TaskError: It is no shape but a height field or the like.
    """
    import trimesh
    from trimesh import creation as make

    size = model.geom_size[geom]
    a, b, _ = size
    match mujoco.mjtGeom(model.geom_type[geom]):
        case _SHAPE.mjGEOM_BOX:
            return make.box(2 * size)
        case _SHAPE.mjGEOM_CYLINDER:
            return make.cylinder(a, 2 * b, slices)
        case _SHAPE.mjGEOM_CAPSULE:
            return make.capsule(2 * b, a, (rings, slices))
        case _SHAPE.mjGEOM_SPHERE:
            return make.uv_sphere(a, (rings, slices))
        case _SHAPE.mjGEOM_ELLIPSOID:
            return make.uv_sphere(1.0, (rings, slices)).apply_scale(size)
        case _SHAPE.mjGEOM_PLANE:
            x, y = a or ENDLESS_M, b or ENDLESS_M
            return trimesh.Trimesh([[-x, -y, 0], [x, -y, 0], [x, y, 0], [-x, y, 0]], [[0, 1, 2], [0, 2, 3]])
        case _SHAPE.mjGEOM_MESH:
            mesh = model.mesh(model.geom_dataid[geom])
            start, faces = mesh.vertadr[0], mesh.faceadr[0]
            vertices = model.mesh_vert[start : start + mesh.vertnum[0]]
            return trimesh.Trimesh(vertices, model.mesh_face[faces : faces + mesh.facenum[0]])
    raise TaskError(
        f"geom {model.geom(geom).name!r} is no shape whose surface is known; take another, or physics='mujoco'"
    )
