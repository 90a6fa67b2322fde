"""MuJoCo model of the SO-101, built from primitives and from the numbers in `so101.py`.

Sources of the numbers: masses, centres of mass, inertias, reflected inertia and damping from the maker's published
description (`SO-ARM100/Simulation/SO101`); shapes measured off its parts.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from hardware.robots import mjcf
from hardware.robots.mjcf import DARK, SHELL, box, cylinder
from hardware.robots.robot import Gripper, Robot
from hardware.robots.so101 import CLOSED_RAD, FIXED_M, PIVOT_M, WIDEST_RAD

# Order of `mjcf.Inertial`; the fixed jaw is part of the last link.
_INERTIALS = (
    (0.147, (0.0137, 0.0, 0.0335), (1.147e-4, 1.361e-4, 1.304e-4, 0.0, 4.97e-6, 0.0)),
    (0.100, (-0.0308, 0.0, -0.0253), (8.376e-5, 8.104e-5, 2.398e-5, 0.0, -1.16e-6, 0.0)),
    (0.103, (-0.0898, -0.0084, 0.0184), (4.080e-5, 1.473e-4, 1.425e-4, -1.978e-5, 0.0, 0.0)),
    (0.104, (-0.0981, 0.0032, 0.0183), (2.874e-5, 1.598e-4, 1.453e-4, 7.41e-6, 1.26e-6, 0.0)),
    (0.079, (0.0, -0.0386, 0.0281), (3.683e-5, 2.539e-5, 2.100e-5, 0.0, 0.0, 3.64e-6)),
    (0.087, (0.0002, 0.0002, -0.0252), (2.751e-5, 4.337e-5, 3.451e-5, -3.4e-7, -5.74e-6, 0.0)),
    None,
)
_JAW = (0.012, (-0.0016, -0.0300, 0.0005), (6.61e-6, 1.89e-6, 5.29e-6, -3.2e-7, 0.0, -1.1e-7))

_LOOKS = (
    box(0, (0.022, 0.0, 0.010), (0.042, 0.055, 0.010)),
    box(0, (0.012, 0.0, 0.045), (0.038, 0.0235, 0.024)),
    box(0, (0.028, 0.0, 0.045), (0.023, 0.0125, 0.0205), DARK),
    box(0, (-0.0265, 0.0, 0.047), (0.004, 0.0255, 0.021), DARK),
    cylinder(1, (0.0, 0.0, -0.006), (0.0, 0.0, 0.001), 0.0115, DARK),
    box(1, (-0.018, 0.0, -0.003), (0.030, 0.0225, 0.0035)),
    box(1, (-0.045, 0.0, 0.002), (0.0035, 0.0225, 0.040)),
    box(1, (-0.018, 0.0, 0.042), (0.030, 0.0225, 0.0035)),
    box(1, (-0.0305, 0.0, -0.0415), (0.0125, 0.0195, 0.0225), DARK),
    box(1, (-0.032, 0.0, -0.024), (0.0185, 0.0255, 0.0135)),
    cylinder(1, (-0.0305, -0.0255, -0.0542), (-0.0305, 0.0255, -0.0542), 0.0110, DARK),
    *(
        part
        for side in (-0.0105, 0.0495)  # two plates hold the next servo between them
        for part in (
            cylinder(2, (0.0, 0.0, side - 0.0025), (0.0, 0.0, side + 0.0025), 0.0120),
            box(2, (-0.050, 0.0, side), (0.050, 0.0105, 0.0025)),
        )
    ),
    box(2, (-0.0750, 0.0, 0.0195), (0.0210, 0.0105, 0.0300)),
    box(2, (-0.1125, -0.0145, 0.0185), (0.0125, 0.0225, 0.0200), DARK),
    box(2, (-0.1125, -0.0020, 0.0185), (0.0160, 0.0110, 0.0300)),
    cylinder(2, (-0.11257, -0.028, -0.006), (-0.11257, -0.028, 0.044), 0.0110, DARK),
    *(
        part
        for side in (-0.0095, 0.0475)
        for part in (
            cylinder(3, (0.0, 0.0, side - 0.0025), (0.0, 0.0, side + 0.0025), 0.0120),
            box(3, (-0.046, 0.0, side), (0.046, 0.0105, 0.0025)),
        )
    ),
    box(3, (-0.0700, 0.0, 0.0190), (0.0230, 0.0105, 0.0290)),
    box(3, (-0.1050, 0.0035, 0.0200), (0.0135, 0.0180, 0.0275)),
    box(3, (-0.1225, 0.0055, 0.0180), (0.0225, 0.0120, 0.0200), DARK),
    cylinder(3, (-0.1349, 0.0052, -0.005), (-0.1349, 0.0052, 0.043), 0.0110, DARK),
    *(
        part
        for side in (-0.0065, 0.0490)
        for part in (
            cylinder(4, (0.0, 0.0, side - 0.0025), (0.0, 0.0, side + 0.0025), 0.0120),
            box(4, (0.0, -0.0160, side), (0.0110, 0.0160, 0.0025)),
        )
    ),
    box(4, (-0.0020, -0.0300, 0.0220), (0.0160, 0.0060, 0.0300)),
    box(4, (0.0, -0.0440, 0.0305), (0.0120, 0.0190, 0.0220), DARK),
    box(4, (-0.0140, -0.0460, 0.0220), (0.0045, 0.0170, 0.0200)),
    cylinder(5, (0.0, 0.0, -0.008), (0.0, 0.0, 0.001), 0.0200),
    box(5, (-0.0030, -0.0015, -0.0080), (0.0310, 0.0250, 0.0035)),
    box(5, (0.0075, 0.0, -0.0235), (0.0225, 0.0195, 0.0125), DARK),
    box(5, (-0.0250, 0.0, -0.0230), (0.0100, 0.0180, 0.0170)),
    cylinder(5, (0.0202, -0.0215, -0.0234), (0.0202, 0.0215, -0.0234), 0.0110, DARK),
)

_PAD_M = 0.006
"""Radius of the moving jaw's tip, which is round: it touches what is flat at one height, however far it is open."""
_TIP = (-0.0095, -0.0730)
"""Its middle in the frame of the moving jaw, x and y; z is across."""
_LEAN_RAD = 0.16
"""The fixed jaw grows thicker from its tip, by so much."""
_KP_N_M, _KD_N_S_M = 4000.0, 60.0


