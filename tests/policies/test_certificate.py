"""The certificate against adversaries: what it accepts stays safe for every error and motion within the bounds."""

import numpy as np
import pytest

from policies.stl.certificate import Certificate, CertificateConfig
from robo.core.errors import ConfigError
from robo.core.protocols import ActionChunk
from tasks.dynamics.arm import ArmMotion
from tasks.reach_avoid import MOVER_SPEED_M_S, ReachAvoid


@pytest.fixture(scope="module")
def task() -> ReachAvoid:
    return ReachAvoid()


@pytest.fixture(scope="module")
def motion(task) -> ArmMotion:
    return ArmMotion(task.robot, task.ctrl_dt_s, task.steps)


@pytest.fixture(scope="module")
def certificate(task, motion) -> Certificate:
    return Certificate(task, motion, CertificateConfig())


def _scene(task, rng):
    instance = task.sample(rng)
    world = task.start_world(instance, rng)
    return instance, world, task.observe(instance, world, rng)


def _true_signals(task, instance, q, v, mover):
    state = {"joint_pos": q, "joint_vel": v, "points": task.kinematics.points(q)}
    return task.measure(state | {"mover_reach": np.stack([mover, mover], axis=-2)}, instance)


def test_what_is_certified_is_safe_for_adversarial_errors_and_movers(task, motion, certificate):
    """Random wild plans; every certified one is executed under errors at the very ends of their bounds."""
    rng = np.random.default_rng(0)
    dt, servo = task.ctrl_dt_s, task.robot.servo
    certified = rejected = 0
    for _ in range(250):
        instance, world, obs = _scene(task, rng)
        start = instance["joint_pos"]
        knots = rng.uniform(-1, 1, (motion.knots, 7)) * motion.velocity_rad_s
        q, v = motion.rollout(start, np.zeros(7), knots)
        under_way = int(rng.integers(0, 30))
        q, v = q[under_way:], v[under_way:]
        verdict = certificate.check(q, v, obs, lead_s=dt)
        if not verdict.switch:
            rejected += 1
            continue
        certified += 1
        assert verdict.stops[-1] == verdict.switch
        s = int(rng.choice(verdict.stops))  # every one of them is a promise
        brake_q, brake_v = motion.brake(q[s], v[s])
        chunk = ActionChunk(
            start_s=dt,
            dt_s=dt,
            joint_pos=np.concatenate([q[: s + 1], brake_q[1:]]),
            joint_vel=np.concatenate([v[: s + 1], brake_v[1:]]),
            tail=s + 1,
            controller="policy",
        )
        # Fine in time, well past the end: the arm has to be safe at rest, too.
        times = np.arange(dt, dt * (len(chunk.joint_pos) + 60), 0.004)
        ref_q, ref_v = chunk.sample(times)
        path = instance["mover_path"]
        length = np.linalg.norm(path[1] - path[0])
        for way in (-1.0, 1.0):  # straight at full speed to either end, and along the arm's side for ever
            along = np.clip(world["mover_along_m"] + way * MOVER_SPEED_M_S * times, 0, length)
            mover = path[0] + along[:, None] * (path[1] - path[0]) / length
            sign = rng.choice([-1.0, 1.0], (len(times), 7))
            actual_q = ref_q + sign * servo.tracking_error_rad
            actual_v = ref_v + sign * servo.velocity_error_rad_s
            signals = _true_signals(task, instance, actual_q, actual_v, mover)
            for name in task.safety_formula.signals:
                assert signals[name].min() > 0, (name, s)
    assert certified > 30 and rejected > 30


def test_rest_in_the_way_of_the_mover_is_refused_though_it_is_clear_now(task, motion, certificate):
    rng = np.random.default_rng(1)
    refused = 0
    for _ in range(40):
        instance, _, obs = _scene(task, rng)
        # Put the mover's path through the hand, the mover itself at its far end.
        tool = task.kinematics.ee_pos(instance["joint_pos"])
        far = tool + np.array([0.0, 0.5, 0.0])
        crossing = dict(obs) | {"mover_path": np.stack([tool, far]), "mover": far}
        q, v = np.repeat(instance["joint_pos"][None], 5, 0), np.zeros((5, 7))
        assert certificate.check(q, v, obs, lead_s=0.1).switch > 0
        state = {"joint_pos": q[:1], "joint_vel": v[:1], "points": task.kinematics.points(q[:1])}
        now = task.measure(state | task.forecast(crossing, np.zeros(1)), crossing)
        if now["mover_clearance_m"][0] > 0.05:
            refused += certificate.check(q, v, crossing, lead_s=0.1).switch == 0
        else:
            refused += 1
    assert refused == 40


