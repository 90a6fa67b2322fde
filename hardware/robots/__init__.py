"""Robot arms by name."""

from __future__ import annotations

from hardware.robots import panda
from hardware.robots.robot import Capsule, Gripper, JointLimits, Robot, Servo, Workspace
from robo.core.registry import Registry

ROBOTS: Registry[Robot] = Registry("robot")
ROBOTS.register("panda", panda.make)
ROBOTS.register("panda_hand", panda.make_hand)

__all__ = ["ROBOTS", "Capsule", "Gripper", "JointLimits", "Robot", "Servo", "Workspace"]