def build(robot: Robot) -> mujoco.MjSpec:
    """The SO-101 as an editable MuJoCo specification, see `hardware.robots.mjcf.build`.

    Args:
        robot: The SO-101 of `hardware.robots.so101.make`; anything in it may have been changed.
    """
    body = mjcf.Body(
        inertials=_INERTIALS,
        armature_kg_m2=(0.028,) * 5,
        damping_n_m_s_rad=0.6,
        hand_pos=(0.0, 0.0, 0.0),
        hand_quat=mjcf.quat(robot.tool[:3, :3]).tolist(),
        mounted=("base", "base_motor", "shoulder"),
        looks=_LOOKS,
        colours=((SHELL, (0.93, 0.68, 0.12), 0.3), (DARK, (0.12, 0.12, 0.13), 0.4)),
        jaws=_jaws,
    )
    return mjcf.build(robot, body)


def _jaws(spec: mujoco.MjSpec, gripper: Gripper, hand: Any) -> None:
    """A jaw that stands and one that turns, after the maker's shapes; their frames are those of its description."""
    shape = mujoco.mjtGeom
    # The hand's frame is that of the tool, both jaws are told in that of the last link.
    back = np.empty(4)
    mujoco.mju_negQuat(back, np.asarray(hand.quat))
    fixed = hand.add_body(name=gripper.jaws[0], quat=back)
    half = np.array([0.005, 0.008, 0.027])
    lean = [np.cos(_LEAN_RAD / 2), 0.0, -np.sin(_LEAN_RAD / 2), 0.0]
    pad = dict(pos=(FIXED_M - 0.0035, 0.0, -0.0770), size=(0.0035, 0.0085, 0.0270))
    rib = dict(pos=(FIXED_M - 0.0120, 0.0, -0.0660), size=half, quat=lean)
    for name, form in (("pad", pad), ("rib", rib)):
        mjcf.add_rubber(fixed, f"{gripper.jaws[0]}_{name}", shape.mjGEOM_BOX, form)
        mjcf.look(fixed, shape.mjGEOM_BOX, SHELL, form)
    # Beside the fixed one, not on it: what a body feels is felt by all that it hangs on.
    pos, turned = np.empty(3), np.empty(4)
    mujoco.mju_rotVecQuat(pos, np.array(PIVOT_M), back)
    mujoco.mju_mulQuat(turned, back, np.array([np.cos(np.pi / 4), np.sin(np.pi / 4), 0.0, 0.0]))
    moving = hand.add_body(name=gripper.jaws[1], pos=pos, quat=turned, gravcomp=1)
    moving.add_joint(
        name=gripper.joints[0],
        type=mujoco.mjtJoint.mjJNT_HINGE,
        axis=[0, 0, 1],
        limited=True,
        range=[CLOSED_RAD, WIDEST_RAD],
        armature=0.028,
        damping=0.6,
    )
    mjcf.set_inertial(moving, _JAW)
    tip = dict(fromto=[*_TIP, -0.004, *_TIP, 0.004], size=[_PAD_M, 0.0, 0.0])
    stem = dict(pos=(-0.0010, -0.0345, 0.0), size=(0.0055, 0.0345, 0.0080), quat=[np.cos(0.05), 0, 0, -np.sin(0.05)])
    for name, kind, form in (("tip", shape.mjGEOM_CAPSULE, tip), ("stem", shape.mjGEOM_BOX, stem)):
        mjcf.add_rubber(moving, f"{gripper.jaws[1]}_{name}", kind, form)
        mjcf.look(moving, kind, SHELL, form)
    root = dict(pos=(0.0, -0.0050, 0.0), size=(0.0095, 0.0150, 0.0225))
    mjcf.look(moving, shape.mjGEOM_BOX, SHELL, root)
    mjcf.add_grip(spec, gripper, _KP_N_M, _KD_N_S_M)
