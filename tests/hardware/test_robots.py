"""The arm's data, its kinematics and its MuJoCo model say the same."""

from __future__ import annotations

import dataclasses
import importlib

import mujoco
import numpy as np
import pytest
import torch

from hardware.robots import ROBOTS, Robot
from hardware.robots.kinematics import Kinematics
from hardware.robots.kinematics_torch import TorchKinematics
from hardware.robots.mjcf import COLLISION_GROUP, VISUAL_GROUP
from hardware.robots.visual import load_visual
from robo.core.errors import MissingDependencyError, RobotError, UnknownNameError
from robo.core.geometry import segment_distance
from tasks.tabletop.pick_and_place import PickAndPlace
from tasks.tabletop.turns import down

_PANDA = (("shoulder", "upper_arm"), ("forearm", "flange"), ("forearm_side", "flange"))
AROUND_A_JOINT = {"panda": _PANDA, "panda_hand": _PANDA}


@pytest.fixture(scope="module", params=list(ROBOTS))
def robot(request: pytest.FixtureRequest) -> Robot:
    return ROBOTS.make(request.param)


@pytest.fixture(scope="module")
def model(robot: Robot) -> mujoco.MjModel:
    return robot.mjcf().compile()


def random_q(robot: Robot, n: int, seed: int = 0) -> np.ndarray:
    """Joint angles (n, J), three in ten at a limit."""
    rng = np.random.default_rng(seed)
    lower, upper = robot.limits.lower_rad, robot.limits.upper_rad
    q = rng.uniform(lower, upper, (n, robot.dof))
    end = np.where(rng.random(q.shape) < 0.5, lower, upper)
    return np.where(rng.random(q.shape) < 0.3, end, q)


def posed(model: mujoco.MjModel, q: np.ndarray) -> mujoco.MjData:
    """The arm at joint angles (J,), a gripper closed; the joints of the arm come first."""
    data = mujoco.MjData(model)
    data.qpos[: len(q)] = q
    mujoco.mj_forward(model, data)
    return data


def gaps(robot: Robot, q: np.ndarray) -> tuple[np.ndarray, list[tuple[int, int]]]:
    """Gaps between all pairs of capsules, (n, pairs) [m], and the pairs."""
    c = len(robot.capsules)
    kinematics = Kinematics(robot)
    i, j = np.triu_indices(c, 1)
    points = np.moveaxis(kinematics.points(q), -1, 0)
    start, end, radii = points[..., :c], points[..., c : 2 * c], kinematics.radii_m
    gap = segment_distance(start[..., i], end[..., i], start[..., j], end[..., j]) - radii[i] - radii[j]
    return gap, list(zip(i.tolist(), j.tolist(), strict=True))


# ---- kinematics ---------------------------------------------------------------


def test_mujoco_puts_every_capsule_and_the_tool_where_the_kinematics_do(robot: Robot, model: mujoco.MjModel) -> None:
    kinematics, c = Kinematics(robot), len(robot.capsules)
    for q in random_q(robot, 50):
        data, points = posed(model, q), kinematics.points(q)
        for i, capsule in enumerate(robot.capsules):
            geom = data.geom(capsule.name)
            radius, half = model.geom(capsule.name).size[:2]
            axis = geom.xmat.reshape(3, 3)[:, 2] * half
            sign = np.sign(axis @ (points[i] - geom.xpos))
            np.testing.assert_allclose(geom.xpos + sign * axis, points[i], atol=1e-9)
            np.testing.assert_allclose(geom.xpos - sign * axis, points[c + i], atol=1e-9)
            assert radius == capsule.radius_m
        site, pose = data.site("tcp"), kinematics.ee_pose(q)
        np.testing.assert_allclose(site.xpos, points[-1], atol=1e-9)
        np.testing.assert_allclose(site.xpos, pose[:3, 3], atol=1e-9)
        np.testing.assert_allclose(site.xmat.reshape(3, 3), pose[:3, :3], atol=1e-9)
        np.testing.assert_allclose(kinematics.ee_pos(q), points[-1], atol=1e-12)


