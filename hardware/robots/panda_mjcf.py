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

import importlib
from pathlib import Path
from typing import Any

import mujoco
import numpy as np

from hardware.robots.panda import FLANGE_M, HAND_YAW_RAD
from hardware.robots.robot import ARM_BIT, FLOOR_BIT, SCENE_BIT, Gripper, Robot
from robo.core.errors import MissingDependencyError, RobotError, UnknownNameError

TIMESTEP_S = 0.002

VISUAL_GROUP, COLLISION_GROUP = 2, 3
"""Geom groups: what people and cameras see, and the capsules the planner reasons with (hidden by default)."""

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
_FINGER_KG = 0.015
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
    if robot.gripper is None:
        for shape, colour, form in _CLOSED_FINGERS:
            _look(links[-1], shape, colour, form)
    else:
        _fingers(spec, robot.gripper, links[-1])
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
    if robot.gripper is not None:
        hand.mass -= len(robot.gripper.jaws) * _FINGER_KG  # they are bodies of their own then
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


_SHELL, _METAL, _DARK = "shell", "metal", "dark"


def _capsule(link: int, start: tuple, end: tuple, radius_m: float, colour: str = _SHELL) -> tuple:
    return link, mujoco.mjtGeom.mjGEOM_CAPSULE, colour, dict(fromto=[*start, *end], size=[radius_m, 0, 0])


def _cylinder(link: int, start: tuple, end: tuple, radius_m: float, colour: str = _SHELL) -> tuple:
    return link, mujoco.mjtGeom.mjGEOM_CYLINDER, colour, dict(fromto=[*start, *end], size=[radius_m, 0, 0])


def _box(link: int, centre: tuple, half: tuple, colour: str = _SHELL) -> tuple:
    return link, mujoco.mjtGeom.mjGEOM_BOX, colour, dict(pos=centre, size=half)


def _ellipsoid(link: int, centre: tuple, half: tuple, colour: str = _SHELL) -> tuple:
    return link, mujoco.mjtGeom.mjGEOM_ELLIPSOID, colour, dict(pos=centre, size=half)


