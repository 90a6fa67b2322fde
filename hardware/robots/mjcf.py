"""MuJoCo models of arms from primitives: what they have in common.

Kinematics, limits, servo gains and collision capsules come from the `Robot`, so planner and physics cannot disagree;
only what physics alone needs stands in `Body`: masses, looks, jaws.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import mujoco
import numpy as np

from hardware.robots.robot import ARM_BIT, FLOOR_BIT, SCENE_BIT, Gripper, Robot

TIMESTEP_S = 0.002

VISUAL_GROUP, COLLISION_GROUP = 2, 3
"""Geom groups: what people and cameras see, and the capsules the planner reasons with (hidden by default)."""

Inertial = tuple[float, Sequence[float], Sequence[float]]
"""Mass [kg]; centre of mass [m] and full inertia about it (xx, yy, zz, xy, xz, yz) [kg m2] in the body's frame."""
Form = dict[str, Any]
"""What a geom is given besides its type: its pose and size, or ``fromto``."""
Look = tuple[int, mujoco.mjtGeom, str, Form]
"""A shape that is only seen: index of its link (J + 1: the hand), type, colour, form."""

SHELL, METAL, DARK = "shell", "metal", "dark"
COLOURS = (
    (SHELL, (0.90, 0.91, 0.92), 0.4),
    (METAL, (0.55, 0.57, 0.60), 0.5),
    (DARK, (0.10, 0.11, 0.12), 0.3),
)


@dataclass(frozen=True, kw_only=True)
class Body:
    """What an arm is made of.

    Attributes:
        inertials: Of ``link0`` .. ``linkJ`` and the hand; None: it is part of the body it hangs on.
        armature_kg_m2: Reflected inertia of motors and gears, (J,).
        damping_n_m_s_rad: Of every joint.
        hand_pos, hand_quat: Frame of the hand in that of the last link; quaternion wxyz.
        mounted: Capsules that stand on the floor by design.
        looks: What is seen.
        colours: Their names, rgb, specular.
        jaws: Adds jaws, their joints and the actuator ``gripper`` to a spec and its hand; needed with a gripper.
    """

    inertials: Sequence[Inertial | None]
    armature_kg_m2: Sequence[float]
    damping_n_m_s_rad: float
    hand_pos: Sequence[float]
    hand_quat: Sequence[float]
    mounted: Sequence[str]
    looks: Sequence[Look]
    colours: Sequence[tuple[str, tuple[float, float, float], float]] = COLOURS
    jaws: Callable[[mujoco.MjSpec, Gripper, Any], None] | None = None


def build(robot: Robot, body: Body) -> mujoco.MjSpec:
    """An arm as an editable MuJoCo specification, its base at the origin of the world.

    Args:
        robot: The arm; anything in it may have been changed.
        body: What it is made of.

    Returns:
        Spec with bodies ``link0`` .. ``linkJ``, ``hand`` and ``payload`` (massless, at the tool);
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
    links = _skeleton(spec, robot, body)
    _capsules(spec, robot, links, body.mounted)
    add_servos(spec, robot)
    for name, rgb, specular in body.colours:
        spec.add_material(name=name, rgba=[*rgb, 1.0], specular=specular, shininess=0.6, reflectance=0.0)
    for link, shape, colour, form in body.looks:
        look(links[link], shape, colour, form)
    if robot.gripper is not None:
        assert body.jaws is not None
        body.jaws(spec, robot.gripper, links[-1])
    return spec


def _skeleton(spec: mujoco.MjSpec, robot: Robot, of: Body) -> list[Any]:
    """Bodies, joints, masses and the tool's site; returns link0 .. linkJ and the hand."""
    links = [spec.worldbody.add_body(name="link0")]
    for j, frame in enumerate(robot.joint_frames):
        body = links[-1].add_body(name=f"link{j + 1}", pos=frame[:3, 3], quat=quat(frame[:3, :3]), gravcomp=1)
        body.add_joint(
            name=robot.joints[j],
            type=mujoco.mjtJoint.mjJNT_HINGE,
            axis=[0, 0, 1],
            armature=of.armature_kg_m2[j],
            damping=of.damping_n_m_s_rad,
            **joint_limits(robot, j),
        )
        links.append(body)
    hand = links[-1].add_body(name="hand", pos=of.hand_pos, quat=of.hand_quat, gravcomp=1)
    for body, inertial in zip([*links, hand], of.inertials, strict=True):
        if inertial is not None:
            set_inertial(body, inertial)
    add_tool(links[-1], robot.tool)
    return [*links, hand]


