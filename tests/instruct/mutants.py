"""Ways in which a writer gets a reward wrong: each turns a right program into a wrong one, whatever the task."""

from __future__ import annotations

import re
from collections.abc import Callable

from tasks.instruct.program import Program, StageText

Mutant = Callable[[Program], Program]
_METRES = re.compile(r"(_m\)? [<>] -?)([0-9.]+)")


def _with(program: Program, at: int, **values: object) -> Program:
    """Another text in a stage; ``{d}`` and ``{c}`` stand for its distance and its condition."""
    stages = list(program.stages)
    own = {"d": stages[at].distance, "c": stages[at].condition}
    made = {key: value.format(**own) if isinstance(value, str) else value for key, value in values.items()}
    stages[at] = stages[at].model_copy(update=made)
    return program.model_copy(update={"stages": tuple(stages)})


def _stage(at: int, **values: object) -> Mutant:
    return lambda program: _with(program, at, **values)


def _every(**values: object) -> Mutant:
    def change(program: Program) -> Program:
        for at in range(len(program.stages)):
            program = _with(program, at, **values)
        return program

    return change


def _text(**values: str) -> Mutant:
    """Another mission, goal or safety; ``{goal}`` and ``{mission}`` stand for those of before."""
    own = ("goal", "mission")
    return lambda program: program.model_copy(
        update={key: value.format(**{name: getattr(program, name) for name in own}) for key, value in values.items()}
    )


def _order(pick: Callable[[tuple[StageText, ...]], tuple[StageText, ...]]) -> Mutant:
    return lambda program: program.model_copy(update={"stages": pick(program.stages)})


def _borrowed(at: int, lender: int) -> Mutant:
    """A stage paid by the distance of another."""
    return lambda program: _with(program, at, distance=program.stages[lender].distance)


def _or_before(at: int) -> Mutant:
    """A stage that is there as soon as the one before it is."""
    return lambda program: _with(program, at, condition=f"{{c}} or {program.stages[at - 1].condition}")


def _centimetres(text: str) -> str:
    return _METRES.sub(lambda match: f"{match[1]}{100 * float(match[2]):g}", text)


def _in_centimetres(at: int) -> Mutant:
    return lambda program: _with(program, at, condition=_centimetres(program.stages[at].condition))