_HAND = 8
# Sizes measured off the outside of the arm [m], in the frames of the links. Every joint: a straight
# half of a housing on either side, a dark seam between them, and a bend to the next one.
_LOOKS = (
    _box(0, (-0.042, 0.0, 0.008), (0.112, 0.094, 0.008), _METAL),
    _ellipsoid(0, (-0.032, 0.0, 0.012), (0.100, 0.078, 0.105)),
    _cylinder(0, (0.0, 0.0, 0.01), (0.0, 0.0, 0.137), 0.057),
    _box(0, (-0.1, 0.0, 0.035), (0.034, 0.05, 0.022), _DARK),
    _cylinder(1, (0.0, 0.0, -0.196), (0.0, 0.0, -0.189), 0.056, _DARK),
    _cylinder(1, (0.0, 0.0, -0.19), (0.0, 0.0, -0.09), 0.055),
    _capsule(1, (0.0, 0.0, -0.1), (0.0, -0.06, -0.02), 0.0545),
    _capsule(1, (0.0, -0.012, 0.0), (0.0, -0.074, 0.0), 0.055),
    _cylinder(1, (0.0, -0.004, 0.0), (0.0, 0.003, 0.0), 0.056, _DARK),
    _capsule(2, (0.0, 0.0, 0.012), (0.0, 0.0, 0.074), 0.055),
    _capsule(2, (0.0, -0.1, 0.0), (0.0, -0.02, 0.06), 0.0545),
    _cylinder(2, (0.0, -0.191, 0.0), (0.0, -0.09, 0.0), 0.055),
    _cylinder(2, (0.0, -0.197, 0.0), (0.0, -0.19, 0.0), 0.056, _DARK),
    _cylinder(3, (0.0, 0.0, -0.119), (0.0, 0.0, -0.07), 0.055),
    _capsule(3, (0.0, 0.0, -0.075), (0.075, 0.05, -0.004), 0.051),
    _capsule(3, (0.0825, 0.012, 0.0), (0.0825, 0.057, 0.0), 0.0545),
    _cylinder(4, (0.0, 0.0, -0.0035), (0.0, 0.0, 0.0035), 0.0558, _DARK),
    _capsule(4, (0.0, 0.0, 0.012), (0.0, 0.0, 0.057), 0.0545),
    _capsule(4, (-0.005, 0.005, 0.05), (-0.0825, 0.08, 0.0), 0.051),
    _cylinder(4, (-0.0825, 0.07, 0.0), (-0.0825, 0.121, 0.0), 0.0545),
    _cylinder(4, (-0.0825, 0.12, 0.0), (-0.0825, 0.127, 0.0), 0.0558, _DARK),
    _cylinder(5, (0.0, 0.0, -0.256), (0.0, 0.0, -0.2), 0.0545),
    _capsule(5, (0.0, 0.0, -0.2), (0.0, 0.048, -0.17), 0.047),
    _capsule(5, (0.0, 0.06, -0.165), (0.0, 0.084, -0.05), 0.031),
    _capsule(5, (0.0, 0.033, 0.0), (0.0, 0.082, 0.0), 0.049),
    _cylinder(6, (0.0, 0.0, -0.02), (0.0, 0.0, -0.013), 0.0502, _DARK),
    _capsule(6, (0.0, 0.0, -0.005), (0.0, 0.0, 0.009), 0.0475),
    _capsule(6, (0.02, 0.0, 0.01), (0.088, 0.0, 0.0), 0.041),
    _capsule(6, (0.088, -0.035, 0.0), (0.088, 0.037, 0.0), 0.0455),
    _cylinder(7, (0.0, 0.0, 0.051), (0.0, 0.0, 0.058), 0.0465, _DARK),
    _cylinder(7, (0.0, 0.0, 0.057), (0.0, 0.0, 0.101), 0.044),
    _capsule(7, (0.02, 0.02, 0.086), (0.058, 0.058, 0.086), 0.018),
    _capsule(_HAND, (0.0, -0.078, 0.022), (0.0, 0.078, 0.022), 0.0215),
    _box(_HAND, (0.0, 0.0, 0.041), (0.021, 0.1, 0.02)),
    _box(_HAND, (0.0, 0.0, 0.0625), (0.016, 0.096, 0.0035), _DARK),
)
_CLOSED_FINGERS = tuple(
    look[1:]
    for side in (1.0, -1.0)
    for look in (
        _box(_HAND, (0.0, side * 0.0175, 0.075), (0.0105, 0.0075, 0.014), _METAL),
        _box(_HAND, (0.0, side * 0.0076, 0.1), (0.009, 0.0072, 0.0125), _DARK),
    )
)


def _looks(spec: mujoco.MjSpec, links: list[Any]) -> None:
    """Shells, seams, hand and fingers: seen, but neither heavy nor solid."""
    for name, rgb, specular in (
        (_SHELL, (0.90, 0.91, 0.92), 0.4),
        (_METAL, (0.55, 0.57, 0.60), 0.5),
        (_DARK, (0.10, 0.11, 0.12), 0.3),
    ):
        spec.add_material(name=name, rgba=[*rgb, 1.0], specular=specular, shininess=0.6, reflectance=0.0)
    for link, shape, colour, form in _LOOKS:
        _look(links[link], shape, colour, form)


def _look(body: Any, shape: mujoco.mjtGeom, colour: str, form: dict[str, Any]) -> None:
    body.add_geom(type=shape, material=colour, group=VISUAL_GROUP, contype=0, conaffinity=0, mass=0, **form)


# ---- the hand at work -------------------------------------------------------------

_FINGER_M = 0.0584
"""Where the fingers begin, in the frame of the hand, along z."""
_TIP = dict(pos=(0.0, 0.0065, 0.0438), size=(0.0105, 0.0065, 0.0100))
"""Rubber pad, 21 mm wide and 20 mm high; its inner face is where the width counts from."""
_STEM = dict(pos=(0.0, 0.0135, 0.0165), size=(0.0105, 0.0075, 0.0165))
_GRIP_KP_N_M, _GRIP_KD_N_S_M = 4000.0, 60.0


