"""Calibration of the servos' tracking error: what the certificate's margin rests on."""

from __future__ import annotations

import numpy as np

from robo.bench import Report
from sim.env import EnvOptions
from sim.open import make
from tasks.arm import arm_task
from tasks.dynamics.arm import ArmMotion
from tasks.registry import load_task

ALLOWANCE = 1.3
"""The bound in a robot's file is to be at least this times what was measured."""


def tracking_bench(task: str = "reach_avoid", episodes: int = 100, seed: int = 0, mismatch: float = 0.1) -> Report:
    """Largest distance of every joint from its reference over random motions within the planning limits.

    Motions are random velocity knots over the whole planning range, a fifth of them at its ends (the
    hardest starts, stops and reversals a plan or its braking can ask for), with masses, payload and servo gains drawn
    anew every episode. Episodes that touch something or reach a joint limit are left out and counted: a
    certified motion does neither.

    Args:
        task: Names the arm and its scene.
        episodes: Motions, one episode long each.
        seed: First seed.
        mismatch: Relative bound of the errors of masses, servo gains and (of the rated) payload.
    """
    loaded = arm_task(load_task(task))
    env = make(loaded, options=EnvOptions.mismatch(mismatch))
    robot = loaded.robot
    motion = ArmMotion(robot, loaded.ctrl_dt_s, loaded.steps)
    pos, vel, left_out, n = np.zeros(robot.dof), np.zeros(robot.dof), 0, 0
    while n < episodes:
        rng = np.random.default_rng([seed, n + left_out])
        obs, info = env.reset(seed=int(rng.integers(2**31)))
        q, v = _inside(motion, robot, obs["joint_pos"], rng)
        for k in range(1, loaded.steps + 1):
            info = env.step(np.concatenate([q[k], v[k]]))[-1]
            if info["violations"]["contacts"] or info["violations"]["joint_limit"]:
                break
        if info["violations"]["contacts"] or info["violations"]["joint_limit"]:
            left_out += 1
            continue
        pos, vel = np.maximum(pos, info["tracking"]["joint_pos"]), np.maximum(vel, info["tracking"]["joint_vel"])
        n += 1
    env.close()
    servo = robot.servo
    rows = [
        {
            "joint": name,
            "measured [mrad]": round(1e3 * pos[j], 2),
            "bound [mrad]": round(1e3 * servo.tracking_error_rad[j], 2),
            "measured [mrad/s]": round(1e3 * vel[j], 1),
            "bound [mrad/s]": round(1e3 * servo.velocity_error_rad_s[j], 1),
            "holds": bool(
                ALLOWANCE * pos[j] <= servo.tracking_error_rad[j]
                and ALLOWANCE * vel[j] <= servo.velocity_error_rad_s[j]
            ),
        }
        for j, name in enumerate(robot.joints)
    ]
    return Report(
        title=f"tracking error of {robot.name}, {episodes} random motions of {loaded.horizon_s:g} s",
        rows=rows,
        seeds=[seed],
        notes=[
            f"masses, gains ±{100 * mismatch:g} %, payload up to that share of the rated one",
            f"{left_out} motions left out: they touched something or reached a joint limit",
            f"holds: the bound in the robot's file is at least {ALLOWANCE} times what was measured",
        ],
    )


def _inside(motion: ArmMotion, robot, start: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A random motion (N + 1, J) that stays inside the joint limits: velocities turn round near them."""
    share = rng.uniform(-1, 1, (motion.knots, robot.dof))
    extreme = rng.uniform(size=share.shape) < 0.2
    knots = np.where(extreme, np.sign(share), share) * motion.velocity_rad_s
    middle = (robot.limits.upper_rad + robot.limits.lower_rad) / 2
    half = 0.7 * (robot.limits.upper_rad - robot.limits.lower_rad) / 2
    step = motion.dt_s * motion.knot_ticks
    q, before = start.copy(), np.zeros(robot.dof)
    for k in range(len(knots)):
        after = q + 0.5 * step * (before + knots[k])
        outward = (np.abs(after - middle) > half) & (np.sign(knots[k]) == np.sign(after - middle))
        knots[k] = np.where(outward, -knots[k], knots[k])
        q, before = q + 0.5 * step * (before + knots[k]), knots[k]
    return motion.rollout(start, np.zeros(robot.dof), knots)
