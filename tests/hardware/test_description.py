"""Arms from models: our own written out as MJCF, a URDF of a stranger, robot files; and what is wrong with others."""

from __future__ import annotations

import re
import sys
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mujoco
import numpy as np
import pytest

from hardware.robots import ROBOTS, open_robot
from hardware.robots.kinematics import Kinematics
from policies.registry import POLICIES
from robo.core.errors import RobotError, TaskError, UnknownNameError
from robo.evaluate.evaluation import evaluate
from tasks.registry import load_task
from tests.hardware.six_axes import urdf


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models: ``panda.xml``, ``so101.xml``, ``six.urdf``. Tests share them: to read an arm off one takes seconds."""
    tmp_path = tmp_path_factory.mktemp("arms")
    for name in ("panda_hand", "so101"):
        spec = ROBOTS.make(name).mjcf()
        spec.compile()
        (tmp_path / f"{name.removesuffix('_hand')}.xml").write_text(spec.to_xml())
    (tmp_path / "six.urdf").write_text(urdf())
    (tmp_path / "so101.yaml").write_text(
        "model: so101.xml\nname: small\nvelocity_rad_s: 4.7\ntorque_n_m: {elbow_flex: 2.0}\n"
        "gripper: {joints: [gripper], jaws: [fixed_jaw, moving_jaw], width_per_joint_m: [0.07253], offset_m: 0.01266,"
        " open_m: 0.07, meet_m: 0.025, force_n: 20}\n"
    )
    return tmp_path


def check_solved(task: str) -> None:
    """The expert solves a task as its specification wants it, without a violation."""
    found = evaluate(partial(_load, task), episodes=2, seed=0, workers=1, policy="expert").episodes
    assert all(e.success and e.satisfied and not e.violations for e in found), task


def _load(name: str):
    task, kind = load_task(name), POLICIES.make("expert")
    return task, kind.load(task, kind.config(), {}, "cpu")


@pytest.mark.parametrize("robot", ["ur5e", "so101"])
@pytest.mark.parametrize("task", ["reach", "push", "pick_and_place", "stack_cubes"])
def test_every_robot_does_the_everyday_tasks(robot: str, task: str) -> None:
    check_solved(f"{task}@{robot}")


@pytest.mark.parametrize("file", ["panda.xml", "so101.yaml", "six.urdf"])
def test_an_arm_from_a_file_does_the_tasks(folder: Path, file: str) -> None:
    for task in ("reach", "pick_and_place"):
        check_solved(f"{task}@{folder / file}")


@pytest.mark.parametrize("file", ["panda.xml", "so101.yaml", "six.urdf"])
def test_its_kinematics_are_those_of_its_model(folder: Path, file: str) -> None:
    robot = open_robot(str(folder / file))
    model = robot.mjcf().compile()
    data = mujoco.MjData(model)
    at = [model.joint(name).qposadr[0] for name in robot.joints]
    for q in np.random.default_rng(0).uniform(robot.limits.lower_rad, robot.limits.upper_rad, (20, robot.dof)):
        data.qpos[at] = q
        mujoco.mj_kinematics(model, data)
        pose = Kinematics(robot).ee_pose(q)
        np.testing.assert_allclose(pose[:3, 3], data.site("tcp").xpos, atol=1e-6)
        np.testing.assert_allclose(pose[:3, :3], data.site("tcp").xmat.reshape(3, 3), atol=1e-5)
    home = Kinematics(robot).ee_pose(robot.home_rad)
    np.testing.assert_allclose(home[:3, :3], np.diag([1.0, -1.0, -1.0]), atol=0.01)
    assert robot.workspace is not None and robot.gripper is not None


def test_what_the_file_says_is_taken_over(folder: Path) -> None:
    six, small = open_robot(str(folder / "six.urdf")), open_robot(str(folder / "so101.yaml"))
    assert six.name == "six" and six.joints == tuple(
        f"six/{n}" for n in ("pan", "lift", "elbow", "roll", "bend", "turn")
    )
    np.testing.assert_array_equal(six.limits.velocity_rad_s, [2.0, 2.0, 2.0, 2.5, 2.5, 2.5])
    np.testing.assert_array_equal(six.limits.torque_n_m, [90.0, 90.0, 60.0, 20.0, 20.0, 20.0])
    assert six.gripper is not None and six.gripper.open_m == pytest.approx(0.08)
    model = six.mjcf().compile()
    assert model.body("six/forearm").mass == pytest.approx(2.0)
    assert (model.geom_contype == 0).sum() == 9  # its looks
    assert small.name == "small" and load_task(f"reach@{folder / 'so101.yaml'}").name == "reach@small"
    np.testing.assert_array_equal(small.limits.velocity_rad_s, [4.7] * 5)
    assert small.limits.torque_n_m[2] == 2.0 and small.limits.torque_n_m[0] == pytest.approx(2.94)


def test_a_name_of_robot_descriptions(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(
        sys.modules,
        "robot_descriptions.panda_mj_description",
        SimpleNamespace(MJCF_PATH=str(folder / "panda.xml")),
    )
    robot = open_robot("panda_mj_description")
    assert robot.name == "panda_mj_description" and robot.dof == 7


def test_names_that_are_none() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown robot 'panda_hnd': did you mean 'panda_hand'"):
        load_task("reach@panda_hnd")
    with pytest.raises(UnknownNameError, match=r"'ur5e_mj_descripton': did you mean 'ur5e_mj_description'"):
        open_robot("ur5e_mj_descripton")
    with pytest.raises(RobotError, match=r"no robot at no/such/arm\.xml: there is no such file"):
        open_robot("no/such/arm.xml")


_BODY = '<body name="arm">{}<geom size="0.1"/><site name="tcp" pos="0 0 0.3"/></body>'
_HINGE = '<joint name="hinge" axis="0 0 1" range="-1 1"/>'


def mjcf(*parts: str) -> str:
    return f"<mujoco><compiler angle='radian'/><worldbody>{''.join(parts)}</worldbody></mujoco>"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("<mujoco><worldbody>", r"arm\.xml is no XML: .*line 1"),
        ("arm", r"arm\.xml is no XML"),
        ("<mujoco><worldbodi/></mujoco>", r"arm\.xml is no model of a robot: .*worldbodi"),
        (mjcf(f'<body name="arm">{_HINGE}<site name="tcp"/></body>'), r"unphysical .*mass and inertia"),
        (mjcf(_BODY.format(_HINGE).replace('size="0.1"', 'size="-0.1"')), "unphysical .*must be positive in geom"),
        (
            mjcf(_BODY.format(_HINGE).replace("tcp", "tipp")),
            r"no frame of the tool by a usual name \(sites: tipp; .*tool: NAME",
        ),
        (mjcf(_BODY.format("")), "no hinge between the ground and 'arm'"),
        (mjcf(_BODY.format("<freejoint name='free'/>")), "joint 'free' of body 'arm' is no single hinge"),
        (mjcf(_BODY.format('<joint name="rail" type="slide"/>')), "joint 'rail' of body 'arm' is no single hinge"),
        (mjcf(_BODY.format('<joint axis="0 0 1" range="-1 1"/>')), "a joint of body 'arm' has no name"),
        (
            mjcf(_BODY.format('<joint name="endless"/>')),
            r"joint 'endless' has no limits; .*'lower_rad: {endless: NUMBER}'",
        ),
        (mjcf(_BODY.format('<joint name="odd" range="1 -1" limited="true"/>')), r"unphysical .*range.*joint .*'odd'"),
        (mjcf(_BODY.format(_HINGE)), r"no pose found in which the tool's z axis points down, .*home_rad"),
        (urdf(limits=False), r"joint 'pan' has no limits"),
        (urdf(masses=-1.0), r"arm\.xml is unphysical"),
        (urdf(tool="nozzle"), r"no frame of the tool by a usual name"),
    ],
)
def test_models_that_are_no_arm(tmp_path: Path, text: str, match: str) -> None:
    path = tmp_path / "arm.xml"
    path.write_text(text)
    with pytest.raises(RobotError, match=match) as found:
        open_robot(str(path))
    assert str(path) in str(found.value) and "\n" not in str(found.value)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("model: [", "cannot be read"),
        ("six.urdf", "must hold keys such as model"),
        ("model: six.urdf\ntoool: tcp", "unknown key 'toool': did you mean 'tool'"),
        ("tool: tcp", "model: Field required"),
        ("model: sixx.urdf", r"no robot at sixx\.urdf: there is no such file; .*arm\.yaml names it"),
        ("model: six.urdf\nhome_rad: [zero]", "home_rad.0: .*number"),
        ("model: six.urdf\ntool: tpc", "unknown site or body 'tpc': did you mean 'tcp'"),
        ("model: six.urdf\nhome_rad: [0, 1]", "home_rad needs 6 numbers"),
        ("model: six.urdf\nhome_rad: [0, 0, 0, 0, 0, 0]", "z axis does not point down"),
        ("model: six.urdf\nvelocity_rad_s: [1, 2]", "velocity_rad_s needs 6 numbers, of pan, lift"),
        ("model: six.urdf\nvelocity_rad_s: {pen: 1}", "unknown joint 'pen': did you mean 'pan'"),
        ("model: six.urdf\ntorque_n_m: -1", "must be finite and more than 0"),
        ("model: six.urdf\nlower_rad: {pan: 3}", "joint 'pan' has the limits 3 .. 2.9 rad, which are none"),
        (
            "model: six.urdf\n"
            "gripper: {joints: [slide_q], jaws: [finger_a, finger_b], width_per_joint_m: [1], open_m: 0.1}",
            "gripper: unknown joint 'slide_q': did you mean 'slide_",
        ),
    ],
)
def test_robot_files_that_do_not_fit(folder: Path, text: str, match: str) -> None:
    path = folder / "arm.yaml"
    path.write_text(text)
    with pytest.raises(RobotError, match=match) as found:
        open_robot(str(path))
    assert re.search(r"arm\.yaml|six\.urdf", str(found.value))


def test_a_task_that_grasps_needs_a_gripper(tmp_path: Path) -> None:
    path = tmp_path / "bare.urdf"
    path.write_text(urdf(fingers=False))
    assert open_robot(str(path)).gripper is None
    with pytest.raises(TaskError, match="has no gripper or no workspace"):
        load_task(f"pick_and_place@{path}")
