"""SO-101 of TheRobotStudio: 5 revolute joints, a gripper of one fixed and one moving jaw; servos Feetech STS3215.

Sources: frames and ranges of the joints, so also what their angles mean, from the maker's published description
(`SO-ARM100/Simulation/SO101`, "new calibration"); speed (45 rpm), stall torque at 12 V (30 kg cm) and largest
acceleration of the servo from its maker's data sheet. It knows no limit of jerk: ours is 500 times the acceleration
per second.

With five joints the tool can point down anywhere, turned about the vertical as one likes, but lean only within the
plane of the arm. The jaw turns about a pivot beside the tool: the width is the arc of its tip, `JAW_M` times the angle
from where it is closed. The gap between the jaws is that within 0.3 mm up to 45 mm, and 3 mm less at the widest.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from hardware.robots.robot import Capsule, Gripper, JointLimits, Robot, Servo, Workspace

if TYPE_CHECKING:
    import mujoco

JOINTS = ("shoulder_pan", "shoulder_lift", "elbow_flex", "wrist_flex", "wrist_roll")
_ROLL_RAD = 0.0486795
"""By so much the last joint's zero is turned against the wrist."""
_QUARTER = np.pi / 2
_FRAMES = (
    ((0.0388353, 0.0, 0.0624), (np.pi, 0.0, np.pi)),
    ((-0.0303992, -0.0182778, -0.0542), (-_QUARTER, -_QUARTER, 0.0)),
    ((-0.11257, -0.028, 0.0), (0.0, 0.0, _QUARTER)),
    ((-0.1349, 0.0052, 0.0), (0.0, 0.0, -_QUARTER)),
    ((0.0, -0.0611, 0.0181), (_QUARTER, _ROLL_RAD, np.pi)),
)
"""Of every joint in the link before: position [m]; roll, pitch, yaw [rad] about fixed axes."""
FIXED_M, TIP_M = -0.0079, -0.095
"""In the frame of the last link: where the fixed jaw's inner face is along x, and the height of the tool along z."""
ASIDE_M = 0.025
"""The tool centre point lies so far from the fixed jaw: things up to twice as thick go between the jaws unshifted."""
PIVOT_M = (0.0202, 0.0, -0.0234)
"""The moving jaw's joint in the frame of the last link; it turns about -y."""
CLOSED_RAD, WIDEST_RAD = -0.174533, 1.74533
JAW_M = 0.0728
"""Width per angle of the moving jaw."""
OPEN_M = 0.07
GRIP_N = 20.0
"""Half of what the servo's stall torque gives at the tip."""
SPEED_RAD_S, TORQUE_N_M, ACCELERATION_RAD_S2 = 45 * 2 * np.pi / 60, 2.94, 254 * 100 * 2 * np.pi / 4096


def _capsules() -> tuple[Capsule, ...]:
    return (
        Capsule("base", 0, (0.022, -0.026, 0.012), (0.022, 0.026, 0.012), 0.053),
        Capsule("base_motor", 0, (-0.012, 0.0, 0.040), (0.030, 0.0, 0.040), 0.043),
        Capsule("shoulder", 1, (-0.031, -0.012, -0.042), (-0.031, 0.012, -0.042), 0.030),
        Capsule("shoulder_front", 1, (-0.032, -0.012, -0.024), (-0.032, 0.012, -0.024), 0.027),
        Capsule("shoulder_leg", 1, (-0.033, 0.0, -0.010), (-0.033, 0.0, 0.028), 0.0285),
        Capsule("shoulder_top", 1, (-0.026, 0.0, 0.0), (0.0, 0.0, 0.0), 0.0265),
        Capsule("shoulder_foot", 1, (-0.032, 0.0, 0.030), (0.0, 0.0, 0.030), 0.031),
        Capsule("upper_arm_right", 2, (0.0, 0.0, 0.005), (-0.112, 0.0, 0.005), 0.024),
        Capsule("upper_arm_left", 2, (0.0, 0.0, 0.034), (-0.112, 0.0, 0.034), 0.024),
        Capsule("elbow", 2, (-0.112, -0.012, 0.019), (-0.112, 0.0, 0.019), 0.037),
        Capsule("forearm", 3, (0.0, 0.0, 0.019), (-0.126, 0.004, 0.019), 0.036),
        Capsule("wrist", 4, (0.0, 0.0, 0.021), (0.0, -0.044, 0.024), 0.037),
        Capsule("hand", 5, (-0.013, -0.002, -0.018), (0.006, -0.002, -0.018), 0.0375),
    )


