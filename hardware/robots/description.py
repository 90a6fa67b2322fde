"""An arm from a model of it: an MJCF, a URDF, or a robot file that names one and says what it leaves open.

A robot file is YAML; only ``model`` is needed, everything else is read off the model where it can be (see `RobotFile`):

    model: my_arm.urdf
    tool: tool0
    velocity_rad_s: 2.0
    gripper: {joints: [left, right], jaws: [left_finger, right_finger], width_per_joint_m: [1, 1], open_m: 0.08}

Read off are: the chain of hinges from the ground to the tool; limits, as far as the model has them (a URDF says how
fast and how strong joints are, an MJCF does not say how fast: then it is `SLOW_RAD_S`); two fingers on slides beyond
the chain as gripper; a rest pose in which the tool points down, x forward; where on a table the arm reaches from above.
Masses, shapes and looks are the model's own; its actuators are replaced by servos stiff enough to follow, and it does
not collide with itself.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import mujoco
import numpy as np
import yaml
from pydantic import BaseModel, ConfigDict, ValidationError

from hardware.robots import mjcf
from hardware.robots.commands import angle, inverse
from hardware.robots.kinematics import Kinematics
from hardware.robots.robot import ARM_BIT, FLOOR_BIT, SCENE_BIT, Gripper, JointLimits, Robot, Servo, Workspace
from hardware.robots.visual import model_path
from robo.core.errors import RobotError, UnknownNameError

SLOW_RAD_S, ACCELERATION_RAD_S2, JERK_PER_ACCELERATION = 1.5, 10.0, 500.0
"""Limits where neither model nor robot file has any."""
SERVO_RAD_S = 40.0
"""Natural frequency of a joint's servo with the largest inertia that it can meet; critically damped."""
STRENGTH = 3.0
"""Where no torque is known, a joint has so many times what it needs to stand still and to speed up."""
TOOLS = ("tcp", "ee_site", "attachment_site", "pinch", "pinch_site", "grip_site", "grasp_site", "gripperframe", "ee")
TOOL_BODIES = ("tcp", "tool0", "ee_link", "end_effector", "hand_tcp", "tool", "flange", "gripper", "hand")
"""Usual names of the tool's frame: of sites, then of bodies; the first that is there counts."""
GRIP_N, GRIP_M_S, GRIP_KP_N_M, GRIP_KD_N_S_M = 40.0, 0.1, 4000.0, 60.0
ROOMY_M2, HIGHEST_M = 0.06, 0.45
"""Of a workspace: where it is as large as this, it may as well be high, up to this."""
TABLES = (0.35, 0.25, 0.15)
"""How high it may be, as shares of the arm's length."""
GLANCE, FINALISTS = 0.25, 3
"""Of rest poses those are compared in full that are best by such a height alone, on a coarser grid."""
HAND_M = 0.1034
"""The body ``hand``, which cameras are mounted on, is so far behind the tool centre point."""
DOWN = np.diag([1.0, -1.0, -1.0])
"""Orientation of a tool that points down, x forward."""
LEANING_RAD = np.deg2rad(20)
PLACES = ((0.5, 0.3), (0.45, 0.2), (0.6, 0.2), (0.4, 0.3), (0.35, 0.15), (0.65, 0.35), (0.3, 0.4))
"""Where the tool may rest, as shares of the arm's length: ahead, up; the first that is reached counts."""
STARTS = 128
"""Of inverse kinematics, at random."""
NEAR_M, NEAR_RAD, CLEAR_RAD = 0.002, 0.01, 0.05
"""A pose is reached that inverse kinematics comes so near to, so far from the joint limits."""
_HINGE, _SLIDE = mujoco.mjtJoint.mjJNT_HINGE, mujoco.mjtJoint.mjJNT_SLIDE

PerJoint = float | list[float] | dict[str, float] | None
"""One number for all joints, one for each, or by name for some."""


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class GripperFile(_Strict):
    """See `hardware.robots.robot.Gripper`."""

    joints: list[str]
    jaws: tuple[str, str]
    width_per_joint_m: list[float]
    open_m: float
    offset_m: float = 0.0
    meet_m: float = 0.0
    speed_m_s: float = GRIP_M_S
    force_n: float = GRIP_N