def test_jacobian_is_that_of_mujoco(robot: Robot, model: mujoco.MjModel) -> None:
    linear, angular = np.empty((3, model.nv)), np.empty((3, model.nv))
    for q in random_q(robot, 20):
        data = posed(model, q)
        mujoco.mj_jacSite(model, data, linear, angular, model.site("tcp").id)
        wanted = np.concatenate([linear, angular])[:, : robot.dof]
        np.testing.assert_allclose(Kinematics(robot).jacobian(q), wanted, atol=1e-9)


def test_torch_and_numpy_agree_batched_or_not(robot: Robot) -> None:
    q = random_q(robot, 12)
    points = Kinematics(robot).points(q)
    assert points.shape == (12, 2 * len(robot.capsules) + 1, 3)
    torch_kinematics = TorchKinematics(robot)
    np.testing.assert_allclose(torch_kinematics.points(torch.from_numpy(q)).numpy(), points, atol=1e-12)
    np.testing.assert_allclose(Kinematics(robot).points(torch.from_numpy(q)).numpy(), points, atol=1e-12)
    np.testing.assert_allclose(Kinematics(robot).points(q.reshape(3, 4, -1)).reshape(points.shape), points, atol=1e-12)
    np.testing.assert_allclose(Kinematics(robot).points(q[3]), points[3], atol=1e-12)


def test_torch_gradient_is_right(robot: Robot) -> None:
    q = torch.from_numpy(random_q(robot, 2)).requires_grad_()
    assert torch.autograd.gradcheck(TorchKinematics(robot).points, (q,), atol=1e-6)


def test_lever_bounds_the_speed_of_every_point_of_every_capsule(robot: Robot, model: mujoco.MjModel) -> None:
    kinematics, rng, c = Kinematics(robot), np.random.default_rng(1), len(robot.capsules)
    jacobian, tightest = np.empty((3, model.nv)), np.inf
    for q in random_q(robot, 100):
        data, points = posed(model, q), kinematics.points(q)
        vel = rng.normal(size=robot.dof)
        bound = np.abs(vel) @ kinematics.lever_m
        for i, capsule in enumerate(robot.capsules):
            outward = rng.normal(size=3)
            u = rng.choice([0.0, 1.0, rng.uniform()])
            point = (1 - u) * points[i] + u * points[c + i]
            point = point + capsule.radius_m * outward / np.linalg.norm(outward)
            mujoco.mj_jac(model, data, jacobian, None, point, model.body(f"link{capsule.link}").id)
            speed = np.linalg.norm(jacobian[:, : robot.dof] @ vel)
            assert speed <= bound[i] + 1e-12
            if speed > 0:
                tightest = min(tightest, bound[i] / speed)
    assert tightest < 1.5  # a bound, not a guess


# ---- the model ------------------------------------------------------------------


def test_limits_and_gains_are_the_robots(robot: Robot, model: mujoco.MjModel) -> None:
    jaws = len(robot.gripper.joints) if robot.gripper else 0
    assert model.nq == model.nv == robot.dof + jaws and model.nu == 2 * robot.dof + bool(jaws)
    for j, name in enumerate(robot.joints):
        joint, limits = model.joint(name), robot.limits
        np.testing.assert_array_equal(joint.range, [limits.lower_rad[j], limits.upper_rad[j]])
        np.testing.assert_array_equal(model.jnt_actfrcrange[joint.id], [-limits.torque_n_m[j], limits.torque_n_m[j]])
        assert joint.limited[0] and model.jnt_actfrclimited[joint.id] and model.jnt_actgravcomp[joint.id]
        kp, kd = robot.servo.kp_n_m_rad[j], robot.servo.kd_n_m_s_rad[j]
        np.testing.assert_array_equal(model.actuator(f"{name}_pos").gainprm[:1], kp)
        np.testing.assert_array_equal(model.actuator(f"{name}_pos").biasprm[:3], [0, -kp, 0])
        np.testing.assert_array_equal(model.actuator(f"{name}_vel").gainprm[:1], kd)
        np.testing.assert_array_equal(model.actuator(f"{name}_vel").biasprm[:3], [0, 0, -kd])
        assert [model.actuator(i).name for i in (j, robot.dof + j)] == [f"{name}_pos", f"{name}_vel"]
    assert model.opt.timestep == 0.002
    assert model.opt.integrator == mujoco.mjtIntegrator.mjINT_IMPLICITFAST


