"""Rollouts: what is in them, and their way to disk and back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from robo.core.errors import ConfigError, RunError
from robo.data.rollout import CONTROLLERS, LAYOUT, ArmRollout, Rollout
from robo.evaluate.rollout import describe, roll_out
from sim.env import TaskEnv
from tests.evaluate.doubles import FollowWitness, Hold


@pytest.fixture(scope="module")
def env():
    env = TaskEnv("reach_avoid")
    yield env
    env.close()


@pytest.fixture(scope="module")
def rollout(env) -> ArmRollout:
    return roll_out(env, FollowWitness(env), 3, name="witness")


def test_a_witness_satisfies_its_instance(rollout: ArmRollout, env) -> None:
    assert rollout.satisfied and rollout.success and not rollout.violations
    assert rollout.rho == min(rollout.parts.values())
    assert rollout.steps == env.task.steps


def test_everything_is_recorded(rollout: ArmRollout, env) -> None:
    task = env.task
    assert (rollout.task, rollout.policy, rollout.seed) == ("reach_avoid", "witness", 3)
    np.testing.assert_array_equal(rollout.command_pos, rollout.instance["witness"])
    # Servos follow within the calibrated bound.
    assert np.all(np.abs(rollout.joint_pos - rollout.command_pos) <= task.robot.servo.tracking_error_rad)
    np.testing.assert_allclose(rollout.ee_pos, task.kinematics.ee_pos(rollout.joint_pos))
    assert set(rollout.signals) == set(task.signals)
    for name, values in rollout.predicates.items():
        signal = name.split(" > ")[0]
        np.testing.assert_allclose(values, rollout.signals[signal])
    np.testing.assert_allclose(rollout.bodies["region_a"], np.tile(rollout.instance["region_a"], (81, 1)))
    # The plan of step 0 is the rest of the witness, from the first tick on.
    np.testing.assert_allclose(rollout.plan_ee[0], task.kinematics.ee_pos(rollout.instance["witness"][1:]))
    assert np.isnan(rollout.plan_ee[-1][1:]).all() and np.isfinite(rollout.plan_ee[-1][0]).all()
    np.testing.assert_allclose(rollout.plan_ms, 2.0 + np.arange(1, 81) / 100)


def test_who_was_in_control(rollout: ArmRollout) -> None:
    shares = {name: rollout.share(name) * rollout.steps for name in CONTROLLERS}
    assert shares == pytest.approx({"policy": 66, "refinement": 10, "backup": 4})


def test_online_interval_closes_on_the_truth(rollout: ArmRollout) -> None:
    assert np.all(rollout.rho_low <= rollout.rho) and np.all(rollout.rho <= rollout.rho_high)
    assert rollout.rho_low[-1] == rollout.rho == rollout.rho_high[-1]
    assert np.all(np.diff(rollout.rho_high) <= 0)


def test_holding_still_satisfies_nothing(env) -> None:
    rollout = roll_out(env, Hold(env.task), 0)
    assert not rollout.satisfied and not rollout.success


def test_round_trip(rollout: ArmRollout, tmp_path: Path) -> None:
    loaded = Rollout.load(rollout.save(tmp_path / "new" / "rollout-3.npz"))
    for field in dataclasses.fields(ArmRollout):
        mine, other = getattr(rollout, field.name), getattr(loaded, field.name)
        if isinstance(mine, dict):
            assert mine.keys() == other.keys()
            for key in mine:
                np.testing.assert_array_equal(mine[key], other[key])
        else:
            np.testing.assert_array_equal(mine, other)
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["rollout-3.npz"]


def test_damaged_files_are_refused(rollout: ArmRollout, tmp_path: Path) -> None:
    path = rollout.save(tmp_path / "rollout-3.npz")
    whole = path.read_bytes()
    for damaged in (b"", whole[: len(whole) // 2], whole[:3000] + bytes(2000) + whole[5000:], b"no zip at all"):
        path.write_bytes(damaged)
        with pytest.raises(RunError, match=r"corrupt.*robo-view"):
            Rollout.load(path)
    with pytest.raises(RunError, match="no rollout at"):
        Rollout.load(tmp_path / "rollout-4.npz")


def _rewritten(path: Path, **changes) -> Path:
    with np.load(path) as data:
        arrays = dict(data)
    meta = json.loads(str(arrays["meta"][()]))
    for name, value in changes.items():
        if name in meta:
            meta[name] = value
        elif value is None:
            del arrays[name]
        else:
            arrays[name] = value
    arrays["meta"] = np.array(json.dumps(meta))
    np.savez(path, allow_pickle=False, **arrays)
    return path


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"layout": 99}, "layout 99"),
        ({"joint_vel": None}, "corrupt"),
        ({"joint_vel": np.zeros((3, 7))}, r"joint_vel has shape \(3, 7\)"),
        ({"controller": np.zeros(5, int)}, "controller has shape"),
        ({"controller": np.full(80, 7)}, "controller"),
        ({"plan_ee": np.zeros((80, 4))}, "plan_ee"),
    ],
)
def test_parts_that_do_not_fit_are_refused(rollout: ArmRollout, tmp_path: Path, change: dict, message: str) -> None:
    path = _rewritten(rollout.save(tmp_path / "r.npz"), **change)
    with pytest.raises(RunError, match=message):
        Rollout.load(path)


def test_pickles_are_refused(rollout: ArmRollout, tmp_path: Path) -> None:
    path = tmp_path / "r.npz"
    np.savez(
        path, meta=np.array(json.dumps({"layout": LAYOUT, "kind": "arm"})), joint_pos=np.array([{"a": 1}], dtype=object)
    )
    with pytest.raises(RunError, match="corrupt"):
        Rollout.load(path)


def test_a_policy_of_another_task_is_refused(env) -> None:
    policy = Hold(env.task)
    policy.info = dataclasses.replace(policy.info, task="push")
    with pytest.raises(ConfigError, match=r"trained with task 'push', here it is 'reach_avoid'"):
        roll_out(env, policy, 0)
    policy.info = dataclasses.replace(policy.info, task="reach_avoid", observation={"post": (2,)})
    with pytest.raises(ConfigError, match="observation"):
        roll_out(env, policy, 0)


def test_violations_in_words() -> None:
    assert describe({"contacts": {}, "joint_limit": 0, "velocity": 0}) == ()
    assert describe({"contacts": {"ball|hand": 3}, "joint_limit": 0, "velocity": 2}) == (
        "contact of ball and hand (3 physics steps)",
        "joint velocity limit exceeded (2 physics steps)",
    )
