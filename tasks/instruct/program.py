"""What an instruction means: stages, mission and goal over a task's signals, as a small typed text, never code.

Whoever writes it (a grammar, a language model, a person), it is read by the parser of `tasks.stl` and checked against
the task: names, units, one moment or many, horizons.
"""

from __future__ import annotations

import copy
import json
import reprlib
import typing
from collections.abc import Iterator, Mapping
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from robo.core.errors import ProgramError, RoboError, SpecError, nearest
from robo.core.files import make_parent, read_text, write_text
from tasks.stl import Formula, parse
from tasks.stl.program import lower
from tasks.stl.syntax import Expr, Node, Number, Parameter, Until, Variable, Window, expression_text
from tasks.tabletop.base import TabletopTask
from tasks.task import Arrays, Signal, Stage

LONGEST, MOST_STAGES = 2000, 32
"""Longest formula or instruction [characters]; stages of a program."""
SCALES, WEIGHTS = (1e-4, 100.0), (0.01, 100.0)
"""Least and most of a stage's scale and weight."""

Name = Annotated[str, Field(min_length=1, max_length=100)]
Text = Annotated[str, Field(max_length=LONGEST)]
Formed = Annotated[str, Field(min_length=1, max_length=LONGEST)]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class StageText(_Strict):
    """A stage, see `tasks.task.Stage`."""

    name: Name
    condition: Formed
    distance: Text = ""
    scale: Annotated[float, Field(strict=True, ge=SCALES[0], le=SCALES[1])] = 0.1
    shaping: Text = ""
    weight: Annotated[float, Field(strict=True, ge=WEIGHTS[0], le=WEIGHTS[1])] = 1.0


class Program(_Strict):
    """What is wanted of an arm, in formulas over the signals of a task.

    Attributes:
        instruction: In words.
        stages: In order, at least one.
        mission: STL text of what is to be reached.
        goal: State formula: success, once all stages were reached.
        safety: State formula that must hold at every moment, besides the task's own. Empty: none.
    """

    instruction: Formed
    stages: Annotated[tuple[StageText, ...], Field(min_length=1, max_length=MOST_STAGES)]
    mission: Formed
    goal: Formed
    safety: Text = ""

    @classmethod
    def of(cls, task: TabletopTask) -> Program:
        """What a task says itself.

        Raises:
            ProgramError: It has no stages, or a number out of range.
        """
        stages = [{field: getattr(stage, field) for field in StageText.model_fields} for stage in task.stages]
        said = {"instruction": task.instruction, "stages": stages, "mission": task.mission, "goal": task.goal}
        try:
            return cls.model_validate(said)
        except ValidationError as error:
            raise ProgramError(f"task {task.name} says what no program may say", _said(error)) from error

    @classmethod
    def parse(cls, text: str) -> Program:
        """Read a program from JSON or YAML.

        Raises:
            ProgramError: It is neither, or none of a program's shape; names everything that is wrong.
        """
        try:
            # YAML 1.1 takes JSON's 1e-3 for a text.
            value = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
        except json.JSONDecodeError as error:
            raise ProgramError(
                f"a program is JSON or YAML, this is neither at line {error.lineno}: {error.msg}"
            ) from error
        except (yaml.YAMLError, RecursionError, ValueError) as error:
            mark = getattr(error, "problem_mark", None)
            where = f" at line {mark.line + 1}" if mark else ""
            raise ProgramError(
                f"a program is JSON or YAML, this is neither{where}: {getattr(error, 'problem', None) or error}"
            ) from error
        if not isinstance(value, dict):
            raise ProgramError(f"a program is a mapping with {', '.join(cls.model_fields)}, not {type(value).__name__}")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise ProgramError("the text is no program", _said(error)) from error

    @classmethod
    def load(cls, path: str | Path) -> Program:
        """Read a file.

        Raises:
            RoboError: There is none, or it holds no program.
        """
        try:
            return cls.parse(read_text(Path(path)))
        except ProgramError as error:
            raise ProgramError(f"{path}: {str(error).splitlines()[0].rstrip(':')}", error.complaints) from error

    def text(self) -> str:
        """As YAML, without what is as by default; `parse` reads it back."""
        return yaml.safe_dump(self.model_dump(mode="json", exclude_defaults=True), sort_keys=False, width=110)

    def save(self, path: str | Path) -> None:
        """Write a file of YAML, atomically.

        Raises:
            RoboError: It cannot be written.
        """
        make_parent(Path(path))
        write_text(Path(path), self.text())

    def complaints(self, task: TabletopTask) -> list[str]:
        """Why the program does not fit a task, one line each; empty when it fits."""
        try:
            type(self).model_validate(self.model_dump())  # copies with other values were not checked
        except ValidationError as error:
            return _said(error)
        return list(self._unfit(task))

    def _unfit(self, task: TabletopTask) -> Iterator[str]:
        names = [stage.name for stage in self.stages]
        for name in dict.fromkeys(name for name in names if names.count(name) > 1):
            yield f"two stages are called {name!r}; every stage needs a name of its own"
        for stage in self.stages:
            where = f"stage {stage.name!r}"
            yield from _formula(task, f"{where}: condition", stage.condition, moment=True)
            if stage.distance:
                yield from _expression(task, f"{where}: distance", stage.distance)
            if stage.shaping:
                yield from _expression(task, f"{where}: shaping", stage.shaping, share=True)
        yield from _formula(task, "mission", self.mission, moment=False)
        yield from _formula(task, "goal", self.goal, moment=True)
        if self.safety:
            yield from _formula(task, "safety", self.safety, moment=True)

    def apply(self, task: TabletopTask) -> TabletopTask:
        """The task with this instruction, these stages, mission and goal; its safety is its own and the program's.

        So a program can ask for more safety, never for less.

        Raises:
            ProgramError: The program does not fit; names everything that is wrong.
        """
        if found := self.complaints(task):
            raise ProgramError(f"the program {self.instruction!r} does not fit task {task.name}", found)
        made: Any = copy.copy(task)
        for name in [name for name in vars(made) if isinstance(getattr(type(made), name, None), cached_property)]:
            del vars(made)[name]  # they may rest on what is replaced now
        made.stages = tuple(Stage(**stage.model_dump()) for stage in self.stages)
        made.mission, made.goal = self.mission, self.goal
        if self.safety:
            made.safety = f"({task.safety}) and ({self.safety})"
        if self.instruction != task.instruction:
            made.instruction, made.phrases, made.instruct = self.instruction, (), partial(_instruct, self.instruction)
        made.validate()
        return made


