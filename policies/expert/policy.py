"""A policy that follows a task's script: straight lines of the tool with minimum jerk, inverse kinematics by mink."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import mink
import numpy as np

from hardware.robots.commands import angle, turn
from policies.policy import Policy, PolicyInfo
from robo.core.errors import RoboError
from robo.core.protocols import ActionChunk, Obs
from tasks.tabletop.base import TabletopTask, Waypoint

if TYPE_CHECKING:
    from policies.expert import MoveConfig

TURN_RAD_S = 2.0
"""Fastest turning on the way."""
PEAK = 1.875
"""Of a minimum-jerk motion: its largest speed over its mean speed."""
MOST_BEND_M, TURN_RAD_M = 0.06, 1.0
"""A way bends by so much at most (one standard deviation), and the tool turns by so much for each metre of that."""
SLOWER = 0.3
"""A way that bends may take longer, by up to such a share."""
SPEED_SHARE = 0.62
"""Of the joints' velocity limits, over a step; within one they may be half as fast again."""
ROUNDS = 4


class Expert(Policy):
    """Follows the script of a task.

    Args:
        task: The task.
        config: How.
    """

    def __init__(self, task: TabletopTask, config: MoveConfig) -> None:
        self.task, self.config, self.info = task, config, PolicyInfo.of(task)
        robot = task.robot
        assert robot.gripper is not None
        self.gripper = robot.gripper
        model = robot.mjcf().compile()
        for name in robot.gripper.joints:  # whose limits are not those of the arm
            model.jnt_limited[model.joint(name).id] = 0
        self._joints = np.array([model.joint(name).qposadr[0] for name in robot.joints])
        self._configuration = mink.Configuration(model)
        self._tool = mink.FrameTask("tcp", "site", position_cost=1.0, orientation_cost=0.3, lm_damping=1e-6)
        self._rest = mink.PostureTask(model, cost=2e-3)
        speeds = {n: v * SPEED_SHARE for n, v in zip(robot.joints, robot.limits.velocity_rad_s, strict=True)}
        self._limits = [
            mink.ConfigurationLimit(model, min_distance_from_limits=2 * float(robot.servo.tracking_error_rad.max())),
            mink.VelocityLimit(model, {name: np.array([speed]) for name, speed in speeds.items()}),
        ]
        self._model = model
        self._script: Iterator[Waypoint] | None = None

    def reset(self, obs: Obs, seed: int = 0) -> None:
        """See `Policy`."""
        self._obs = obs
        self._script = self.task.script(lambda: self._obs)
        self._random = np.random.default_rng(seed)
        q = self._model.qpos0.copy()
        q[self._joints] = self.task.robot.home_rad
        self._rest.set_target(q)
        q[self._joints] = obs["joint_pos"]
        self._configuration.update(q)
        self._joint_pos, self._width = np.array(obs["joint_pos"]), float(obs["gripper_width_m"][0])
        self._pos, self._rot = self._pose()
        self._waypoint: Waypoint | None = None
        self._next()

    def act(self, obs: Obs) -> ActionChunk:
        """See `Policy`."""
        if self._script is None:
            raise RoboError("act() before reset(); call reset() first")
        self._obs, dt = obs, self.task.ctrl_dt_s
        if self._waypoint is not None and self._arrived(self._waypoint):
            self._next()
        self._elapsed += dt
        pos, rot, width = self._aim()
        before = self._joint_pos
        self._joint_pos = self._inverse(pos, rot)
        most = self.gripper.speed_m_s * dt
        self._width = float(np.clip(width, self._width - most, self._width + most))
        velocity = (self._joint_pos - before) / dt
        rest = self._joint_pos + velocity * dt / 2  # a straight braking to rest
        limits = self.task.robot.limits
        return ActionChunk(
            start_s=float(obs["time_s"][0]) + dt,
            dt_s=dt,
            joint_pos=np.clip(np.stack([self._joint_pos, rest]), limits.lower_rad, limits.upper_rad),
            joint_vel=np.stack([velocity, np.zeros_like(velocity)]),
            gripper_width_m=np.array([self._width, self._width]),
            tail=1,
            controller="policy",
        )

    # ---- the way ---------------------------------------------------------------------

    def _next(self) -> None:
        """Take the next waypoint; after the last one stay."""
        assert self._script is not None
        self._from = (self._pos, self._rot)
        self._elapsed, self._there = 0.0, None
        self._waypoint = next(self._script, None)
        if self._waypoint is None:
            self._takes = 1.0
            return
        distance = float(np.linalg.norm(self._waypoint.pos - self._pos))
        turned = float(np.linalg.norm(angle(self._waypoint.rot @ self._rot.T)))
        haste = self.config.haste
        self._takes = PEAK / haste * max(distance / self._waypoint.speed_m_s, turned / TURN_RAD_S) + 1e-6
        self._bend = np.zeros(6)
        if self.config.sway and self._waypoint.free:
            most = min(self.config.sway * distance, MOST_BEND_M)
            self._bend = most * np.repeat([1.0, TURN_RAD_M], 3) * self._random.normal(size=6)
            self._takes *= self._random.uniform(1.0, 1.0 + SLOWER)

    def _arrived(self, waypoint: Waypoint) -> bool:
        late = self._elapsed - self._takes
        near = np.linalg.norm(self._obs["ee_pos"] - waypoint.pos) < waypoint.near_m
        if self._there is None and late >= 0 and (near or late > self.config.patience_s):
            self._there = self._elapsed
        return self._there is not None and self._elapsed - self._there >= waypoint.wait_s

    def _aim(self) -> tuple[np.ndarray, np.ndarray, float]:
        """Where the tool should be, and the width, at the end of the coming step."""
        waypoint = self._waypoint
        if waypoint is None:
            return self._pos, self._rot, self._width
        u = min(self._elapsed / self._takes, 1.0)
        s = u**3 * (10 - 15 * u + 6 * u**2)  # minimum jerk (Flash & Hogan 1985)
        pos, rot = self._from
        aside = 16 * u**2 * (1 - u) ** 2 * self._bend  # 1 at half the time, at rest at both ends
        self._pos = pos + s * (waypoint.pos - pos) + aside[:3]
        self._rot = turn(aside[3:]) @ turn(s * angle(waypoint.rot @ rot.T)) @ rot
        return self._pos, self._rot, waypoint.width_m

    # ---- kinematics --------------------------------------------------------------------

    def _pose(self) -> tuple[np.ndarray, np.ndarray]:
        pose = self._configuration.get_transform_frame_to_world("tcp", "site")
        return pose.translation(), pose.rotation().as_matrix()

    def _inverse(self, pos: np.ndarray, rot: np.ndarray) -> np.ndarray:
        self._tool.set_target(mink.SE3.from_rotation_and_translation(mink.SO3.from_matrix(rot), pos))
        dt = self.task.ctrl_dt_s / ROUNDS
        for _ in range(ROUNDS):
            velocity = mink.solve_ik(
                self._configuration, [self._tool, self._rest], dt, "daqp", limits=self._limits, damping=1e-9
            )
            self._configuration.integrate_inplace(velocity, dt)
        return self._configuration.q[self._joints].copy()
