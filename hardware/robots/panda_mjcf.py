"""MuJoCo model of the Panda, built from primitives and from the numbers in `panda.py`.

Sources of the numbers:
    Masses, centres of mass and inertias of the links: the maker's `franka_description`
    (identified by C. Gaz et al., *Dynamic identification of the Franka Emika Panda robot
    with retrieval of feasible parameters using penalty-based optimization*, RA-L 2019).
    Hand: the maker's end-effector data (0.73 kg) and two fingers of 15 g.
    Reflected inertia of motors and gears: the maker's numbers for the FR3, which has the same drives.
"""

from __future__ import annotations

from functools import partial

import mujoco
import numpy as np

from hardware.robots import mjcf
from hardware.robots.mjcf import DARK, METAL, box, capsule, cylinder, ellipsoid
from hardware.robots.panda import FLANGE_M, HAND_YAW_RAD
from hardware.robots.robot import Robot

# mass [kg]; centre of mass [m] and full inertia about it (xx, yy, zz, xy, xz, yz) [kg m2] in the link's frame
_INERTIALS = (
    (0.629769, (-0.041018, -0.00014, 0.049974), (3.15e-3, 3.88e-3, 4.285e-3, 8.2904e-7, 1.5e-4, 8.2299e-6)),
    (4.970684, (0.003875, 0.002081, -0.04762), (0.70337, 0.70661, 0.009117, -1.39e-4, 6.772e-3, 0.019169)),
    (0.646926, (-0.003141, -0.02872, 0.003495), (7.962e-3, 0.02811, 0.025995, -3.925e-3, 0.010254, 7.04e-4)),
    (3.228604, (0.027518, 0.039252, -0.066502), (0.037242, 0.036155, 0.01083, -4.761e-3, -0.011396, -0.012805)),
    (3.587895, (-0.05317, 0.104419, 0.027454), (0.025853, 0.019552, 0.028323, 7.796e-3, -1.332e-3, 8.641e-3)),
    (1.225946, (-0.011953, 0.041065, -0.038437), (0.035549, 0.029474, 8.627e-3, -2.117e-3, -4.037e-3, 2.29e-4)),
    (1.666555, (0.060149, -0.014117, -0.010517), (1.964e-3, 4.354e-3, 5.433e-3, 1.09e-4, -1.158e-3, 3.41e-4)),
    (0.735522, (0.010517, -0.004252, 0.061597), (0.012516, 0.010027, 4.815e-3, -4.28e-4, -1.196e-3, -7.41e-4)),
)
_FINGER_KG = 0.015
_HAND_KG, _HAND_COM, _HAND_INERTIA = 0.76, (-0.0096, 0.0, 0.0314), (0.0011, 0.0026, 0.0017, 0.0, 0.0, 0.0)

