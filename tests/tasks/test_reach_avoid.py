"""The task keeps what it states: satisfiable instances, bounded motion and errors, signals that are the truth."""

import mujoco
import numpy as np
import pytest
import torch

from hardware.robots.kinematics_torch import TorchKinematics
from sim.scene import Scene
from tasks import reach_avoid as module
from tasks.reach_avoid import ReachAvoid


@pytest.fixture(scope="module")
def task() -> ReachAvoid:
    return ReachAvoid()


def _instances(task, n, seed=0):
    rng = np.random.default_rng(seed)
    return [task.sample(rng) for _ in range(n)]


def test_every_instance_has_a_witness_against_any_mover(task):
    for instance in _instances(task, 40):
        q = instance["witness"]
        assert np.array_equal(q[0], instance["joint_pos"])
        v = np.gradient(q, task.ctrl_dt_s, axis=0)
        anything = task.forecast(instance | {"mover": instance["mover_path"][0]}, np.full(len(q), np.inf))
        state = {"joint_pos": q, "joint_vel": v, "points": task.kinematics.points(q)} | anything
        signals = task.measure(state, instance)
        assert task.formula.rho(signals, task.ctrl_dt_s)[0] > 0.02
        assert task.success(signals)


def test_instances_differ_and_repeat_with_their_seed(task):
    one, again = _instances(task, 3, seed=5), _instances(task, 3, seed=5)
    for a, b in zip(one, again, strict=True):
        assert all(np.array_equal(a[k], b[k]) for k in a)
    for key in one[0]:
        assert not np.array_equal(one[0][key], one[1][key])


def test_mover_keeps_its_bounds_and_the_forecast_holds_it(task):
    rng = np.random.default_rng(3)
    turned = 0
    for instance in _instances(task, 5, seed=1):
        world = task.start_world(instance, rng)
        place = [task.poses(instance, world)["mover"]]
        seen = task.observe(instance, world, rng) | {"mover": place[0]}
        for _ in range(600):
            before = world["mover_vel_m_s"]
            world = task.advance(instance, world, 0.01, rng)
            place.append(task.poses(instance, world)["mover"])
            turned += world["mover_vel_m_s"] != before
        speed = np.linalg.norm(np.diff(place, axis=0), axis=1) / 0.01
        assert speed.max() <= module.MOVER_SPEED_M_S + 1e-9
        tau = np.arange(len(place)) * 0.01
        reach = task.forecast(seen, tau)["mover_reach"]
        path = instance["mover_path"][1] - instance["mover_path"][0]
        along = np.array(place) @ path
        assert np.all(along >= reach[:, 0] @ path - 1e-9) and np.all(along <= reach[:, 1] @ path + 1e-9)
    assert turned > 10


def test_observations_keep_the_stated_error_bound(task):
    rng = np.random.default_rng(4)
    instance = _instances(task, 1)[0]
    world = task.start_world(instance, rng)
    truth = task.poses(instance, world)["mover"]
    errors = [np.linalg.norm(task.observe(instance, world, rng)["mover"] - truth) for _ in range(500)]
    assert max(errors) <= module.TRACKER_ERROR_M
    assert max(errors) > 0.8 * module.TRACKER_ERROR_M
    for key, shape in task.observation.items():
        assert task.observe(instance, world, rng)[key].shape == shape


def test_clearances_are_those_of_mujoco(task):
    """The physics engine measures the same distances between the same bodies, independently."""
    scene = Scene(task)
    data = mujoco.MjData(scene.model)
    rng = np.random.default_rng(6)
    limits, capsules = task.robot.limits, task.robot.capsules
    checked = 0
    for instance in _instances(task, 4, seed=2):
        world = task.start_world(instance, rng)
        scene.place(data, task.poses(instance, world))
        for _ in range(15):
            q = rng.uniform(limits.lower_rad, limits.upper_rad)
            data.qpos[scene.qpos] = q
            mujoco.mj_forward(scene.model, data)
            state = {"joint_pos": q, "joint_vel": np.zeros(7), "points": task.kinematics.points(q)}
            signals = task.measure(state | task.occupied(instance, world), instance)

            def gap(a: str, b: str) -> float:
                ids = (scene.model.geom(a).id, scene.model.geom(b).id)
                return mujoco.mj_geomDistance(scene.model, data, *ids, 10.0, None)

            moving = [c.name for c in capsules[module.FIXED_CAPSULES :]]
            mover = min(gap(name, "mover") for name in moving)
            fixed = min(gap(name, other) for name in moving for other in ("post", "ball"))
            own = min(gap(capsules[i].name, capsules[j].name) for i, j in task.robot.self_pairs)
            floor = min(gap(capsules[i].name, "floor") for i in task.robot.floor_capsules)
            for expected, found in (
                (mover, signals["mover_clearance_m"]),
                (min(fixed, floor), signals["clearance_m"]),
                (own, signals["self_clearance_m"]),
            ):
                if expected > 0.0:  # depth of penetration is defined differently
                    assert found == pytest.approx(expected, abs=1e-6)
                    checked += 1
                else:
                    assert found <= 1e-6
    assert checked > 60


def test_signals_are_the_same_in_torch_and_numpy(task):
    rng = np.random.default_rng(7)
    instances = _instances(task, 3)
    obs = [task.observe(i, task.start_world(i, rng), rng) for i in instances]
    q = rng.uniform(-1, 1, (3, 9, 7)) + task.robot.home_rad
    v = rng.uniform(-1, 1, (3, 9, 7))
    tau = np.arange(9) * 0.1
    torch_obs = {k: torch.tensor(np.stack([o[k] for o in obs])) for k in obs[0]}
    state = {"joint_pos": torch.tensor(q), "joint_vel": torch.tensor(v)}
    state |= {"points": TorchKinematics(task.robot).points(torch.tensor(q))}
    state |= task.forecast(torch_obs, torch.tensor(tau))
    found = task.measure(state, {k: x[:, None] for k, x in torch_obs.items()})
    for b in range(3):
        state = {"joint_pos": q[b], "joint_vel": v[b], "points": task.kinematics.points(q[b])}
        expected = task.measure(state | task.forecast(obs[b], tau), obs[b])
        assert set(expected) == set(task.signals)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name][b].numpy(), value, atol=1e-9)


def test_one_number_in_the_spec_changes_the_score():
    class Stricter(ReachAvoid):
        mission = ReachAvoid.mission.replace("F[0,4]", "F[0,2]")

    task, stricter = ReachAvoid(), Stricter()
    instance = _instances(task, 1)[0]
    q = instance["witness"]
    state = {"joint_pos": q, "joint_vel": 0 * q, "points": task.kinematics.points(q)}
    state |= task.forecast(instance | {"mover": instance["mover_path"][0]}, np.full(len(q), np.inf))
    signals = task.measure(state, instance)
    assert task.formula.rho(signals, 0.1)[0] > 0 > stricter.formula.rho(signals, 0.1)[0]