def hand_in_tool(robot: Robot) -> np.ndarray:
    """Pose (4, 4) of the body ``hand``, on which cameras are mounted, in the frame of the tool."""
    model = robot.mjcf().compile()
    data = mujoco.MjData(model)
    mujoco.mj_kinematics(model, data)
    hand, tool, pose = data.body("hand"), data.site("tcp"), np.eye(4)
    turn = tool.xmat.reshape(3, 3).T
    pose[:3, :3], pose[:3, 3] = turn @ hand.xmat.reshape(3, 3), turn @ (hand.xpos - tool.xpos)
    return pose


def joint_limits(robot: Robot, j: int) -> dict[str, Any]:
    """Limits of a joint in position and torque, for MuJoCo."""
    limits = robot.limits
    return dict(
        limited=True,
        range=[limits.lower_rad[j], limits.upper_rad[j]],
        # The drive carries the arm's weight too: gravity compensation counts towards its limit.
        actgravcomp=True,
        actfrclimited=True,
        actfrcrange=[-limits.torque_n_m[j], limits.torque_n_m[j]],
    )


def set_inertial(body: Any, inertial: Inertial) -> None:
    """Give a body its mass."""
    body.mass, body.ipos, body.fullinertia = inertial
    body.explicitinertial = True


def add_tool(link: Any, tool: np.ndarray) -> None:
    """The site ``tcp`` and the body ``payload`` at a pose (4, 4) of the last link."""
    pose = dict(pos=tool[:3, 3], quat=quat(tool[:3, :3]))
    link.add_site(name="tcp", size=[0.005] * 3, group=4, **pose)
    link.add_body(name="payload", **pose)


def _capsules(spec: mujoco.MjSpec, robot: Robot, links: list[Any], mounted: Sequence[str]) -> None:
    """The collision model: exactly the capsules the planner reasons with."""
    for capsule in robot.capsules:
        near_floor = capsule.name not in mounted
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


def add_servos(spec: mujoco.MjSpec, robot: Robot) -> None:
    """Actuators ``<joint>_pos`` of all joints, then ``<joint>_vel``."""
    target = mujoco.mjtTrn.mjTRN_JOINT
    for name, kp in zip(robot.joints, robot.servo.kp_n_m_rad, strict=True):
        spec.add_actuator(name=f"{name}_pos", target=name, trntype=target).set_to_position(kp=kp)
    for name, kd in zip(robot.joints, robot.servo.kd_n_m_s_rad, strict=True):
        spec.add_actuator(name=f"{name}_vel", target=name, trntype=target).set_to_velocity(kv=kd)


# ---- looks -------------------------------------------------------------------------


def look(body: Any, shape: mujoco.mjtGeom, colour: str, form: Form) -> None:
    """Add a shape that is seen, but neither heavy nor solid."""
    body.add_geom(type=shape, material=colour, group=VISUAL_GROUP, contype=0, conaffinity=0, mass=0, **form)


def capsule(link: int, start: tuple, end: tuple, radius_m: float, colour: str = SHELL) -> Look:
    """A tube with round ends."""
    return link, mujoco.mjtGeom.mjGEOM_CAPSULE, colour, dict(fromto=[*start, *end], size=[radius_m, 0, 0])


def cylinder(link: int, start: tuple, end: tuple, radius_m: float, colour: str = SHELL) -> Look:
    """A tube with flat ends."""
    return link, mujoco.mjtGeom.mjGEOM_CYLINDER, colour, dict(fromto=[*start, *end], size=[radius_m, 0, 0])


def box(link: int, centre: tuple, half: tuple, colour: str = SHELL, turned: tuple = (1.0, 0.0, 0.0, 0.0)) -> Look:
    """A box by its half sizes; `turned`: quaternion wxyz."""
    return link, mujoco.mjtGeom.mjGEOM_BOX, colour, dict(pos=centre, size=half, quat=turned)


def ellipsoid(link: int, centre: tuple, half: tuple, colour: str = SHELL) -> Look:
    """An ellipsoid by its half axes."""
    return link, mujoco.mjtGeom.mjGEOM_ELLIPSOID, colour, dict(pos=centre, size=half)