class WorkspaceFile(_Strict):
    """See `hardware.robots.robot.Workspace`."""

    centre_m: tuple[float, float]
    half_m: tuple[float, float]
    height_m: float


class RobotFile(_Strict):
    """What a robot file may say.

    Attributes:
        model: MJCF or URDF, its path from the robot file, or a name of `robot_descriptions`.
        name: Of the robot; without, that of the file.
        tool: Site or body whose origin is the tool centre point and whose z axis points away from the wrist.
        home_rad: Rest pose, in which the tool points down.
        lower_rad, upper_rad, velocity_rad_s, acceleration_rad_s2, jerk_rad_s3, torque_n_m: Limits.
        gripper, workspace: In place of what can be read off.
    """

    model: str
    name: str | None = None
    tool: str | None = None
    home_rad: list[float] | None = None
    lower_rad: PerJoint = None
    upper_rad: PerJoint = None
    velocity_rad_s: PerJoint = None
    acceleration_rad_s2: PerJoint = None
    jerk_rad_s3: PerJoint = None
    torque_n_m: PerJoint = None
    gripper: GripperFile | None = None
    workspace: WorkspaceFile | None = None


def load(source: str) -> Robot:
    """An arm from an MJCF, a URDF, a robot file, or a name in the `robot_descriptions` package.

    Raises:
        UnknownNameError: No such file or name.
        MissingDependencyError: The model cannot be had.
        RobotError: The file cannot be read, is unphysical, or lacks what an arm needs; says where.
    """
    _check_there(source, "give the path of an MJCF, a URDF or a robot file")
    told = _told(Path(source)) if Path(source).suffix in (".yaml", ".yml") else RobotFile(model=source)
    _check_there(told.model, f"{source} names it as its model; paths count from there")
    path = model_path(told.model)
    named = Path(source).stem if Path(source).suffix else source
    return _Reader(path, told, told.name or named.replace("/", "_")).robot()


def _check_there(source: str, mend: str) -> None:
    if Path(source).suffix and not Path(source).is_file():
        raise RobotError(f"no robot at {source}: there is no such file; {mend}")


