"""Tasks on a tabletop in PyBullet: the same task, robot and interface as `sim.tabletop`, moved by another engine.

The compiled MuJoCo model of a scene is only read here, as the description of what there is: bodies, joints, masses,
inertia, shapes, friction, servos, cameras. Bullet moves it, and Bullet's software renderer takes the pictures.

Not alike, for Bullet has no such thing: contacts are hard (no ``solref``, ``solimp``); the friction of a pair is the
geometric mean of both (MuJoCo: the larger one, or that of higher ``priority``); the reflected inertia of a drive
(``armature``) slows its own joint, but weighs nothing where others push, nor where there is no drive.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import mujoco
import numpy as np

from robo.core.errors import ConfigError, MissingDependencyError, TaskError, UnknownNameError
from sim.coarse import seen, surface
from sim.pictures import IMAGES, Pictures
from sim.render import camera_index
from sim.scene import geom_rgba
from sim.tabletop import TabletopEnv, TabletopScene

_JOINT, _SHAPE, _SENSOR, _OBJECT = mujoco.mjtJoint, mujoco.mjtGeom, mujoco.mjtSensor, mujoco.mjtObj
_HERE = np.zeros(3), np.array([1.0, 0.0, 0.0, 0.0])
"""The pose that changes nothing."""
FIRM_N = 1e4
"""Largest force of what couples joints or fastens things, N or N m."""

SLICES = 24
"""Corners of what is round, in pictures."""
AMBIENT, DIFFUSE, SPECULAR = 0.55, 0.83, 0.05
"""Light from everywhere, of the lamp by its brightness, and as highlights: pictures are about as bright as MuJoCo's."""


class Engine:
    """A world of Bullet of its own, in this process and without a window: the functions of `pybullet`, about it.

    Raises:
        MissingDependencyError: PyBullet is not installed.
    """

    def __init__(self) -> None:
        try:
            import pybullet
        except ImportError as error:
            raise MissingDependencyError(
                f"physics 'bullet' needs pybullet ({error}); install it: pip install -e '.[pybullet]'"
            ) from error
        self._pybullet, self._client = pybullet, pybullet.connect(pybullet.DIRECT)
        self._free = weakref.finalize(self, pybullet.disconnect, physicsClientId=self._client)

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._pybullet, name)
        if callable(found):
            found = partial(found, physicsClientId=self._client)
        setattr(self, name, found)
        return found

    def close(self) -> None:
        """Free it; safe to call twice."""
        self._free()


# ---- what is read from the model -----------------------------------------------------


def obstacles(scene: TabletopScene) -> list[str]:
    """What a scene holds that Bullet cannot build, in words."""
    model, found = scene.model, []
    hinged = (model.jnt_type == _JOINT.mjJNT_HINGE) | (model.jnt_type == _JOINT.mjJNT_SLIDE)
    driven = np.abs(_pull(model)).sum(axis=0) > 0
    for i in range(model.njnt):
        joint, dof = f"joint {model.joint(i).name!r}", model.jnt_dofadr[i]
        if model.jnt_type[i] == _JOINT.mjJNT_BALL:
            found.append(f"{joint}, a ball")
        if model.jnt_stiffness[i]:
            found.append(f"the spring of {joint}")
        if driven[dof] and model.dof_frictionloss[dof]:
            found.append(f"dry friction of {joint}, which is driven")
    for i in range(model.nbody):
        body = f"body {model.body(i).name!r}"
        if model.body_jntnum[i] > 1:
            found.append(f"{body} with {model.body_jntnum[i]} joints")
        if model.body_mocapid[i] >= 0:
            found.append(f"mocap {body}")
        if model.body_parentid[i] and model.body(i).name in scene.task.fixtures:
            found.append(f"fixture {body} on another body")
        start = model.body_jntadr[model.body_rootid[i]]
        if model.body_gravcomp[i] and start >= 0 and model.jnt_type[start] == _JOINT.mjJNT_FREE:
            found.append(f"{body}, which lies about without weight")
    for i in np.flatnonzero(model.eq_active0):
        first, second = model.eq_obj1id[i], model.eq_obj2id[i]
        pair = model.eq_type[i] == mujoco.mjtEq.mjEQ_JOINT and second >= 0 and hinged[first] and hinged[second]
        if not pair or model.eq_data[i, 0] or model.eq_data[i, 2:5].any():
            found.append(f"equality constraint {model.equality(i).name or i!r}, not of two joints in proportion")
    for i in range(model.nu):
        joints = model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT
        fixed = (
            model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_TENDON
            and (model.wrap_type[_wraps(model, model.actuator_trnid[i, 0])] == mujoco.mjtWrap.mjWRAP_JOINT).all()
        )
        servo = (
            model.actuator_dyntype[i] == mujoco.mjtDyn.mjDYN_NONE
            and model.actuator_gaintype[i] == mujoco.mjtGain.mjGAIN_FIXED
            and model.actuator_biastype[i] == mujoco.mjtBias.mjBIAS_AFFINE
        )
        if not (servo and (joints or fixed)):
            found.append(f"actuator {model.actuator(i).name!r}, which is no servo of joints")
    for i in range(model.ntendon):
        if model.tendon_stiffness[i] or model.tendon_damping[i] or model.tendon_limited[i]:
            found.append(f"tendon {model.tendon(i).name!r}, which pulls by itself")
    for i in np.flatnonzero(is_solid(model)):
        if int(model.geom_type[i]) in (_SHAPE.mjGEOM_HFIELD, _SHAPE.mjGEOM_SDF):
            found.append(f"geom {model.geom(i).name!r}, a height field or a signed distance")
    for i in range(model.nsensor):
        if int(model.sensor_type[i]) not in (_SENSOR.mjSENS_FRAMEPOS, _SENSOR.mjSENS_FRAMEQUAT, _SENSOR.mjSENS_CONTACT):
            found.append(f"sensor {model.sensor(i).name!r}")
    return found + ["flexible bodies"] * bool(model.nflex) + ["plugins"] * bool(model.nplugin)