def test_torque_is_the_servos_law_plus_gravity_clipped_to_the_limit(robot: Robot, model: mujoco.MjModel) -> None:
    rng = np.random.default_rng(2)
    data, dof = mujoco.MjData(model), robot.dof
    clipped = 0
    for q in random_q(robot, 30):
        v = 0.2 * rng.normal(size=dof)
        data.qpos[:dof], data.qvel[:dof] = q, v
        ref = q + rng.normal(size=dof) * rng.choice([1e-4, 3e-2]), v + 0.01 * rng.normal(size=dof)
        data.ctrl[: 2 * dof] = np.concatenate(ref)
        mujoco.mj_forward(model, data)
        wanted = robot.servo.kp_n_m_rad * (ref[0] - q) + robot.servo.kd_n_m_s_rad * (ref[1] - v)
        wanted = wanted + data.qfrc_gravcomp[:dof]
        limit = robot.limits.torque_n_m
        np.testing.assert_allclose(data.qfrc_actuator[:dof], np.clip(wanted, -limit, limit), atol=1e-9)
        clipped += int((np.abs(wanted) > limit).any())
    assert 0 < clipped < 30


def test_arm_at_rest_stays_where_its_reference_is(robot: Robot, model: mujoco.MjModel) -> None:
    data = mujoco.MjData(model)
    data.qpos[: robot.dof] = data.ctrl[: robot.dof] = robot.home_rad
    for _ in range(500):
        mujoco.mj_step(model, data)
    np.testing.assert_allclose(data.qpos[: robot.dof], robot.home_rad, atol=1e-9)


def test_a_changed_robot_is_a_changed_model(robot: Robot) -> None:
    servo = dataclasses.replace(robot.servo, kp_n_m_rad=robot.servo.kp_n_m_rad * 2)
    changed = dataclasses.replace(robot, servo=servo).mjcf().compile()
    np.testing.assert_array_equal(changed.actuator_gainprm[: robot.dof, 0], 2 * robot.servo.kp_n_m_rad)


def test_geoms_are_either_solid_capsules_or_looks(robot: Robot, model: mujoco.MjModel) -> None:
    solid = (model.geom_contype != 0) | (model.geom_conaffinity != 0)
    jaws = [model.body(name).id for name in robot.gripper.jaws] if robot.gripper else []
    arm = solid & ~np.isin(model.geom_bodyid, jaws)
    assert {model.geom(i).name for i in np.flatnonzero(arm)} == {c.name for c in robot.capsules}
    assert all((solid & (model.geom_bodyid == jaw)).any() for jaw in jaws)
    assert set(model.geom_group[solid]) == {COLLISION_GROUP}
    assert set(model.geom_group[~solid]) == {VISUAL_GROUP} and (~solid).sum() > 20


# ---- what can touch what ------------------------------------------------------------


def test_self_pairs_are_all_that_can_touch(robot: Robot) -> None:
    """Searches the joint range for contact of pairs that are not listed.

    Left out are pairs that can only overlap because both wrap the same joint: neighbours,
    the Panda's column and upper arm around the shoulder, forearm and flange around the wrist.
    """
    q = random_q(robot, 20_000)
    gap, pairs = gaps(robot, q)
    listed = {tuple(sorted(pair)) for pair in robot.self_pairs}
    for _ in range(6):  # the nearest misses, perturbed: a local search
        best = q[np.argsort(gap, axis=0)[:40].ravel()]
        near = best + np.random.default_rng(len(q)).normal(size=best.shape) * 0.1
        near = np.clip(near, robot.limits.lower_rad, robot.limits.upper_rad)
        q = np.concatenate([q[:20_000], near])
        gap, _ = gaps(robot, q)
    names = [c.name for c in robot.capsules]
    touching = {pair for k, pair in enumerate(pairs) if gap[:, k].min() < 0}
    link = [c.link for c in robot.capsules]
    neighbours = {(a, b) for a, b in touching if abs(link[a] - link[b]) <= 1}
    same_joint = {(names.index(a), names.index(b)) for a, b in AROUND_A_JOINT.get(robot.name, ())}
    assert touching - neighbours - same_joint == listed
    for k, pair in enumerate(pairs):
        assert pair not in same_joint or gap[:, k].min() > -0.03
    assert not any(robot.capsules[a].link == robot.capsules[b].link for a, b in listed)