@pytest.mark.parametrize("broken", ["nan", "velocity", "acceleration", "joint limit"])
def test_infeasible_plans_are_refused(task, motion, certificate, broken):
    _, _, obs = _scene(task, np.random.default_rng(2))
    q = np.repeat(task.robot.home_rad[None], 10, 0)
    v = np.zeros((10, 7))
    if broken == "nan":
        q[3, 2] = np.nan
        v[1:] = np.nan
    elif broken == "velocity":
        v[:] = 1.01 * motion.velocity_rad_s
    elif broken == "acceleration":
        v[1:] = 0.9 * motion.velocity_rad_s
    else:
        q[:] = task.robot.limits.upper_rad - 1e-4
    assert certificate.check(q, v, obs, lead_s=0.1).switch == 0


def test_a_plan_that_turns_bad_late_is_certified_up_to_an_earlier_switch(task, motion, certificate):
    instance, _, obs = _scene(task, np.random.default_rng(3))
    q = np.repeat(instance["joint_pos"][None], 30, 0)
    v = np.zeros((30, 7))
    assert certificate.check(q, v, obs, lead_s=0.1).switch == 20
    v[6:] = np.nan
    verdict = certificate.check(q, v, obs, lead_s=0.1)
    assert verdict.switch == 4 and verdict.stops == (1, 2, 3, 4)


def test_a_larger_margin_accepts_less(task, motion):
    rng = np.random.default_rng(4)
    loose = Certificate(task, motion, CertificateConfig(margin=0.0))
    tight = Certificate(task, motion, CertificateConfig(margin=0.08))
    fewer = 0
    for _ in range(60):
        instance, _, obs = _scene(task, rng)
        knots = 0.4 * rng.uniform(-1, 1, (motion.knots, 7)) * motion.velocity_rad_s
        q, v = motion.rollout(instance["joint_pos"], np.zeros(7), knots)
        a, b = loose.check(q, v, obs, 0.1).switch, tight.check(q, v, obs, 0.1).switch
        assert b <= a
        fewer += b < a
    assert fewer > 0


def test_settings_are_checked():
    for bad in ({"margin": -1.0}, {"substeps": 0}, {"switches": (2, 3)}, {"switches": (1, 1)}):
        with pytest.raises(ConfigError):
            CertificateConfig(**bad)


def test_braking_keeps_the_maker_s_acceleration(task, motion):
    q, v = motion.brake(task.robot.home_rad, motion.velocity_rad_s)
    assert np.all(v[-1] == 0) and np.all(np.diff(v, axis=0) <= 0)
    assert np.all(np.abs(np.diff(v, axis=0)) / motion.dt_s <= task.robot.limits.acceleration_rad_s2)
    # Positions are the integral of velocities: the chunk's Hermite interpolation adds nothing to it.
    chunk = ActionChunk(start_s=0.0, dt_s=motion.dt_s, joint_pos=q, joint_vel=v, tail=0, controller="backup")
    times = np.linspace(0, motion.brake_ticks * motion.dt_s, 200)
    pos, vel = chunk.sample(times)
    np.testing.assert_allclose(np.gradient(pos, times, axis=0)[1:-1], vel[1:-1], atol=1e-2)
    assert np.all(vel >= -1e-12) and np.all(vel <= motion.velocity_rad_s + 1e-12)


def test_knots_never_exceed_acceleration_limits(task, motion):
    rng = np.random.default_rng(5)
    knots = np.where(rng.uniform(size=(200, motion.knots, 7)) < 0.5, -1.0, 1.0) * motion.velocity_rad_s
    start = np.broadcast_to(task.robot.home_rad, (200, 7))
    _, v = motion.rollout(start, -motion.velocity_rad_s * np.ones((200, 1)), knots)
    assert np.all(np.abs(np.diff(v, axis=1)) / motion.dt_s <= task.robot.limits.acceleration_rad_s2)
