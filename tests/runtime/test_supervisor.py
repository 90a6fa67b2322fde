"""The supervisor alone: limits under any input, chunks that do not fit, an arm that does not follow."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hardware.driver import JointState
from hardware.drivers import open_driver
from hardware.robots import ROBOTS
from robo.core.errors import ConfigError, RobotError
from robo.core.protocols import ActionChunk
from robo.runtime.control import _Stop
from robo.runtime.supervisor import Shield, Supervisor, SupervisorConfig, Watch, check_sources
from tasks.dynamics.arm import ArmMotion
from tasks.registry import load_task
from tasks.task import Source

LIMITS = ROBOTS.make("panda").limits
HOME = ROBOTS.make("panda").home_rad
DT = 0.01


@pytest.fixture(scope="module")
def task():
    return load_task("reach_avoid")


@pytest.fixture
def supervisor(task) -> Supervisor:
    supervisor = Supervisor(task, open_driver("sim").info, SupervisorConfig())
    supervisor.start(HOME)
    return supervisor


def chunk(start_s: float = 0.1, offset_rad: float = 0.0, **changes: Any) -> ActionChunk:
    """One step away from home, then back to rest."""
    pos = HOME + offset_rad + np.array([0.0, 0.01, 0.02, 0.02])[:, None]
    vel = np.array([0.0, 0.2, 0.0, 0.0])[:, None] * np.ones(7)
    values = dict(start_s=start_s, dt_s=0.1, joint_pos=pos, joint_vel=vel, tail=2, controller="policy")
    return ActionChunk(**(values | changes))


# ---- the shield --------------------------------------------------------------


def check_limits(commands: list[tuple[np.ndarray, np.ndarray]], start: np.ndarray) -> None:
    pos = np.stack([start, *(p for p, _ in commands)])
    vel = np.stack([np.zeros(7), *(v for _, v in commands)])
    tiny = 1e-9
    assert (pos >= LIMITS.lower_rad).all() and (pos <= LIMITS.upper_rad).all()
    assert (np.abs(vel) <= LIMITS.velocity_rad_s + tiny).all()
    assert (np.abs(np.diff(vel, axis=0)) <= LIMITS.acceleration_rad_s2 * DT + tiny).all()
    assert (np.abs(np.diff(pos, axis=0)) <= (LIMITS.velocity_rad_s + LIMITS.acceleration_rad_s2 * DT) * DT).all()


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), scale=st.sampled_from([1e-300, 1e-6, 0.1, 3.0, 1e3, 1e300]))
def test_no_input_makes_the_shield_exceed_a_limit(seed: int, scale: float):
    rng = np.random.default_rng(seed)
    shield = Shield(LIMITS, DT)
    start = rng.uniform(LIMITS.lower_rad, LIMITS.upper_rad)
    shield.start(start)
    commands = []
    for _ in range(200):
        pos, vel, _ = shield.apply(rng.normal(0, scale, 7), rng.normal(0, scale, 7))
        commands.append((pos, vel))
    while shield.vel.any():
        commands.append(shield.brake())
    check_limits(commands, start)


def test_the_shield_runs_to_a_limit_and_stops_there():
    shield = Shield(LIMITS, DT)
    shield.start(HOME)
    commands = [shield.apply(np.full(7, 10.0), LIMITS.velocity_rad_s)[:2] for _ in range(1000)]
    check_limits(commands, HOME)
    assert np.abs(commands[-1][0] - LIMITS.upper_rad).max() < 1e-3


def test_the_shield_passes_what_keeps_the_limits_bit_for_bit():
    shield = Shield(LIMITS, DT)
    shield.start(HOME)
    for k in range(500):
        t = k * DT
        asked = HOME + 0.1 * (1 - np.cos(2 * t)), np.full(7, 0.2 * np.sin(2 * t))
        pos, vel, limited = shield.apply(*asked)
        assert not limited and (pos == asked[0]).all() and (vel == asked[1]).all()


def test_missed_ticks_are_caught_up_at_once():
    shield = Shield(LIMITS, DT)
    shield.start(HOME)
    k = 0
    for missed in [0, 0, 3, 0, 2, 0, 0]:
        k += 1 + missed
        t = k * DT
        asked = HOME + 0.1 * (1 - np.cos(2 * t)), np.full(7, 0.2 * np.sin(2 * t))
        assert shield.apply(*asked, (1 + missed) * DT)[2] is False


def test_the_shield_closes_up_with_a_reference_that_jumped():
    shield = Shield(LIMITS, DT)
    shield.start(HOME)
    target = HOME + 0.1
    assert shield.apply(target, np.zeros(7))[2]
    for _ in range(200):
        pos, _, _ = shield.apply(target, np.zeros(7))
    assert np.abs(pos - target).max() < 1e-4


# ---- chunks ------------------------------------------------------------------


def test_a_chunk_takes_over_at_its_start_and_its_tail_is_the_backup(supervisor: Supervisor):
    assert supervisor.reference(0.0)[2] == "hold"
    assert supervisor.offer(chunk(), 0.05) == ""
    assert supervisor.reference(0.09)[2] == "hold"
    assert not supervisor.at_rest(0.09)
    assert [supervisor.reference(t)[2] for t in (0.15, 0.25, 0.39, 0.45)] == ["policy", "backup", "backup", "hold"]
    pos, vel, _ = supervisor.reference(1.0)
    assert np.allclose(pos, HOME + 0.02) and not vel.any() and supervisor.at_rest(1.0)


def test_a_later_chunk_must_meet_the_one_in_force(supervisor: Supervisor):
    assert supervisor.offer(chunk(), 0.05) == ""
    supervisor.reference(0.1)
    follows = chunk(0.2, joint_pos=chunk().joint_pos + 0.01, joint_vel=chunk().joint_vel[[1, 1, 2, 3]])
    assert supervisor.offer(follows, 0.15) == ""
    assert "does not meet" in supervisor.offer(chunk(0.2), 0.15)
    supervisor.drop_pending()
    assert supervisor.reference(0.25)[2] == "backup"


def test_a_late_chunk_is_taken_if_it_leads_on(supervisor: Supervisor):
    assert supervisor.offer(chunk(), 0.05) == ""
    supervisor.reference(0.1)
    later = chunk(0.2, joint_pos=chunk().joint_pos[1:], joint_vel=chunk().joint_vel[1:])
    assert supervisor.offer(later, 0.26) == ""
    assert supervisor.reference(0.26)[2] == "policy"


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"offset_rad": 0.05}, "does not meet"),
        ({"start_s": -0.1}, "150 ms late"),
        ({"start_s": np.nan}, "times"),
        ({"dt_s": 0.0}, "times"),
        ({"tail": 9}, "times"),
        ({"stops": (4,)}, "stops"),
        ({"joint_vel": np.full((4, 7), 0.1)}, "rest"),
        ({"joint_pos": HOME + np.array([0, 1, 9, 9.0])[:, None]}, "joint limits"),
        ({"joint_vel": np.array([0, 9.0, 0, 0])[:, None] * np.ones(7)}, "velocity limits"),
        ({"joint_pos": np.zeros((4, 6)), "joint_vel": np.zeros((4, 6))}, "shape"),
    ],
)
def test_a_chunk_that_does_not_fit_is_refused_in_words(supervisor: Supervisor, changes: dict, why: str):
    assert why in supervisor.offer(chunk(**changes), 0.05)
    assert supervisor.reference(0.2)[2] == "hold"


@pytest.mark.parametrize(
    ("stops", "left_at"), [((1, 2), 1), ((2,), 2), ((), None)], ids=["the next sample", "a later one", "its own end"]
)
def test_a_stop_leaves_the_chunk_where_braking_is_certified(supervisor: Supervisor, stops: tuple, left_at: int | None):
    pos = HOME + np.array([0.0, 0.01, 0.03, 0.05, 0.06, 0.06])[:, None]
    vel = np.array([0.0, 0.2, 0.2, 0.2, 0.0, 0.0])[:, None] * np.ones(7)
    moving = chunk(joint_pos=pos, joint_vel=vel, tail=4, stops=stops)
    assert supervisor.offer(moving, 0.05) == ""
    supervisor.reference(0.12)
    assert supervisor.leave(0.12)
    left_s = np.inf if left_at is None else 0.1 + 0.1 * left_at
    for t in np.arange(0.12, 1.5, 0.01):
        here, speed, maker = supervisor.reference(t)
        if t < left_s + 1e-9:  # up to the stop nothing has changed
            assert np.allclose(here, moving.at(t)[0], atol=1e-12)
        elif speed.any():
            assert maker == "backup" and (np.abs(speed) <= 0.2 + 1e-12).all()
    # What the certificate looked at: all joints slow down straight to rest.
    if left_at is not None:
        n = ArmMotion(supervisor.task.robot, 0.1, 1).brake_ticks
        assert np.allclose(here, pos[left_at] + 0.5 * n * 0.1 * 0.2)
    assert not speed.any() and supervisor.at_rest(t)


def test_a_way_to_rest_that_takes_long_is_not_waited_for(supervisor: Supervisor):
    assert supervisor.leave(0.0), "the arm stands"
    n = 40
    pos, vel = np.tile(HOME, (n, 1)), np.zeros((n, 7))
    vel[1:-1, 0] = 0.01
    assert supervisor.offer(chunk(joint_pos=pos, joint_vel=vel, tail=n), 0.05) == ""
    supervisor.reference(0.12)
    assert not supervisor.leave(0.12)


def test_the_second_request_to_stop_is_heard():
    stop = _Stop()
    stop(15, None)
    assert stop.reason == "stopped on request" and not stop.at_once
    stop(15, None)
    assert stop.reason == "stopped on request" and stop.at_once


# ---- the arm -----------------------------------------------------------------


def state(time_s: float, pos: np.ndarray) -> JointState:
    return JointState(time_s=time_s, joint_pos=pos, joint_vel=np.zeros(7))


def test_a_stale_state_stops(supervisor: Supervisor):
    supervisor.check_state(state(1.0, HOME), 1.02)
    with pytest.raises(RobotError, match="200 ms old"):
        supervisor.check_state(state(1.0, HOME), 1.2)


def test_an_arm_that_does_not_follow_stops_and_the_joint_is_named(supervisor: Supervisor):
    supervisor.sent(1.0, HOME, np.zeros(7))
    supervisor.check_state(state(1.005, HOME + 0.002), 1.005)
    stuck = HOME.copy()
    stuck[3] += 0.1
    with pytest.raises(RobotError, match=r"does not follow its reference: joint4 by 0\.100 rad"):
        supervisor.check_state(state(1.005, stuck), 1.005)


def test_a_loop_that_loses_its_rate_stops(supervisor: Supervisor):
    for k in range(300):
        supervisor.check_rate(0.01 * k)
    for k in range(40):  # four of ten ticks are lost: unpleasant, but the arm is followed
        supervisor.check_rate(3.0 + 0.0167 * k)
    with pytest.raises(RobotError, match=r"kept \d+ of 100 ticks over the last second \(at least 50%"):
        for k in range(100):
            supervisor.check_rate(4.0 + 0.03 * k)
    supervisor.start(HOME)
    supervisor.check_rate(99.0)


def test_the_first_command_must_lie_where_the_arm_is(supervisor: Supervisor):
    supervisor.first_frame(state(0.0, HOME))
    with pytest.raises(RobotError, match="jump at the first command: joint1"):
        supervisor.first_frame(state(0.0, HOME + 0.05))


def test_thresholds_must_be_finite():
    with pytest.raises(ConfigError, match="stale_s"):
        SupervisorConfig(stale_s=np.inf)
    with pytest.raises(ConfigError, match="least_rate"):
        SupervisorConfig(least_rate=1.1)


# ---- the specification -------------------------------------------------------


def test_a_signal_without_a_source_is_refused_by_name(task):
    info = open_driver("sim").info
    check_sources(task, info)
    blind = dataclasses.replace(info, sources=frozenset({"proprioception"}))
    with pytest.raises(RobotError, match=r"'mover_clearance_m' needs the source 'tracker'.*offers: proprioception"):
        check_sources(task, blind)


def test_simulator_truth_can_be_withdrawn(task):
    assert Source.SIMULATOR in open_driver("sim").info.sources
    assert Source.SIMULATOR not in open_driver("sim://panda?truth=0").info.sources


def test_another_arm_is_refused(task):
    info = dataclasses.replace(open_driver("sim").info, robot="other")
    with pytest.raises(RobotError, match="is for the arm 'panda'"):
        check_sources(task, info)


def test_the_watch_gives_lower_bounds_of_the_truth(task):
    rng = np.random.default_rng(0)
    instance = task.sample(rng)
    world = task.start_world(instance, rng)
    pos = instance["joint_pos"]
    truth_state = {"joint_pos": pos, "joint_vel": np.zeros(7), "points": task.kinematics.points(pos)}
    truth = task.measure(truth_state | task.occupied(instance, world), instance)
    watch = Watch(task)
    obs = {"joint_pos": pos, "joint_vel": np.zeros(7), "time_s": np.zeros(1)} | task.observe(instance, world, rng)
    signals, safety, low, high = watch.update(obs)
    assert set(signals) == set(task.signals)
    for name, value in signals.items():
        assert value <= float(truth[name]) + 1e-12
    assert low <= high and safety <= min(float(truth[n]) for n in task.safety_formula.signals)
