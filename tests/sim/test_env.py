"""Every task as an environment: the contract, repeatability, violations, mismatch."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import warnings
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

import sim
from robo.core.errors import ConfigError, NonFiniteError, RoboError, TaskError, UnknownNameError
from sim.coarse import FINE_GROUP
from sim.env import EnvOptions, TaskEnv
from sim.open import make, make_vector
from sim.scene import Scene, compose
from tasks.arm import ArmTask, Camera
from tasks.registry import TASKS, load_task

TASK_NAMES = [name for name in TASKS if isinstance(load_task(name), ArmTask)]


@pytest.fixture(params=TASK_NAMES)
def env(request: pytest.FixtureRequest):
    with make(request.param) as env:
        yield env


@pytest.fixture
def reach():
    with make("reach_avoid") as env:
        yield env


def hold(env: TaskEnv, q: np.ndarray | None = None, vel: np.ndarray | None = None) -> np.ndarray:
    """The action that stays where the reference is, or goes to `q`."""
    q = env.data.qpos[env.scene.qpos] if q is None else q
    return np.concatenate([q, np.zeros_like(q) if vel is None else vel])


def wiggle(env: TaskEnv, steps: int, seed: int = 0) -> list[tuple]:
    """Random small steps of the reference; returns what `step` did."""
    rng = np.random.default_rng(seed)
    q = env.data.qpos[env.scene.qpos].copy()
    result = []
    for _ in range(steps):
        q = q + rng.uniform(-0.05, 0.05, q.shape)
        result.append(env.step(hold(env, q)))
    return result


def flat(value) -> np.ndarray:
    """All numbers of nested dicts and tuples in one array."""
    if isinstance(value, dict):
        return np.concatenate([flat(value[k]) for k in sorted(value)] or [np.zeros(0)])
    if isinstance(value, (tuple, list)):
        return np.concatenate([flat(v) for v in value] or [np.zeros(0)])
    return np.asarray(value, np.float64).ravel()


def without_contacts(info: dict) -> dict:
    return {k: v for k, v in info.items() if k != "violations"} | {
        k: v for k, v in info["violations"].items() if k != "contacts"
    }


def arm_free_instance(env: TaskEnv, **changes) -> dict[str, np.ndarray]:
    """An instance of reach_avoid with everything far from the arm at home, but for `changes`."""
    far = {
        "joint_pos": env.task.robot.home_rad,
        "region_a": [0.4, 0.3, 0.4],
        "region_b": [0.4, -0.3, 0.4],
        "post": [2.0, 2.0, 0.2],
        "ball": [2.0, -2.0, 0.3],
        "mover_path": [[-2.0, 0.0, 1.0], [-2.0, 0.4, 1.0]],
    }
    return {k: np.array(v, float) for k, v in (far | changes).items()}


# ---- the contract of every task --------------------------------------------------


@pytest.mark.parametrize("name", TASK_NAMES)
def test_gymnasium_knows_and_accepts_it(name: str) -> None:
    env = gymnasium.make(f"robo/{name}-v0", render_mode="rgb_array")
    with warnings.catch_warnings():
        # Observations have no bounds (an arm can be pushed beyond its limits); actions are in rad, not [-1, 1].
        warnings.filterwarnings("ignore", message=".*(infinity|normalize).*")
        check_env(env.unwrapped)
    env.close()


def test_spaces_hold_what_is_returned(env: TaskEnv) -> None:
    obs, _ = env.reset(seed=1)
    assert env.observation_space.contains(obs)
    assert set(obs) == {"joint_pos", "joint_vel", "time_s", *env.task.observation}
    assert env.action_space.shape == (2 * env.task.robot.dof,)
    env.action_space.seed(0)
    obs, reward, terminated, truncated, _ = env.step(env.action_space.sample())
    assert env.observation_space.contains(obs)
    assert (reward, terminated, truncated) == (0.0, False, False)


def test_info_holds_the_truth(env: TaskEnv) -> None:
    _, info = env.reset(seed=2)
    task = env.task
    assert set(info["instance"]) >= {"joint_pos"}
    for _ in range(3):
        *_, info = env.step(hold(env))
    assert set(info["signals"]) == set(task.signals)
    assert set(info["predicates"]) == {str(p) for p in task.formula.predicates}
    assert set(info["bodies"]) == set(task.poses(env.reset(seed=2)[1]["instance"], info["world"]))
    assert info["time_s"] == pytest.approx(3 * task.ctrl_dt_s)
    assert 0 <= info["stage"] <= len(task.stages)
    assert info["violations"] == {"contacts": {}, "joint_limit": 0, "velocity": 0}
    assert {k: v.shape for k, v in info["tracking"].items()} == {
        k: (task.robot.dof,) for k in ("joint_pos", "joint_vel")
    }
    assert json.dumps(info["signals"]) and all(isinstance(v, float) for v in info["signals"].values())


def test_same_seed_same_trajectory_and_others_differ(env: TaskEnv) -> None:
    def trajectory(seed: int) -> np.ndarray:
        start = env.reset(seed=seed)
        return np.concatenate([flat((start[0], without_contacts(start[1])))] + [
            flat((obs, without_contacts(info))) for obs, *_, info in wiggle(env, 10)
        ])  # fmt: skip

    first = trajectory(7)
    np.testing.assert_array_equal(first, trajectory(7))
    assert not np.array_equal(first, trajectory(8))


def test_reset_without_a_seed_draws_anew(env: TaskEnv) -> None:
    starts = [flat(env.reset(seed=3 if i == 0 else None)[1]["instance"]) for i in range(3)]
    assert not np.array_equal(starts[0], starts[1]) and not np.array_equal(starts[1], starts[2])
    env.reset(seed=3)
    np.testing.assert_array_equal(flat(env.reset()[1]["instance"]), starts[1])


def test_nothing_returned_shares_memory(env: TaskEnv) -> None:
    obs, info = env.reset(seed=4)
    before = flat((obs, info["instance"], info["bodies"], info["world"]))
    returned = [obs] + [step[0] for step in wiggle(env, 3)]
    np.testing.assert_array_equal(flat((obs, info["instance"], info["bodies"], info["world"])), before)
    for name in obs:
        arrays = [o[name] for o in returned]
        assert not any(np.shares_memory(a, b) for i, a in enumerate(arrays) for b in arrays[:i])
        assert not any(np.shares_memory(a, x) for a in arrays for x in (env.data.qpos, env.data.qvel))
    for value in info["instance"].values():
        value[...] = np.nan  # and nobody minds
    wiggle(env, 1)


def test_episode_ends_on_time_with_the_robustness_of_its_trace(env: TaskEnv) -> None:
    _, info = env.reset(seed=5)
    trace = [info["signals"]]
    for k in range(env.task.steps):
        _, reward, terminated, truncated, info = env.step(hold(env))
        trace.append(info["signals"])
        assert not terminated and truncated == (k + 1 == env.task.steps)
        if not truncated:
            assert reward == 0.0
    arrays = {k: np.array([s[k] for s in trace]) for k in trace[0]}
    assert reward == env.task.formula.rho(arrays, env.task.ctrl_dt_s)[0]


def test_restored_state_goes_on_bit_equal(env: TaskEnv) -> None:
    def future(e: TaskEnv) -> np.ndarray:
        steps = [flat((o, r, without_contacts(i))) for o, r, _, _, i in wiggle(e, e.task.steps - 5, seed=9)]
        obs, info = e.reset()  # the streams go on too
        return np.concatenate([*steps, flat((obs, info["instance"]))])

    env.reset(seed=6)
    wiggle(env, 5)
    state = env.state()
    first = future(env)
    env.set_state(state)
    np.testing.assert_array_equal(future(env), first)
    with make(env.task) as other:
        other.reset(seed=99)
        other.set_state(state)
        np.testing.assert_array_equal(future(other), first)


def test_world_moves_alike_whatever_the_arm_does(env: TaskEnv) -> None:
    worlds = []
    for seed in (0, 1):
        env.reset(seed=11)
        worlds.append(np.stack([flat(i["world"]) for *_, i in wiggle(env, 10, seed)]))
    np.testing.assert_array_equal(*worlds)


_FRESH = """
import hashlib, numpy as np, sim
env = sim.make({name!r})
obs, info = env.reset(seed=21)
digest = hashlib.sha256()
q = obs["joint_pos"].copy()
for k in range(20):
    q = q + 0.02 * np.sin(np.arange(q.size) + k)
    obs, *_ = env.step(np.concatenate([q, np.zeros_like(q)]))
    for name in sorted(obs):
        digest.update(obs[name].tobytes())
