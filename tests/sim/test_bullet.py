"""Tasks on a tabletop in Bullet: the contract of their environment, and that it is the same world as in MuJoCo."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import sim
from policies.expert import ExpertConfig, load
from robo.core.errors import ConfigError, MissingDependencyError, RoboError, TaskError, UnknownNameError
from robo.evaluate.rollout import FIRST_SEED
from sim.bullet import BulletEnv
from sim.open import make_vector, open_env
from sim.randomise import Randomisation
from sim.tabletop import TabletopEnv
from tasks.registry import TASKS, load_task
from tasks.tabletop import parts
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.pick_and_place import PickAndPlace
from tests.sim.contract import check_bad_input_is_refused

torch.set_num_threads(1)
NAMES = [name for name in TASKS if isinstance(load_task(name), TabletopTask)]
KINDS = ("rgb", "depth", "seg")


def actions(env: TabletopEnv, steps: int, seed: int = 0) -> np.ndarray:
    """Random actions that change now and then, (steps, n)."""
    space = env.action_space
    drawn = np.random.default_rng(seed).uniform(space.low, space.high, (-(-steps // 8), *space.shape))
    return np.repeat(drawn, 8, axis=0)[:steps]


def run(env: TabletopEnv, done: np.ndarray) -> list[tuple[dict[str, np.ndarray], float, dict[str, Any]]]:
    """What actions lead to."""
    return [(obs, reward, info) for obs, reward, _, _, info in (env.step(action) for action in done)]


def solve(task: TabletopTask, env: TabletopEnv, seed: int) -> dict[str, Any]:
    """The last info of an episode of the task's expert."""
    policy = load(task, ExpertConfig(), {}, "cpu")
    obs, info = env.reset(seed=FIRST_SEED + seed)
    policy.reset(obs, seed)
    for _ in range(task.steps):
        obs, _, _, _, info = env.step(env.action(policy.act(obs)))
    return info


# ---- the same task, the same interface ---------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_every_task_begins_as_in_mujoco_and_moves(name: str) -> None:
    ours, theirs = (sim.make(name, physics=physics, control="ee_delta") for physics in ("bullet", "mujoco"))
    assert isinstance(ours, BulletEnv) and not isinstance(theirs, BulletEnv)
    assert ours.observation_space == theirs.observation_space and ours.action_space == theirs.action_space
    (obs, info), (seen, told) = ours.reset(seed=3), theirs.reset(seed=3)
    for key, value in told["instance"].items():
        assert np.array_equal(value, info["instance"][key]), key
    assert info.keys() == told.keys() and info["instruction"] == told["instruction"] and info["stage"] == 0
    for key, value in seen.items():
        np.testing.assert_allclose(obs[key], value, atol=5e-3, err_msg=key)
    for obs, reward, info in run(ours, actions(ours, 12)):
        assert ours.observation_space.contains(obs) and 0.0 <= reward <= 1.0
        assert set(info["signals"]) == set(ours.task.signals) and np.isfinite(list(info["signals"].values())).all()
        assert info["violations"].keys() == told["violations"].keys()
    ours.close(), theirs.close()


@pytest.mark.parametrize("name", ["reach", "pick_and_place", "open_drawer"])
def test_the_expert_solves_it_by_friction(name: str) -> None:
    task = load_task(name)
    assert isinstance(task, TabletopTask)
    env = BulletEnv(task)
    for seed in range(2):
        info = solve(task, env, seed)
        assert info["success"] and info["stage"] == len(task.stages), seed
        assert info["violations"] == {"contacts": {}, "joint_limit": 0, "velocity": 0}, seed
    env.close()


def test_gymnasium_accepts_it() -> None:
    env = BulletEnv("pick_and_place", control="joint_delta")
    check_env(env, skip_render_check=True)
    env.close()
    env.close()