_SHOULDER = ("shoulder", "shoulder_front", "shoulder_leg", "shoulder_top", "shoulder_foot")
# Pairs that a sweep over the whole joint range (tests/hardware) finds able to touch, neighbours left out.
_TOUCHING = (
    *((p, d) for p in (*_SHOULDER, "base", "base_motor") for d in ("forearm", "wrist", "hand")),
    *(("base_motor", d) for d in ("upper_arm_right", "upper_arm_left", "elbow")),
    *((p, d) for p in ("upper_arm_right", "upper_arm_left") for d in ("wrist", "hand")),
)


def _frame(pos: tuple[float, float, float], rpy: tuple[float, float, float]) -> np.ndarray:
    """Pose (4, 4) by position and roll, pitch, yaw about fixed axes, as URDF has it."""
    (cr, cp, cy), (sr, sp, sy) = np.cos(rpy), np.sin(rpy)
    rot = [
        [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr],
        [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr],
        [-sp, cp * sr, cp * cr],
    ]
    frame = np.eye(4)
    frame[:3, :3], frame[:3, 3] = rot, pos
    return frame


def make() -> Robot:
    """The SO-101 follower."""
    capsules = _capsules()
    index = {c.name: i for i, c in enumerate(capsules)}
    pan, lift, elbow = 0.11147, -0.35738, 0.43853  # the tool at x 0.19, y 0.0, z 0.07 m
    tool = np.zeros((4, 4))
    # The tool looks along -z of the last link; its jaws move along x of it.
    tool[:3, :3] = [[0, -1, 0], [-1, 0, 0], [0, 0, -1]]
    tool[:3, 3], tool[3, 3] = (FIXED_M + ASIDE_M, 0.0, TIP_M), 1.0
    return Robot(
        name="so101",
        joints=JOINTS,
        limits=JointLimits(
            lower_rad=np.array([-1.91986, -1.74533, -1.69, -1.65806, -2.74385]),
            upper_rad=np.array([1.91986, 1.74533, 1.69, 1.65806, 2.84121]),
            velocity_rad_s=np.full(5, SPEED_RAD_S),
            acceleration_rad_s2=np.full(5, ACCELERATION_RAD_S2),
            jerk_rad_s3=np.full(5, 500.0 * ACCELERATION_RAD_S2),
            torque_n_m=np.full(5, TORQUE_N_M),
        ),
        joint_frames=np.stack([_frame(*row) for row in _FRAMES]),
        tool=tool,
        capsules=capsules,
        self_pairs=tuple((index[a], index[b]) for a, b in _TOUCHING),
        floor_capsules=tuple(i for i, c in enumerate(capsules) if c.link >= 2),
        servo=Servo(
            kp_n_m_rad=np.full(5, 300.0),
            kd_n_m_s_rad=np.full(5, 12.0),
            tracking_error_rad=1e-3 * np.full(5, 12.0),
            velocity_error_rad_s=1e-3 * np.full(5, 300.0),
        ),
        # The tool points down, x forward.
        home_rad=np.array([pan, lift, elbow, _QUARTER - lift - elbow, _QUARTER + _ROLL_RAD + pan]),
        build=_build,
        gripper=Gripper(
            joints=("gripper",),
            width_per_joint_m=np.array([JAW_M]),
            offset_m=-JAW_M * CLOSED_RAD,
            open_m=OPEN_M,
            speed_m_s=0.15,
            force_n=GRIP_N,
            jaws=("fixed_jaw", "moving_jaw"),
            meet_m=ASIDE_M,
        ),
        # All of it is reached by a tool that points down, however it is turned, and so are straight ways through it.
        workspace=Workspace(centre_m=(0.207, 0.0), half_m=(0.045, 0.174), height_m=0.07, reach_m=0.213),
    )


def _build(robot: Robot) -> mujoco.MjSpec:
    from hardware.robots import so101_mjcf  # lazily: the control process starts without mujoco

    return so101_mjcf.build(robot)
