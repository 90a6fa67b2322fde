"""Checks that settings of policies share."""

from __future__ import annotations

import importlib.util
from typing import Any

from robo.core.errors import ConfigError, MissingDependencyError


def require_positive(config: Any, group: str, *names: str) -> None:
    """Refuse settings that are not above 0.

    Args:
        config: The dataclass that holds them.
        group: Its key in the resolved config, for the message.
        names: Which fields.

    Raises:
        ConfigError: Names the first that is not.
    """
    for name in names:
        if not getattr(config, name) > 0:
            raise ConfigError(f"{group}.{name} must be positive, not {getattr(config, name)!r}")


def require_channels(config: Any, group: str) -> None:
    """Refuse channels of convolutions that group norms do not fit.

    Raises:
        ConfigError: There are none, or some are no multiple of 8.
    """
    if not config.channels or any(c < 8 or c % 8 for c in config.channels):
        raise ConfigError(f"{group}.channels must be multiples of 8, not {config.channels}")


def require_pool(config: Any) -> None:
    """Refuse a training whose batch or restarts do not fit its pool.

    Raises:
        ConfigError: Says what does not fit.
    """
    if config.batch > config.pool:
        raise ConfigError(f"train.batch ({config.batch}) must not exceed train.pool ({config.pool})")
    if not 0.0 <= config.restart <= 1.0:
        raise ConfigError(f"train.restart must lie in [0, 1], not {config.restart!r}")


def require_package(module: str, policy: str, extra: str) -> None:
    """Refuse a policy whose optional package is not installed.

    Raises:
        MissingDependencyError: Says which, and how to install it.
    """
    if importlib.util.find_spec(module) is None:
        raise MissingDependencyError(
            f"policy {policy} needs {module}, which is not installed; try: pip install 'robo-stack[{extra}]'"
        )