# ---- repeatable ----------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bits_and_a_saved_state_goes_on_to_the_bit() -> None:
    """Also in another environment, with things touched, worlds that differ and commands that come late."""
    options: dict[str, Any] = dict(randomise=Randomisation.mismatch(0.2, 0.03))
    task = load_task("pick_and_place")
    assert isinstance(task, TabletopTask)
    env, other = BulletEnv(task, **options), BulletEnv(task, **options)
    policy = load(task, ExpertConfig(), {}, "cpu")
    obs, _ = env.reset(seed=FIRST_SEED)
    policy.reset(obs, 0)
    done, rows, states = [], [], {}
    for k in range(130):
        if k in (40, 85, 100):  # in the air, closing on the cube, carrying it
            states[k] = env.state()
        done.append(env.action(policy.act(obs)))
        obs, reward, _, _, info = env.step(done[-1])
        rows.append((obs, reward, info))
    assert info["stage"] >= 2, "the cube is carried"
    other.reset(seed=7)
    run(other, np.array(done[:5]))
    other.reset(seed=FIRST_SEED)
    for start, again in ((0, other), *((k, one) for k in states for one in (env, other))):
        if start:
            again.set_state(states[start])
        for (obs, reward, info), (seen, paid, told) in zip(
            run(again, np.array(done[start:])), rows[start:], strict=True
        ):
            assert reward == paid and np.array_equal(info["qpos"], told["qpos"]), start
            assert info["signals"] == told["signals"] and info["violations"] == told["violations"]
            for name, value in obs.items():
                assert np.array_equal(value, seen[name]), (start, name)
    first, second = (env.reset(seed=seed)[1]["instance"] for seed in (1, 2))
    assert not np.array_equal(first["cube_pos"], second["cube_pos"])
    env.close(), other.close()


def test_observations_share_no_memory() -> None:
    env = BulletEnv("pick_and_place", control="ee_delta", cameras=("front",), images=KINDS, size=16)
    first, _ = env.reset(seed=0)
    kept = {name: value.copy() for name, value in first.items()}
    (second, _, info), *_ = run(env, actions(env, 1))
    for name, value in first.items():
        assert np.array_equal(value, kept[name]) and not np.shares_memory(value, second[name]), name
    assert not np.shares_memory(info["qpos"], env.data.qpos)
    env.close()


def test_a_vector_of_them_is_each_of_them() -> None:
    vector = make_vector("reach", 2, physics="bullet", control="joint_delta", processes=1, cameras=("left",), size=16)
    alone = BulletEnv("reach", control="joint_delta", cameras=("left",), size=16)
    seen, (obs, _) = vector.reset(seed=4)[0], alone.reset(seed=5)
    for action in actions(alone, 3):
        for name, value in obs.items():
            assert np.array_equal(seen[name][1], value), name
        seen, obs = vector.step(np.stack([action, action]))[0], alone.step(action)[0]
    vector.close(), alone.close()


# ---- the same world --------------------------------------------------------------------------


def test_servos_follow_as_in_mujoco() -> None:
    """At the limits of speed and torque they lag behind alike."""
    ours, theirs = BulletEnv("reach", control="joint_delta"), TabletopEnv("reach", control="joint_delta")
    ours.reset(seed=0), theirs.reset(seed=0)
    lag = off = 0.0
    for action in actions(theirs, 32, seed=2):
        (obs, *_, info), (seen, *_) = ours.step(action), theirs.step(action)
        lag = max(lag, np.abs(info["reference"][:7] - seen["joint_pos"]).max())
        off = max(off, np.abs(obs["joint_pos"] - seen["joint_pos"]).max())
        assert abs(obs["gripper_width_m"] - seen["gripper_width_m"])[0] < 2e-3
    assert lag > 0.05 and off < 0.2 * lag and not info["violations"]["contacts"]
    ours.close(), theirs.close()


def test_a_heavier_arm_sags_as_in_mujoco() -> None:
    """Its drives carry the nominal weight; gains and what is added to the weight say how far it sinks."""
    options: dict[str, Any] = dict(randomise=Randomisation(link_mass_scale=(1.5, 1.5), gain_scale=(0.5, 0.8)))
    sunk = []
    for env in (BulletEnv("reach", **options), TabletopEnv("reach", **options)):
        _, info = env.reset(seed=0)
        for _ in range(20):
            obs, *_ = env.step(info["reference"])
        sunk.append(obs["joint_pos"] - info["reference"][:7])
        env.close()
    most = np.abs(sunk[1]).argmax()
    assert abs(sunk[1][most]) > 4e-3 and sunk[0][most] == pytest.approx(sunk[1][most], rel=0.05)
    np.testing.assert_allclose(*sunk, atol=1e-3)