def test_mujoco_finds_exactly_the_contacts_of_listed_pairs(robot: Robot, model: mujoco.MjModel) -> None:
    q = random_q(robot, 300, seed=3)
    gap, pairs = gaps(robot, q)
    listed = {tuple(sorted(pair)) for pair in robot.self_pairs}
    seen = 0
    for row, angles in zip(gap, q, strict=True):
        contact = posed(model, angles).contact
        found = {tuple(sorted(pair)) for pair in contact.geom[contact.dist < 0].tolist()}
        ids = [model.geom(c.name).id for c in robot.capsules]
        wanted = {
            tuple(sorted((ids[a], ids[b]))) for k, (a, b) in enumerate(pairs) if (a, b) in listed and row[k] < -1e-9
        }
        assert found == wanted
        assert bool(wanted) == (Kinematics(robot).self_gap_m(angles) < -1e-9)
        seen += len(wanted)
    assert seen > 20


@pytest.mark.parametrize("name", [name for name in ROBOTS if ROBOTS.make(name).workspace and ROBOTS.make(name).gripper])
def test_all_of_the_workspace_is_reached_from_above(name: str) -> None:
    task, rng = PickAndPlace(name), np.random.default_rng(0)
    for yaw in rng.uniform(-np.pi / 4, np.pi / 4, 40):
        ((x, y, _),) = task.spots(rng, 1, apart_m=0.0)
        for z in (0.02, task.low(0.2)):
            place = np.array([x, y, z])
            rot = task.quarter_turned(yaw, place)
            assert task.reaches(place, rot), (place, yaw)
            # A wrist that turns about the vertical far enough takes the first turn.
            assert name == "so101" or np.array_equal(rot, down(yaw)), (place, yaw)
    assert not task.reaches(np.array([2.0, 0.0, 0.1]), down(0.0))
    assert not task.reaches(np.array([0.0, 0.0, 0.02]), down(0.0)), "where the arm itself stands"


# ---- the detailed model ---------------------------------------------------------------


@pytest.fixture
def detailed(robot: Robot, tmp_path) -> mujoco.MjSpec:
    """The arm with other names, shells from a mesh file, and a finger that hangs on its hand."""
    (tmp_path / "tetra.obj").write_text(
        "v 0 0 0\nv .05 0 0\nv 0 .05 0\nv 0 0 .05\nf 1 3 2\nf 1 2 4\nf 1 4 3\nf 2 3 4\n"
    )
    spec = robot.mjcf()
    for geom in [g for g in spec.geoms if g.group == VISUAL_GROUP]:
        spec.delete(geom)
    for part in (*spec.actuators, *spec.pairs, *spec.equalities, *spec.tendons):
        spec.delete(part)
    spec.meshdir = "."
    spec.add_mesh(name="tetra", file="tetra.obj", scale=[2, 2, 2])
    spec.add_material(name="sea", rgba=[0, 0, 1, 1])
    looks = dict(type=mujoco.mjtGeom.mjGEOM_MESH, meshname="tetra", material="sea", contype=0, conaffinity=0)
    spec.body("link3").add_geom(**looks)
    finger = spec.body("hand").add_body(name="finger", pos=[0.0, 0.01, 0.06], quat=[0, 0, 0, 1])
    finger.add_joint(name="slide", type=mujoco.mjtJoint.mjJNT_SLIDE, axis=[0, 1, 0])
    finger.mass, finger.inertia, finger.explicitinertial = 0.01, [1e-6] * 3, True
    finger.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.01, 0.01, 0.03], pos=[0, 0.02, 0], contype=0, conaffinity=0)
    for body in spec.bodies:
        if body.name.startswith(("link", "hand")):
            body.name = f"{robot.name}_{body.name}"
    return spec


