"""Franka Emika Panda: 7 revolute joints and a two-finger hand; fingers stay closed (`make`) or move (`make_hand`).

Sources: kinematics and limits from the maker's published Franka Control Interface
documentation ("Robot and interface specifications"; Craig's DH convention);
collision capsules fitted around the link shapes of the maker's `franka_description`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.robots.robot import Capsule, Gripper, JointLimits, Robot, Servo, Workspace, craig_frame

if TYPE_CHECKING:
    import mujoco

# Craig's DH parameters (a_{i-1} [m], d_i [m], alpha_{i-1} [rad]) of the maker.
_DH = (
    (0.0, 0.333, 0.0),
    (0.0, 0.0, -np.pi / 2),
    (0.0, 0.316, np.pi / 2),
    (0.0825, 0.0, np.pi / 2),
    (-0.0825, 0.384, -np.pi / 2),
    (0.0, 0.0, np.pi / 2),
    (0.088, 0.0, np.pi / 2),
)
FLANGE_M = 0.107
"""Flange in the frame of link 7, along z."""
HAND_YAW_RAD = -np.pi / 4
"""Hand against flange, about z."""
TCP_M = 0.1034
"""Tool centre point (between the finger tips) in the frame of the hand, along z."""

JOINTS = tuple(f"joint{i}" for i in range(1, 8))


def _hand(x: float, y: float, z: float) -> tuple[float, float, float]:
    """A point of the hand's frame in the frame of link 7."""
    c, s = np.cos(HAND_YAW_RAD), np.sin(HAND_YAW_RAD)
    return (c * x - s * y, s * x + c * y, z + FLANGE_M)


def _capsules() -> tuple[Capsule, ...]:
    # Fitted around the maker's published link shapes: least volume that holds all of them (see docs/safety.md).
    return (
        Capsule("base", 0, (-0.110, 0.0, 0.030), (0.005, 0.0, 0.030), 0.096),
        Capsule("shoulder", 1, (0.0, 0.0, -0.325), (0.0, -0.020, -0.127), 0.095),
        Capsule("shoulder_pitch", 2, (0.0, 0.0, -0.073), (0.0, 0.0, 0.073), 0.084),
        Capsule("upper_arm", 3, (0.0, 0.0, -0.230), (0.008, 0.017, -0.067), 0.073),
        Capsule("elbow", 4, (0.0, 0.0, -0.054), (-0.005, 0.0, 0.055), 0.070),
        Capsule("forearm", 5, (0.0, 0.0, -0.313), (0.0, 0.012, -0.197), 0.065),
        Capsule("forearm_side", 5, (0.0, 0.062, -0.177), (0.0, 0.095, -0.051), 0.042),
        Capsule("wrist", 6, (0.006, 0.004, -0.083), (0.013, 0.009, 0.020), 0.066),
        Capsule("flange", 7, (0.0, 0.0, -0.047), (-0.013, -0.013, 0.090), 0.055),
        Capsule("flange_side", 7, (0.019, 0.019, 0.085), (0.055, 0.055, 0.085), 0.048),
        Capsule("hand", 7, (-0.060, -0.060, 0.128), (0.057, 0.057, 0.128), 0.055),
        Capsule("fingers", 7, (0.0, 0.0, 0.170), (0.0, 0.0, 0.196), 0.031),
    )


_PROXIMAL = ("base", "shoulder", "shoulder_pitch")
_DISTAL = ("forearm", "forearm_side", "wrist", "flange", "flange_side", "hand", "fingers")
# Pairs that a sweep over the whole joint range (tests/hardware) finds able to touch;
# left out are neighbours, which overlap at their common joint, and pairs that wrap the same joint from
# either side (column and upper arm; forearm and flange): there the maker's joint limits keep the links apart.
_TOUCHING = (
    *((p, d) for p in _PROXIMAL for d in _DISTAL if (p, d) != ("shoulder_pitch", "forearm")),
    *(("upper_arm", d) for d in ("forearm_side", "flange", "flange_side", "hand", "fingers")),
    *(("forearm", d) for d in ("flange_side", "hand", "fingers")),
    *(("forearm_side", d) for d in ("flange_side", "hand")),
)