def is_solid(model: mujoco.MjModel) -> np.ndarray:
    """Which geoms can touch others, (ngeom,) bool."""
    return (model.geom_contype | model.geom_conaffinity) != 0


def may_touch(model: mujoco.MjModel) -> np.ndarray:
    """Which pairs of geoms can touch, (ngeom, ngeom) bool: MuJoCo's rules of bits, families and explicit pairs."""
    kind, meets, body = model.geom_contype, model.geom_conaffinity, model.geom_bodyid
    weld = model.body_weldid[body]
    parent = model.body_weldid[model.body_parentid[weld]]
    family = (weld[:, None] == parent) & (weld != 0)[:, None] & (weld != 0)
    touch = ((kind[:, None] & meets) | (meets[:, None] & kind)) != 0
    touch &= (weld[:, None] != weld) & ~family & ~family.T
    for signature in model.exclude_signature:
        one, other = body == signature >> 16, body == signature & 0xFFFF
        touch &= ~(one[:, None] & other) & ~(other[:, None] & one)
    touch[model.pair_geom1, model.pair_geom2] = touch[model.pair_geom2, model.pair_geom1] = True
    return touch


def _pull(model: mujoco.MjModel) -> np.ndarray:
    """How far each actuator turns or shifts each joint, (nu, nv)."""
    pull = np.zeros((model.nu, model.nv))
    for i in range(model.nu):
        target = model.actuator_trnid[i, 0]
        if model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT:
            pull[i, model.jnt_dofadr[target]] = 1.0
        elif model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_TENDON:
            wraps = _wraps(model, target)
            pull[i, model.jnt_dofadr[model.wrap_objid[wraps]]] = model.wrap_prm[wraps]
    return pull * model.actuator_gear[:, :1]


def _wraps(model: mujoco.MjModel, tendon: int) -> slice:
    return slice(model.tendon_adr[tendon], model.tendon_adr[tendon] + model.tendon_num[tendon])


# ---- poses -----------------------------------------------------------------------------


def _xyzw(quat: np.ndarray) -> list[float]:
    return [*quat[1:], quat[0]]


def _wxyz(quat: Sequence[float]) -> np.ndarray:
    return np.array([quat[3], *quat[:3]])


def _turn(quat: np.ndarray, vector: np.ndarray) -> np.ndarray:
    found = np.empty(3)
    mujoco.mju_rotVecQuat(found, vector, quat)
    return found