_HAND = 8
# Sizes measured off the outside of the arm [m], in the frames of the links. Every joint: a straight
# half of a housing on either side, a dark seam between them, and a bend to the next one.
_LOOKS = (
    box(0, (-0.042, 0.0, 0.008), (0.112, 0.094, 0.008), METAL),
    ellipsoid(0, (-0.032, 0.0, 0.012), (0.100, 0.078, 0.105)),
    cylinder(0, (0.0, 0.0, 0.01), (0.0, 0.0, 0.137), 0.057),
    box(0, (-0.1, 0.0, 0.035), (0.034, 0.05, 0.022), DARK),
    cylinder(1, (0.0, 0.0, -0.196), (0.0, 0.0, -0.189), 0.056, DARK),
    cylinder(1, (0.0, 0.0, -0.19), (0.0, 0.0, -0.09), 0.055),
    capsule(1, (0.0, 0.0, -0.1), (0.0, -0.06, -0.02), 0.0545),
    capsule(1, (0.0, -0.012, 0.0), (0.0, -0.074, 0.0), 0.055),
    cylinder(1, (0.0, -0.004, 0.0), (0.0, 0.003, 0.0), 0.056, DARK),
    capsule(2, (0.0, 0.0, 0.012), (0.0, 0.0, 0.074), 0.055),
    capsule(2, (0.0, -0.1, 0.0), (0.0, -0.02, 0.06), 0.0545),
    cylinder(2, (0.0, -0.191, 0.0), (0.0, -0.09, 0.0), 0.055),
    cylinder(2, (0.0, -0.197, 0.0), (0.0, -0.19, 0.0), 0.056, DARK),
    cylinder(3, (0.0, 0.0, -0.119), (0.0, 0.0, -0.07), 0.055),
    capsule(3, (0.0, 0.0, -0.075), (0.075, 0.05, -0.004), 0.051),
    capsule(3, (0.0825, 0.012, 0.0), (0.0825, 0.057, 0.0), 0.0545),
    cylinder(4, (0.0, 0.0, -0.0035), (0.0, 0.0, 0.0035), 0.0558, DARK),
    capsule(4, (0.0, 0.0, 0.012), (0.0, 0.0, 0.057), 0.0545),
    capsule(4, (-0.005, 0.005, 0.05), (-0.0825, 0.08, 0.0), 0.051),
    cylinder(4, (-0.0825, 0.07, 0.0), (-0.0825, 0.121, 0.0), 0.0545),
    cylinder(4, (-0.0825, 0.12, 0.0), (-0.0825, 0.127, 0.0), 0.0558, DARK),
    cylinder(5, (0.0, 0.0, -0.256), (0.0, 0.0, -0.2), 0.0545),
    capsule(5, (0.0, 0.0, -0.2), (0.0, 0.048, -0.17), 0.047),
    capsule(5, (0.0, 0.06, -0.165), (0.0, 0.084, -0.05), 0.031),
    capsule(5, (0.0, 0.033, 0.0), (0.0, 0.082, 0.0), 0.049),
    cylinder(6, (0.0, 0.0, -0.02), (0.0, 0.0, -0.013), 0.0502, DARK),
    capsule(6, (0.0, 0.0, -0.005), (0.0, 0.0, 0.009), 0.0475),
    capsule(6, (0.02, 0.0, 0.01), (0.088, 0.0, 0.0), 0.041),
    capsule(6, (0.088, -0.035, 0.0), (0.088, 0.037, 0.0), 0.0455),
    cylinder(7, (0.0, 0.0, 0.051), (0.0, 0.0, 0.058), 0.0465, DARK),
    cylinder(7, (0.0, 0.0, 0.057), (0.0, 0.0, 0.101), 0.044),
    capsule(7, (0.02, 0.02, 0.086), (0.058, 0.058, 0.086), 0.018),
    capsule(_HAND, (0.0, -0.078, 0.022), (0.0, 0.078, 0.022), 0.0215),
    box(_HAND, (0.0, 0.0, 0.041), (0.021, 0.1, 0.02)),
    box(_HAND, (0.0, 0.0, 0.0625), (0.016, 0.096, 0.0035), DARK),
)
_CLOSED_FINGERS = tuple(
    look
    for side in (1.0, -1.0)
    for look in (
        box(_HAND, (0.0, side * 0.0175, 0.075), (0.0105, 0.0075, 0.014), METAL),
        box(_HAND, (0.0, side * 0.0076, 0.1), (0.009, 0.0072, 0.0125), DARK),
    )
)
_FINGER = mjcf.Finger(
    start_m=0.0584,
    pad=dict(pos=(0.0, 0.0065, 0.0438), size=(0.0105, 0.0065, 0.0100)),  # rubber, 21 mm wide and 20 mm high
    stem=dict(pos=(0.0, 0.0135, 0.0165), size=(0.0105, 0.0075, 0.0165)),
    inertial=(_FINGER_KG, (0.0, 0.0145, 0.0227), (2.4e-6, 2.4e-6, 7.5e-7)),
)


def build(robot: Robot) -> mujoco.MjSpec:
    """The Panda as an editable MuJoCo specification, see `hardware.robots.mjcf.build`.

    Args:
        robot: The Panda of `hardware.robots.panda.make` or `make_hand`; anything in it may have been changed.
    """
    # Fingers that move are bodies of their own.
    hand_kg = _HAND_KG if robot.gripper is None else _HAND_KG - len(robot.gripper.jaws) * _FINGER_KG
    body = mjcf.Body(
        inertials=(*_INERTIALS, (hand_kg, _HAND_COM, _HAND_INERTIA)),
        armature_kg_m2=(0.6057, 0.6057, 0.4625, 0.4625, 0.2055, 0.2055, 0.2055),
        damping_n_m_s_rad=1.0,
        hand_pos=(0.0, 0.0, FLANGE_M),
        hand_quat=(np.cos(HAND_YAW_RAD / 2), 0.0, 0.0, np.sin(HAND_YAW_RAD / 2)),
        mounted=("base", "shoulder"),
        looks=_LOOKS if robot.gripper is not None else (*_LOOKS, *_CLOSED_FINGERS),
        jaws=partial(mjcf.add_fingers, finger=_FINGER),
    )
    return mjcf.build(robot, body)