def test_things_weigh_and_slide_as_the_task_says() -> None:
    """A cube presses on the table with its weight, and one that slides is braked by friction: v² = 2 µ g s."""
    for scale in (1.0, 0.25):
        both = (scale, scale)
        env = BulletEnv("pick_and_place", randomise=Randomisation(mass_scale=both, friction_scale=both))
        _, info = env.reset(seed=0)
        run(env, info["reference"][None])
        world, model, cube = env.data, env.model, env.model.geom("cube").id
        contacts = [c for c in world.engine.getContactPoints() if cube in (world.geom(c, 0), world.geom(c, 1))]
        weight = 9.81 * model.body_mass[model.geom_bodyid[cube]]
        assert sum(contact[9] for contact in contacts) == pytest.approx(weight, rel=0.02)
        start, qvel, speed = world.qpos.copy(), world.qvel.copy(), 0.5
        at = env.scene.thing_qpos["cube"]
        qvel[model.jnt_dofadr[model.joint("cube").id] + 1] = speed
        world.take(start, qvel)
        run(env, np.tile(info["reference"], (12, 1)))
        friction = np.sqrt(model.geom_friction[cube, 0] * model.geom("floor").friction[0])
        slid = abs(world.qpos[at + 1] - start[at + 1])
        assert slid == pytest.approx(speed**2 / (2 * friction * 9.81), rel=0.05), scale
        env.close()


