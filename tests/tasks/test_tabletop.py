"""The contract of every tabletop task."""

from __future__ import annotations

import gymnasium
import mujoco
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import sim
from hardware.robots.commands import COMMANDS
from policies.expert import ExpertConfig, MoveConfig, load
from robo.core.errors import ConfigError, TaskError, UnknownNameError
from robo.data.rollout import TabletopRollout
from robo.evaluate.worlds import open_world
from sim.batch import TabletopBatch
from sim.open import open_env
from sim.randomise import Randomisation
from sim.tabletop import TabletopEnv
from tasks.registry import TASKS, load_task
from tasks.tabletop.base import TabletopTask, tabletop_task
from tasks.tabletop.turns import out_of, turned
from tests.sim.contract import check_bad_input_is_refused

torch.set_num_threads(1)
NAMES = [name for name in TASKS if isinstance(load_task(name), TabletopTask)]


@pytest.fixture(scope="module", params=NAMES)
def task(request: pytest.FixtureRequest) -> TabletopTask:
    return tabletop_task(load_task(request.param))


@pytest.fixture(scope="module")
def env(task: TabletopTask):
    made = TabletopEnv(task, control="ee_delta")
    yield made
    made.close()


def act_randomly(env: TabletopEnv, seed: int, steps: int) -> list[tuple]:
    """Steps under random actions that change now and then."""
    rng = np.random.default_rng(seed)
    found = [(*env.reset(seed=seed), 0.0)]
    for k in range(steps):
        if k % 10 == 0:
            action = rng.uniform(env.action_space.low, env.action_space.high)
        obs, reward, _, _, info = env.step(action)
        found.append((obs, info, reward))
    return found


# ---- the contract --------------------------------------------------------------


def test_it_says_what_a_user_needs(task: TabletopTask) -> None:
    task.validate()
    assert task.instruction and len({task.instruction, *task.phrases}) >= 5, "five ways to say it"
    assert task.stages and all(stage.distance for stage in task.stages), "a dense reward on the way to every stage"
    assert task.things or task.name.startswith("reach") or task.joints


def test_observations_are_what_the_space_says(env: TabletopEnv) -> None:
    for obs, info, reward in act_randomly(env, 0, 30):
        assert env.observation_space.contains(obs)
        assert set(info["signals"]) == set(env.task.signals) and np.isfinite(list(info["signals"].values())).all()
        assert 0.0 <= reward <= 1.0


def test_bodies_of_joints_are_taken_where_the_simulator_has_them(env: TabletopEnv) -> None:
    obs, model, data = env.reset(seed=0)[0], env.scene.model, mujoco.MjData(env.scene.model)
    assert set(env.task.mechanisms) == set(env.task.joints)
    for name, joint in env.task.mechanisms.items():
        assert joint.low < joint.high and env.task.symmetry.get(joint.fixture, 1) == 1
        data.qpos, site = env.data.qpos, model.site(f"{name}_handle")
        for value in np.linspace(joint.low, joint.high, 5):
            data.joint(name).qpos[0] = value
            mujoco.mj_kinematics(model, data)
            there = obs[f"{joint.fixture}_pos"] + out_of(obs[f"{joint.fixture}_quat_wxyz"], joint.at(value))
            np.testing.assert_allclose(there, data.site_xpos[site.id], atol=1e-6)
            solid = np.flatnonzero(model.geom_bodyid == site.bodyid[0])
            far = np.linalg.norm(data.geom_xpos[solid] - there, axis=1) - model.geom_rbound[solid]
            assert far.min() < 0, "there is nothing to be taken"


def test_observations_share_no_memory(env: TabletopEnv) -> None:
    found = act_randomly(env, 1, 3)
    for name in env.observation_space.spaces:
        assert not np.shares_memory(found[-1][0][name], found[-2][0][name]), name
        assert not np.shares_memory(found[-1][0][name], env.data.qpos), name


def test_the_same_seed_gives_the_same_bits_and_others_differ(env: TabletopEnv) -> None:
    first, again, other = (act_randomly(env, seed, 40) for seed in (3, 3, 4))
    for (a, _, _), (b, _, _) in zip(first, again, strict=True):
        for name, value in a.items():
            assert np.array_equal(value, b[name]), name
    drawn = [name for name, value in first[0][1]["instance"].items() if name != "joint_pos" and value.size]
    assert any(not np.array_equal(first[0][1]["instance"][n], other[0][1]["instance"][n]) for n in drawn)