print(digest.hexdigest())
"""


@pytest.mark.parametrize("name", TASK_NAMES)
def test_fresh_processes_give_bit_equal_trajectories(name: str) -> None:
    digests = {
        subprocess.run(
            [sys.executable, "-c", _FRESH.format(name=name)], capture_output=True, text=True, check=True
        ).stdout
        for _ in range(2)
    }
    assert len(digests) == 1 and len(digests.pop().strip()) == hashlib.sha256().digest_size * 2


# ---- reach_avoid in physics -----------------------------------------------------------


def test_witness_of_an_instance_satisfies_the_specification_in_physics(reach: TaskEnv) -> None:
    for seed in range(3):
        _, info = reach.reset(seed=seed)
        path = info["instance"]["witness"]
        vel = np.gradient(path, reach.task.ctrl_dt_s, axis=0)
        worst = 0.0
        for k in range(reach.task.steps):
            obs, reward, *_, info = reach.step(np.concatenate([path[k + 1], vel[k + 1]]))
            worst = max(worst, np.abs(obs["joint_pos"] - path[k + 1]).max())
        assert reward > 0 and info["stage"] == 2
        assert info["violations"] == {"contacts": {}, "joint_limit": 0, "velocity": 0}
        assert worst < reach.task.robot.servo.tracking_error_rad.min()
        assert worst <= info["tracking"]["joint_pos"].max() < reach.task.robot.servo.tracking_error_rad.min()


def test_given_instance_is_used(reach: TaskEnv) -> None:
    wanted = arm_free_instance(reach)
    obs, info = reach.reset(seed=0, options={"instance": wanted})
    np.testing.assert_array_equal(obs["joint_pos"], reach.task.robot.home_rad)
    np.testing.assert_array_equal(info["bodies"]["region_a"], wanted["region_a"])
    with pytest.raises(UnknownNameError, match="did you mean 'instance'"):
        reach.reset(options={"instanc": wanted})


def test_driving_into_the_floor_is_seen(reach: TaskEnv) -> None:
    reach.reset(seed=0, options={"instance": arm_free_instance(reach)})
    down = reach.task.robot.home_rad.copy()
    down[1] = 1.2
    for u in np.linspace(0, 1, 20):
        *_, info = reach.step(hold(reach, (1 - u) * reach.task.robot.home_rad + u * down))
    contacts = info["violations"]["contacts"]
    assert any("floor" in pair for pair in contacts) and min(contacts.values()) > 0
    assert info["signals"]["clearance_m"] < 0.005


def test_touching_an_obstacle_between_samples_is_seen(reach: TaskEnv) -> None:
    home = reach.task.robot.home_rad
    tool = reach.task.kinematics.ee_pos(home)
    ball = np.add(tool, [0.0, 0.195, 0.0])  # clear of the hand, but in its way
    reach.reset(seed=0, options={"instance": arm_free_instance(reach, ball=ball)})
    *_, info = reach.step(hold(reach))
    assert info["violations"]["contacts"] == {}
    turned = home.copy()
    turned[0] = 0.25
    reach.step(hold(reach, turned))
    *_, info = reach.step(hold(reach, home))
    assert any(pair.startswith("ball|") for pair in info["violations"]["contacts"])
    while_clear = dict(info["violations"]["contacts"])
    for _ in range(5):
        *_, info = reach.step(hold(reach, home))
    assert set(info["violations"]["contacts"]) == set(while_clear)  # counted since the start of the episode
    assert info["signals"]["clearance_m"] > 0


def test_a_mover_that_runs_into_the_arm_is_seen(reach: TaskEnv) -> None:
    home = reach.task.robot.home_rad
    tool = reach.task.kinematics.ee_pos(home)
    path = tool + np.array([[0.0, -0.2, 0.0], [0.0, 0.2, 0.0]])
    reach.reset(seed=0, options={"instance": arm_free_instance(reach, mover_path=path)})
    for _ in range(60):
        *_, info = reach.step(hold(reach, home))
    assert any("mover" in pair for pair in info["violations"]["contacts"])


def test_folding_the_arm_into_itself_is_seen(reach: TaskEnv) -> None:
    start = reach.task.robot.home_rad.copy()
    start[:] = [0, -0.6, 0, -2.6, 0, 1.5, 0]
    reach.reset(seed=0, options={"instance": arm_free_instance(reach, joint_pos=start)})
    end = start.copy()
    end[[3, 5]] = [-3.0, 0.3]
    for u in np.linspace(0, 1, 20):
        *_, info = reach.step(hold(reach, (1 - u) * start + u * end))
    arm = {c.name for c in reach.task.robot.capsules}
    assert any(set(pair.split("|")) <= arm for pair in info["violations"]["contacts"]), info["violations"]


def test_limits_of_joints_and_velocities_are_counted(reach: TaskEnv) -> None:
    limits = reach.task.robot.limits
    start = reach.task.robot.home_rad.copy()
    start[0] = limits.upper_rad[0] - 0.02
    reach.reset(seed=0, options={"instance": arm_free_instance(reach, joint_pos=start)})
    beyond = start.copy()
    beyond[0] += 0.1
    for _ in range(5):
        *_, info = reach.step(hold(reach, beyond))
    assert info["violations"]["joint_limit"] > 0 and info["signals"]["joint_margin_rad"] < 0
    assert info["violations"]["velocity"] == 0
    beyond[0] -= 1.5
    *_, info = reach.step(hold(reach, beyond))
    assert info["violations"]["velocity"] > 0


# ---- mismatch ---------------------------------------------------------------------


def test_mismatch_is_drawn_anew_within_its_bounds_and_stays_out_of_other_environments() -> None:
    with make("reach_avoid") as nominal, make("reach_avoid", options=EnvOptions.mismatch(0.1)) as env:
        draws = [env.reset(seed=s)[1]["mismatch"] for s in range(3)]
        assert all(0.9 <= v <= 1.1 for d in draws for k in ("mass_scale", "kp_scale", "kd_scale") for v in d[k])
        assert all(0 <= d["payload_kg"][0] <= 0.3 for d in draws)
        assert len({d["kp_scale"][0] for d in draws}) == 3
        scene = env.scene
        np.testing.assert_allclose(
            env.model.actuator_gainprm[scene.pos_ctrl, 0],
            draws[-1]["kp_scale"] * env.task.robot.servo.kp_n_m_rad,
        )
        arm = [env.model.body(f"link{i}").id for i in range(1, 8)]
        np.testing.assert_allclose(
            env.model.body_mass[arm], draws[-1]["mass_scale"][arm] * nominal.model.body_mass[arm]
        )
        # Gravity compensation carries the nominal weight.
        np.testing.assert_allclose(
            env.model.body_mass[arm] * env.model.body_gravcomp[arm], nominal.model.body_mass[arm]
        )
        assert nominal.reset(seed=0)[1]["mismatch"]["payload_kg"] == 0


def test_a_payload_makes_the_arm_sag() -> None:
    sag = []
    for payload in (0.0, 2.0):
        with make("reach_avoid", options=EnvOptions(payload_kg=(payload, payload))) as env:
            home = env.task.robot.home_rad
            env.reset(seed=0, options={"instance": arm_free_instance(env)})
            for _ in range(10):
                env.step(hold(env, home))
            sag.append(env.task.kinematics.ee_pos(env.data.qpos[env.scene.qpos])[2])
    assert 1e-4 < sag[0] - sag[1] < 0.02


def test_mismatch_travels_with_the_state() -> None:
    with make("reach_avoid", options=EnvOptions.mismatch(0.1)) as env, make("reach_avoid") as nominal:
        env.reset(seed=0)
        wiggle(env, 2)
        state = env.state()
        expected = flat([s[0] for s in wiggle(env, 5)])
        nominal.set_state(state)
        np.testing.assert_array_equal(flat([s[0] for s in wiggle(nominal, 5)]), expected)


def test_references_arrive_late() -> None:
    delay = 0.03
    with make("reach_avoid") as prompt, make("reach_avoid", options=EnvOptions(delay_s=(delay, delay))) as late:
        start = arm_free_instance(prompt)
        for env in (prompt, late):
            env.reset(seed=0, options={"instance": start})
            env.target = hold(env)  # type: ignore[attr-defined]
            env.target[:7] += 0.02  # type: ignore[attr-defined]
        assert late.reset(seed=0, options={"instance": start})[1]["mismatch"]["delay_s"] == delay
        moved = {}
        for name, env in (("prompt", prompt), ("late", late)):
            path = []
            for _ in range(4):
                env.step(env.target)  # type: ignore[attr-defined]
                path.append(env._qpos[:, env.scene.qpos[0]].copy())
            moved[name] = np.concatenate(path)
        steps = round(delay / late.model.opt.timestep)
        assert np.abs(moved["late"][:steps] - start["joint_pos"][0]).max() < 1e-6
        np.testing.assert_allclose(moved["late"][steps:], moved["prompt"][:-steps], atol=1e-6)
        # The same instance is drawn, late or not; and the delay goes along with the state.
        again = [env.reset(seed=5)[1]["instance"]["joint_pos"] for env in (prompt, late)]
        np.testing.assert_array_equal(*again)
        wiggle(late, 2)
        state = late.state()
        expected = flat([s[0] for s in wiggle(late, 4)])
        prompt.set_state(state)
        np.testing.assert_array_equal(flat([s[0] for s in wiggle(prompt, 4)]), expected)


# ---- bad input --------------------------------------------------------------------------


def test_bad_actions_are_refused_and_nothing_moves(reach: TaskEnv) -> None:
    reach.reset(seed=0)
    before = reach.state()["physics"]
    nan = hold(reach)
    nan[3] = np.nan
    for action, error in (
        (nan, NonFiniteError),
        (np.full(14, np.inf), NonFiniteError),
        (np.full(14, 1e12), NonFiniteError),
        (np.zeros(7), RoboError),
        (np.zeros((1, 14)), RoboError),
        ("left", RoboError),
        ([{}], RoboError),
    ):
        with pytest.raises(error, match="action"):
            reach.step(action)
    np.testing.assert_array_equal(reach.state()["physics"], before)


def test_physics_that_blows_up_is_an_error_not_a_trace(reach: TaskEnv) -> None:
    reach.reset(seed=0)
    reach.data.qvel[0] = 1e200
    with pytest.raises(NonFiniteError, match="blew up"):
        reach.step(hold(reach))
    reach.reset(seed=0)
    wiggle(reach, 1)


def test_use_in_the_wrong_order_is_refused() -> None:
    with make("reach_avoid") as env:
        for use in (lambda: env.step(np.zeros(14)), env.state):
            with pytest.raises(RoboError, match=r"reset\(\)"):
                use()
        with pytest.raises(RoboError, match="not a state"):
            env.set_state({"physics": np.zeros(3)})


def test_unknown_names_give_the_nearest() -> None:
    for given, match in (
        (dict(task="reach_avid"), "reach_avoid"),
        (dict(task="reach_avoid", cameras=("frnt",)), "front"),
        (dict(task="reach_avoid", cameras=("front",), images=("depht",)), "depth"),
        (dict(task="reach_avoid", render_mode="rgb_aray"), "rgb_array"),
    ):
        with pytest.raises(UnknownNameError, match=f"did you mean '{match}'"):
            make(**given)


@pytest.mark.parametrize(
    "bad",
    [dict(payload_kg=(1.0, 0.0)), dict(mass_scale=(0.0, 1.0)), dict(kp_scale=(1.0, np.nan)), dict(delay_s=(-0.1, 0.0))],
    ids=str,
)
def test_impossible_options_are_refused(bad: dict) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        EnvOptions(**bad)


@pytest.mark.parametrize("size", [0, (96,), (96, 96, 3), (10, -1), 5000])
def test_impossible_sizes_are_refused(size) -> None:
    with pytest.raises(ConfigError, match="size"):
        make("reach_avoid", size=size)


def test_a_task_with_a_broken_scene_names_what_is_wrong() -> None:
    def task(**changes):
        task = TASKS.make("reach_avoid")
        return type(task.name, (type(task),), changes)()

    with pytest.raises(TaskError, match=r"camera 'eye'.*did you mean 'hand'"):
        Scene(task(cameras=(Camera(name="eye", position=(1, 0, 0), target=(0, 0, 0), body="hnd"),)))
    with pytest.raises(TaskError, match="looks at the place where it is"):
        Scene(task(cameras=(Camera(name="eye", position=(1, 0, 0), target=(1, 0, 0)),)))
    with pytest.raises(TaskError, match="does not compile"):
        Scene(task(build=lambda self, scene: scene.worldbody.add_geom(name="floor", size=[1, 0, 0])))
    misspelt = task(poses=lambda self, instance, world: {"bal": np.zeros(3)})
    with make(misspelt) as env, pytest.raises(TaskError, match="did you mean 'ball'"):
        env.reset(seed=0)


def test_a_scene_takes_the_arm_in_other_shells() -> None:
    task = TASKS.make("reach_avoid")
    arm = task.robot.mjcf()
    looks = [g for g in arm.geoms if not g.contype]
    arm.delete(looks[0])
    shapes = [(scene.model.geom_group == FINE_GROUP).sum() for scene in (Scene(task, compose(task, arm)), Scene(task))]
    assert shapes[0] == shapes[1] - 1


# ---- vectors ----------------------------------------------------------------------------


@pytest.mark.parametrize("processes", [False, True])
def test_vector_is_the_single_environments_side_by_side(processes: bool) -> None:
    vector = sim.make_vector("reach_avoid", 2, processes=processes)
    try:
        seen, _ = vector.reset(seed=30)
        actions = np.concatenate([seen["joint_pos"] + 0.02, np.zeros((2, 7))], axis=1)
        seen, rewards, terminated, truncated, info = vector.step(actions)
        assert rewards.shape == terminated.shape == truncated.shape == (2,)
        for i in range(2):
            with make("reach_avoid") as env:
                env.reset(seed=30 + i)
                obs, *_, alone = env.step(actions[i])
            for name, value in obs.items():
                np.testing.assert_array_equal(seen[name][i], value)
            assert info["signals"]["clearance_m"][i] == alone["signals"]["clearance_m"]
            assert info["stage"][i] == alone["stage"]
    finally:
        vector.close()


def test_vector_of_a_task_file_of_ones_own(tmp_path: Path) -> None:
    own = tmp_path / "mine.py"
    own.write_text("from tasks.reach_avoid import ReachAvoid\n\n\nclass Mine(ReachAvoid):\n    name = 'mine'\n")
    vector = make_vector(load_task(own), 2)
    try:
        assert vector.reset(seed=0)[0]["mover"].shape == (2, 3)
    finally:
        vector.close()


def test_vector_needs_someone_in_it() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        make_vector("reach_avoid", 0)
