"""How joints of fixtures move, as a scene describes it: drawers, doors, lids. mujoco, when asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from robo.core.errors import TaskError
from tasks.tabletop.turns import out_of, turned

if TYPE_CHECKING:
    import mujoco

HANDLE = "_handle"
"""A joint's name with this is that of the site where its body is taken."""

STILL = np.array([1.0, 0.0, 0.0, 0.0])
"""No turn, wxyz."""


@dataclass(frozen=True, kw_only=True)
class Mechanism:
    """A joint between a fixture and a body of its own, in the fixture's frame.

    Attributes:
        fixture: Its name.
        slides: Along the axis [m], or turns about it [rad].
        low, high: How far it goes.
        axis: (3,), of length one.
        pivot: A point of the axis, (3,) [m].
        handle: Where its body is taken while the joint is at 0, (3,) [m].
    """

    fixture: str
    slides: bool
    low: float
    high: float
    axis: np.ndarray
    pivot: np.ndarray
    handle: np.ndarray

    def at(self, values: np.ndarray | float) -> np.ndarray:
        """Where its body is taken while the joint is at each of some values (...), (..., 3) [m]."""
        far = np.asarray(values)[..., None]
        if self.slides:
            return self.handle + far * self.axis
        return self.pivot + out_of(turned(STILL, far * self.axis), self.handle - self.pivot)


def mechanisms(scene: mujoco.MjSpec, joints: Sequence[str]) -> dict[str, Mechanism]:
    """Of each joint by its name; the scene's angles are in radians.

    Raises:
        TaskError: A joint or its handle is not there, or it moves a fixture, or what another joint moves.
    """
    import mujoco

    scene.compiler.degree = False
    model = scene.compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    names = [model.joint(i).name for i in range(model.njnt)]
    sites = [model.site(i).name for i in range(model.nsite)]
    found = {}
    for name in joints:
        if name not in names or name + HANDLE not in sites:
            raise TaskError(
                f"joint {name}: build must add it and say where its body is taken, parts.handle(body, {name!r}, place)"
            )
        joint, body = model.joint(name), model.jnt_bodyid[names.index(name)]
        root = model.body_rootid[body]
        if model.body_parentid[body] != root or model.body_jntnum[root]:
            raise TaskError(f"joint {name}: its body must hang on a fixture that stands by itself")
        turn, origin = data.xmat[root].reshape(3, 3), data.xpos[root]
        found[name] = Mechanism(
            fixture=model.body(root).name,
            slides=bool(joint.type[0] == mujoco.mjtJoint.mjJNT_SLIDE),
            low=float(joint.range[0]),
            high=float(joint.range[1]),
            axis=data.xaxis[joint.id] @ turn,
            pivot=(data.xanchor[joint.id] - origin) @ turn,
            handle=(data.site(name + HANDLE).xpos - origin) @ turn,
        )
    return found