def test_nothing_is_constant_but_what_stands(env: TabletopEnv) -> None:
    """Over episodes and steps every observed number changes, axes of upright things and heights of fixtures apart."""
    seen: dict[str, list[np.ndarray]] = {}
    for seed in range(4):
        for obs, _, _ in act_randomly(env, seed, 5):
            for name, value in obs.items():
                seen.setdefault(name, []).append(value)
    still = (*env.task.joints, *env.task.variation)
    for name, values in seen.items():
        if name not in still and not name.endswith("_quat_wxyz"):
            assert np.ptp(np.stack(values), axis=0).max() > 0, f"{name} never changes"


def test_it_goes_on_from_a_saved_state_to_the_bit(env: TabletopEnv) -> None:
    act_randomly(env, 5, 10)
    state = env.state()
    actions = np.random.default_rng(0).uniform(
        env.action_space.low, env.action_space.high, (10, *env.action_space.shape)
    )
    first = [env.step(action) for action in actions]
    act_randomly(env, 6, 3)
    env.set_state(state)
    for action, (obs, reward, *_) in zip(actions, first, strict=True):
        again, reward_again, *_ = env.step(action)
        assert reward == reward_again
        for name, value in obs.items():
            assert np.array_equal(value, again[name]), name


def test_nothing_holds_at_the_start(env: TabletopEnv) -> None:
    for seed in range(10):
        _, info = env.reset(seed=seed)
        assert not info["success"] and info["stage"] == 0, f"seed {seed}"
        assert not info["violations"]["contacts"] and info["signals"]["held_n"] == 0.0


def test_a_random_policy_does_not_succeed(env: TabletopEnv) -> None:
    if env.task.name.startswith("reach"):
        return  # what is reached by chance is reached
    done = [any(info["success"] for _, info, _ in act_randomly(env, seed, 60)) for seed in range(3)]
    assert not any(done)


def test_the_expert_succeeds_within_the_specification(task: TabletopTask) -> None:
    policy, world = load(task, ExpertConfig(), {}, "cpu"), open_world(task)
    for seed in range(2):
        rollout = world.roll_out(policy, seed, "expert")
        assert isinstance(rollout, TabletopRollout)
        assert rollout.success and rollout.satisfied and not rollout.violations, (seed, rollout.parts)
        assert task.stages_reached(rollout.signals) == len(task.stages)
    world.close()


def test_where_nothing_is_near_other_ways_do_as_well(task: TabletopTask) -> None:
    world, policy = open_world(task), load(task, ExpertConfig(move=MoveConfig(sway=0.2)), {}, "cpu")
    one, again = world.roll_out(policy, 2, "expert"), world.roll_out(policy, 2, "expert")
    world.close()
    assert isinstance(one, TabletopRollout) and isinstance(again, TabletopRollout)
    assert one.success and not one.violations
    assert all(np.array_equal(value, again.signals[name]) for name, value in one.signals.items())


def test_no_two_ways_are_alike_for_who_sways() -> None:
    env = TabletopEnv("pick_and_place")

    def way(sway: float, seed: int) -> np.ndarray:
        policy = load(env.task, ExpertConfig(move=MoveConfig(sway=sway)), {}, "cpu")
        obs, _ = env.reset(seed=5)
        policy.reset(obs, seed)
        places = []
        for _ in range(30):
            obs, *_ = env.step(env.action(policy.act(obs)))
            places.append(obs["ee_pos"])
        return np.stack(places)

    assert np.array_equal(way(0.0, 1), way(0.0, 2)) and np.array_equal(way(0.2, 1), way(0.2, 1))
    assert np.abs(way(0.2, 1) - way(0.2, 2)).max() > 0.02
    with pytest.raises(ConfigError, match=r"move\.sway must lie in \[0, 0.5\], not 1"):
        MoveConfig(sway=1.0)


def test_signals_of_a_batch_are_those_of_each(env: TabletopEnv) -> None:
    """The same functions for numpy and torch, for one moment and for many."""
    infos = [info for _, info, _ in act_randomly(env, 2, 5)]
    instance = infos[0]["instance"]
    states = []
    for info in infos:
        env.data.qpos[:] = info["qpos"]
        sim_state = env.scene.state(env.data.qpos, env.data.qvel, env.data.sensordata)
        states.append(sim_state)
    batch = {name: np.stack([state[name] for state in states]) for name in states[0]}
    tensors = {name: torch.from_numpy(value) for name, value in batch.items()}
    ours, theirs = (
        env.task.measure(batch, instance),
        env.task.measure(tensors, {k: torch.from_numpy(v) for k, v in instance.items()}),
    )
    for name in env.task.signals:
        alone = [float(env.task.measure(state, instance)[name]) for state in states]
        np.testing.assert_allclose(np.broadcast_to(ours[name], len(states)), alone, atol=1e-12, err_msg=name)
        np.testing.assert_allclose(
            np.broadcast_to(np.asarray(theirs[name]), len(states)), alone, atol=1e-9, err_msg=name
        )


