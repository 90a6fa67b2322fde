"""A registry that says what it holds and never hands out what others could change."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from robo.core.errors import ConfigError, UnknownNameError

T = TypeVar("T")


class Registry(Generic[T]):
    """Names → factories, in order of registration.

    Args:
        kind: What is registered, for error texts (``"task"``, ``"robot"``).
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._makers: dict[str, Callable[[], T]] = {}

    def register(self, name: str, make: Callable[[], T]) -> None:
        """Register a factory under a name.

        Raises:
            ConfigError: The name is taken already.
        """
        if name in self._makers:
            raise ConfigError(f"{self.kind} {name!r} is registered twice; choose another name")
        self._makers[name] = make

    def make(self, name: str) -> T:
        """A fresh object for a name; what a caller changes in it nobody else sees.

        Raises:
            UnknownNameError: The name is not registered; names the nearest one.
        """
        if name not in self._makers:
            raise UnknownNameError(self.kind, name, self._makers)
        return copy.deepcopy(self._makers[name]())

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __contains__(self, name: str) -> bool:
        return name in self._makers

    def __len__(self) -> int:
        return len(self._makers)
