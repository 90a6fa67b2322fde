"""MuJoCo model of the Panda, built from primitives and from the numbers in `panda.py`.

Kinematics, limits, servo gains and collision capsules come from the `Robot`, so planner
and physics cannot disagree; only what physics alone needs stands here: masses and looks.

Sources of the numbers:
    Masses, centres of mass and inertias of the links: the maker's `franka_description`
    (identified by C. Gaz et al., *Dynamic identification of the Franka Emika Panda robot
    with retrieval of feasible parameters using penalty-based optimization*, RA-L 2019).
    Hand: the maker's end-effector data (0.73 kg) and two fingers of 15 g.
    Reflected inertia of motors and gears: the maker's numbers for the FR3, which has the same drives.
"""

from __future__ import annotations

from typing import Any

import mujoco
import numpy as np

from hardware.robots.panda import FLANGE_M, HAND_YAW_RAD
from hardware.robots.robot import Robot

TIMESTEP_S = 0.002

VISUAL_GROUP, COLLISION_GROUP = 2, 3
"""Geom groups: what people and cameras see, and the capsules the planner reasons with (hidden by default)."""

SCENE_BIT, ARM_BIT, FLOOR_BIT = 1, 2, 4
"""Collision bits. The scene keeps MuJoCo's default 1, so that a task's geoms meet the arm unasked;
capsules of the arm meet the scene, those that can get near the floor meet the floor, and
each other only where `Robot.self_pairs` lists them (as explicit pairs)."""

MOUNTED = ("base", "shoulder")
"""Capsules that stand on the floor by design."""

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
_HAND_INERTIAL = (0.76, (-0.0096, 0.0, 0.0314), (0.0011, 0.0026, 0.0017, 0.0, 0.0, 0.0))
_ARMATURE_KG_M2 = (0.6057, 0.6057, 0.4625, 0.4625, 0.2055, 0.2055, 0.2055)
_DAMPING_N_M_S_RAD = 1.0


def build(robot: Robot) -> mujoco.MjSpec:
    """The arm as an editable MuJoCo specification, its base at the origin of the world.

    Args:
        robot: The Panda of `hardware.robots.panda.make`; anything in it may have been changed.

    Returns:
        Spec with bodies ``link0`` .. ``link7``, ``hand`` and ``payload`` (massless, at the tool);
        site ``tcp``; joints named as in ``robot.joints``; 2 J actuators, first ``<joint>_pos``
        (control: reference angle [rad]) for all joints, then ``<joint>_vel`` (reference velocity [rad/s]), so
        ``data.ctrl[:J], data.ctrl[J:] = q_ref, v_ref`` gives the torque of `hardware.robots.robot.Servo`;
        capsules as geoms named as in ``robot.capsules``. No floor, light or camera.
    """
    spec = mujoco.MjSpec()
    spec.modelname = robot.name
    spec.option.timestep = TIMESTEP_S
    spec.option.integrator = mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    spec.compiler.degree = False
    links = _skeleton(spec, robot)
    _capsules(spec, robot, links)
    _servos(spec, robot)
    _looks(spec, links)
    return spec


def _skeleton(spec: mujoco.MjSpec, robot: Robot) -> list[Any]:
    """Bodies, joints, masses and the tool's site; returns link0 .. link7 and the hand."""
    links = [spec.worldbody.add_body(name="link0")]
    for j, frame in enumerate(robot.joint_frames):
        body = links[-1].add_body(name=f"link{j + 1}", pos=frame[:3, 3], quat=_quat(frame[:3, :3]), gravcomp=1)
        body.add_joint(
            name=robot.joints[j],
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 0, 1],
            limited=True,
            range=[robot.limits.lower_rad[j], robot.limits.upper_rad[j]],
            armature=_ARMATURE_KG_M2[j],
            damping=_DAMPING_N_M_S_RAD,
            # The drive carries the arm's weight too: gravity compensation counts towards its limit.
            actgravcomp=True,
            actfrclimited=True,
            actfrcrange=[-robot.limits.torque_n_m[j], robot.limits.torque_n_m[j]],
        )
        links.append(body)
    yaw = [np.cos(HAND_YAW_RAD / 2), 0.0, 0.0, np.sin(HAND_YAW_RAD / 2)]
    hand = links[-1].add_body(name="hand", pos=[0, 0, FLANGE_M], quat=yaw, gravcomp=1)
    for body, (mass, com, inertia) in zip([*links, hand], [*_INERTIALS, _HAND_INERTIAL], strict=True):
        body.mass, body.ipos, body.fullinertia, body.explicitinertial = mass, com, inertia, True
    tool = dict(pos=robot.tool[:3, 3], quat=_quat(robot.tool[:3, :3]))
    links[-1].add_site(name="tcp", size=[0.005] * 3, group=4, **tool)
    links[-1].add_body(name="payload", **tool)
    return [*links, hand]


