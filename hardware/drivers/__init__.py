"""Drivers by the scheme of their URI: ``sim``, ``sim://panda``."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from hardware.driver import Driver
from hardware.drivers.sim import SimDriver
from hardware.robots import ROBOTS
from robo.core.errors import ConfigError, UnknownNameError
from robo.core.registry import Registry

if TYPE_CHECKING:
    from hardware.plant import PlantScene

DRIVERS: Registry[type[Driver]] = Registry("robot driver")
DRIVERS.register("sim", lambda: SimDriver)


def open_driver(uri: str, scene: PlantScene | None = None, robot: str = "panda") -> Driver:
    """A driver, not yet connected.

    Args:
        uri: ``SCHEME`` or ``SCHEME://ROBOT?option=value&...``; options are those of the driver.
        scene: What a simulated arm stands in; ignored by real ones, which stand in the real one.
        robot: Arm that is meant when the URI names none.

    Raises:
        UnknownNameError: No such scheme or arm; names the nearest one.
        ConfigError: An option that the driver does not have, or a value that does not fit.
    """
    parts = urlsplit(uri if "://" in uri else f"{uri}://")
    if parts.scheme not in DRIVERS:
        raise UnknownNameError("robot driver", parts.scheme or uri, DRIVERS, "e.g. --robot sim://panda")
    try:
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=bool(parts.query)))
    except ValueError:
        raise ConfigError(f"robot {uri!r}: options must read ?name=value&name=value") from None
    arm = ROBOTS.make(parts.netloc or robot)
    return DRIVERS.make(parts.scheme).from_uri(arm, options, scene)


__all__ = ["DRIVERS", "SimDriver", "open_driver"]
