"""Tasks by name, or from a file of one's own."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from robo.core.errors import RoboError, TaskError, UnknownNameError
from robo.core.registry import Registry
from tasks.benchmarks.car import Car
from tasks.benchmarks.maze import Maze
from tasks.benchmarks.panda import Panda
from tasks.benchmarks.rover import Rover
from tasks.benchmarks.ship_safe import ShipSafe
from tasks.benchmarks.ship_track import ShipTrack
from tasks.reach_avoid import ReachAvoid
from tasks.specs.panda import PandaFlange
from tasks.specs.point import Point
from tasks.tabletop.assemble_cabinet import AssembleCabinet
from tasks.tabletop.assemble_lamp import AssembleLamp
from tasks.tabletop.assemble_round_table import AssembleRoundTable
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.empty_container import EmptyContainer
from tasks.tabletop.open_drawer import OpenDrawer
from tasks.tabletop.peg_insertion import PegInsertion
from tasks.tabletop.phone_on_base import PhoneOnBase
from tasks.tabletop.pick_and_place import PickAndPlace
from tasks.tabletop.push import Push
from tasks.tabletop.put_books_on_bookshelf import PutBooksOnBookshelf
from tasks.tabletop.put_item_in_drawer import PutItemInDrawer
from tasks.tabletop.put_rubbish_in_bin import PutRubbishInBin
from tasks.tabletop.put_shoes_in_box import PutShoesInBox
from tasks.tabletop.reach import Reach
from tasks.tabletop.slide_cabinet_open_and_place_cups import SlideCabinetOpenAndPlaceCups
from tasks.tabletop.stack_cubes import StackCubes
from tasks.tabletop.stack_wine import StackWine
from tasks.tabletop.take_shoes_out_of_box import TakeShoesOutOfBox
from tasks.tabletop.take_umbrella_out_of_stand import TakeUmbrellaOutOfStand
from tasks.task import Task

TASKS: Registry[Task] = Registry("task")


def load_task(name_or_path: str | Path) -> Task:
    """A task by its registered name, or from a Python file (a text that ends in ``.py``).

    A tabletop task takes another robot behind an ``@``: ``pick_and_place@ur5e``.

    A task file is one file. It defines exactly one concrete subclass of `Task`, or says with
    ``TASK = ...`` (a class or an object) which one it means.

    Raises:
        UnknownNameError: No such registered task.
        TaskError: The file is missing, fails to load, or breaks the task contract.
    """
    if not is_task_file(name_or_path):
        name, at, robot = str(name_or_path).partition("@")
        if name not in TASKS:
            raise UnknownNameError("task", name, TASKS, "a task file of your own is given by its path, my_task.py")
        task = TASKS.make(name)
        if at:
            if not isinstance(task, TabletopTask):
                raise TaskError(f"task {name} has its own robot; only tabletop tasks take another: pick_and_place@ur5e")
            task = type(task)(robot)
    else:
        task = _task_of(_load_module(Path(name_or_path)), Path(name_or_path))
    task.validate()
    return task


def is_task_file(name_or_path: str | Path) -> bool:
    """Whether a text names a task file rather than a registered task."""
    return str(name_or_path).endswith(".py")


class _Loader(SourceFileLoader):
    """Leaves no ``__pycache__`` beside a user's file or in a run folder."""

    def set_data(self, path: str, data: Any, *, _mode: int = 0o666) -> None:
        """Write no bytecode."""


def _load_module(path: Path) -> ModuleType:
    path = path.expanduser().resolve()
    if not path.is_file():
        raise TaskError(f"no such task file: {path}")
    # One name per path: dataclasses and pickling by reference find the module in sys.modules.
    name = f"task_file_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path, loader=_Loader(name, str(path)))
    if spec is None or spec.loader is None:
        raise TaskError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except SyntaxError as error:
        del sys.modules[name]
        raise TaskError(f"task file {path}, line {error.lineno}: {error.msg}") from error
    except RoboError as error:
        del sys.modules[name]
        raise TaskError(f"task file {path}: {error}") from error
    except Exception as error:
        del sys.modules[name]
        raise TaskError(f"task file {path}, line {_line_in(path, error)}: {type(error).__name__}: {error}") from error
    return module


def _line_in(path: Path, error: Exception) -> int | str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    return lines[-1] if lines and lines[-1] else "?"


def _task_of(module: ModuleType, path: Path) -> Task:
    chosen = getattr(module, "TASK", None)
    if chosen is None:
        classes = [
            value
            for value in vars(module).values()
            if isinstance(value, type) and issubclass(value, Task) and value.__module__ == module.__name__
        ]
        # A base class written for others in the same file is not what is meant.
        leaves = [c for c in classes if not any(o is not c and issubclass(o, c) for o in classes)]
        if len(leaves) != 1:
            found = ", ".join(c.__name__ for c in leaves) or "none"
            raise TaskError(f"task file {path} must define exactly one subclass of Task (found: {found}) or set TASK")
        chosen = leaves[0]
    if isinstance(chosen, type) and issubclass(chosen, Task):
        wanted = dict.fromkeys(
            name for base in reversed(chosen.__mro__) for name in vars(base).get("__annotations__", ())
        )
        missing = [name for name in wanted if not hasattr(chosen, name)]
        if inspect.isabstract(chosen):
            missing += sorted(chosen.__abstractmethods__)
        if missing:
            raise TaskError(f"task file {path}: class {chosen.__name__} lacks {', '.join(missing)}")
        try:
            chosen = chosen()
        except RoboError as error:
            raise TaskError(f"task file {path}: {error}") from error
        except Exception as error:
            line = _line_in(path.expanduser().resolve(), error)
            raise TaskError(f"task file {path}, line {line}: {type(error).__name__}: {error}") from error
    if not isinstance(chosen, Task):
        raise TaskError(f"task file {path}: TASK must be a Task, not {type(chosen).__name__}")
    return chosen


TASKS.register("reach_avoid", ReachAvoid)
for _tabletop in (
    *(Reach, Push, PickAndPlace, StackCubes, OpenDrawer, PegInsertion),
    PhoneOnBase,
    TakeUmbrellaOutOfStand,
    PutRubbishInBin,
    StackWine,
    TakeShoesOutOfBox,
    PutShoesInBox,
    EmptyContainer,
    PutBooksOnBookshelf,
    PutItemInDrawer,
    SlideCabinetOpenAndPlaceCups,
    AssembleCabinet,
    AssembleLamp,
    AssembleRoundTable,
):
    TASKS.register(_tabletop.name, _tabletop)
for _system in (Car, Maze, ShipSafe, ShipTrack, Rover, Panda, Point, PandaFlange):
    TASKS.register(_system.name, _system)