def make() -> Robot:
    """The Panda with its hand closed."""
    return _robot("panda", _capsules(), None)


def make_hand() -> Robot:
    """The Panda with its hand at work; the maker's numbers of the hand: 80 mm, 50 mm/s a finger, 70 N."""
    slim = Capsule("hand", 7, _hand(0.0, -0.068, 0.030), _hand(0.0, 0.068, 0.030), 0.036)
    kept = [c for c in _capsules() if c.name not in ("hand", "fingers")]
    gripper = Gripper(
        joints=("finger_left", "finger_right"),
        width_per_joint_m=np.array([1.0, 1.0]),
        open_m=0.08,
        speed_m_s=0.1,
        force_n=70.0,
        jaws=("left_finger", "right_finger"),
    )
    return _robot("panda_hand", (*kept, slim), gripper)


def _robot(name: str, capsules: tuple[Capsule, ...], gripper: Gripper | None) -> Robot:
    index = {c.name: i for i, c in enumerate(capsules)}
    tool = np.eye(4)
    tool[:2, :2] = [
        [np.cos(HAND_YAW_RAD), -np.sin(HAND_YAW_RAD)],
        [np.sin(HAND_YAW_RAD), np.cos(HAND_YAW_RAD)],
    ]
    tool[2, 3] = FLANGE_M + TCP_M
    return Robot(
        name=name,
        joints=JOINTS,
        limits=JointLimits(
            lower_rad=np.array([-2.8973, -1.7628, -2.8973, -3.0718, -2.8973, -0.0175, -2.8973]),
            upper_rad=np.array([2.8973, 1.7628, 2.8973, -0.0698, 2.8973, 3.7525, 2.8973]),
            velocity_rad_s=np.array([2.175, 2.175, 2.175, 2.175, 2.61, 2.61, 2.61]),
            acceleration_rad_s2=np.array([15.0, 7.5, 10.0, 12.5, 15.0, 20.0, 20.0]),
            jerk_rad_s3=np.array([7500.0, 3750.0, 5000.0, 6250.0, 7500.0, 10000.0, 10000.0]),
            torque_n_m=np.array([87.0, 87.0, 87.0, 87.0, 12.0, 12.0, 12.0]),
        ),
        joint_frames=np.stack([craig_frame(*row) for row in _DH]),
        tool=tool,
        capsules=capsules,
        self_pairs=tuple((index[a], index[b]) for a, b in _TOUCHING if a in index and b in index),
        floor_capsules=tuple(index[n] for n in _DISTAL if n in index),
        servo=Servo(
            kp_n_m_rad=np.array([4500.0, 4500.0, 3500.0, 3500.0, 2000.0, 2000.0, 2000.0]),
            kd_n_m_s_rad=np.array([450.0, 450.0, 350.0, 350.0, 200.0, 200.0, 200.0]),
            # Calibrated: `robo-bench tracking` measures these with a tenth of mismatch and checks the allowance.
            tracking_error_rad=1e-3 * np.array([8.0, 9.0, 8.0, 7.0, 3.5, 4.0, 3.0]),
            velocity_error_rad_s=1e-3 * np.array([120.0, 160.0, 120.0, 120.0, 50.0, 50.0, 40.0]),
        ),
        home_rad=np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4]),
        build=_build,
        gripper=gripper,
        workspace=Workspace(centre_m=(0.50, 0.0), half_m=(0.12, 0.20), height_m=0.45),
    )


def _build(robot: Robot) -> mujoco.MjSpec:
    from hardware.robots import panda_mjcf  # lazily: the control process starts without mujoco

    return panda_mjcf.build(robot)