def _told(path: Path) -> RobotFile:
    try:
        values = yaml.safe_load(path.read_text())
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise RobotError(f"robot file {path} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(values, Mapping):
        raise RobotError(f"robot file {path} must hold keys such as model: arm.xml, not {values!r}")
    for key in values:
        if key not in RobotFile.model_fields:
            raise RobotError(f"robot file {path}: {UnknownNameError('key', str(key), RobotFile.model_fields)}")
    try:
        told = RobotFile(**values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"][:2])
        raise RobotError(f"robot file {path}: {where}: {first['msg']}, not {first.get('input')!r}") from error
    beside = path.parent / told.model
    return told.model_copy(update={"model": str(beside)}) if beside.is_file() else told


def read(path: Path) -> mujoco.MjSpec:
    """An MJCF or URDF as a specification, without keyframes; fixed links and looks of a URDF are kept.

    Raises:
        RobotError: It cannot be read.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except (OSError, ElementTree.ParseError) as error:
        raise RobotError(f"{path} is no XML: {error}") from error
    try:
        if root.tag != "robot":
            return mujoco.MjSpec.from_file(str(path))
        settings = root.find("mujoco")
        settings = ElementTree.SubElement(root, "mujoco") if settings is None else settings
        compiler = settings.find("compiler")
        compiler = ElementTree.SubElement(settings, "compiler") if compiler is None else compiler
        folder = path.parent / compiler.get("meshdir", "")
        for key, value in {"discardvisual": "false", "fusestatic": "false", "meshdir": str(folder)}.items():
            compiler.set(key, value)
        return mujoco.MjSpec.from_string(ElementTree.tostring(root, encoding="unicode"))
    except ValueError as error:
        raise RobotError(f"{path} is no model of a robot: {' '.join(str(error).split())}") from error


def _compiled(spec: mujoco.MjSpec, path: Path) -> mujoco.MjModel:
    try:
        return spec.compile()
    except ValueError as error:
        raise RobotError(f"{path} is unphysical or incomplete: {' '.join(str(error).split())}") from error


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What building the model needs besides the robot."""

    path: Path
    prefix: str
    tool_body: str
    tool: np.ndarray
    """In the frame of that body, (4, 4)."""


_READ: dict[tuple[Any, ...], Robot] = {}
"""Arms by all that they were read off."""


class _Reader:
    """Reads an arm off a model."""

    def __init__(self, path: Path, told: RobotFile, name: str) -> None:
        self.path, self.told, self.name, self.prefix = path, told, name, f"{name}/"
        spec = read(path)
        self.model = model = _compiled(spec, path)
        self.data = mujoco.MjData(model)
        mujoco.mj_kinematics(model, self.data)
        self.speeds = _speeds(path)

    def fail(self, what: str, key: str) -> RobotError:
        """The error that something is missing, which a key of a robot file can say."""
        return RobotError(
            f"{self.path}: {what}; say it in a robot file, a .yaml with 'model: {self.path.name}' and '{key}'"
        )

    def robot(self) -> Robot:
        """The arm. What the same model and robot file have told before is known: a command opens its task a few times,
        and to look for a rest pose takes seconds."""
        whole = np.empty(mujoco.mj_sizeModel(self.model), np.uint8)
        mujoco.mj_saveModel(self.model, None, whole)
        about = (str(self.path), self.name, self.told.model_dump_json(), tuple(self.speeds.items()), whole.tobytes())
        if about not in _READ:
            _READ[about] = self._read()
        return _READ[about]

    def _read(self) -> Robot:
        body, tool = self._tool()
        joints = self._chain(body)
        frames = [self._joint_frame(joint) for joint in joints]
        chain = [np.linalg.solve(a, b) for a, b in zip([np.eye(4), *frames[:-1]], frames, strict=True)]
        gripper, along = self._gripper(joints, tool)
        if along is not None:
            tool = _turned(tool, along)
        limits = self._limits(joints)
        inertia, weight = self._loads(joints, limits)
        robot = Robot(
            name=self.name,
            joints=tuple(self.prefix + self.model.joint(j).name for j in joints),
            limits=self._strong(joints, limits, inertia, weight),
            joint_frames=np.stack(chain),
            tool=np.linalg.solve(frames[-1], tool),
            capsules=(),
            self_pairs=(),
            floor_capsules=(),
            servo=Servo(
                kp_n_m_rad=SERVO_RAD_S**2 * inertia,
                kd_n_m_s_rad=2 * SERVO_RAD_S * inertia,
                tracking_error_rad=2 * limits.acceleration_rad_s2 / SERVO_RAD_S**2,
                velocity_error_rad_s=2 * limits.acceleration_rad_s2 / SERVO_RAD_S,
            ),
            home_rad=(limits.lower_rad + limits.upper_rad) / 2,
            build=_build,
            gripper=gripper,
        )
        robot = self._at_home(robot, joints)
        there = np.linalg.solve(self._pose(body), frames[-1]) @ robot.tool
        made = _Made(path=self.path, prefix=self.prefix, tool_body=self.model.body(body).name, tool=there)
        return dataclasses.replace(
            robot, build=partial(_build, made=made), workspace=robot.workspace or self._workspace(robot)
        )

    # ---- frames ------------------------------------------------------------------

    def _pose(self, body: int) -> np.ndarray:
        pose = np.eye(4)
        pose[:3, :3], pose[:3, 3] = self.data.xmat[body].reshape(3, 3), self.data.xpos[body]
        return pose

    def _tool(self) -> tuple[int, np.ndarray]:
        """The body that carries the tool's frame, and that frame in the world with all joints at zero."""
        model, data = self.model, self.data
        sites = {model.site(i).name: i for i in range(model.nsite)}
        bodies = {model.body(i).name: i for i in range(1, model.nbody)}
        wanted = self.told.tool
        if wanted is not None and wanted not in sites and wanted not in bodies:
            raise RobotError(f"{self.path}: {UnknownNameError('site or body', wanted, [*sites, *bodies])}")
        names = (TOOLS, TOOL_BODIES) if wanted is None else ((wanted,), (wanted,))
        site = next((sites[name] for name in names[0] if name in sites), None)
        if site is not None:
            pose = np.eye(4)
            pose[:3, :3], pose[:3, 3] = data.site_xmat[site].reshape(3, 3), data.site_xpos[site]
            return int(model.site_bodyid[site]), pose
        body = next((bodies[name] for name in names[1] if name in bodies), None)
        if body is None:
            there = f"sites: {', '.join(filter(None, sites)) or 'none'}; bodies: {', '.join(filter(None, bodies))}"
            raise self.fail(f"no frame of the tool by a usual name ({there})", "tool: NAME")
        return body, self._pose(body)

    def _chain(self, body: int) -> list[int]:
        """The joints from the ground to a body."""
        model, found, at = self.model, [], body
        while at:
            count, first = model.body_jntnum[at], model.body_jntadr[at]
            for joint in range(first, first + count):
                kind, name = model.jnt_type[joint], model.joint(joint).name
                if kind != _HINGE or count > 1:
                    raise RobotError(
                        f"{self.path}: joint {name!r} of body {model.body(at).name!r} is no single hinge; "
                        "an arm here is a chain of hinges on a fixed base"
                    )
                if not name:
                    raise RobotError(f"{self.path}: a joint of body {model.body(at).name!r} has no name; give it one")
                if model.qpos0[model.jnt_qposadr[joint]]:
                    raise RobotError(f"{self.path}: joint {name!r} has a 'ref'; angles here count from zero, drop it")
                found.append(joint)
            at = int(model.body_parentid[at])
        if not found:
            raise self.fail(f"no hinge between the ground and {model.body(body).name!r}", "tool: NAME")
        return found[::-1]

    def _joint_frame(self, joint: int) -> np.ndarray:
        """A frame in the world that the joint turns about z, all joints at zero."""
        body = int(self.model.jnt_bodyid[joint])
        z = self.data.xmat[body].reshape(3, 3) @ self.model.jnt_axis[joint]
        x = np.eye(3)[np.argmin(np.abs(z))]
        x = x - z * (x @ z)
        x /= np.linalg.norm(x)
        frame = np.eye(4)
        frame[:3, :3] = np.stack([x, np.cross(z, x), z], axis=1)
        frame[:3, 3] = self.data.xpos[body] + self.data.xmat[body].reshape(3, 3) @ self.model.jnt_pos[joint]
        return frame

    # ---- limits --------------------------------------------------------------------

    def _limits(self, joints: Sequence[int]) -> JointLimits:
        model, names = self.model, [self.model.joint(j).name for j in joints]
        limited = [bool(model.jnt_limited[j]) for j in joints]
        ends = [
            [model.jnt_range[j][k] if has else None for j, has in zip(joints, limited, strict=True)] for k in (0, 1)
        ]
        lower = self._numbers("lower_rad", names, ends[0])
        upper = self._numbers("upper_rad", names, ends[1])
        for name, low, high in zip(names, lower, upper, strict=True):
            if not low < high:
                raise RobotError(f"{self.path}: joint {name!r} has the limits {low:g} .. {high:g} rad, which are none")
        velocity = self._numbers("velocity_rad_s", names, [self.speeds.get(name, SLOW_RAD_S) for name in names])
        acceleration = self._numbers("acceleration_rad_s2", names, [ACCELERATION_RAD_S2] * len(names))
        return JointLimits(
            lower_rad=lower,
            upper_rad=upper,
            velocity_rad_s=velocity,
            acceleration_rad_s2=acceleration,
            jerk_rad_s3=self._numbers("jerk_rad_s3", names, (JERK_PER_ACCELERATION * acceleration).tolist()),
            torque_n_m=np.zeros(len(names)),
        )

    def _numbers(self, key: str, names: Sequence[str], known: Sequence[float | None]) -> np.ndarray:
        """What the robot file says of every joint under a key, else what is known; more than zero but for angles."""
        told = getattr(self.told, key)
        if isinstance(told, dict):
            for name in told:
                if name not in names:
                    raise RobotError(f"{self.path}: {key}: {UnknownNameError('joint', name, names)}")
            values = [told.get(name, value) for name, value in zip(names, known, strict=True)]
        elif isinstance(told, list):
            if len(told) != len(names):
                raise RobotError(f"{self.path}: {key} needs {len(names)} numbers, of {', '.join(names)}, not {told}")
            values = told
        else:
            values = list(known) if told is None else [told] * len(names)
        for name, value in zip(names, values, strict=True):
            if value is None:
                raise self.fail(f"joint {name!r} has no limits", f"{key}: {{{name}: NUMBER}}")
            if not np.isfinite(value) or (value <= 0 and key not in ("lower_rad", "upper_rad")):
                raise RobotError(f"{self.path}: {key} of joint {name!r} must be finite and more than 0, not {value}")
        return np.array(values, float)

    def _loads(self, joints: Sequence[int], limits: JointLimits) -> tuple[np.ndarray, np.ndarray]:
        """Largest inertia [kg m2] and weight [N m] that every joint meets."""
        model, data = self.model, self.data
        dof, qpos = model.jnt_dofadr[list(joints)], model.jnt_qposadr[list(joints)]
        rng, moved, row = np.random.default_rng(0), np.eye(model.nv), np.zeros(model.nv)
        inertia, weight = np.zeros(len(joints)), np.zeros(len(joints))
        for _ in range(64):
            data.qpos[:], data.qvel[:] = model.qpos0, 0.0
            data.qpos[qpos] = rng.uniform(limits.lower_rad, limits.upper_rad)
            mujoco.mj_forward(model, data)
            for k, i in enumerate(dof):
                mujoco.mj_mulM(model, data, row, moved[i])
                inertia[k] = max(inertia[k], row[i])
            weight = np.maximum(weight, np.abs(data.qfrc_bias[dof]))
        data.qpos[:] = model.qpos0
        mujoco.mj_kinematics(model, data)
        return inertia, weight

    def _strong(
        self, joints: Sequence[int], limits: JointLimits, inertia: np.ndarray, weight: np.ndarray
    ) -> JointLimits:
        model, known = self.model, []
        for k, joint in enumerate(joints):
            most = STRENGTH * (weight[k] + inertia[k] * limits.acceleration_rad_s2[k])
            if model.jnt_actfrclimited[joint]:
                most = np.abs(model.jnt_actfrcrange[joint]).min()
            for i in range(model.nu):
                drives = model.actuator_trntype[i] == mujoco.mjtTrn.mjTRN_JOINT and model.actuator_trnid[i, 0] == joint
                if drives and model.actuator_forcelimited[i]:
                    most = np.abs(model.actuator_forcerange[i] * model.actuator_gear[i, 0]).min()
            known.append(float(most))
        names = [model.joint(j).name for j in joints]
        return dataclasses.replace(limits, torque_n_m=self._numbers("torque_n_m", names, known))

    # ---- the gripper -----------------------------------------------------------------

    def _gripper(self, joints: Sequence[int], tool: np.ndarray) -> tuple[Gripper | None, np.ndarray | None]:
        """The gripper, and the direction in the world that its jaws move along with all joints at zero."""
        model = self.model
        if self.told.gripper is not None:
            return self._told_gripper(self.told.gripper)
        last = int(model.jnt_bodyid[joints[-1]])
        beyond = [j for j in range(model.njnt) if j not in joints and self._hangs_on(int(model.jnt_bodyid[j]), last)]
        if len(beyond) != 2 or any(model.jnt_type[j] != _SLIDE for j in beyond):
            return None, None
        jaws = [int(model.jnt_bodyid[j]) for j in beyond]
        axes = [self.data.xmat[b].reshape(3, 3) @ model.jnt_axis[j] for b, j in zip(jaws, beyond, strict=True)]
        if abs(axes[0] @ axes[1]) < 0.99 or abs(axes[0] @ tool[:3, 2]) > 0.1:
            return None, None
        solid = [self._solid(body) for body in jaws]
        if not all(solid):
            return None, None
        ends = np.zeros(6)
        offset = min(mujoco.mj_geomDistance(model, self.data, a, b, 1.0, ends) for a, b in product(solid[0], solid[1]))
        middle = [np.mean([self.data.geom_xpos[g] for g in geoms], axis=0) for geoms in solid]
        apart = middle[0] - middle[1]
        weights = np.array([np.sign(apart @ axes[0]), -np.sign(apart @ axes[1])])
        ranges = [model.jnt_range[j] for j in beyond]
        if not all(model.jnt_limited[j] for j in beyond):
            raise self.fail(f"the slides {', '.join(model.joint(j).name for j in beyond)} have no limits", "gripper")
        offset = max(offset, 0.0)
        open_m = sum(max(w * r[0], w * r[1]) for w, r in zip(weights, ranges, strict=True)) + offset
        gripper = Gripper(
            joints=tuple(self.prefix + model.joint(j).name for j in beyond),
            width_per_joint_m=weights,
            offset_m=offset,
            open_m=float(open_m),
            speed_m_s=GRIP_M_S,
            force_n=GRIP_N,
            jaws=(self.prefix + model.body(jaws[0]).name, self.prefix + model.body(jaws[1]).name),
        )
        return gripper, axes[0]

    def _told_gripper(self, told: GripperFile) -> tuple[Gripper, np.ndarray]:
        model = self.model
        known = {model.joint(i).name: i for i in range(model.njnt)}, {model.body(i).name: i for i in range(model.nbody)}
        for kind, names, there in (("joint", told.joints, known[0]), ("body", told.jaws, known[1])):
            for name in names:
                if name not in there:
                    raise RobotError(f"{self.path}: gripper: {UnknownNameError(kind, name, there)}")
        if len(told.width_per_joint_m) != len(told.joints) or not told.joints:
            raise RobotError(f"{self.path}: gripper: width_per_joint_m needs {len(told.joints)} numbers, one a joint")
        if min(told.open_m, told.speed_m_s, told.force_n) <= 0:
            raise RobotError(f"{self.path}: gripper: open_m, speed_m_s and force_n must be more than 0")
        first, second = (np.array(self.data.xpos[known[1][jaw]]) for jaw in told.jaws)
        joint = known[0][told.joints[0]]
        body = int(model.jnt_bodyid[joint])
        axis = self.data.xmat[body].reshape(3, 3) @ model.jnt_axis[joint]
        along = axis if model.jnt_type[joint] == _SLIDE else first - second
        gripper = Gripper(
            joints=tuple(self.prefix + name for name in told.joints),
            width_per_joint_m=np.array(told.width_per_joint_m),
            offset_m=told.offset_m,
            open_m=told.open_m,
            speed_m_s=told.speed_m_s,
            force_n=told.force_n,
            jaws=(self.prefix + told.jaws[0], self.prefix + told.jaws[1]),
            meet_m=told.meet_m,
        )
        return gripper, along

    def _hangs_on(self, body: int, other: int) -> bool:
        while body and body != other:
            body = int(self.model.body_parentid[body])
        return body == other

    def _solid(self, body: int) -> list[int]:
        model = self.model
        return [
            g
            for g in range(model.ngeom)
            if model.geom_bodyid[g] == body and model.geom_contype[g] | model.geom_conaffinity[g]
        ]

    # ---- poses -------------------------------------------------------------------------

    def _at_home(self, robot: Robot, joints: Sequence[int]) -> Robot:
        """The robot with a rest pose in which its tool points down, x forward; its tool turned by half, if need be."""
        model = self.model
        key = next((i for i in range(model.nkey) if model.key(i).name == "home"), None)
        if self.told.home_rad is not None:
            if len(self.told.home_rad) != robot.dof:
                raise RobotError(f"{self.path}: home_rad needs {robot.dof} numbers, not {self.told.home_rad}")
            home = np.array(self.told.home_rad)
        elif key is not None:
            home = model.key_qpos[key][model.jnt_qposadr[list(joints)]]
        else:
            return self._search(robot)
        home = np.clip(home, robot.limits.lower_rad, robot.limits.upper_rad)
        pose = Kinematics(robot).ee_pose(home)
        if np.arccos(np.clip(-pose[2, 2], -1, 1)) > LEANING_RAD:
            if self.told.home_rad is not None:
                raise RobotError(
                    f"{self.path}: with home_rad the tool's z axis does not point down; take another pose or tool"
                )
            return self._search(robot)
        if pose[0, 0] < 0:  # jaws have no front
            back = _about_z(np.pi)
            robot, pose = dataclasses.replace(robot, tool=robot.tool @ back), pose @ back
        found, near = _inverse(dataclasses.replace(robot, home_rad=home), home[None], pose[None, :3, 3])
        return dataclasses.replace(robot, home_rad=found[0] if near[0] else home)

    def _search(self, robot: Robot) -> Robot:
        reach, rng, limits = _reach(robot), np.random.default_rng(0), robot.limits
        turns = (0, 2) if robot.gripper is not None else (0, 2, 1, 3)  # jaws have no front
        tools = [robot.tool @ _about_z(quarter * np.pi / 2) for quarter in turns]
        for (far, high), tool in product(PLACES, tools):
            turned = dataclasses.replace(robot, tool=tool)
            start = rng.uniform(limits.lower_rad, limits.upper_rad, (STARTS, robot.dof))
            found, near = _inverse(turned, start, np.tile([far * reach, 0.0, high * reach], (STARTS, 1)))
            once = (found + np.pi) % (2 * np.pi) - np.pi  # rather than turns around
            found = np.where((once > limits.lower_rad) & (once < limits.upper_rad), once, found)
            homes = _unlike(found[near], float(np.linalg.norm(limits.upper_rad - limits.lower_rad)) / 20)
            if homes:
                robots = [dataclasses.replace(turned, home_rad=home) for home in homes]
                best = heapq.nlargest(FINALISTS, robots, key=self._glance)
                return max((dataclasses.replace(r, workspace=self._workspace(r)) for r in best), key=_worth)
        raise self.fail("no pose found in which the tool's z axis points down, x forward", "home_rad: [...]")

    @staticmethod
    def _glance(robot: Robot) -> float:
        """About `_worth`, in a tenth of the time that its workspace takes."""
        return _worth(dataclasses.replace(robot, workspace=_table(robot, GLANCE * _reach(robot), every=2)))

    def _workspace(self, robot: Robot) -> Workspace | None:
        """The largest rectangle on the table that the tool reaches pointing down, low and higher up; None: none."""
        if self.told.workspace is not None:
            told = self.told.workspace
            return Workspace(centre_m=told.centre_m, half_m=told.half_m, height_m=told.height_m)
        found = [area for share in TABLES if (area := _table(robot, share * _reach(robot))) is not None]
        roomy = (area for area in found if 4 * np.prod(area.half_m) >= ROOMY_M2)
        return next(roomy, max(found, key=lambda area: np.prod(area.half_m), default=None))


def _worth(robot: Robot) -> float:
    """How good a rest pose is: by the table it reaches, the elbow up and straight ahead."""
    reach, area = _reach(robot), robot.workspace
    origins, _ = Kinematics(robot).frames(robot.home_rad)
    up = np.clip(origins[2:, 2].min() / (0.2 * reach), 0.01, 1.0)
    ahead = np.clip(1.0 - np.abs(origins[:, 1]).max() / (0.3 * reach), 0.01, 1.0)
    return float(up * ahead * (np.prod(area.half_m) if area is not None else 1e-6))


def _table(robot: Robot, top_m: float, every: int = 1) -> Workspace | None:
    """The largest rectangle that the tool reaches pointing down, low and at a height, of places every so-many-th."""
    reach, top = _reach(robot), min(top_m, HIGHEST_M)
    x, y = np.linspace(0.15, 0.9, 31)[::every] * reach, np.linspace(0.0, 0.5, 11)[::every] * reach
    cells = np.stack(np.meshgrid(x, [*-y[:0:-1], *y], [0.02, top], indexing="ij"), axis=-1)
    places = cells.reshape(-1, 3)
    _, near = _inverse(robot, np.tile(robot.home_rad, (len(places), 1)), places)
    both = np.asarray(near.reshape(cells.shape[:-1]).all(-1))
    fits = (both & both[:, ::-1])[:, len(y) - 1 :]  # as far on the left as on the right
    best = (0.0, 0, 0, 0)
    for i, j in product(range(len(x)), repeat=2):
        wide = int(np.cumprod(fits[i : j + 1].all(axis=0)).sum()) - 1 if i < j else 0
        if wide > 0:
            best = max(best, (float((x[j] - x[i]) * y[wide]), i, j, wide))
    area, i, j, wide = best
    if not area:
        return None
    return Workspace(
        centre_m=(float(x[i] + x[j]) / 2, 0.0), half_m=(float(x[j] - x[i]) / 2, float(y[wide])), height_m=float(top)
    )


def _reach(robot: Robot) -> float:
    """Length of the chain from the second joint on [m]."""
    return float(np.linalg.norm([*robot.joint_frames[1:, :3, 3], robot.tool[:3, 3]], axis=-1).sum())


def _unlike(poses: np.ndarray, apart: float, most: int = 12) -> list[np.ndarray]:
    """Some of the poses (N, J) that differ from each other by more than so much."""
    found: list[np.ndarray] = []
    for pose in poses:
        if len(found) < most and all(np.linalg.norm(pose - other) > apart for other in found):
            found.append(pose)
    return found


def _inverse(robot: Robot, start: np.ndarray, places: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Joint angles (N, J) that bring the tool to places (N, 3) pointing down, x forward, and which of them do (N,)."""
    kinematics, limits, q = Kinematics(robot), robot.limits, start
    for _ in range(8):
        q = inverse(kinematics, q, places, np.tile(DOWN, (len(places), 1, 1)))
    pos, rot, _ = kinematics.pose_and_jacobian(q)
    near = (np.linalg.norm(pos - places, axis=-1) < NEAR_M) & (np.linalg.norm(angle(rot @ DOWN.T), axis=-1) < NEAR_RAD)
    return q, near & (np.minimum(q - limits.lower_rad, limits.upper_rad - q).min(-1) > CLEAR_RAD)


def _turned(tool: np.ndarray, along: np.ndarray) -> np.ndarray:
    """The tool's frame turned about its z axis so that y lies along a direction."""
    inside = tool[:3, :3].T @ along
    by = np.arctan2(-inside[0], inside[1])
    return tool @ _about_z((by + np.pi / 2) % np.pi - np.pi / 2)


def _about_z(angle_rad: float) -> np.ndarray:
    """A turn (4, 4) about z."""
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    return np.array([[c, -s, 0, 0], [s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def _speeds(path: Path) -> dict[str, float]:
    """Velocity limits [rad/s] of a URDF's joints."""
    root = ElementTree.fromstring(path.read_bytes())
    found = {}
    for joint in root.iter("joint") if root.tag == "robot" else ():
        limit = joint.find("limit")
        speed = float(limit.get("velocity", 0.0)) if limit is not None else 0.0
        if speed > 0.0:
            found[joint.get("name", "")] = speed
    return found


def _joints_above(body: Any) -> int:
    """How many joints a body of a specification moves with."""
    count = 0
    while body is not None and body.name != "world":
        count += len(body.joints)
        body = body.parent
    return count


def _build(robot: Robot, made: _Made | None = None) -> mujoco.MjSpec:
    """The model that a robot was read off, as `hardware.robots.robot.Robot.mjcf` wants it."""
    assert made is not None
    inner = read(made.path)
    world = inner.worldbody
    for part in (*inner.keys, *inner.sensors, *inner.actuators, *world.lights, *world.cameras, *world.geoms):
        inner.delete(part)
    spec = mujoco.MjSpec()
    spec.modelname, spec.compiler.degree = robot.name, False
    spec.option.timestep, spec.option.integrator = mjcf.TIMESTEP_S, mujoco.mjtIntegrator.mjINT_IMPLICITFAST
    base = spec.worldbody.add_body(name="link0")
    spec.attach(inner, frame=base.add_frame(), prefix=made.prefix)
    only_seen = any(not (g.contype or g.conaffinity) for g in spec.geoms)
    jaws = robot.gripper.jaws if robot.gripper is not None else ()
    for body in spec.bodies:
        body.gravcomp = 1
        for geom in body.geoms:
            if not (geom.contype or geom.conaffinity):
                continue
            geom.contype, geom.conaffinity = ARM_BIT, SCENE_BIT | FLOOR_BIT
            if _joints_above(body) < 2:  # it stands on the floor
                geom.conaffinity = SCENE_BIT
            geom.group = mjcf.COLLISION_GROUP if only_seen else geom.group
            if body.name in jaws:
                for key, value in mjcf.rubber().items():
                    setattr(geom, key, value)
    for j, name in enumerate(robot.joints):
        joint = spec.joint(name)
        for key, value in mjcf.joint_limits(robot, j).items():
            setattr(joint, key, value)
    carrier = spec.body(made.prefix + made.tool_body)
    hand = made.tool.copy()
    hand[:3, 3] -= HAND_M * hand[:3, 2]
    mjcf.add_tool(carrier, made.tool)
    carrier.add_body(name="hand", pos=hand[:3, 3], quat=mjcf.quat(hand[:3, :3]))
    mjcf.add_servos(spec, robot)
    if robot.gripper is not None:
        mjcf.add_grip(spec, robot.gripper, GRIP_KP_N_M, GRIP_KD_N_S_M)
    return spec
