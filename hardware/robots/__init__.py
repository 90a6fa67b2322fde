"""Robot arms by name, or from a model of any other."""

from __future__ import annotations

from pathlib import Path

from hardware.robots import panda, so101, ur5e
from hardware.robots.robot import Capsule, Gripper, JointLimits, Robot, Servo, Workspace
from robo.core.errors import UnknownNameError
from robo.core.registry import Registry

ROBOTS: Registry[Robot] = Registry("robot")
ROBOTS.register("panda", panda.make)
ROBOTS.register("panda_hand", panda.make_hand)
ROBOTS.register("ur5e", ur5e.make)
ROBOTS.register("so101", so101.make)


def open_robot(name_or_source: str) -> Robot:
    """An arm.

    Args:
        name_or_source: A registered name; the path of an MJCF, a URDF or a robot file (``.xml``, ``.urdf``, ``.yaml``);
            or a name in the `robot_descriptions` package. All but the first: see `hardware.robots.description`.

    Raises:
        RoboError: There is no such robot, or what is there is no arm that can be worked with.
    """
    if name_or_source in ROBOTS:
        return ROBOTS.make(name_or_source)
    if not (Path(name_or_source).suffix or "/" in name_or_source or "_desc" in name_or_source):
        hint = "others by the path of an MJCF, a URDF or a robot file, or as robot_descriptions names them"
        raise UnknownNameError("robot", name_or_source, ROBOTS, hint)
    from hardware.robots import description  # lazily: the control process starts without mujoco

    return description.load(name_or_source)


__all__ = ["ROBOTS", "Capsule", "Gripper", "JointLimits", "Robot", "Servo", "Workspace", "open_robot"]