# ---- jaws --------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Finger:
    """One of two fingers that slide towards each other.

    Attributes:
        start_m: Where they begin, in the frame of the hand, along z.
        pad, stem: Boxes in the frame of a finger, which its inner face touches with y = 0: where the width counts from.
        inertial: Mass, centre of mass, diagonal inertia.
        armature_kg, damping_n_s_m: Of its slide.
        kp_n_m, kd_n_s_m: Gains on the width between the two.
        colours: Of pad and stem.
    """

    start_m: float
    pad: Form
    stem: Form
    inertial: Inertial
    armature_kg: float = 0.05
    damping_n_s_m: float = 10.0
    kp_n_m: float = 4000.0
    kd_n_s_m: float = 60.0
    colours: tuple[str, str] = (DARK, METAL)


def add_fingers(spec: mujoco.MjSpec, gripper: Gripper, hand: Any, finger: Finger) -> None:
    """Two fingers on slides that a tendon keeps alike, driven by their distance; their pads grip by friction."""
    for name, joint, turn in zip(gripper.jaws, gripper.joints, ((1, 0, 0, 0), (0, 0, 0, 1)), strict=True):
        body = hand.add_body(name=name, pos=[0, 0, finger.start_m], quat=turn, gravcomp=1)
        body.add_joint(
            name=joint,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, 1, 0],
            limited=True,
            range=[0, gripper.open_m / 2],
            armature=finger.armature_kg,
            damping=finger.damping_n_s_m,
        )
        body.mass, body.ipos, body.inertia = finger.inertial
        body.explicitinertial = True
        shapes = (("stem", finger.stem, finger.colours[1]), ("pad", finger.pad, finger.colours[0]))
        for part, form, _ in shapes:
            add_rubber(body, f"{name}_{part}", mujoco.mjtGeom.mjGEOM_BOX, form)
        for _, form, colour in shapes:
            look(body, mujoco.mjtGeom.mjGEOM_BOX, colour, form)
    add_grip(spec, gripper, finger.kp_n_m, finger.kd_n_s_m)


def add_rubber(jaw: Any, name: str, shape: mujoco.mjtGeom, form: Form) -> None:
    """A solid part of a jaw: rubber on whatever it is; things sink less than a millimetre into it."""
    jaw.add_geom(
        name=name,
        type=shape,
        group=COLLISION_GROUP,
        contype=ARM_BIT,
        conaffinity=SCENE_BIT | FLOOR_BIT,
        mass=0,
        rgba=[0.2, 0.6, 0.9, 0.4],
        **rubber(),
        **form,
    )


def rubber() -> dict[str, Any]:
    """How jaws grip, as settings of a geom."""
    return dict(
        condim=4,
        friction=[1.5, 0.02, 1e-4],
        priority=1,
        solref=[0.004, 1.0],
        solimp=[0.95, 0.99, 0.001, 0.5, 2.0],
    )


def add_grip(spec: mujoco.MjSpec, gripper: Gripper, kp_n_m: float, kd_n_s_m: float) -> None:
    """The actuator ``gripper``, whose control is the width [m] and whose force acts along it; two jaws move alike."""
    tendon = spec.add_tendon(name="gripper_width")
    for joint, weight in zip(gripper.joints, gripper.width_per_joint_m, strict=True):
        tendon.wrap_joint(joint, weight)
    for joint, weight in zip(gripper.joints[1:], gripper.width_per_joint_m[1:], strict=True):
        alike = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=gripper.joints[0], name2=joint)
        alike.data[:2] = [0.0, weight / gripper.width_per_joint_m[0]]
    actuator = spec.add_actuator(name="gripper", target="gripper_width", trntype=mujoco.mjtTrn.mjTRN_TENDON)
    actuator.set_to_position(kp=kp_n_m, kv=kd_n_s_m)
    actuator.biasprm[0] = 0.0 - kp_n_m * gripper.offset_m  # the tendon's length is the width without the offset
    actuator.forcerange, actuator.forcelimited = [-gripper.force_n, gripper.force_n], True
    actuator.ctrlrange, actuator.ctrllimited = [0.0, gripper.open_m], True


def quat(rotation: np.ndarray) -> np.ndarray:
    """Rotation matrix (3, 3) → quaternion wxyz (4,)."""
    found = np.empty(4)
    mujoco.mju_mat2Quat(found, np.ascontiguousarray(rotation).ravel())
    return found
