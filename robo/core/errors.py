"""The one tree of errors.

Every error a user can cause derives from `RoboError`. Its text says, in one
line: what was given, what was expected, the nearest match or what is available,
and the command that mends it. The commands print that line and exit with code 2;
anything that is not a `RoboError` is a bug of ours and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class RoboError(Exception):
    """Base of every error that a user of the project can cause and mend."""

    exit_code = 2


class ConfigError(RoboError):
    """A configuration key or value that does not fit."""


class UnknownNameError(ConfigError):
    """A name that is not registered.

    Args:
        kind: What was looked up, for example ``"task"``.
        name: The name that was given.
        available: The names that exist.
        hint: What to run to see or mend it; appended as it is.
    """

    def __init__(self, kind: str, name: str, available: Iterable[str], hint: str = "") -> None:
        self.kind, self.name, self.available = kind, name, sorted(available)
        super().__init__(f"unknown {kind} {name!r}: {nearest(name, self.available)}{'; ' + hint if hint else ''}")


class SpecError(RoboError):
    """A formula or specification that cannot be read or does not fit its task."""


class TaskError(RoboError):
    """A task file that cannot be loaded or breaks the task contract."""


class InstructionError(RoboError):
    """An instruction that means nothing here: it names no thing of the scene, or asks for what the task cannot do."""


class ProgramError(RoboError):
    """A program that does not fit its task, or whose reward failed verification.

    Args:
        what: Of which program, in a few words.
        complaints: All that is wrong with it, one line each.
    """

    def __init__(self, what: str, complaints: Iterable[str] = ()) -> None:
        self.complaints = tuple(complaints)
        super().__init__("\n- ".join((f"{what}:" if self.complaints else what, *self.complaints)))


class WriterError(RoboError):
    """A language model that is down, slow, or answers what cannot be read."""


class RunError(RoboError):
    """A run folder that is missing, half-written, of another version or corrupt."""


class NonFiniteError(RoboError):
    """NaN or infinity where a finite number is needed."""


class RenderError(RoboError):
    """No renderer works, or a camera that does not exist."""


class MissingDependencyError(RoboError):
    """An optional package or a system library that is not installed."""


class RobotError(RoboError):
    """A robot, driver or safety condition that refuses to go on."""


class FaultError(RobotError):
    """A latched fault: nothing moves again before it is acknowledged."""


def nearest(name: str, available: Iterable[str]) -> str:
    """One phrase naming the closest match, or all that is available.

    >>> nearest("reach_avid", ["reach_avoid", "push"])
    "did you mean 'reach_avoid'? (available: push, reach_avoid)"
    """
    names = sorted(available)
    listed = f"available: {', '.join(names) if names else 'none'}"
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}? ({listed})" if match else listed