def written(spec: mujoco.MjSpec, folder) -> str:
    spec.modelfiledir = str(folder)
    spec.compile()
    path = folder / "arm.xml"
    path.write_text(spec.to_xml())
    return str(path)


def test_detailed_model_changes_looks_and_nothing_else(robot: Robot, model, detailed, tmp_path) -> None:
    spec = load_visual(robot, written(detailed, tmp_path))
    own = spec.compile()
    shown = np.flatnonzero(own.geom_group == VISUAL_GROUP)
    assert [own.body(own.geom_bodyid[i]).name for i in shown] == ["link3", "hand"]
    assert own.nmesh == 1 and own.nv == model.nv and own.npair == model.npair
    np.testing.assert_array_equal(own.body_mass, model.body_mass)
    box = posed(own, np.zeros(robot.dof)).geom_xpos[shown[1]]
    hand = posed(own, np.zeros(robot.dof)).body("hand")
    # The finger is turned by half a turn: what is +2 cm in its frame is -2 cm in the hand's.
    np.testing.assert_allclose(hand.xmat.reshape(3, 3).T @ (box - hand.xpos), [0, -0.01, 0.06], atol=1e-6)


def test_detailed_model_of_another_arm_is_refused(robot: Robot, detailed, tmp_path) -> None:
    detailed.body(f"{robot.name}_link4").pos = [0.1, 0, 0]
    with pytest.raises(RobotError, match="link4"):
        load_visual(robot, written(detailed, tmp_path))
    detailed.body(f"{robot.name}_link4").name = "other"
    with pytest.raises(RobotError, match="no body 'link4'"):
        load_visual(robot, written(detailed, tmp_path))


def test_detailed_model_that_cannot_be_had_says_so(robot: Robot, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'panda_mj_description'"):
        load_visual(robot, "panda_mj_descripton")
    (tmp_path / "broken.xml").write_text("<mujoco><oops/></mujoco>")
    with pytest.raises(RobotError, match=r"broken\.xml is no MuJoCo model"):
        load_visual(robot, tmp_path / "broken.xml")

    git = importlib.import_module("git")
    load = importlib.import_module

    def offline(name: str):
        if name == "robot_descriptions.panda_mj_description":
            raise git.exc.GitCommandError("fetch", 128)
        return load(name)

    monkeypatch.setattr(importlib, "import_module", offline)
    with pytest.raises(MissingDependencyError, match="cannot be downloaded"):
        load_visual(robot, "panda_mj_description")

    def absent(name: str):
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(MissingDependencyError, match="pip install robot_descriptions"):
        load_visual(robot, "panda_mj_description")


def test_pair_levers_bound_the_relative_motion(robot: Robot) -> None:
    """Turning joints a little changes the distance of two links by no more than the pair's lever times the turn."""
    kinematics = Kinematics(robot)
    rng = np.random.default_rng(3)
    q = random_q(robot, 2000)
    turn = rng.uniform(-0.02, 0.02, q.shape)

    def distances(q: np.ndarray) -> np.ndarray:
        points, c = np.moveaxis(kinematics.points(q), (-1, -2), (0, 1)), len(robot.capsules)
        i, j = [p[0] for p in robot.self_pairs], [p[1] for p in robot.self_pairs]
        return segment_distance(
            points[:, i], points[:, [c + k for k in i]], points[:, j], points[:, [c + k for k in j]]
        )

    change = np.abs(distances(q + turn) - distances(q)).T
    allowed = np.abs(turn) @ kinematics.pair_lever_m
    assert np.all(change <= allowed + 1e-12)
    assert np.all((change / allowed).max(axis=0) > 0.05), "bounds that say something"
