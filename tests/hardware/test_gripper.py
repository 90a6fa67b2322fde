"""Grippers: width, force, frames, and a grasp that holds by friction alone."""

from __future__ import annotations

import mujoco
import numpy as np
import pytest

from hardware.robots import ROBOTS, Robot
from hardware.robots.kinematics import Kinematics

NAMES = [name for name in ROBOTS if ROBOTS.make(name).gripper is not None]
HALF_M, MASS_KG = 0.02, 0.06


@pytest.fixture(params=NAMES)
def robot(request: pytest.FixtureRequest) -> Robot:
    return ROBOTS.make(request.param)


def at_home(robot: Robot, spec: mujoco.MjSpec | None = None) -> tuple[mujoco.MjModel, mujoco.MjData]:
    model = (spec or robot.mjcf()).compile()
    data = mujoco.MjData(model)
    data.qpos[: robot.dof] = data.ctrl[: robot.dof] = robot.home_rad
    return model, data


def width_m(robot: Robot, model: mujoco.MjModel, data: mujoco.MjData) -> float:
    assert robot.gripper is not None
    joints = np.array([data.joint(name).qpos[0] for name in robot.gripper.joints])
    return float(joints @ robot.gripper.width_per_joint_m + robot.gripper.offset_m)


def test_the_commanded_width_is_reached(robot: Robot) -> None:
    assert robot.gripper is not None
    model, data = at_home(robot)
    for wanted in (robot.gripper.open_m, 0.0, 0.6 * robot.gripper.open_m):
        data.actuator("gripper").ctrl = wanted
        for _ in range(1000):
            mujoco.mj_step(model, data)
        assert width_m(robot, model, data) == pytest.approx(wanted, abs=1e-3)
        gap, middle = between(robot, model, data)
        assert gap == pytest.approx(wanted, abs=0.05 * robot.gripper.open_m + 1e-3)
        # Jaws that move alike do so around the tool; of two of which one stands, that one does not move.
        assert middle == pytest.approx(robot.gripper.meet_m and robot.gripper.meet_m - gap / 2, abs=1.5e-3)


def between(robot: Robot, model: mujoco.MjModel, data: mujoco.MjData) -> tuple[float, float]:
    """Distance of the tips of the jaws, and where the middle between them is along y of the tool [m]."""
    assert robot.gripper is not None
    first, second = (
        next(i for i in range(model.ngeom) if model.geom(i).name in (f"{jaw}_pad", f"{jaw}_tip"))
        for jaw in robot.gripper.jaws
    )
    ends = np.zeros(6)
    gap = mujoco.mj_geomDistance(model, data, first, second, 1.0, ends)
    middle = (ends[:3] + ends[3:]) / 2 - data.site("tcp").xpos
    return gap, float(middle @ data.site("tcp").xmat.reshape(3, 3)[:, 1])


def test_at_rest_the_tool_points_down_and_forward(robot: Robot) -> None:
    pose = Kinematics(robot).ee_pose(robot.home_rad)
    np.testing.assert_allclose(pose[:3, :3], [[1, 0, 0], [0, -1, 0], [0, 0, -1]], atol=1e-6)
    area = robot.workspace
    assert area is not None
    # Small arms say how far they reach.
    assert (2 * area.half_m[0] >= 0.2 and 2 * area.half_m[1] >= 0.3) or area.reach_m < 0.3


def test_a_cube_is_held_by_friction_and_no_harder_than_allowed(robot: Robot) -> None:
    assert robot.gripper is not None
    spec = robot.mjcf()
    spec.option.cone, spec.option.impratio = mujoco.mjtCone.mjCONE_ELLIPTIC, 10.0
    tip = Kinematics(robot).ee_pose(robot.home_rad)[:3, 3]
    cube = spec.worldbody.add_body(name="cube", pos=tip, gravcomp=1)
    cube.add_freejoint()
    cube.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[HALF_M] * 3, mass=MASS_KG, condim=4, friction=[0.8, 0.01, 1e-4])
    model, data = at_home(robot, spec)
    finger = robot.gripper.joints
    per_joint = robot.gripper.width_per_joint_m
    for name, weight in zip(finger, per_joint, strict=True):
        data.joint(name).qpos = (robot.gripper.open_m - robot.gripper.offset_m) * weight / (per_joint @ per_joint)
    data.actuator("gripper").ctrl = robot.gripper.open_m
    mujoco.mj_step(model, data, nstep=50)
    data.actuator("gripper").ctrl = 0.0
    mujoco.mj_step(model, data, nstep=500)
    assert width_m(robot, model, data) == pytest.approx(2 * HALF_M, abs=3e-3)
    model.body_gravcomp[model.body("cube").id] = 0.0
    force, pressed = np.zeros(6), 0.0
    jaw = model.body(robot.gripper.jaws[0]).id
    for i in range(data.ncon):
        if jaw in model.geom_bodyid[data.contact[i].geom]:
            mujoco.mj_contactForce(model, data, i, force)
            pressed += force[0]
    assert 1.0 < pressed <= 1.1 * robot.gripper.force_n
    held = data.site("tcp").xmat.reshape(3, 3).T @ (data.body("cube").xpos - data.site("tcp").xpos)
    for k in range(1000):  # two seconds of shaking
        data.ctrl[: robot.dof] = robot.home_rad + 0.05 * np.sin(2 * np.pi * 2 * k * model.opt.timestep)
        mujoco.mj_step(model, data)
    still = data.site("tcp").xmat.reshape(3, 3).T @ (data.body("cube").xpos - data.site("tcp").xpos)
    assert np.linalg.norm(still - held) < 2e-3
