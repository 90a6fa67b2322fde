"""Universal Robots UR5e: 6 revolute joints, with a two-finger parallel gripper after the Robotiq 2F-85.

Sources: kinematics from the maker's published DH parameters (as in its `Universal_Robots_ROS2_Description`, here in
Craig's convention, with that description's frames and its base, from which the arm at zero points forward); limits
from the maker's user manual of the UR5e and its article on the largest torques of joints. The maker publishes neither
acceleration nor jerk: those are ours, what the torques allow at full stretch, and 500 times that per second.
Gripper: the maker's data sheet (85 mm, 20 .. 235 N, 20 .. 150 mm/s, 0.9 kg, 163 mm from flange to finger tip).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.robots.robot import Capsule, Gripper, JointLimits, Robot, Servo, Workspace, craig_frame

if TYPE_CHECKING:
    import mujoco

_DH = (
    (0.0, 0.1625, 0.0),
    (0.0, 0.0, np.pi / 2),
    (-0.425, 0.0, 0.0),
    (-0.3922, 0.1333, 0.0),
    (0.0, 0.0997, np.pi / 2),
    (0.0, 0.0996, -np.pi / 2),
)
"""(a_{i-1} [m], d_i [m], alpha_{i-1} [rad])."""
TCP_M = 0.153
"""Tool centre point (between the pads of the fingers) in the frame of the last link, whose origin is the flange."""
GRIP_N = 100.0
"""Force that the gripper is set to, of the 20 .. 235 N that it can have."""

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow", "wrist_1", "wrist_2", "wrist_3")


def _capsules() -> tuple[Capsule, ...]:
    # Around the shapes of `ur5e_mjcf`: flat ends of housings lie within the round ends of capsules.
    return (
        Capsule("base", 0, (0.0, 0.0, 0.020), (0.0, 0.0, 0.050), 0.078),
        Capsule("shoulder", 1, (0.0, 0.0, -0.038), (0.0, 0.0, 0.0), 0.068),
        Capsule("shoulder_lift", 1, (0.0, -0.044, 0.0), (0.0, 0.034, 0.0), 0.068),
        Capsule("upper_arm_joint", 2, (0.0, 0.0, 0.109), (0.0, 0.0, 0.168), 0.068),
        Capsule("upper_arm", 2, (0.0, 0.0, 0.138), (-0.425, 0.0, 0.138), 0.058),
        Capsule("elbow", 2, (-0.425, 0.0, 0.1045), (-0.425, 0.0, 0.158), 0.066),
        Capsule("forearm_joint", 3, (0.0, 0.0, -0.016), (0.0, 0.0, 0.035), 0.063),
        Capsule("forearm", 3, (0.0, 0.0, 0.007), (-0.3922, 0.0, 0.007), 0.047),
        Capsule("forearm_end", 3, (-0.3922, 0.0, -0.010), (-0.3922, 0.0, 0.018), 0.052),
        Capsule("wrist_1", 4, (0.0, 0.0, -0.062), (0.0, 0.0, 0.021), 0.051),
        Capsule("wrist_1_side", 4, (0.0, 0.0, 0.0), (0.0, -0.026, 0.0), 0.051),
        Capsule("wrist_2", 5, (0.0, 0.0, -0.022), (0.0, 0.0, 0.021), 0.051),
        Capsule("wrist_2_side", 5, (0.0, 0.0, 0.0), (0.0, 0.026, 0.0), 0.051),
        Capsule("wrist_3", 6, (0.0, 0.0, -0.029), (0.0, 0.0, -0.019), 0.048),
        Capsule("hand", 6, (0.0, 0.0, 0.025), (0.0, 0.0, 0.069), 0.050),
        Capsule("knuckles", 6, (0.0, -0.030, 0.070), (0.0, 0.030, 0.070), 0.032),
    )


_TOOL = ("wrist_3", "hand", "knuckles")
_WRISTS = ("wrist_1", "wrist_1_side", "wrist_2", "wrist_2_side", *_TOOL)
# Pairs that a sweep over the whole joint range (tests/hardware) finds able to touch, neighbours left out. What is
# missing moves in planes that lie apart: the base beside the upper arm, the elbow beside the wrists.
_TOUCHING = (
    *((p, d) for p in ("base", "shoulder") for d in ("forearm", "forearm_end", "wrist_1", "wrist_2_side", *_TOOL)),
    *(("shoulder_lift", d) for d in ("forearm", "forearm_end", *_WRISTS)),
    *((p, d) for p in ("upper_arm", "upper_arm_joint") for d in _WRISTS),
    *(("forearm", d) for d in _TOOL),
    *(("forearm_end", d) for d in ("hand", "knuckles")),
)


def make() -> Robot:
    """The UR5e with its gripper."""
    capsules = _capsules()
    index = {c.name: i for i, c in enumerate(capsules)}
    frames = np.stack([craig_frame(*row) for row in _DH])
    frames[0] = np.diag([-1.0, -1.0, 1.0, 1.0]) @ frames[0]  # half a turn: at zero the arm points forward
    tool = np.eye(4)
    tool[2, 3] = TCP_M
    pan, lift, elbow = -0.30073, -1.71627, 1.66630  # the tool at x 0.45, y 0.0, z 0.35 m
    torque = np.array([150.0, 150.0, 150.0, 28.0, 28.0, 28.0])
    acceleration = np.array([10.0, 10.0, 10.0, 20.0, 20.0, 20.0])
    turn = np.array([2.0, 2.0, 1.0, 2.0, 2.0, 2.0]) * np.pi
    return Robot(
        name="ur5e",
        joints=JOINTS,
        limits=JointLimits(
            lower_rad=-turn,
            upper_rad=turn,
            velocity_rad_s=np.full(6, np.pi),
            acceleration_rad_s2=acceleration,
            jerk_rad_s3=500.0 * acceleration,
            torque_n_m=torque,
        ),
        joint_frames=frames,
        tool=tool,
        capsules=capsules,
        self_pairs=tuple((index[a], index[b]) for a, b in _TOUCHING),
        floor_capsules=tuple(i for i, c in enumerate(capsules) if c.link >= 2),
        servo=Servo(
            kp_n_m_rad=np.array([6000.0, 6000.0, 4500.0, 1500.0, 1500.0, 1500.0]),
            kd_n_m_s_rad=np.array([600.0, 600.0, 450.0, 150.0, 150.0, 150.0]),
            tracking_error_rad=1e-3 * np.array([9.0, 9.0, 9.0, 9.0, 9.0, 9.0]),
            velocity_error_rad_s=1e-3 * np.full(6, 160.0),
        ),
        # The tool points down, x forward, above the table in front.
        home_rad=np.array([pan, lift, elbow, -np.pi / 2 - lift - elbow, -np.pi / 2, pan - np.pi / 2]),
        build=_build,
        gripper=Gripper(
            joints=("finger_left", "finger_right"),
            width_per_joint_m=np.array([1.0, 1.0]),
            open_m=0.085,
            speed_m_s=0.15,
            force_n=GRIP_N,
            jaws=("left_finger", "right_finger"),
        ),
        workspace=Workspace(centre_m=(0.50, 0.0), half_m=(0.12, 0.20), height_m=0.45),
    )


def _build(robot: Robot) -> mujoco.MjSpec:
    from hardware.robots import ur5e_mjcf  # lazily: the control process starts without mujoco

    return ur5e_mjcf.build(robot)
