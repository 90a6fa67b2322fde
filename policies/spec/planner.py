"""A policy for one specification, from a network trained on many."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from policies.npc.config import PlanConfig
from policies.npc.planner import NpcPolicy
from policies.prediction import Course, Prediction
from policies.spec.config import SpecConfig
from policies.spec.encode import Probe, tree
from policies.spec.network import Forest, SpecNetwork
from policies.tensors import load_weights
from tasks.specs.task import SpecTask


class Proposals:
    """What the network proposes for the task's specification, from the start of an episode; later on nothing.

    Args:
        task: With its specification.
        network: The trained one.
        probe: Of the system.
    """

    def __init__(self, task: SpecTask, network: SpecNetwork, probe: Probe) -> None:
        self.task, self.network, self.probe = task, network, probe
        made = tree(task.formula, task.ctrl_dt_s, task.steps)
        self._forest, self._leaves = Forest.of([made]), torch.from_numpy(probe(made.leaves))

    def of(self, task: SpecTask) -> Proposals:
        """The same network for another specification."""
        return Proposals(task, self.network, self.probe)

    @torch.no_grad()
    def __call__(self, ahead: Prediction, shared: np.ndarray) -> np.ndarray:
        """Plans (K, P, m)."""
        if ahead.tick:
            return np.empty((0, ahead.left, ahead.controls))
        features = np.asarray(self.task.features(shared), np.float32)[None, None]
        return self.network(self._forest, self._leaves, torch.from_numpy(features))[0, 0].double().numpy()


class RandomProposals:
    """Plans at random, for comparison.

    Args:
        task: With its specification.
        plans: How many.
    """

    def __init__(self, task: SpecTask, plans: int) -> None:
        self.shape = (plans, task.steps, task.control_size)

    def of(self, task: SpecTask) -> RandomProposals:
        """The same for another specification."""
        return self

    def __call__(self, ahead: Prediction, shared: np.ndarray) -> np.ndarray:
        """Plans (K, P, m)."""
        return np.random.default_rng(ahead.tick).standard_normal(self.shape)[:, : ahead.left]


class SpecPolicy(NpcPolicy):
    """Predictive control of the task's specification; `of` is the same for another one, without loading anything.

    Args:
        task: With its specification.
        config: Settings.
        proposals: What plans begin with.
    """

    def __init__(
        self,
        task: SpecTask,
        config: PlanConfig,
        proposals: Proposals | RandomProposals,
        courses: dict[int, Course] | None = None,
    ) -> None:
        super().__init__(task, config, proposals, ready=False, courses=courses)
        self._proposals = proposals
        self._ahead(0).warm_up(everything=courses is None)

    def of(self, task: SpecTask) -> SpecPolicy:
        """The policy for the same system with another specification."""
        return SpecPolicy(task, self.config, self._proposals.of(task), self._courses)


def load(task: SpecTask, config: SpecConfig, weights: Mapping[str, torch.Tensor]) -> SpecPolicy:
    """A policy from a network's weights, for the specification the task has; see `policies.learner.PolicyKind`.

    Raises:
        RunError: Names or shapes of the weights do not fit, or they are not finite.
    """
    if not config.plan.network:
        return SpecPolicy(task, config.plan, RandomProposals(task, config.train.plans))
    network = SpecNetwork(task, config.train)
    load_weights(network, {name: value.cpu() for name, value in weights.items()})
    return SpecPolicy(task, config.plan, Proposals(task, network.eval(), Probe(task)))
