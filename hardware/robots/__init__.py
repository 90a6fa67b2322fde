"""Robot arms by name."""

from __future__ import annotations

from hardware.robots import panda
from hardware.robots.robot import Capsule, JointLimits, Robot, Servo
from robo.core.registry import Registry

ROBOTS: Registry[Robot] = Registry("robot")
ROBOTS.register("panda", panda.make)

__all__ = ["ROBOTS", "Capsule", "JointLimits", "Robot", "Servo"]