def _instruct(text: str, instance: Arrays) -> str:
    return text


def _said(error: ValidationError) -> list[str]:
    """What a validation complains of, one line each."""
    lines = []
    for item in error.errors(include_url=False, include_context=False):
        *above, key = item["loc"] or ("program",)
        where = "".join(f"{part}: " if isinstance(part, str) else f"{part + 1}: " for part in above)
        if item["type"] == "extra_forbidden":
            known = (StageText if above else Program).model_fields
            lines.append(f"{where}unknown key {str(key)!r}: {nearest(str(key), known)}")
        else:
            given = "" if item["type"] == "missing" else f", not {reprlib.repr(item['input'])}"
            lines.append(f"{where}{key}: {item['msg'][:1].lower()}{item['msg'][1:]}{given}")
    return [" ".join(line.split()) for line in lines]


# ---- formulas ----------------------------------------------------------------------


def _formula(task: TabletopTask, where: str, text: str, *, moment: bool) -> Iterator[str]:
    try:
        formula = parse(text, task.signals)
        if formula.parameters:
            raise SpecError(f"a program has no parameters, write numbers for ${', $'.join(formula.parameters)}")
        lower(formula, task.ctrl_dt_s)
    except RoboError as error:
        yield f"{where}: {error}"
        return
    yield from (f"{where}: {line}" for line in mixed(formula, task.signals))
    if not formula.signals:
        yield f"{where}: {text!r} speaks of no signal; there are {', '.join(task.signals)}"
    horizon = formula.horizon(task.ctrl_dt_s)
    if moment and any(isinstance(node, Window | Until) for node in formula.walk()):
        yield f"{where}: must speak of one moment only, without temporal operators: {text}"
    if horizon > task.horizon_s + 1e-9:
        yield (
            f"{where}: looks {horizon:g} s ahead, the episode lasts {task.horizon_s:g} s; shorten the windows, "
            f"such as F[0,{task.horizon_s:g}](...)"
        )


