"""From a formula's tree and a state to plans: messages from the leaves to the root, then an MLP. torch."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from policies.spec.config import TrainConfig
from policies.spec.encode import EDGE, KINDS, PROBES, Tree
from tasks.specs.task import SpecTask

Tensor = torch.Tensor


@dataclass(frozen=True)
class Forest:
    """Several trees at once.

    Attributes:
        leaf_nodes: (l,) nodes of all leaves, trees one after the other.
        kind: (n, KINDS) one-hot.
        levels: For every level above the leaves: nodes of it (k,), edges' readers as places among these (e,), what they
            read (e,), their features (e, EDGE).
        roots: (trees,) nodes.
    """

    leaf_nodes: Tensor
    kind: Tensor
    levels: tuple[tuple[Tensor, Tensor, Tensor, Tensor], ...]
    roots: Tensor

    @classmethod
    def of(cls, trees: Sequence[Tree]) -> Forest:
        """The forest of some trees."""
        starts = np.concatenate([[0], np.cumsum([len(t.kind) for t in trees])])
        leaf_nodes = np.concatenate([t.leaf_nodes + s for t, s in zip(trees, starts, strict=False)])
        kind = np.concatenate([t.kind for t in trees])
        level = np.concatenate([t.level for t in trees])
        edges = np.concatenate([t.edges + s for t, s in zip(trees, starts, strict=False)])
        features = np.concatenate([t.edge_features for t in trees])
        levels = []
        for k in range(1, int(level.max()) + 1):
            nodes = np.flatnonzero(level == k)
            mine = level[edges[:, 0]] == k
            places = np.searchsorted(nodes, edges[mine, 0])
            levels.append(tuple(torch.from_numpy(x) for x in (nodes, places, edges[mine, 1], features[mine])))
        return cls(
            torch.from_numpy(leaf_nodes),
            nn.functional.one_hot(torch.from_numpy(kind), KINDS).float(),
            tuple(levels),
            torch.from_numpy(starts[1:] - 1),
        )


class SpecNetwork(nn.Module):
    """Formula and state → raw controls of whole episodes, several proposals.

    Args:
        task: The task.
        config: Sizes.
    """

    def __init__(self, task: SpecTask, config: TrainConfig) -> None:
        super().__init__()
        code, width = config.code, config.width
        self.code, self.shape = code, (config.plans, task.steps, task.control_size)
        self.leaf = nn.Sequential(nn.Linear(PROBES, 2 * code), nn.ReLU(), nn.Linear(2 * code, code))
        self.message = nn.Sequential(nn.Linear(code + EDGE, 2 * code), nn.ReLU(), nn.Linear(2 * code, code))
        self.node = nn.Sequential(nn.Linear(2 * code + KINDS, 2 * code), nn.ReLU(), nn.Linear(2 * code, code))
        self.norm = nn.LayerNorm(code)
        sizes = [code + task.feature_size] + [width] * config.depth
        layers: list[nn.Module] = []
        for n_in, n_out in itertools.pairwise(sizes):
            layers += [nn.Linear(n_in, n_out), nn.ReLU()]
        self.body = nn.Sequential(*layers, nn.Linear(width, int(np.prod(self.shape))))

    def forward(self, forest: Forest, leaves: Tensor, features: Tensor) -> Tensor:
        """Plans (trees, rows, plans, T, m).

        Args:
            forest: The trees.
            leaves: Predicates at the probes, (l, rows, PROBES).
            features: Of the states, (trees, rows, F).
        """
        rows = leaves.shape[1]
        kind = forest.kind[:, None].expand(-1, rows, -1)
        h = leaves.new_zeros(len(forest.kind), rows, self.code)
        h = h.index_copy(0, forest.leaf_nodes, self.norm(self.leaf(leaves)))
        for nodes, places, read, edge in forest.levels:
            sent = self.message(torch.cat([h[read], edge[:, None].expand(-1, rows, -1)], dim=-1))
            total = sent.new_zeros(len(nodes), rows, self.code).index_add(0, places, sent)
            where = places[:, None, None].expand_as(sent)
            most = torch.zeros_like(total).scatter_reduce(0, where, sent, "amax", include_self=False)
            made = self.node(torch.cat([total, most, kind[nodes]], dim=-1))
            h = h.index_copy(0, nodes, self.norm(made))
        raw = self.body(torch.cat([h[forest.roots], features], dim=-1))
        return raw.reshape(*raw.shape[:2], *self.shape)