def test_many_worlds_at_once_are_its_environments(env: TabletopEnv) -> None:
    batch = TabletopBatch(env.task, 2, control="ee_delta")
    seen, told = batch.reset(seed=20)
    rng = np.random.default_rng(0)
    alone = [TabletopEnv(env.task, control="ee_delta") for _ in range(2)]
    mine = [one.reset(seed=20 + i) for i, one in enumerate(alone)]
    for _ in range(6):
        for i, (obs, info) in enumerate(mine):
            for name, value in obs.items():
                assert np.array_equal(value, seen[name][i]), name
            for name, value in info["signals"].items():
                assert value == told["signals"][name][i], name
        action = rng.uniform(batch.action_space.low, batch.action_space.high)
        seen, _, _, _, told = batch.step(action)
        mine = [(obs, info) for obs, _, _, _, info in (one.step(action[i]) for i, one in enumerate(alone))]
    batch.close()


# ---- the environment, on one task ----------------------------------------------


@pytest.fixture(scope="module")
def pick() -> TabletopTask:
    return tabletop_task(load_task("pick_and_place"))


def test_gymnasium_accepts_it(pick: TabletopTask) -> None:
    env = gymnasium.make("robo/pick_and_place-v0", control="joint_delta")
    assert isinstance(env.unwrapped, TabletopEnv) and isinstance(open_env(pick), TabletopEnv)
    check_env(env.unwrapped, skip_render_check=True)


@pytest.mark.parametrize("control", sorted(COMMANDS))
def test_every_way_to_command_it_keeps_the_limits(pick: TabletopTask, control: str) -> None:
    env = TabletopEnv(pick, control=control)
    infos = [info for _, info, _ in act_randomly(env, 0, 100)]
    reference = np.stack([info["reference"] for info in infos])
    limits, dof = pick.robot.limits, pick.robot.dof
    assert (reference[:, :dof] > limits.lower_rad).all() and (reference[:, :dof] < limits.upper_rad).all()
    assert (np.abs(reference[:, dof:-1]) < limits.velocity_rad_s).all()
    assert np.ptp(reference[:, -1]) > 0.02 and infos[-1]["violations"]["joint_limit"] == 0


def test_poses_are_reached_as_commanded(pick: TabletopTask) -> None:
    env = TabletopEnv(pick, control="ee_pose")
    obs, _ = env.reset(seed=0)
    goal = np.array([0.5, 0.1, 0.2, *obs["ee_quat_wxyz"], 0.03])
    for _ in range(60):
        obs, *_ = env.step(goal)
    np.testing.assert_allclose(obs["ee_pos"], goal[:3], atol=2e-3)
    assert abs(obs["ee_quat_wxyz"] @ goal[3:7]) > 0.9999 and obs["gripper_width_m"][0] == pytest.approx(0.03, abs=2e-3)
    env = TabletopEnv(pick, control="ee_delta")
    before, _ = env.reset(seed=0)
    for _ in range(10):
        obs, *_ = env.step(np.array([0, 0, -0.4, 0, 0, 0, 1.0]))
    for _ in range(5):
        obs, *_ = env.step(np.array([0, 0, 0, 0, 0, 0, 1.0]))
    np.testing.assert_allclose(obs["ee_pos"] - before["ee_pos"], [0, 0, -0.1], atol=3e-3)


def test_bad_actions_are_refused_and_nothing_is_executed(pick: TabletopTask) -> None:
    for control in (*COMMANDS, "reference"):
        check_bad_input_is_refused(TabletopEnv(pick, control=control))
    with pytest.raises(UnknownNameError, match="did you mean 'ee_delta'"):
        TabletopEnv(pick, control="ee_dleta")


