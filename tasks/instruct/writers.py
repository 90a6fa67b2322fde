"""Who writes programs, by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from robo.core.errors import ConfigError
from robo.core.registry import Registry
from tasks.instruct.llm import Author, Check, Endpoint, Recorder, Replay
from tasks.instruct.program import Program
from tasks.tabletop.base import TabletopTask


class Writer(Protocol):
    """Writes the program that an instruction means in the scene of a task."""

    def write(self, task: TabletopTask, instruction: str) -> Program:
        """The program.

        Raises:
            InstructionError: The instruction means nothing here.
            ProgramError: The check complains of the grammar's program.
            WriterError: The writer failed.
        """
        ...


Maker = Callable[[str, Check | None, Path | None], Writer]
"""What stands after the writer's colon, a further check, and where to record its exchanges."""
WRITERS: Registry[Maker] = Registry("writer")


def open_writer(name: str, *, check: Check | None = None, record: str | Path | None = None) -> Writer:
    """A writer: ``grammar``, ``llm``, ``local:PATH`` of a model, ``replay:PATH`` of a record.

    Args:
        name: Which.
        check: What else is wrong with a program that fits its task: a model is told and tries again, others refuse.
        record: A folder to record a model's exchanges in.

    Raises:
        UnknownNameError: There is no such writer.
        ConfigError: It lacks its path, or takes none.
        WriterError: Its model or record cannot be opened.
    """
    kind, colon, path = name.partition(":")
    make = WRITERS.make(kind)
    if (kind in _PATHS) != bool(path) or (colon and not path):
        takes = f"needs a path: {kind}:{_PATHS[kind]}" if kind in _PATHS else f"takes no path: say {kind}"
        raise ConfigError(f"writer {kind} {takes}, not {name!r}")
    if record is not None and kind not in ("llm", "local"):
        raise ConfigError(f"writer {kind} asks no model, so there is nothing to record; leave out --record")
    return make(path, check, Path(record) if record is not None else None)


_PATHS = {"local": "FOLDER_OF_A_MODEL", "replay": "FOLDER_OF_A_RECORD"}


def _grammar(path: str, check: Check | None, record: Path | None) -> Writer:
    from tasks.instruct.grammar import GrammarWriter

    return GrammarWriter(check)


def _llm(path: str, check: Check | None, record: Path | None) -> Writer:
    endpoint = Endpoint()
    answer = Recorder(endpoint, endpoint.model, record) if record else endpoint
    return Author(answer=answer, name=f"the model {endpoint.model}", check=check)


def _local(path: str, check: Check | None, record: Path | None) -> Writer:
    from tasks.instruct.local import LocalModel

    model = LocalModel(path)
    return Author(answer=Recorder(model, path, record) if record else model, name=f"the model {path}", check=check)


def _replay(path: str, check: Check | None, record: Path | None) -> Writer:
    return Author(answer=Replay(path), name=f"the record {path}", check=check)


for _name, _make in (("grammar", _grammar), ("llm", _llm), ("local", _local), ("replay", _replay)):
    WRITERS.register(_name, lambda make=_make: make)
