"""Robot arms by name."""

from __future__ import annotations

from hardware.robots import panda, so101, ur5e
from hardware.robots.robot import Capsule, Gripper, JointLimits, Robot, Servo, Workspace
from robo.core.registry import Registry

ROBOTS: Registry[Robot] = Registry("robot")
ROBOTS.register("panda", panda.make)
ROBOTS.register("panda_hand", panda.make_hand)
ROBOTS.register("ur5e", ur5e.make)
ROBOTS.register("so101", so101.make)

__all__ = ["ROBOTS", "Capsule", "Gripper", "JointLimits", "Robot", "Servo", "Workspace"]