def test_worlds_differ_as_asked_and_the_same_seed_differs_alike(pick: TabletopTask) -> None:
    plain, off = TabletopEnv(pick), TabletopEnv(pick, randomise=Randomisation.mismatch(0.2, 0.05))
    nominal = plain.model.body_mass.copy()
    (_, a), (_, b), (_, c) = plain.reset(seed=1), off.reset(seed=1), off.reset(seed=2)
    for name, value in a["instance"].items():
        assert np.array_equal(value, b["instance"][name]), "where things are does not depend on how worlds differ"
    assert not np.array_equal(b["drawn"]["mass"], c["drawn"]["mass"])
    assert np.array_equal(plain.model.body_mass, nominal)
    ratio = off.model.body_mass[nominal > 0] / nominal[nominal > 0]
    assert 0.8 <= ratio.min() < ratio.max() <= 1.2
    held = off.state()
    off.reset(seed=3)
    other = TabletopEnv(pick, randomise=Randomisation.mismatch(0.2, 0.05))
    other.reset(seed=9)
    other.set_state(held)
    off.set_state(held)
    action = np.concatenate([held["reference"][:-1], [0.0]])
    assert np.array_equal(off.step(action)[0]["joint_pos"], other.step(action)[0]["joint_pos"])
    assert np.array_equal(off.model.geom_friction, other.model.geom_friction)
    with pytest.raises(ConfigError, match=r"mismatch must lie in \[0, 1\)"):
        Randomisation.mismatch(2.0)
    with pytest.raises(ConfigError, match=r"mass_scale must be \(low, high\)"):
        Randomisation(mass_scale=(1.0, 0.5))
    with pytest.raises(ConfigError, match=r"colour must lie in \[0, 1\]"):
        Randomisation(colour=1.5)


def test_delayed_commands_act_later(pick: TabletopTask) -> None:
    now, late = TabletopEnv(pick), TabletopEnv(pick, randomise=Randomisation(delay_s=(0.04, 0.04)))
    moved = []
    for env in (now, late):
        obs, info = env.reset(seed=0)
        target = info["reference"].copy()
        target[0] += 0.02
        moved.append(abs(env.step(target)[0]["joint_pos"][0] - obs["joint_pos"][0]))
    assert moved[1] < 0.3 * moved[0]


def test_looks_differ_and_pictures_show_it(pick: TabletopTask) -> None:
    options = dict(cameras=("front", "wrist"), images=("rgb", "depth", "seg"), size=48)
    plain, looks = TabletopEnv(pick, **options), TabletopEnv(pick, randomise=Randomisation.looks(), **options)
    a, _ = plain.reset(seed=1)
    b, _ = looks.reset(seed=1)
    c, _ = looks.reset(seed=2)
    assert a["rgb_front"].shape == (48, 48, 3) and a["depth_wrist"].dtype == np.float32
    assert np.abs(a["rgb_front"].astype(int) - b["rgb_front"]).mean() > 5
    assert np.abs(b["rgb_front"].astype(int) - c["rgb_front"]).mean() > 5
    cube = plain.model.geom("cube").id
    assert (a["seg_front"] == cube).sum() > 3
    plain.close(), looks.close()


def test_a_task_needs_an_arm_with_a_gripper() -> None:
    with pytest.raises(TaskError, match="panda has no gripper"):
        type(load_task("pick_and_place"))(robot="panda")  # type: ignore[call-arg]
    with pytest.raises(TaskError, match="none on a tabletop"):
        TabletopEnv("bench/car")
    assert "robo/pick_and_place-v0" in gymnasium.registry and sim.make


SYMMETRIC = [name for name in NAMES if tabletop_task(load_task(name)).symmetry]


@pytest.mark.parametrize("name", SYMMETRIC)
def test_what_is_said_to_look_alike_does(name: str) -> None:
    task = tabletop_task(load_task(name))
    env = TabletopEnv(task, cameras=("front", "wrist"), size=96)
    drawn = task.sample(np.random.default_rng(1))

    def seen(body: str, angle: float) -> np.ndarray:
        key = f"{body}_quat_wxyz"
        instance = drawn | {key: turned(drawn[key], np.array([0.0, 0.0, angle]))}
        obs, _ = env.reset(seed=0, options={"instance": instance})
        return np.stack([obs["rgb_front"], obs["rgb_wrist"]]).astype(float)

    for body, fold in task.symmetry.items():
        assert body in (*task.things, *task.fixtures)
        same = np.abs(seen(body, 2 * np.pi / (fold or 7.0)) - seen(body, 0.0)).mean()
        assert same < 0.1, f"{body} looks different"  # round ones are drawn with edges
        if fold:
            assert np.abs(seen(body, np.pi / fold) - seen(body, 0.0)).mean() > 5 * same, f"{body} is round"
    env.close()