def _fingers(spec: mujoco.MjSpec, gripper: Gripper, hand: Any) -> None:
    """Two fingers on slides that a tendon keeps alike, driven by their distance; their pads grip by friction."""
    box = mujoco.mjtGeom.mjGEOM_BOX
    for name, joint, turn in zip(gripper.jaws, gripper.joints, ((1, 0, 0, 0), (0, 0, 0, 1)), strict=True):
        finger = hand.add_body(name=name, pos=[0, 0, _FINGER_M], quat=turn, gravcomp=1)
        finger.add_joint(
            name=joint,
            type=mujoco.mjtJoint.mjJNT_SLIDE,
            axis=[0, 1, 0],
            limited=True,
            range=[0, gripper.open_m / 2],
            armature=0.05,
            damping=10.0,
        )
        finger.mass, finger.explicitinertial = _FINGER_KG, True
        finger.ipos, finger.inertia = (0.0, 0.0145, 0.0227), (2.4e-6, 2.4e-6, 7.5e-7)
        for part, form in (("stem", _STEM), ("pad", _TIP)):
            finger.add_geom(
                name=f"{name}_{part}",
                type=box,
                group=COLLISION_GROUP,
                contype=ARM_BIT,
                conaffinity=SCENE_BIT | FLOOR_BIT,
                condim=4,
                friction=[1.5, 0.02, 1e-4],
                priority=1,  # rubber on whatever it is: things sink less than a millimetre into it
                solref=[0.004, 1.0],
                solimp=[0.95, 0.99, 0.001, 0.5, 2.0],
                mass=0,
                rgba=[0.2, 0.6, 0.9, 0.4],
                **form,
            )
        _look(finger, box, _METAL, _STEM)
        _look(finger, box, _DARK, _TIP)
    tendon = spec.add_tendon(name="gripper_width")
    for joint in gripper.joints:
        tendon.wrap_joint(joint, 1.0)
    left, right = gripper.joints
    alike = spec.add_equality(type=mujoco.mjtEq.mjEQ_JOINT, name1=left, name2=right)
    alike.data[:2] = [0.0, 1.0]
    actuator = spec.add_actuator(name="gripper", target="gripper_width", trntype=mujoco.mjtTrn.mjTRN_TENDON)
    actuator.set_to_position(kp=_GRIP_KP_N_M, kv=_GRIP_KD_N_S_M)
    actuator.forcerange, actuator.forcelimited = [-gripper.force_n, gripper.force_n], True
    actuator.ctrlrange, actuator.ctrllimited = [0.0, gripper.open_m], True


# ---- the detailed model ---------------------------------------------------------


def load_visual(robot: Robot, source: str | Path) -> mujoco.MjSpec:
    """The arm of `build` in the shells of a detailed model: for pictures that people look at.

    Kinematics, masses, collision capsules and servos stay those of `build`; only looks are taken over.

    Args:
        robot: The Panda.
        source: Path of an MJCF (or URDF) file with bodies ``link0`` .. ``link7``, ``hand`` (also ``panda_link0`` ..)
            in the maker's frames, or a name in the `robot_descriptions` package, such as ``panda_mj_description``,
            which is downloaded on first use.

    Raises:
        UnknownNameError: No such file and no such name.
        MissingDependencyError: The model cannot be had: package not installed, or no network and no copy kept.
        RobotError: The file is no model of this arm.
    """
    path = _source_path(str(source))
    mend = "give the path of another MJCF file, or leave it out for the model from primitives"
    try:
        detailed = mujoco.MjSpec.from_file(str(path))
        model = detailed.compile()
    except ValueError as error:
        raise RobotError(f"{path} is no MuJoCo model ({' '.join(str(error).split())}); {mend}") from error
    spec = build(robot)
    own = spec.copy().compile()
    data, own_data = mujoco.MjData(model), mujoco.MjData(own)
    # At qpos0 all joints of both models are at zero (fingers: closed).
    mujoco.mj_kinematics(model, data)
    mujoco.mj_kinematics(own, own_data)
    wanted = [f"link{i}" for i in range(robot.dof + 1)] + ["hand"]
    found = {name: body.id for body in detailed.bodies if (name := body.name.removeprefix(f"{robot.name}_")) in wanted}
    for name in wanted:
        if name not in found:
            raise RobotError(f"{path} has no body {name!r}; {mend}")
        if (
            np.abs(_relative(data, found["link0"], found[name]) - _relative(own_data, 1, own.body(name).id)).max()
            > 1e-3
        ):
            raise RobotError(f"{path} is no {robot.name}: its {name!r} sits elsewhere; {mend}")
    for geom in [g for g in spec.geoms if g.group == VISUAL_GROUP]:
        spec.delete(geom)
    looks = _Looks(spec, detailed, path)
    for body in detailed.bodies:
        carrier = _carrier(model, body.id, set(found.values()))
        if carrier is not None:
            target = spec.body(next(name for name, i in found.items() if i == carrier))
            looks.move(body, target, _relative(data, carrier, body.id))
    if not looks.moved:
        raise RobotError(f"{path} has no geoms that are only seen (contype = conaffinity = 0); {mend}")
    return spec