def _capsules(spec: mujoco.MjSpec, robot: Robot, links: list[Any]) -> None:
    """The collision model: exactly the capsules the planner reasons with."""
    for capsule in robot.capsules:
        near_floor = capsule.name not in MOUNTED
        links[capsule.link].add_geom(
            name=capsule.name,
            type=mujoco.mjtGeom.mjGEOM_CAPSULE,
            fromto=[*capsule.start, *capsule.end],
            size=[capsule.radius_m, 0, 0],
            group=COLLISION_GROUP,
            contype=ARM_BIT,
            conaffinity=SCENE_BIT | (FLOOR_BIT if near_floor else 0),
            mass=0,
            rgba=[0.2, 0.6, 0.9, 0.4],
        )
    for a, b in robot.self_pairs:
        name_a, name_b = robot.capsules[a].name, robot.capsules[b].name
        spec.add_pair(name=f"{name_a}-{name_b}", geomname1=name_a, geomname2=name_b)


def _servos(spec: mujoco.MjSpec, robot: Robot) -> None:
    target = mujoco.mjtTrn.mjTRN_JOINT
    for name, kp in zip(robot.joints, robot.servo.kp_n_m_rad, strict=True):
        spec.add_actuator(name=f"{name}_pos", target=name, trntype=target).set_to_position(kp=kp)
    for name, kd in zip(robot.joints, robot.servo.kd_n_m_s_rad, strict=True):
        spec.add_actuator(name=f"{name}_vel", target=name, trntype=target).set_to_velocity(kv=kd)


def _quat(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) → quaternion wxyz (4,)."""
    quat = np.empty(4)
    mujoco.mju_mat2Quat(quat, np.ascontiguousarray(rotation).ravel())
    return quat


def _looks(spec: mujoco.MjSpec, links: list[Any]) -> None:
    """Shells, rings, hand and fingers: seen, but neither heavy nor solid."""
    white, grey, black = (
        spec.add_material(name=name, rgba=[*rgb, 1.0], specular=specular, shininess=0.6, reflectance=0.0)
        for name, rgb, specular in (
            ("shell", (0.93, 0.94, 0.95), 0.5),
            ("metal", (0.62, 0.64, 0.67), 0.5),
            ("dark", (0.11, 0.12, 0.13), 0.3),
        )
    )
    names = {"w": white.name, "g": grey.name, "k": black.name}
    shapes = {
        "capsule": mujoco.mjtGeom.mjGEOM_CAPSULE,
        "cylinder": mujoco.mjtGeom.mjGEOM_CYLINDER,
        "box": mujoco.mjtGeom.mjGEOM_BOX,
    }
    for link, shape, colour, a, b, size in _LOOKS:
        geom = dict(type=shapes[shape], material=names[colour], group=VISUAL_GROUP, contype=0, conaffinity=0, mass=0)
        if shape == "box":
            geom |= dict(pos=a, size=b)
        else:
            geom |= dict(fromto=[*a, *b], size=[size, 0, 0])
        links[link].add_geom(**geom)


# link (8 is the hand), shape, colour, segment from - to in the link's frame and radius [m]; boxes: centre, half sizes
_LOOKS: tuple[tuple[int, str, str, tuple, tuple, float | None], ...] = (
    (0, "cylinder", "w", (0.0, 0.0, 0.0), (0.0, 0.0, 0.14), 0.075),
    (0, "box", "w", (-0.075, 0.0, 0.045), (0.06, 0.07, 0.045), None),
    (1, "capsule", "w", (0.0, 0.0, -0.19), (0.0, 0.0, -0.02), 0.055),
    (2, "capsule", "w", (0.0, 0.0, -0.06), (0.0, 0.0, 0.06), 0.055),
    (2, "capsule", "w", (0.0, 0.0, 0.0), (0.0, -0.17, 0.0), 0.055),
    (3, "capsule", "w", (0.0, 0.0, -0.13), (0.0, 0.0, -0.05), 0.055),
    (3, "capsule", "w", (0.0, 0.0, -0.05), (0.0825, 0.0, 0.0), 0.05),
    (4, "capsule", "w", (0.0, 0.0, -0.055), (0.0, 0.0, 0.055), 0.055),
    (4, "capsule", "w", (0.0, 0.0, 0.0), (-0.0825, 0.09, 0.0), 0.05),
    (5, "capsule", "w", (0.0, 0.0, -0.27), (0.0, 0.0, -0.19), 0.055),
    (5, "capsule", "w", (0.0, 0.08, -0.18), (0.0, 0.08, -0.04), 0.03),
    (6, "capsule", "w", (0.0, 0.0, -0.05), (0.0, 0.0, 0.01), 0.05),
    (7, "cylinder", "g", (0.0, 0.0, 0.05), (0.0, 0.0, 0.107), 0.04),
    (8, "box", "w", (0.0, 0.0, 0.033), (0.02, 0.1, 0.033), None),
    (8, "box", "k", (0.0, 0.012, 0.085), (0.01, 0.011, 0.027), None),
    (8, "box", "k", (0.0, -0.012, 0.085), (0.01, 0.011, 0.027), None),
)