MUTANTS: dict[str, Mutant] = {
    # Equation of arXiv 2501.06605 as printed: paid while the thing is held, for being far away.
    "printed error": _stage(1, shaping="1 - exp(-({d}) / 0.1)"),
    "printed error everywhere": _every(shaping="1 - exp(-({d}) / 0.1)"),
    "printed error at the end": _stage(-1, shaping="1 - exp(-({d}) / 0.1)"),
    "printed error without distance": _stage(0, shaping="1 - exp(-({d}) / 0.1)", distance=""),
    # Direction.
    "tanh, not one minus it": _stage(0, shaping="tanh(({d}) / 0.1)"),
    "distance with a minus": _stage(0, distance="-({d})"),
    "distance upside down": _stage(1, distance="max(0.5 - ({d}), 0)"),
    "best half-way": _stage(0, shaping="exp(-abs({d} - 0.1) / 0.05)"),
    "distance of the next stage": _borrowed(0, 1),
    "distance of the stage before": _borrowed(1, 0),
    "distance of the last stage": _borrowed(0, -1),
    # Nothing to do with the stage.
    "constant": _stage(0, shaping="0.5 + 0 * ({d})"),
    "constant one": _stage(1, shaping="min(1, 1 + ({d}) / 0.1)"),
    "nothing on the way": _stage(0, distance="", shaping=""),
    "width of the gripper": _stage(0, shaping="min(gripper_width_m / 0.08, 1)"),
    "width of the gripper later": _stage(1, shaping="min(gripper_width_m / 0.08, 1)"),
    "force of the gripper": _stage(1, shaping="min(held_n / 5, 1)"),
    "slowness": _stage(0, shaping="min(max(speed_margin_rad_s / 2, 0), 1)"),
    "slowness later": _stage(1, shaping="min(max(speed_margin_rad_s / 2, 0), 1)"),
    # Numbers.
    "unbounded": _stage(0, shaping="10 * exp(-({d}) / 0.1)"),
    "farm by hovering": _stage(-1, shaping="3 * exp(-({d}) / 0.1)"),
    "negative": _stage(0, shaping="-({d}) / 0.1"),
    "zero by zero": _stage(0, shaping="({d}) / ({d})"),
    "one by distance": _stage(0, shaping="0.01 / ({d})"),
    "root of a negative": _stage(0, shaping="1 - sqrt(0.2 - ({d}))"),
    "overflow": _stage(0, shaping="exp(exp(({d}) / 0.001)) - exp(exp(({d}) / 0.001))"),
    "condition divides by zero": _stage(0, condition="({c}) and 1 / link_contacts > 0"),
    "scale 0": _stage(0, scale=0.0),
    "scale negative": _stage(0, scale=-0.1),
    "scale tiny": _every(scale=1e-7),
    "scale huge": _stage(0, scale=100.0),
    "weight negative": _stage(1, weight=-1.0),
    "weight 0": _stage(1, weight=0.0),
    "weight huge": _stage(0, weight=1e6),
    "weight that leaves the rest nothing": _stage(0, weight=100.0),
    "weight not a number": _stage(0, weight=float("nan")),
    # Stages.
    "there at the start": _stage(0, condition="link_contacts < 0.5"),
    "there at the start, or": _stage(0, condition="{c} or link_contacts < 0.5"),
    "unreachable": _stage(-1, condition="({c}) and gripper_width_m > 0.5"),
    "unreachable first": _stage(0, condition="({c}) and link_contacts > 4"),
    "swapped first": _order(lambda s: (s[1], s[0], *s[2:])),
    "swapped last": _order(lambda s: (*s[:-2], s[-1], s[-2])),
    "backwards": _order(lambda s: s[::-1]),
    "last one missing": _order(lambda s: s[:-1]),
    "one twice": _order(lambda s: (s[0], *s)),
    "one twice under another name": _order(lambda s: (s[0], s[0].model_copy(update={"name": "again"}), *s[1:])),
    "none": _order(lambda s: ()),
    "or lets skip": _or_before(1),
    "or lets skip the last": _or_before(-1),
    "letting go is enough": _stage(-1, condition="{c} or held_n < 0.1"),
    "centimetres first": _in_centimetres(0),
    "centimetres later": _in_centimetres(1),
    "centimetres last": _in_centimetres(-1),
    # Goal, mission, safety.
    "goal that a failure fulfils": _text(goal="link_contacts < 0.5"),
    "goal or": _text(goal="{goal} or held_n < 0.1"),
    "goal turned round": _text(goal="not ({goal})"),
    "goal out of reach": _text(goal="{goal} and gripper_width_m > 0.5"),
    "goal in centimetres": lambda program: program.model_copy(update={"goal": _centimetres(program.goal)}),
    "mission that anything fulfils": _text(mission="F[0,1](link_contacts < 0.5)"),
    "mission turned round": _text(mission="not ({mission})"),
    "mission beyond the episode": _text(mission="F[0,60]({goal})"),
    "mission without end": _text(mission="F({goal})"),
    "mission between samples": _text(mission="F[0,0.333]({goal})"),
    "safety that forbids the goal": _text(safety="not ({goal})"),
    "safety nobody keeps": _text(safety="speed_margin_rad_s > 100"),
    # Text.
    "unknown signal": _stage(0, condition="distance_to_cube < 0.05"),
    "metres and newtons": _stage(0, distance="{d} + held_n"),
    "metres below newtons": _stage(0, condition="({c}) and gripper_width_m < held_n"),
    "tanh of metres": _stage(0, shaping="1 - tanh({d})"),
    "temporal condition": _stage(0, condition="F[0,1]({c})"),
    "goal over time": _text(goal="G[0,0.5]({goal})"),
    "code": _stage(0, condition="__import__('os').system('true') > 0"),
    "formula for a number": _stage(0, shaping="{c}"),
}
