"""The specification over what is imagined."""

from __future__ import annotations

from policies.horizon import tool
from policies.horizon.config import HorizonConfig
from policies.horizon.network import truths
from policies.world.actor import Score, formula_score
from tasks.tabletop.base import TabletopTask


def score_of(task: TabletopTask, config: HorizonConfig) -> Score | None:
    """Robustness of "the goal at some moment, and safety at all" of imagined signals; None where nobody weighs it.

    Dreams are shorter than episodes, so the mission's own windows do not fit into them.
    """
    if not (config.world.actor.robustness or config.world.plan.robustness):
        return None
    formula = task.parsed(f"eventually({task.goal}) and always({task.safety})")
    names = dict.fromkeys(task.signals, 1)
    if truths(task, config):
        names["_around"] = tool.count(task)
    return formula_score(formula, names, task.ctrl_dt_s)