def _compose(pos: np.ndarray, quat: np.ndarray, at: np.ndarray, turned: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A pose (3,), (4,) in the frame of another, in the frame that one is given in."""
    found = np.empty(3), np.empty(4)
    mujoco.mju_mulPose(*found, pos, quat, at, turned)
    return found


def _inverse(pos: np.ndarray, quat: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    found = np.empty(3), np.empty(4)
    mujoco.mju_negPose(*found, pos, quat)
    return found


# ---- bodies ----------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class Tree:
    """A multibody of Bullet: what stands or lies in the world, with all that hangs on it.

    Every solid geom is a link of its own, rigidly joined to that of its body: Bullet knows friction, and who may touch
    whom, by the link. Link -1 is the base.

    Attributes:
        id: Bullet's number for it.
        root: The body of the model that it begins with; 0 for what belongs to the world itself.
        free: Whether it lies about freely.
        bodies, joints, geoms: Bodies, hinges and slides, solid geoms of the model → links.
        qpos, dof: Where the joints are in ``qpos`` and ``qvel``.
        pose, motion: If it is free, where its position and quaternion, and their velocities are.
        base: Pose of its base, the centre of mass if it is free, in the frame of the root.
    """

    id: int
    root: int
    free: bool
    bodies: dict[int, int]
    joints: dict[int, int]
    geoms: dict[int, int]
    qpos: np.ndarray
    dof: np.ndarray
    pose: slice
    motion: slice
    base: tuple[np.ndarray, np.ndarray]


def build_tree(engine: Engine, model: mujoco.MjModel, root: int, mass: np.ndarray, solid: bool = True) -> Tree:
    """Make a tree in an engine, with masses (nbody,) of the model's bodies; solid or only heavy."""
    first = model.body_jntadr[root]
    free = bool(first >= 0 and model.jnt_type[first] == _JOINT.mjJNT_FREE)
    bodies: dict[int, int] = {}
    joints: dict[int, int] = {}
    geoms: dict[int, int] = {}
    kinds = {int(_JOINT.mjJNT_HINGE): engine.JOINT_REVOLUTE, int(_JOINT.mjJNT_SLIDE): engine.JOINT_PRISMATIC}
    rows: list[tuple] = []

    def add(parent: int, pos: Any, quat: Any, kind: int, axis: Any, mass: float, inertial: Any, shape: int = -1) -> int:
        com, turned = inertial
        rows.append((mass, shape, -1, [*pos], _xyzw(quat), [*com], _xyzw(turned), parent + 1, kind, [*axis]))
        return len(rows) - 1

    offset = {}
    """Of a body's frame in its link's, whose origin lies on the joint."""
    for body in np.flatnonzero(model.body_rootid == root).tolist():
        joint, up = int(model.body_jntadr[body]), int(model.body_parentid[body])
        kind, at, axis = engine.JOINT_FIXED, np.zeros(3), np.zeros(3)
        if joint >= 0 and not (free and body == root):
            kind, at, axis = kinds[int(model.jnt_type[joint])], model.jnt_pos[joint], model.jnt_axis[joint]
        offset[body] = -at
        if body != root:
            parent, pos, quat = bodies[up], offset[up] + model.body_pos[body], model.body_quat[body]
        else:
            parent, (pos, quat) = -1, _HERE
        bodies[body] = -1
        if body != root or not free:  # the base of what is not free is nothing but a place
            inertial = model.body_ipos[body] - at, model.body_iquat[body]
            bodies[body] = add(parent, pos + _turn(quat, at), quat, kind, axis, mass[body], inertial)
        if kind != engine.JOINT_FIXED:
            joints[joint] = bodies[body]
        for geom in np.flatnonzero((model.geom_bodyid == body) & is_solid(model)).tolist() if solid else ():
            pose, shape = (model.geom_pos[geom] - at, model.geom_quat[geom]), _shape(engine, model, geom)
            geoms[geom] = add(bodies[body], *pose, engine.JOINT_FIXED, np.zeros(3), 0.0, _HERE, shape)
    names = ("Masses", "CollisionShapeIndices", "VisualShapeIndices", "Positions", "Orientations")
    names += ("InertialFramePositions", "InertialFrameOrientations", "ParentIndices", "JointTypes", "JointAxis")
    links = {f"link{name}": [*column] for name, column in zip(names, zip(*rows, strict=True), strict=False)}
    mine = [*joints]
    at, dof = (model.jnt_qposadr[first], model.jnt_dofadr[first]) if free else (0, 0)
    base = (model.body_ipos[root].copy(), model.body_iquat[root].copy()) if free else _HERE
    heavy = dict(baseMass=mass[root]) if free else {}
    tree = Tree(
        id=engine.createMultiBody(
            flags=engine.URDF_USE_SELF_COLLISION,
            baseInertialFramePosition=[*base[0]],
            baseInertialFrameOrientation=_xyzw(base[1]),
            **heavy,
            **links,
        ),
        root=root,
        free=free,
        bodies=bodies,
        joints=joints,
        geoms=geoms,
        qpos=model.jnt_qposadr[mine],
        dof=model.jnt_dofadr[mine],
        pose=slice(at, at + 7 * free),
        motion=slice(dof, dof + 6 * free),
        base=base,
    )
    engine.changeDynamics(tree.id, -1, linearDamping=0.0, angularDamping=0.0)
    for joint, link in joints.items():
        low, high = model.jnt_range[joint] - model.qpos0[model.jnt_qposadr[joint]]
        limits = dict(jointLowerLimit=low, jointUpperLimit=high) if model.jnt_limited[joint] else {}
        engine.changeDynamics(tree.id, link, jointDamping=0.0, **limits)
    return tree


def _shape(engine: Engine, model: mujoco.MjModel, geom: int) -> int:
    """The solid shape of a geom."""
    size = model.geom_size[geom].tolist()
    forms: dict[int, dict[str, Any]] = {
        _SHAPE.mjGEOM_PLANE: dict(shapeType=engine.GEOM_PLANE, planeNormal=[0, 0, 1]),
        _SHAPE.mjGEOM_BOX: dict(shapeType=engine.GEOM_BOX, halfExtents=size),
        _SHAPE.mjGEOM_SPHERE: dict(shapeType=engine.GEOM_SPHERE, radius=size[0]),
        _SHAPE.mjGEOM_CAPSULE: dict(shapeType=engine.GEOM_CAPSULE, radius=size[0], height=2 * size[1]),
        _SHAPE.mjGEOM_CYLINDER: dict(shapeType=engine.GEOM_CYLINDER, radius=size[0], height=2 * size[1]),
    }
    kind = mujoco.mjtGeom(model.geom_type[geom])
    if kind in forms:
        return engine.createCollisionShape(**forms[kind])
    hull = surface(model, geom, SLICES, SLICES // 2).vertices.tolist()
    return engine.createCollisionShape(engine.GEOM_MESH, vertices=hull)


# ---- the world -------------------------------------------------------------------------


class BulletWorld:
    """The scene of a task in Bullet; what is known of its state is laid out as MuJoCo's data.

    Attributes:
        qpos, qvel, sensordata: (nq,), (nv,), (nsensordata,) as in MuJoCo.
        xpos, xquat: Frames of the model's bodies, (nbody, 3) [m] and (nbody, 4) wxyz, as of the last `sense`.
        time: Since the episode began [s].

    Raises:
        TaskError: The scene holds what Bullet cannot build; says what.
        MissingDependencyError: PyBullet is not installed.
    """

    def __init__(self, scene: TabletopScene) -> None:
        found = obstacles(scene)
        if found:
            raise TaskError(
                f"task {scene.task.name}: Bullet cannot build {'; '.join(found)}; take physics='mujoco' for it"
            )
        self.model = model = scene.model
        self.time, self.qpos, self.qvel = 0.0, model.qpos0.copy(), np.zeros(model.nv)
        self.sensordata = np.zeros(model.nsensordata)
        self.xpos, self.xquat = np.zeros((model.nbody, 3)), np.zeros((model.nbody, 4))
        self.engine = engine = Engine()
        engine.setPhysicsEngineParameter(fixedTimeStep=model.opt.timestep, deterministicOverlappingPairs=1)
        engine.setGravity(*model.opt.gravity)
        self.trees = [build_tree(engine, model, root, model.body_mass) for root in np.unique(model.body_rootid)]
        self._geom = {(tree.id, link): geom for tree in self.trees for geom, link in tree.geoms.items()}
        touch, links = may_touch(model), {geom: link for link, geom in self._geom.items()}
        for a, (one, first) in links.items():
            for b, (other, second) in links.items():
                if a < b:
                    engine.setCollisionFilterPair(one, other, first, second, int(touch[a, b]))
        joints = {joint: (tree.id, link) for tree in self.trees for joint, link in tree.joints.items()}
        for i in np.flatnonzero(model.eq_active0):
            first, second = model.eq_obj1id[i], model.eq_obj2id[i]
            (one, link), (other, along) = joints[first], joints[second]
            axis, ratio = [*model.jnt_axis[first]], -model.eq_data[i, 1]
            gear = engine.createConstraint(one, link, other, along, engine.JOINT_GEAR, axis, [0] * 3, [0] * 3)
            engine.changeConstraint(gear, gearRatio=ratio, erp=0.2, maxForce=FIRM_N)
        self._fastened: dict[int, int] = {}
        self._weight, self._contacts = _Weight(model), _Contacts(model)
        self.renew()

    def renew(self) -> None:
        """Take over what differs from world to world: masses, friction, servos, joints."""
        model, engine = self.model, self.engine
        for tree in self.trees:
            for body, link in tree.bodies.items():
                heavy = dict(mass=model.body_mass[body], localInertiaDiagonal=[*model.body_inertia[body]])
                engine.changeDynamics(tree.id, link, **heavy)
            for geom, link in tree.geoms.items():
                # Of a pair, Bullet multiplies sliding friction, and adds up the others, each times the other's sliding.
                sliding, torsional, rolling = model.geom_friction[geom]
                share, condim = 1.0 / (2.0 * np.sqrt(sliding)), model.geom_condim[geom]
                engine.changeDynamics(
                    tree.id,
                    link,
                    lateralFriction=np.sqrt(sliding),
                    spinningFriction=torsional * share * (condim >= 4),
                    rollingFriction=rolling * share * (condim == 6),
                    restitution=0.0,
                )
        self._drives = _Drives(model)

    def close(self) -> None:
        """Free it; safe to call twice."""
        self.engine.close()
        self._weight.engine.close()

    # ---- states ----------------------------------------------------------------------

    def take(self, qpos: np.ndarray, qvel: np.ndarray) -> None:
        """Put everything where (nq,) says, moving as (nv,) says, with nothing left of what was before."""
        model, engine = self.model, self.engine
        self.qpos[:], self.qvel[:] = qpos, qvel
        for tree in self.trees:
            pos, quat = model.body_pos[tree.root], model.body_quat[tree.root]
            if tree.free:
                pos, quat = np.split(qpos[tree.pose], [3])
            at, turned = _compose(pos, quat / np.linalg.norm(quat), *tree.base)
            engine.resetBasePositionAndOrientation(tree.id, [*at], _xyzw(turned))
            if tree.free:
                speed, spin = np.split(qvel[tree.motion], [3])
                spin = _turn(quat, spin)
                engine.resetBaseVelocity(tree.id, [*(speed + np.cross(spin, at - pos))], [*spin])
            angles = qpos[tree.qpos] - model.qpos0[tree.qpos]
            for link, angle, rate in zip(tree.joints.values(), angles, qvel[tree.dof], strict=True):
                engine.resetJointState(tree.id, link, angle, rate)
            for link in tree.geoms.values():
                engine.setCollisionFilterGroupMask(tree.id, link, 1, 1)  # forgets contacts and what was learnt of them

    def _read(self) -> None:
        """Take over what a physics step made of positions and velocities."""
        engine = self.engine
        for tree in self.trees:
            if tree.free:
                at, turned = engine.getBasePositionAndOrientation(tree.id)
                speed, spin = engine.getBaseVelocity(tree.id)
                pos, quat = _compose(np.array(at), _wxyz(turned), *_inverse(*tree.base))
                self.qpos[tree.pose] = *pos, *quat
                speed = speed - np.cross(spin, at - pos)
                self.qvel[tree.motion] = *speed, *_turn(_inverse(pos, quat)[1], np.array(spin))
            if tree.joints:
                states = engine.getJointStates(tree.id, [*tree.joints.values()])
                self.qpos[tree.qpos] = [state[0] for state in states] + self.model.qpos0[tree.qpos]
                self.qvel[tree.dof] = [state[1] for state in states]

    def fasten(self, body: int, to: int, pose: np.ndarray | None) -> None:
        """Hold a body that lies about at a pose (7,) in the frame of another one, up to a degree; None: let it go."""
        engine, model = self.engine, self.model
        if body in self._fastened:
            engine.removeConstraint(self._fastened.pop(body))
        if pose is not None:
            (tree,), (other,) = ([t for t in self.trees if i in t.bodies] for i in (body, to))
            mass = _inverse(model.body_ipos[to], model.body_iquat[to])  # Bullet's constraints are told from there
            (there, turned), (here, back) = _compose(*mass, pose[:3], pose[3:]), _inverse(*tree.base)
            grip = engine.createConstraint(
                *(other.id, other.bodies[to], tree.id, -1, engine.JOINT_FIXED, [0] * 3),
                *([*there], [*here], _xyzw(turned), _xyzw(back)),
            )
            engine.changeConstraint(grip, maxForce=FIRM_N)
            self._fastened[body] = grip

    # ---- motion ----------------------------------------------------------------------

    def step(self, ctrl: np.ndarray) -> None:
        """One physics step under controls (nu,)."""
        engine, weight = self.engine, self._weight(self.qpos)
        speed, force = self._drives(self.qpos, self.qvel, ctrl, weight)
        for tree in self.trees:
            if tree.joints:
                links = [*tree.joints.values()]
                motors = dict(targetVelocities=speed[tree.dof].tolist(), forces=force[tree.dof].tolist())
                engine.setJointMotorControlArray(tree.id, links, engine.VELOCITY_CONTROL, **motors)
                engine.setJointMotorControlArray(
                    tree.id, links, engine.TORQUE_CONTROL, forces=weight[tree.dof].tolist()
                )
        engine.stepSimulation()
        self.time += self.model.opt.timestep
        self._read()
        self._feel()

    def _feel(self) -> None:
        """Bring the contact sensors up to date with the last physics step."""
        body, touching = self.model.geom_bodyid, []
        for contact in self.engine.getContactPoints() or ():
            normal, press, *rub = contact[7], *contact[9:]
            if press > 0.0:
                force = press * np.array(normal) + rub[0] * np.array(rub[1]) + rub[2] * np.array(rub[3])
                touching.append((body[self.geom(contact, 0)], body[self.geom(contact, 1)], force))
        self._contacts(touching, self.sensordata)

    def geom(self, contact: tuple, side: int) -> int:
        """The model's geom on one side, 0 or 1, of what ``engine.getContactPoints()`` gives."""
        return self._geom[contact[1 + side], contact[3 + side]]

    def sense(self) -> None:
        """Bring the frames of bodies and their sensors up to date."""
        model = self.model
        for tree in self.trees:
            links = [link for link in tree.bodies.values() if link >= 0]
            states = self.engine.getLinkStates(tree.id, links, computeForwardKinematics=1) if links else ()
            frames = {link: (np.array(state[4]), _wxyz(state[5])) for link, state in zip(links, states, strict=True)}
            for body, link in tree.bodies.items():
                if link < 0:
                    frame = np.split(self.qpos[tree.pose], [3])
                else:
                    joint = model.body_jntadr[body]
                    frame = _compose(*frames[link], -model.jnt_pos[joint] if joint >= 0 else _HERE[0], _HERE[1])
                self.xpos[body], self.xquat[body] = frame
        for i in range(model.nsensor):
            at, kind = slice(model.sensor_adr[i], model.sensor_adr[i] + model.sensor_dim[i]), model.sensor_type[i]
            if kind != _SENSOR.mjSENS_CONTACT:
                self.sensordata[at] = self._frame(i)[int(kind == _SENSOR.mjSENS_FRAMEQUAT)]

    def _frame(self, sensor: int) -> tuple[np.ndarray, np.ndarray]:
        """Pose of what a sensor is at."""
        model, index = self.model, self.model.sensor_objid[sensor]
        if model.sensor_objtype[sensor] == _OBJECT.mjOBJ_XBODY:
            return self.xpos[index], self.xquat[index]
        body = model.site_bodyid[index]
        return _compose(self.xpos[body], self.xquat[body], model.site_pos[index], model.site_quat[index])


class _Weight:
    """What drives carry of the arm's weight whatever it weighs: that of bodies in a world of its own, never moved."""

    def __init__(self, model: mujoco.MjModel) -> None:
        self.model, self.engine = model, Engine()
        self.engine.setGravity(*model.opt.gravity)
        carried = model.body_mass * model.body_gravcomp
        roots = np.unique(model.body_rootid[carried > 0])
        self.trees = [build_tree(self.engine, model, root, carried, solid=False) for root in roots]

    def __call__(self, qpos: np.ndarray) -> np.ndarray:
        """Forces (nv,) that hold it up."""
        model, found = self.model, np.zeros(self.model.nv)
        for tree in self.trees:
            angles, still = (qpos[tree.qpos] - model.qpos0[tree.qpos]).tolist(), [0.0] * len(tree.joints)
            found[tree.dof] = self.engine.calculateInverseDynamics(tree.id, angles, still, still)
        return found


class _Drives:
    """What moves and brakes the joints, servos, damping and dry friction, as motors of Bullet.

    A motor of Bullet is part of its contact solver: it brings a joint to a speed within a step, with at most a force.
    The force asked for is what the servo pulls with now: all of it acts where something resists. The speed is what that
    force would make of the drive alone, with its reflected inertia and damping, the latter taken implicitly: so stiff
    servos are stable in steps of any length, and a light arm moves as its drives do.
    """

    def __init__(self, model: mujoco.MjModel) -> None:
        self.pull, endless = _pull(model), np.array([-np.inf, np.inf])
        self.gain, self.bias = model.actuator_gainprm[:, 0].copy(), model.actuator_biasprm[:, :3].copy()
        self.ctrl = np.where(model.actuator_ctrllimited[:, None] != 0, model.actuator_ctrlrange, endless)
        self.force = np.where(model.actuator_forcelimited[:, None] != 0, model.actuator_forcerange, endless)
        self.damping, self.friction = model.dof_damping.copy(), model.dof_frictionloss.copy()
        self.qpos, self.most = np.zeros(model.nv, int), np.tile(endless, (model.nv, 1))
        self.carries = np.zeros(model.nv, bool)
        self.qpos[model.jnt_dofadr] = model.jnt_qposadr
        self.carries[model.jnt_dofadr] = model.jnt_actgravcomp != 0
        limited = model.jnt_actfrclimited != 0
        self.most[model.jnt_dofadr[limited]] = model.jnt_actfrcrange[limited]
        span = np.abs(self.pull)
        # Joints that one servo moves together share its damping.
        damping = (span * span.sum(axis=1, keepdims=True)).T @ -self.bias[:, 2] + self.damping
        self.slope = damping + model.dof_armature / model.opt.timestep

    def __call__(
        self, qpos: np.ndarray, qvel: np.ndarray, ctrl: np.ndarray, weight: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Speeds to ask for and forces to allow, (nv,) each, where forces `weight` (nv,) come on top."""
        length, rate = self.pull @ qpos[self.qpos], self.pull @ qvel
        servos = self.gain * np.clip(ctrl, *self.ctrl.T) + self.bias[:, 0] + self.bias[:, 1] * length
        servos = np.clip(servos + self.bias[:, 2] * rate, *self.force.T)
        carried = np.where(self.carries, weight, 0.0)  # what is carried counts towards what the drive can do
        driven = np.clip(servos @ self.pull + carried, *self.most.T) - carried - self.damping * qvel
        speed = np.where(self.friction > 0.0, 0.0, qvel + driven / np.maximum(self.slope, 1e-9))
        return speed, np.abs(driven) + self.friction


class _Contacts:
    """The contact sensors of a model."""

    def __init__(self, model: mujoco.MjModel) -> None:
        sensors = np.flatnonzero(model.sensor_type == _SENSOR.mjSENS_CONTACT)
        self.first, self.second = (
            np.array([_meant(model, kinds[i], ids[i]) for i in sensors], bool).reshape(-1, model.nbody)
            for kinds, ids in (
                (model.sensor_objtype, model.sensor_objid),
                (model.sensor_reftype, model.sensor_refid),
            )
        )
        self.at = [slice(model.sensor_adr[i], model.sensor_adr[i] + model.sensor_dim[i]) for i in sensors]
        self.forces = model.sensor_dim[sensors] == 3

    def __call__(self, touching: Sequence[tuple[int, int, np.ndarray]], sensordata: np.ndarray) -> None:
        """Fill in what is felt of pairs of bodies that touch and the force (3,) [N] of the second on the first."""
        one, other = (np.array([pair[i] for pair in touching], int) for i in (0, 1))
        force = np.array([pair[2] for pair in touching]).reshape(-1, 3)
        ours, theirs = self.first[:, one] & self.second[:, other], self.first[:, other] & self.second[:, one]
        count, net = (ours | theirs).sum(axis=1), (theirs.astype(float) - ours) @ force
        for at, is_force, n, total in zip(self.at, self.forces, count, net, strict=True):
            sensordata[at] = total if is_force else n


def _meant(model: mujoco.MjModel, kind: int, index: int) -> np.ndarray:
    """Bodies (nbody,) bool that a contact sensor is about: one, one with all that hangs on it, or any."""
    found = np.arange(model.nbody) == index
    if kind == _OBJECT.mjOBJ_XBODY:
        for body in range(index + 1, model.nbody):
            found[body] = found[model.body_parentid[body]]
    return found | (kind == _OBJECT.mjOBJ_UNKNOWN)


# ---- pictures ----------------------------------------------------------------------------


class BulletPictures(Pictures):
    """`sim.pictures.Pictures` by Bullet's software renderer, in a world that holds nothing but what is seen.

    Every visible geom is a body there, so that segmentation tells them apart; they are put where the world has them.
    """

    def __init__(
        self, model: mujoco.MjModel, cameras: Sequence[str], images: Sequence[str], size: int | tuple[int, int]
    ) -> None:
        super().__init__(model, (), images, size)
        self.cameras = tuple(cameras)
        for camera in self.cameras:
            camera_index(model, camera)
        for kind in self.images if self.cameras else ():
            if kind not in IMAGES:
                raise UnknownNameError("kind of picture", kind, IMAGES)
        shown = seen(coarse=False).geomgroup[model.geom_group] != 0
        self._geoms = np.flatnonzero(shown & (model.geom_rgba[:, 3] > 0.0))
        self._studio: Engine | None = None

    def take(self, data: BulletWorld) -> dict[str, np.ndarray]:  # type: ignore[override]
        """All pictures of a state that was sensed."""
        shots = {camera: self._shoot(data, camera, self.size) for camera in self.cameras}
        return {f"{kind}_{camera}": shot[kind] for camera, shot in shots.items() for kind in self.images}

    def pretty(self, data: BulletWorld, camera: str) -> np.ndarray:  # type: ignore[override]
        """A picture for people, (480, 640, 3) uint8."""
        return self._shoot(data, camera, (480, 640), shadow=True)["rgb"]

    def close(self) -> None:
        """Free the renderer; safe to call twice."""
        if self._studio is not None:
            self._studio.close()
        self._studio = None

    # ---- within ------------------------------------------------------------------

    def _open(self) -> Engine:
        engine, model = Engine(), self.model
        self._bodies, self._geom = [], np.full(len(self._geoms) + 1, -1, np.int32)
        for geom in self._geoms:
            mesh = surface(model, int(geom), SLICES, SLICES // 2).smooth_shaded
            form = dict(vertices=mesh.vertices.tolist(), indices=mesh.faces.ravel().tolist())
            shape = engine.createVisualShape(engine.GEOM_MESH, normals=mesh.vertex_normals.tolist(), **form)
            self._bodies.append(engine.createMultiBody(baseVisualShapeIndex=shape))
            self._geom[self._bodies[-1]] = geom
        self._poses, self._rgba = (np.full((len(self._geoms), n), np.nan) for n in (7, 4))
        return engine

    def _arrange(self, engine: Engine, data: BulletWorld) -> None:
        """Move and colour what has changed since the last picture."""
        model, body = self.model, self.model.geom_bodyid[self._geoms]
        own = model.geom_pos[self._geoms], model.geom_quat[self._geoms]
        frames = zip(data.xpos[body], data.xquat[body], *own, strict=True)
        poses = np.array([np.concatenate(_compose(*frame)) for frame in frames])
        rgba = np.array([geom_rgba(model, geom) for geom in self._geoms.tolist()])
        for i in np.flatnonzero((poses != self._poses).any(axis=1)):
            engine.resetBasePositionAndOrientation(self._bodies[i], [*poses[i, :3]], _xyzw(poses[i, 3:]))
        for i in np.flatnonzero((rgba != self._rgba).any(axis=1)):
            engine.changeVisualShape(self._bodies[i], -1, rgbaColor=[*rgba[i]])
        self._poses, self._rgba = poses, rgba

    def _shoot(
        self, data: BulletWorld, camera: str, size: tuple[int, int], shadow: bool = False
    ) -> dict[str, np.ndarray]:
        """Pictures of all kinds."""
        if self._studio is None:
            self._studio = self._open()
        engine, model, (height, width) = self._studio, self.model, size
        self._arrange(engine, data)
        index = model.camera(camera).id
        body, extent = model.cam_bodyid[index], model.stat.extent
        eye, quat = _compose(data.xpos[body], data.xquat[body], model.cam_pos[index], model.cam_quat[index])
        ahead, up = _turn(quat, np.array([0.0, 0.0, -1.0])), _turn(quat, np.array([0.0, 1.0, 0.0]))
        near, far = model.vis.map.znear * extent, model.vis.map.zfar * extent
        lens = [*engine.computeProjectionMatrixFOV(model.cam_fovy[index], width / height, near, far)]
        lens[8:10] = 1.0 / width, 1.0 / height  # this renderer looks through the corners of pixels, not their middles
        _, _, rgba, depth, seg = engine.getCameraImage(
            width,
            height,
            engine.computeViewMatrix([*eye], [*(eye + ahead)], [*up]),
            lens,
            renderer=engine.ER_TINY_RENDERER,
            shadow=int(shadow),
            lightDirection=[*-model.light_dir[0]],
            lightAmbientCoeff=AMBIENT,
            lightDiffuseCoeff=DIFFUSE * model.light_diffuse[0].mean(),
            lightSpecularCoeff=SPECULAR,
        )
        seg = self._geom[np.reshape(seg, size)]  # -1, where nothing is, finds the last
        metres = near * far / (far - np.reshape(depth, size).astype(np.float64) * (far - near))
        return {
            "rgb": np.where(seg[..., None] < 0, 0, np.reshape(rgba, (*size, 4))[..., :3]).astype(np.uint8),
            "depth": np.where(seg < 0, 0.0, metres).astype(np.float32),
            "seg": seg,
        }


# ---- the environment -----------------------------------------------------------------------


class BulletEnv(TabletopEnv):
    """A task on a tabletop in Bullet; actions, observations, infos, options and errors are those of `TabletopEnv`.

    Raises:
        TaskError: The scene holds what Bullet cannot build.
        ConfigError: `randomise` asks for textures, which Bullet's renderer does not change.
        MissingDependencyError: PyBullet is not installed.
    """

    data: BulletWorld  # type: ignore[assignment]

    def close(self) -> None:
        """Free Bullet's worlds; safe to call twice."""
        super().close()
        self.data.close()

    def _open(self, cameras: Sequence[str], images: Sequence[str], size: int | tuple[int, int]) -> None:
        if self.randomise.texture > 0.0:
            raise ConfigError(
                f"physics 'bullet' has no random textures, but texture={self.randomise.texture:g}; "
                "set it to 0: dataclasses.replace(randomisation, texture=0.0)"
            )
        self.data = BulletWorld(self.scene)
        self.pictures = BulletPictures(self.model, cameras, images, size)

    def _differ(self, drawn: dict[str, np.ndarray]) -> None:
        super()._differ(drawn)
        self.data.renew()

    def _begin(self, qpos: np.ndarray, ctrl: np.ndarray, steps: int) -> None:
        for thing in self._attachable:
            self._fasten(thing, None)
        self.data.take(qpos, np.zeros(self.model.nv))
        for _ in range(steps):
            self.data.step(ctrl)
        self.data.time = 0.0

    def _advance(self, controls: np.ndarray) -> Iterator[None]:
        self.data.take(self.data.qpos, self.data.qvel)
        for row in controls:
            self.data.step(row)
            yield

    def _fasten(self, thing: str, pose: np.ndarray | None) -> None:
        model = self.model
        self.data.fasten(model.body(thing).id, int(model.site_bodyid[model.site("tcp").id]), pose)

    def _sense(self) -> None:
        self.data.sense()

    def _physics(self) -> np.ndarray:
        data = self.data
        return np.concatenate([[data.time], data.qpos, data.qvel, data.sensordata])

    def _go_on_from(self, physics: np.ndarray) -> None:
        data, parts = self.data, np.cumsum([1, self.model.nq, self.model.nv])
        time, qpos, qvel, sensordata = np.split(physics, parts)
        data.take(qpos, qvel)
        data.time, data.sensordata[:] = float(time[0]), sensordata
        data.sense()