def _expression(task: TabletopTask, where: str, text: str, *, share: bool = False) -> Iterator[str]:
    try:
        predicate = task.expression(text)
        if predicate.parameters:
            raise SpecError(f"a program has no parameters, write numbers for ${', $'.join(predicate.parameters)}")
    except RoboError as error:
        yield f"{where}: {error}"
        return
    found: list[str] = []
    unit = _unit(predicate.left, task.signals, found)
    if share and unit:
        found.append(
            f"a share in [0, 1] has no unit, {text!r} is in {_written(unit)}; divide by a number, as in x / 0.1"
        )
    yield from (f"{where}: {line}" for line in found)


# ---- units --------------------------------------------------------------------------

Unit = Mapping[str, float] | None
"""Powers of base units; empty for none; None for what takes any unit: bare numbers, and what is scaled by one."""


def mixed(formula: Formula, signals: Mapping[str, Signal]) -> list[str]:
    """Where a formula adds or compares things of different units, one line each.

    A numeric factor (``0.1 * lid_rad``, ``away_m / 0.1``) may carry a unit, so what is scaled by one goes with any.
    """
    found: list[str] = []
    for predicate in formula.predicates:
        _alike(predicate, (predicate.left, predicate.right), signals, found)
    return found


def _unit(expr: Expr, signals: Mapping[str, Signal], found: list[str]) -> Unit:
    if isinstance(expr, Number | Parameter):
        return None
    if isinstance(expr, Variable):
        return _powers(signals[expr.name].unit)
    match expr.op:
        case "*" | "/":
            left, right = (_unit(arg, signals, found) for arg in expr.args)
            if left is None or right is None:
                return None
            sign = 1 if expr.op == "*" else -1
            powers = {name: left.get(name, 0) + sign * right.get(name, 0) for name in {**left, **right}}
            return {name: power for name, power in powers.items() if power}
        case "^" | "sqrt":
            unit = _unit(expr.args[0], signals, found)
            power = typing.cast(Number, expr.args[1]).value if expr.op == "^" else 0.5
            return None if unit is None else {name: n * power for name, n in unit.items() if power}
        case "exp" | "tanh":
            unit = _unit(expr.args[0], signals, found)
            if unit:
                found.append(
                    f"{expr.op}({_shown(expr.args[0])}) takes a number without unit, not {_written(unit)}; "
                    "divide by a number, as in x / 0.1"
                )
            return {}
    return _alike(expr, expr.args, signals, found)


def _alike(whole: Node, parts: tuple[Expr, ...], signals: Mapping[str, Signal], found: list[str]) -> Unit:
    """The unit that parts share, which are added, compared or chosen from."""
    units = [(part, _unit(part, signals, found)) for part in parts]
    known = [(part, unit) for part, unit in units if unit is not None]
    for part, unit in known[1:]:
        if unit != known[0][1]:
            found.append(
                f"{_shown(known[0][0])} is in {_written(known[0][1])}, {_shown(part)} in {_written(unit)}, in "
                f"{_shown(whole)!r}; put a numeric factor before one, as in 0.1 * x"
            )
            return None
    return known[0][1] if known else None


def _shown(node: Node) -> str:
    return str(node) if isinstance(node, Formula) else expression_text(typing.cast(Expr, node))


def _powers(unit: str) -> dict[str, float]:
    """Powers of a unit as signals write it: ``"m"``, ``"rad/s"``, ``"m/s^2"``, ``"1"``."""
    powers: dict[str, float] = {}
    over = 1
    for part in unit.replace("*", " * ").replace("/", " / ").split():
        if part in "*/":
            over = -1 if part == "/" else over
            continue
        name, _, power = part.partition("^")
        if name != "1":
            powers[name] = powers.get(name, 0) + over * float(power or 1)
    return {name: power for name, power in powers.items() if power}


def _written(unit: Unit) -> str:
    if not unit:
        return "no unit"
    return "*".join(name if power == 1 else f"{name}^{power:g}" for name, power in sorted(unit.items()))