def _source_path(source: str) -> Path:
    if Path(source).is_file():
        return Path(source).resolve()
    try:
        names = importlib.import_module("robot_descriptions._descriptions").DESCRIPTIONS
        git = importlib.import_module("git")
    except ImportError as error:
        raise MissingDependencyError(
            f"{source!r} is no file, and names of models need a package: pip install robot_descriptions"
        ) from error
    if source not in names:
        panda = [name for name in names if "panda" in name]
        raise UnknownNameError("robot description (nor is it a file)", source, panda)
    try:
        description = importlib.import_module(f"robot_descriptions.{source}")
    except (git.exc.GitError, OSError) as error:
        raise MissingDependencyError(
            f"{source} is not kept here and cannot be downloaded ({type(error).__name__}); "
            "connect to the network once, or give the path of an MJCF file"
        ) from error
    return Path(description.MJCF_PATH if hasattr(description, "MJCF_PATH") else description.URDF_PATH)


def _relative(data: mujoco.MjData, parent: int, child: int) -> np.ndarray:
    """Pose (4, 4) of a body in the frame of another."""
    poses = []
    for body in (parent, child):
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = data.xmat[body].reshape(3, 3), data.xpos[body]
        poses.append(pose)
    return np.linalg.solve(poses[0], poses[1])


def _carrier(model: mujoco.MjModel, body: int, links: set[int]) -> int | None:
    """The nearest of some links that a body hangs on; None if there is none."""
    while body != 0:
        if body in links:
            return body
        body = int(model.body_parentid[body])
    return None


class _Looks:
    """Takes visual geoms, with their meshes and materials, from one spec over to another."""

    def __init__(self, spec: mujoco.MjSpec, detailed: mujoco.MjSpec, path: Path) -> None:
        self.spec, self.moved = spec, 0
        self._folder = path.parent / detailed.meshdir
        self._meshes = {mesh.name or Path(mesh.file).stem: mesh for mesh in detailed.meshes}
        self._materials = {material.name: material for material in detailed.materials}
        self._have: set[str] = set()

    def move(self, body: Any, target: Any, pose: np.ndarray) -> None:
        """Copy what is only seen of a body to another whose frame it has a pose (4, 4) in."""
        for geom in body.geoms:
            if geom.contype or geom.conaffinity:
                continue
            mesh = geom.type == mujoco.mjtGeom.mjGEOM_MESH
            quat = np.empty(4)
            mujoco.mju_mulQuat(quat, _quat(pose[:3, :3]), np.asarray(geom.quat))
            target.add_geom(
                type=geom.type,
                pos=pose[:3, :3] @ geom.pos + pose[:3, 3],
                quat=quat,
                size=[0, 0, 0] if mesh else geom.size,
                meshname=self._mesh(geom.meshname) if mesh else "",
                material=self._material(geom.material),
                rgba=geom.rgba,
                group=VISUAL_GROUP,
                contype=0,
                conaffinity=0,
                mass=0,
            )
            self.moved += 1

    def _mesh(self, name: str) -> str:
        new = f"visual/{name}"
        if new not in self._have:
            mesh = self._meshes[name]
            file = str((self._folder / mesh.file).resolve())
            self.spec.add_mesh(name=new, file=file, scale=mesh.scale, refpos=mesh.refpos, refquat=mesh.refquat)
            self._have.add(new)
        return new

    def _material(self, name: str) -> str:
        if not name:
            return ""
        new = f"visual/{name}"
        if new not in self._have:
            m = self._materials[name]
            self.spec.add_material(
                name=new, rgba=m.rgba, specular=m.specular, shininess=m.shininess, reflectance=m.reflectance
            )
            self._have.add(new)
        return new
