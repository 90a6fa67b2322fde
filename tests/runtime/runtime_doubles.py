"""Policies that misbehave on purpose, made in the inference process by name."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np

from policies.policy import Policy, PolicyInfo
from robo.core.protocols import ActionChunk, Obs
from tasks.registry import load_task

TASK_FILE = Path(__file__).with_name("wave_task.py")


class Wave(Policy):
    """A slow wave about the start; every chunk is one step of it and then a braking tail.

    Args:
        fault: What goes wrong, at `at_s`: ``die``, ``hang``, ``raise``, ``nan``, ``jump``, ``late`` (once).
        at_s: When [s].
        amplitude_rad: Of the wave.
    """

    def __init__(self, fault: str = "", at_s: float = 0.8, amplitude_rad: float = 0.2) -> None:
        task = load_task(TASK_FILE)
        self.info = PolicyInfo(
            task=task.name, observation=dict(task.observation), joints=task.robot.dof, ctrl_dt_s=task.ctrl_dt_s
        )
        self.fault, self.at_s, self.amplitude_rad = fault, at_s, amplitude_rad

    def reset(self, obs: Obs, seed: int = 0) -> None:
        self.home, self.zero_s = np.array(obs["joint_pos"]), float(obs["time_s"][0])

    def act(self, obs: Obs) -> ActionChunk:
        dt, now = self.info.ctrl_dt_s, float(obs["time_s"][0])
        if self.fault and now >= self.at_s - 1e-6:
            self.misbehave()
        start = now + dt
        pos, vel = (np.stack(rows) for rows in zip(self.wave(start), self.wave(start + dt), strict=True))
        # Braking with constant deceleration: exact in cubic Hermite samples.
        n = 3
        t = np.arange(1, n + 1)[:, None] * dt
        brake = -vel[1] / (n * dt)
        pos = np.concatenate([pos, pos[1] + vel[1] * t + 0.5 * brake * t**2])
        vel = np.concatenate([vel, vel[1] + brake * t])
        vel[-1] = 0.0
        if self.fault == "jump" and now >= self.at_s - 1e-6:
            pos = pos + 0.3
        return ActionChunk(start_s=start, dt_s=dt, joint_pos=pos, joint_vel=vel, tail=2, controller="policy")

    def wave(self, time_s: float) -> tuple[np.ndarray, np.ndarray]:
        # Starts at rest one tick after the first call: that is when the first chunk applies.
        t, w = max(time_s - self.zero_s - self.info.ctrl_dt_s, 0.0), 2.0
        pos = self.home + 0.5 * self.amplitude_rad * (1 - np.cos(w * t))
        return pos, np.full_like(self.home, 0.5 * self.amplitude_rad * w * np.sin(w * t))

    def misbehave(self) -> None:
        if self.fault == "die":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fault == "hang":
            time.sleep(60)
        if self.fault == "raise":
            raise RuntimeError("the network has exploded")
        if self.fault == "nan":
            ActionChunk(
                start_s=0.0,
                dt_s=0.1,
                joint_pos=np.full((2, 7), np.nan),
                joint_vel=np.zeros((2, 7)),
                tail=1,
                controller="policy",
            )
        if self.fault == "late":
            self.fault = ""
            time.sleep(0.35)


def wave(**options) -> Policy:
    """A `Wave`."""
    return Wave(**options)


def slow() -> Policy:
    """A policy that takes long to load."""
    time.sleep(60)
    return Wave()


def other_task() -> Policy:
    """A policy that was trained for another task."""
    policy = Wave()
    policy.info = PolicyInfo(task="push", observation=policy.info.observation, joints=7, ctrl_dt_s=0.2)
    return policy


def other_observation() -> Policy:
    """A policy that wants to see what the task does not show."""
    policy = Wave()
    policy.info = PolicyInfo(task="wave", observation={"rgb_front": (64, 64, 3)}, joints=7, ctrl_dt_s=0.2)
    return policy