class _Linkage(PickAndPlace):
    """With joints off the frames of their bodies, in a row, on what stands, on the world and on what lies about."""

    name = "linkage"
    things, fixtures, joints = ("cube", "case"), ("post",), ("turn", "shift", "swing", "lid")

    def build(self, scene: mujoco.MjSpec) -> None:
        super().build(scene)
        post, case = parts.fixture(scene, "post"), parts.thing(scene, "case")
        parts.box(post, (0.02, 0.02, 0.02), (0, 0, 0.02))
        arm = post.add_body(name="arm", pos=[0.0, 0.0, 0.2], quat=[0.8, 0.0, 0.6, 0.0])
        parts.hinge(arm, "turn", (0.6, 0.0, 0.8), (-3.0, 3.0), 0.001, 0.002, pos=(0.03, -0.02, 0.01))
        parts.capsule(arm, 0.01, (0, 0, 0), (0.1, 0, 0))
        hand = arm.add_body(name="slider", pos=[0.1, 0.02, 0.0], quat=[0.6, 0.8, 0.0, 0.0])
        parts.slide(hand, "shift", (0.0, 1.0, 0.0), (-0.3, 0.3), friction=0.002, damping=0.2)
        ball = hand.add_geom(type=mujoco.mjtGeom.mjGEOM_ELLIPSOID, size=[0.02, 0.01, 0.015], pos=[0.01, 0.0, 0.02])
        ball.name = "egg"
        swing = scene.worldbody.add_body(name="gate", pos=[0.2, 0.6, 0.3])
        parts.hinge(swing, "swing", (1.0, 0.0, 0.0), (-3.0, 3.0), 0.001, 0.002, pos=(0.0, 0.0, 0.1))
        parts.box(swing, (0.05, 0.01, 0.1), mass=0.2)
        parts.box(case, (0.03, 0.02, 0.01), (0.01, 0.0, 0.005), mass=0.1)
        lid = case.add_body(name="cover", pos=[0.0, 0.02, 0.02])
        parts.hinge(lid, "lid", (1.0, 0.0, 0.0), (0.0, 3.0), 0.0, 0.001, pos=(0.0, 0.01, 0.0))
        parts.box(lid, (0.03, 0.02, 0.002), (0.0, -0.02, 0.0), mass=0.05)
        for body in (arm, hand, swing, lid):
            body.joints[0].armature = 0.0

    def arrange(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        there = {"post_pos": np.array([0.3, -0.5, 0.0]), "case_pos": np.array([0.5, 0.45, 0.1])}
        return super().arrange(rng) | there | {f"{n}_quat_wxyz": self.heading(rng) for n in ("post", "case")}


def test_bodies_are_where_mujoco_has_them_and_move_by_the_same_laws() -> None:
    env = BulletEnv(_Linkage())
    env.reset(seed=0)
    world, model, rng = env.data, env.model, np.random.default_rng(0)
    data = mujoco.MjData(model)
    for _ in range(5):
        qpos, qvel = model.qpos0.copy(), rng.normal(size=model.nv) * 0.3
        mujoco.mj_integratePos(model, qpos, rng.normal(size=model.nv) * 0.05, 1.0)
        qpos[[*env.scene.joint_qpos.values()]] = rng.uniform(0.02, 0.08, 4)
        for at, height in zip(env.scene.thing_qpos.values(), (1.5, 2.0), strict=True):
            qpos[at + 2] = height  # in the air
        world.take(qpos, qvel)
        world.sense()
        data.qpos[:], data.qvel[:] = qpos, qvel
        data.ctrl[:] = env.scene.controls(qpos[None, env.scene.qpos], np.zeros((1, 7)), 0.0)[0]
        mujoco.mj_forward(model, data)
        np.testing.assert_allclose(world.xpos, data.xpos, atol=1e-6)
        assert (np.abs((world.xquat * data.xquat).sum(axis=1)) > 1 - 1e-9).all()
        for _ in range(10):
            mujoco.mj_step(model, data)
            world.step(data.ctrl)
        for name, dof in (("case", model.joint("case").dofadr[0]), ("cube", model.joint("cube").dofadr[0])):
            free = slice(dof, dof + 6)
            np.testing.assert_allclose(world.qvel[free], data.qvel[free], atol=0.02, err_msg=name)
        for name in env.task.joints:
            dof = model.joint(name).dofadr[0]
            assert world.qvel[dof] == pytest.approx(data.qvel[dof], rel=0.1, abs=0.02), name
    env.close()


def test_the_same_parts_touch_as_in_mujoco() -> None:
    """Arm, floor and things in poses at random, deep in each other; families, bits and pairs as MuJoCo has them."""
    env, rng = BulletEnv("open_drawer"), np.random.default_rng(0)
    env.reset(seed=0)
    world, model = env.data, env.model
    data, limits, seen = mujoco.MjData(model), env.task.robot.limits, set()
    for _ in range(60):
        data.qpos[:] = world.qpos
        data.qpos[env.scene.qpos] = rng.uniform(limits.lower_rad, limits.upper_rad)
        data.qpos[env.scene.joint_qpos["drawer"]] = rng.uniform(0.0, 0.1)
        mujoco.mj_forward(model, data)
        near, deep = (
            {tuple(sorted(pair)) for pair in data.contact.geom[data.contact.dist < most].tolist()}
            for most in (0, -2e-3)
        )
        world.take(data.qpos, np.zeros(model.nv))
        world.engine.performCollisionDetection()
        contacts = world.engine.getContactPoints()
        ours_near, ours_deep = (
            {tuple(sorted((world.geom(c, 0), world.geom(c, 1)))) for c in contacts if c[8] < most}
            for most in (0, -2e-3)
        )
        assert deep <= ours_near and ours_deep <= near
        seen |= deep
    arm = {model.geom(name).id for name in ("hand", "forearm", "base")}
    assert sum(a in arm and b in arm for a, b in seen) and any(model.geom("floor").id in pair for pair in seen)
    env.close()


def test_commands_that_are_late_act_later() -> None:
    moved = []
    for late in (0.0, 0.04):
        env = BulletEnv("reach", randomise=Randomisation(delay_s=(late, late)))
        obs, info = env.reset(seed=0)
        target = info["reference"].copy()
        target[0] += 0.02
        moved.append(abs(env.step(target)[0]["joint_pos"][0] - obs["joint_pos"][0]))
        env.close()
    assert moved[1] < 0.3 * moved[0]


def test_what_is_attached_needs_no_friction() -> None:
    task = PickAndPlace()
    slippery = Randomisation(friction_scale=(1e-3, 1e-3), mass_scale=(6.0, 6.0))
    for attach in (True, False):
        env = BulletEnv(task, attach=attach, randomise=slippery)
        assert solve(task, env, 0)["success"] == attach
        env.close()


# ---- pictures ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pick_and_place", "put_rubbish_in_bin"])
def test_pictures_show_what_mujoco_s_show(name: str) -> None:
    task = load_task(name)
    assert isinstance(task, TabletopTask)
    cameras = tuple(camera.name for camera in task.cameras)
    options: dict[str, Any] = dict(cameras=cameras, images=KINDS, size=(72, 96))
    ours, theirs = BulletEnv(task, **options), TabletopEnv(task, **options)
    (obs, _), (seen, _) = ours.reset(seed=1), theirs.reset(seed=1)
    body = theirs.model.geom_bodyid
    shown = set()
    for camera in cameras:
        mine, other = obs[f"seg_{camera}"], seen[f"seg_{camera}"]
        assert (mine == other).mean() > 0.99
        shown |= {theirs.model.body(body[geom]).name for geom in np.unique(other) if geom >= 0}
        for thing in task.things:
            a, b = (np.isin(seg, np.flatnonzero(body == theirs.model.body(thing).id)) for seg in (mine, other))
            assert (a & b).sum() >= 0.8 * (a | b).sum(), (camera, thing)
        solid = (mine == other) & (other >= 0)
        error = np.abs(obs[f"depth_{camera}"] - seen[f"depth_{camera}"])
        assert (error[solid] < 0.01).mean() > 0.98 and not obs[f"depth_{camera}"][mine < 0].any()
        colours = np.abs(obs[f"rgb_{camera}"].astype(float) - seen[f"rgb_{camera}"]).mean()
        assert colours < 40.0, "about as bright"
    assert {*task.things, "table", "hand", "left_finger"} <= shown
    ours.close(), theirs.close()


def test_looks_differ_but_for_textures_and_people_get_a_picture() -> None:
    options: dict[str, Any] = dict(cameras=("front",), images=KINDS, size=48)
    looks = Randomisation(colour=0.15, light=0.3, camera_m=0.02, camera_rad=0.03)
    plain, other = (
        BulletEnv("reach", **options),
        BulletEnv("reach", randomise=looks, render_mode="rgb_array", **options),
    )
    (a, _), (b, _), (c, _) = plain.reset(seed=1), other.reset(seed=1), other.reset(seed=2)
    for one, two in ((a, b), (b, c)):
        assert np.abs(one["rgb_front"].astype(int) - two["rgb_front"]).mean() > 5
        assert (one["seg_front"] != two["seg_front"]).mean() > 0.01
    picture = other.render()
    assert picture is not None and picture.shape == (480, 640, 3) and picture.dtype == np.uint8 and np.ptp(picture) > 99
    assert plain.render() is None
    plain.close(), other.close()
    with pytest.raises(ConfigError, match=r"no random textures, but texture=0\.7; set it to 0"):
        BulletEnv("reach", randomise=Randomisation.looks())


# ---- what does not fit ----------------------------------------------------------------------------


def test_bad_actions_are_refused_and_nothing_is_executed() -> None:
    for control in ("reference", "ee_delta"):
        env = BulletEnv("pick_and_place", control=control)
        check_bad_input_is_refused(env)
        env.close()
    pick, reach = BulletEnv("pick_and_place"), BulletEnv("reach")
    pick.reset(seed=0), reach.reset(seed=0)
    with pytest.raises(RoboError, match="state of another scene"):
        reach.set_state(pick.state())
    wild = np.full(15, 1e9)
    with np.errstate(all="ignore"):
        run(pick, np.tile(wild, (5, 1)))
    assert np.isfinite(pick.reset(seed=0)[0]["cube_pos"]).all(), "it recovers from nonsense"
    pick.close(), reach.close()


def test_names_that_are_unknown_are_said() -> None:
    with pytest.raises(UnknownNameError, match="unknown physics 'bulet': did you mean 'bullet'"):
        sim.make("reach", physics="bulet")
    with pytest.raises(UnknownNameError, match="unknown camera 'frnt': did you mean 'front'"):
        sim.make("reach", physics="bullet", cameras=("frnt",))
    with pytest.raises(UnknownNameError, match="unknown kind of picture 'rbg'"):
        sim.make("reach", physics="bullet", cameras=("front",), images=("rbg",))
    for name in ("reach_avoid", "bench/car"):
        with pytest.raises(TaskError, match="'bullet' is for tasks on a tabletop"):
            open_env(load_task(name), physics="bullet")


class _Odd(PickAndPlace):
    """With parts that Bullet has not."""

    name = "odd"

    def build(self, scene: mujoco.MjSpec) -> None:
        super().build(scene)
        post = scene.worldbody.add_body(name="post", pos=[0.6, 0.5, 0.1])
        post.add_joint(name="knee", type=mujoco.mjtJoint.mjJNT_BALL)
        post.add_geom(type=mujoco.mjtGeom.mjGEOM_BOX, size=[0.02, 0.02, 0.02])
        weld = scene.add_equality(name="glue", type=mujoco.mjtEq.mjEQ_WELD, objtype=mujoco.mjtObj.mjOBJ_BODY)
        weld.name1, weld.name2 = "post", "cube"


def test_what_bullet_cannot_build_is_said_in_one_line() -> None:
    with pytest.raises(TaskError, match=r"task odd: Bullet cannot build joint 'knee', a ball; equality .*'glue'"):
        sim.make(_Odd(), physics="bullet")


def test_it_is_loaded_when_asked_for_and_missed_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    code = "import sim, sim.open, sys; sim.make('reach'); sys.exit('pybullet' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
    monkeypatch.setitem(sys.modules, "pybullet", None)
    with pytest.raises(MissingDependencyError, match=r"needs pybullet .*\[pybullet\]"):
        sim.make("reach", physics="bullet")
