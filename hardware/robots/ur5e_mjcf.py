"""MuJoCo model of the UR5e with its gripper, built from primitives and from the numbers in `ur5e.py`.

Sources of the numbers:
    Masses, centres of mass and inertias of the links: the maker's `Universal_Robots_ROS2_Description`, whose inertias
    are those of cylinders. Base: 4 kg, which does not move.
    Gripper: the maker's 0.9 kg, of which two fingers of 60 g with their linkage.
    Reflected inertia of motors and gears: not published; ours.
"""

from __future__ import annotations

from functools import partial

import mujoco

from hardware.robots import mjcf
from hardware.robots.mjcf import DARK, METAL, box, capsule, cylinder
from hardware.robots.robot import Robot

BLUE = "blue"
_ROUND = (0.0, 0.0, 0.0)
"""Products of inertia of what is round."""
_FINGER_KG = 0.06
# Order of `mjcf.Inertial`; the maker's cylinders lie along the links.
_INERTIALS = (
    (4.0, (0.0, 0.0, 0.025), (4.4e-3, 4.4e-3, 7.2e-3, *_ROUND)),
    (3.761, (0.0, -0.00193, -0.02561), (0.0102675, 0.0102675, 0.00666, *_ROUND)),
    (8.058, (-0.2125, 0.0, 0.11336), (0.0151074, 0.1338858, 0.1338858, *_ROUND)),
    (2.846, (-0.2422, 0.0, 0.0265), (0.004095, 0.0312094, 0.0312094, *_ROUND)),
    (1.37, (0.0, -0.01634, -0.0018), (0.0025599, 0.0025599, 0.0021942, *_ROUND)),
    (1.3, (0.0, 0.01634, -0.0018), (0.0025599, 0.0025599, 0.0021942, *_ROUND)),
    (0.365, (0.0, 0.0, -0.001159), (9.890414e-5, 9.890414e-5, 1.321172e-4, *_ROUND)),
    (0.9 - 2 * _FINGER_KG, (0.0, 0.0, 0.045), (5.0e-4, 4.6e-4, 4.2e-4, *_ROUND)),
)


def _joint(link: int, start: tuple, end: tuple, cap: tuple, radius_m: float) -> tuple:
    """A joint's housing between two points, with the maker's blue lid on a side, up to a third."""
    seam = tuple(e + 0.15 * (c - e) for e, c in zip(end, cap, strict=True))
    return (
        cylinder(link, start, end, radius_m),
        cylinder(link, end, seam, radius_m * 1.005, DARK),
        cylinder(link, seam, cap, radius_m * 0.99, BLUE),
    )


