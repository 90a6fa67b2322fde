"""What scenes on a tabletop are made of: solid primitives, things that lie about, fixtures that stand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tasks.tabletop.mechanisms import HANDLE

if TYPE_CHECKING:
    import mujoco

Rgba = Sequence[float]
Vector = Sequence[float] | np.ndarray
"""Three numbers."""
FRICTION = (0.8, 0.01, 1e-4)
"""Sliding, torsional [m], rolling [m]; the jaws' rubber grips better, and of two the larger counts."""

RED, GREEN, BLUE = (0.83, 0.18, 0.16, 1.0), (0.20, 0.62, 0.26, 1.0), (0.16, 0.36, 0.80, 1.0)
YELLOW, ORANGE, PURPLE = (0.93, 0.76, 0.15, 1.0), (0.93, 0.50, 0.12, 1.0), (0.50, 0.25, 0.65, 1.0)
WHITE, GREY, BLACK = (0.92, 0.92, 0.90, 1.0), (0.50, 0.52, 0.55, 1.0), (0.12, 0.12, 0.13, 1.0)
WOOD, DARK_WOOD = (0.72, 0.53, 0.34, 1.0), (0.45, 0.30, 0.18, 1.0)


def thing(scene: mujoco.MjSpec, name: str) -> Any:
    """A body that lies about freely; its pose is the instance's ``<name>_pos`` and ``<name>_quat_wxyz``."""
    body = scene.worldbody.add_body(name=name)
    body.add_freejoint(name=name)
    return body


def fixture(scene: mujoco.MjSpec, name: str) -> Any:
    """A body that stands still for an episode, at the instance's ``<name>_pos`` and ``<name>_quat_wxyz``."""
    return scene.worldbody.add_body(name=name)


def slide(
    body: Any, name: str, axis: Vector, span: tuple[float, float], friction: float = 1.0, damping: float = 4.0
) -> None:
    """A slide between two ends [m] with dry friction [N] and damping [N s/m]."""
    import mujoco

    _joint(body, name, mujoco.mjtJoint.mjJNT_SLIDE, axis, span, friction, damping)


def hinge(
    body: Any,
    name: str,
    axis: Vector,
    span: tuple[float, float],
    friction: float = 0.05,
    damping: float = 0.05,
    pos: Vector = (0.0, 0.0, 0.0),
) -> None:
    """A hinge between two angles [rad] with dry friction [N m] and damping [N m s]."""
    import mujoco

    _joint(body, name, mujoco.mjtJoint.mjJNT_HINGE, axis, span, friction, damping, pos)


def handle(body: Any, name: str, pos: Vector) -> None:
    """Where the body of a joint is taken, in its frame [m]: by who grasps it, and by who looks how far it is open."""
    body.add_site(name=name + HANDLE, pos=pos)


def _joint(
    body: Any, name: str, kind: Any, axis: Any, span: Any, friction: float, damping: float, pos: Any = (0, 0, 0)
):
    body.add_joint(
        name=name,
        type=kind,
        axis=axis,
        pos=pos,
        limited=True,
        range=span,
        frictionloss=friction,
        damping=damping,
        armature=0.001,
    )


def box(body: Any, half: Vector, pos: Vector = (0, 0, 0), rgba: Rgba = GREY, **more: Any) -> Any:
    """A box by its half sizes [m]."""
    import mujoco

    return _solid(body, mujoco.mjtGeom.mjGEOM_BOX, half, pos, rgba, more)


def cylinder(body: Any, radius: float, half: float, pos: Vector = (0, 0, 0), rgba: Rgba = GREY, **more: Any) -> Any:
    """An upright cylinder by radius and half height [m]."""
    import mujoco

    return _solid(body, mujoco.mjtGeom.mjGEOM_CYLINDER, (radius, half, 0.0), pos, rgba, more)


def capsule(body: Any, radius: float, start: Vector, end: Vector, rgba: Rgba = GREY, **more: Any) -> Any:
    """A capsule between two points [m]."""
    import mujoco

    more = {"fromto": [*start, *end], **more}
    return _solid(body, mujoco.mjtGeom.mjGEOM_CAPSULE, (radius, 0.0, 0.0), None, rgba, more)


def sphere(body: Any, radius: float, pos: Vector = (0, 0, 0), rgba: Rgba = GREY, **more: Any) -> Any:
    """A ball [m]."""
    import mujoco

    return _solid(body, mujoco.mjtGeom.mjGEOM_SPHERE, (radius, 0.0, 0.0), pos, rgba, more)


def _solid(body: Any, shape: Any, size: Any, pos: Any, rgba: Rgba, more: dict[str, Any]) -> Any:
    """`more`: anything of a geom, such as mass [kg], quat, name; ``solid=False`` for what is only seen."""
    solid = more.pop("solid", True)
    place = {} if pos is None else {"pos": pos}
    bits = {"contype": 1, "conaffinity": 1} if solid else {"contype": 0, "conaffinity": 0, "mass": 0.0}
    settings = {"friction": FRICTION, "condim": 4, "solref": (0.01, 1.0), **bits, **place, **more}
    return body.add_geom(type=shape, size=size, rgba=rgba, **settings)


def tray(
    body: Any, half: tuple[float, float], height: float, wall: float = 0.005, rgba: Rgba = WOOD, floor: float = 0.005
) -> None:
    """An open box: a floor with four walls, by outer half sizes and height [m]; the body's origin lies below it."""
    x, y = half
    box(body, (x, y, floor / 2), (0, 0, floor / 2), rgba)
    for side in (-1.0, 1.0):
        box(body, (wall / 2, y, height / 2), (side * (x - wall / 2), 0, height / 2), rgba)
        box(body, (x - wall, wall / 2, height / 2), (0, side * (y - wall / 2), height / 2), rgba)
