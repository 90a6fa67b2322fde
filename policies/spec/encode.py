"""A formula as what a network can read: the tree of its operations, and of its predicates their values at probes.

The tree is that of the lowered program (`tasks.stl.program`), in which implications and negations are gone and nested
windows are one: texts that mean the same look the same. A predicate is known by its robustness at some fixed states of
the system, whatever way it is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from tasks.specs.task import SpecTask
from tasks.stl import Formula
from tasks.stl.exact import LIBRARY
from tasks.stl.program import Chain, Extreme, Leaf, lower
from tasks.stl.syntax import margin

PROBES = 64
"""Fixed states at which predicates are looked at."""
EDGE, KINDS = 7, 4
"""Numbers that describe an edge of the tree; kinds of nodes: leaf, max or min, until, constant."""


@dataclass(frozen=True)
class Tree:
    """The operations of a formula.

    Attributes:
        leaves: Predicates and their negations.
        leaf_nodes: (l,) their nodes.
        kind: (n,) kind of every node; the last one is the root.
        level: (n,) 0 for leaves, else above all it reads.
        edges: (e, 2) node that reads, node that is read.
        edge_features: (e, EDGE) role (part, held, reached), start and end of the window in episodes, max or min, past.
    """

    leaves: tuple[Leaf, ...]
    leaf_nodes: np.ndarray
    kind: np.ndarray
    level: np.ndarray
    edges: np.ndarray
    edge_features: np.ndarray


def tree(formula: Formula, dt: float, steps: int) -> Tree:
    """The tree of a formula over episodes of so many steps.

    Raises:
        SpecError: See `tasks.stl.program.lower`.
    """
    ops = lower(formula, dt)
    kind, level = np.zeros(len(ops), np.int64), np.zeros(len(ops), np.int64)
    leaves, leaf_nodes, edges, features = [], [], [], []

    def window(lo: float, hi: float) -> tuple[float, float]:
        return max(lo, -steps) / steps, min(hi, steps) / steps

    for i, op in enumerate(ops):
        if isinstance(op, Leaf):
            leaves.append(op)
            leaf_nodes.append(i)
        elif isinstance(op, Extreme):
            kind[i] = 1
            for child, lo, hi in op.parts:
                edges.append((i, child))
                features.append((1.0, 0.0, 0.0, *window(lo, hi), 2.0 * op.largest - 1.0, 0.0))
        elif isinstance(op, Chain):
            kind[i] = 2
            for child, role in ((op.left, (0.0, 1.0, 0.0)), (op.right, (0.0, 0.0, 1.0))):
                edges.append((i, child))
                features.append((*role, *window(op.lo, op.hi), 2.0 * op.largest - 1.0, float(op.past)))
        else:
            kind[i] = 3
        level[i] = 1 + max((level[child] for parent, child in edges if parent == i), default=-1)
    return Tree(
        tuple(leaves),
        np.array(leaf_nodes, np.int64),
        kind,
        level,
        np.array(edges, np.int64).reshape(-1, 2),
        np.array(features, np.float32).reshape(-1, EDGE),
    )


class Probe:
    """Looks at predicates of a task.

    Args:
        task: The task.
    """

    def __init__(self, task: SpecTask) -> None:
        rng = np.random.default_rng(0)
        states = [task.wander(rng) for _ in range(PROBES)]
        picked = np.stack([way[rng.integers(len(way))] for way in states])
        self._signals: dict[str, Any] = {name: value[None] for name, value in task.measure(picked).items()}
        self._scale = task.region_m[1]

    def __call__(self, leaves: tuple[Leaf, ...], constants: Mapping[str, np.ndarray] | None = None) -> np.ndarray:
        """Robustness of predicates at the probes, squeezed: (l, rows, PROBES), rows as many as constants (rows,)."""
        rows = len(next(iter(constants.values()))) if constants else 1
        given = self._signals | {f"${name}": value[:, None] for name, value in (constants or {}).items()}
        made = np.empty((len(leaves), rows, PROBES), np.float32)
        for i, leaf in enumerate(leaves):
            made[i] = np.arcsinh(margin(leaf.predicate, given, LIBRARY, leaf.negated) / self._scale)
        return made