_HAND = 7
_LOOKS = (
    cylinder(0, (0.0, 0.0, 0.0), (0.0, 0.0, 0.012), 0.0745, METAL),
    cylinder(0, (0.0, 0.0, 0.012), (0.0, 0.0, 0.086), 0.063),
    cylinder(0, (0.0, 0.0, 0.086), (0.0, 0.0, 0.092), 0.064, DARK),
    cylinder(1, (0.0, 0.0, -0.070), (0.0, 0.0, -0.005), 0.060),
    capsule(1, (0.0, 0.0, -0.005), (0.0, 0.0, 0.0), 0.060),
    *_joint(1, (0.0, 0.0, 0.0), (0.0, -0.070, 0.0), (0.0, -0.076, 0.0), 0.060),
    *_joint(1, (0.0, 0.0, 0.0), (0.0, 0.050, 0.0), (0.0, 0.066, 0.0), 0.058),
    *_joint(2, (0.0, 0.0, 0.077), (0.0, 0.0, 0.180), (0.0, 0.0, 0.200), 0.060),
    cylinder(2, (-0.045, 0.0, 0.138), (-0.380, 0.0, 0.138), 0.0475),
    cylinder(2, (-0.040, 0.0, 0.138), (-0.066, 0.0, 0.138), 0.056),
    cylinder(2, (-0.359, 0.0, 0.138), (-0.385, 0.0, 0.138), 0.056),
    *_joint(2, (-0.425, 0.0, 0.072), (-0.425, 0.0, 0.172), (-0.425, 0.0, 0.190), 0.0575),
    *_joint(3, (0.0, 0.0, 0.066), (0.0, 0.0, -0.032), (0.0, 0.0, -0.048), 0.0545),
    cylinder(3, (-0.040, 0.0, 0.007), (-0.352, 0.0, 0.007), 0.0385),
    cylinder(3, (-0.036, 0.0, 0.007), (-0.060, 0.0, 0.007), 0.046),
    cylinder(3, (-0.336, 0.0, 0.007), (-0.358, 0.0, 0.007), 0.044),
    *_joint(3, (-0.3922, 0.0, 0.045), (-0.3922, 0.0, -0.024), (-0.3922, 0.0, -0.037), 0.0445),
    cylinder(4, (0.0, 0.0, -0.088), (0.0, 0.0, -0.083), 0.0450, DARK),
    *_joint(4, (0.0, 0.0, -0.083), (0.0, 0.0, 0.034), (0.0, 0.0, 0.047), 0.0440),
    cylinder(4, (0.0, 0.0, 0.0), (0.0, -0.052, 0.0), 0.0440),
    cylinder(5, (0.0, 0.0, -0.048), (0.0, 0.0, -0.043), 0.0450, DARK),
    *_joint(5, (0.0, 0.0, -0.043), (0.0, 0.0, 0.034), (0.0, 0.0, 0.047), 0.0440),
    cylinder(5, (0.0, 0.0, 0.0), (0.0, 0.052, 0.0), 0.0440),
    cylinder(6, (0.0, 0.0, -0.048), (0.0, 0.0, -0.043), 0.0450, DARK),
    cylinder(6, (0.0, 0.0, -0.044), (0.0, 0.0, -0.006), 0.0440),
    cylinder(6, (0.0, 0.0, -0.006), (0.0, 0.0, 0.0), 0.0370, METAL),
    cylinder(_HAND, (0.0, 0.0, 0.0), (0.0, 0.0, 0.014), 0.0375, DARK),
    cylinder(_HAND, (0.0, 0.0, 0.013), (0.0, 0.0, 0.020), 0.0340, METAL),
    capsule(_HAND, (0.0, -0.008, 0.050), (0.0, 0.008, 0.050), 0.0330, DARK),
    box(_HAND, (0.0, 0.0, 0.055), (0.0260, 0.0370, 0.0350), DARK),
    box(_HAND, (0.0, 0.0, 0.090), (0.0140, 0.0270, 0.0060), METAL),
    cylinder(_HAND, (-0.0270, 0.0306, 0.066), (0.0270, 0.0306, 0.066), 0.0100, METAL),
    cylinder(_HAND, (-0.0270, -0.0306, 0.066), (0.0270, -0.0306, 0.066), 0.0100, METAL),
)
_FINGER = mjcf.Finger(
    start_m=0.095,
    pad=dict(pos=(0.0, 0.0040, 0.0520), size=(0.0110, 0.0040, 0.0160)),
    stem=dict(pos=(0.0, 0.0130, 0.0290), size=(0.0110, 0.0050, 0.0380)),
    inertial=(_FINGER_KG, (0.0, 0.0120, 0.0300), (3.6e-5, 3.4e-5, 5.0e-6)),
    armature_kg=0.2,
    kp_n_m=8000.0,
    kd_n_s_m=160.0,
)


def build(robot: Robot) -> mujoco.MjSpec:
    """The UR5e as an editable MuJoCo specification, see `hardware.robots.mjcf.build`.

    Args:
        robot: The UR5e of `hardware.robots.ur5e.make`; anything in it may have been changed.
    """
    body = mjcf.Body(
        inertials=_INERTIALS,
        armature_kg_m2=(1.0, 1.0, 1.0, 0.2, 0.2, 0.2),
        damping_n_m_s_rad=1.0,
        hand_pos=(0.0, 0.0, 0.0),
        hand_quat=(1.0, 0.0, 0.0, 0.0),
        mounted=("base", "shoulder"),
        looks=_LOOKS,
        colours=(*mjcf.COLOURS, (BLUE, (0.36, 0.60, 0.79), 0.4)),
        jaws=partial(mjcf.add_fingers, finger=_FINGER),
    )
    return mjcf.build(robot, body)
