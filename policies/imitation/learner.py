"""Training on demonstrations, exactly resumable."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from policies.imitation.config import ActConfig, BcConfig, DiffusionConfig
from policies.imitation.demos import Demonstrations, Window
from policies.imitation.eyes import Eyes, Hands
from policies.imitation.network import Imitator
from policies.learner import Learner, Tensors
from policies.perception.sight import open_trunk
from policies.precision import mixed
from policies.steps import clipped, warmed_cosine
from policies.tensors import load_slots, slots_of, stored, under
from robo.core.errors import NonFiniteError, RunError
from tasks.tabletop.base import TabletopTask

Settings = BcConfig | ActConfig | DiffusionConfig
Make = Callable[[Any, Eyes, Hands], Imitator]
LEAST_STD = 1e-2
"""Numbers that hardly ever change are not blown up."""


class ImitationLearner(Learner):
    """AdamW on windows of demonstrations; see `policies.learner.Learner`.

    Args:
        task: The task.
        config: Settings.
        make: The network of eyes and hands.
        seed: Seeds everything random.
        device: Where the network is.

    Raises:
        ConfigError: The demonstrations do not fit.
    """

    def __init__(self, task: TabletopTask, config: Settings, make: Make, seed: int, device: str) -> None:
        self.config, self.device = config.train, device
        self.demos = Demonstrations(config.demos, task, config.see, config.do, config.train.episodes)
        self.rng = np.random.default_rng([seed, 2])
        self.generator = torch.Generator().manual_seed(seed)
        numbers, actions = (torch.from_numpy(x) for x in (self.demos.numbers, self.demos.actions))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            trunk = open_trunk(config.see.trunk, config.see.views, config.see.tune) if config.see.trunk else None
            eyes = Eyes(config.see, numbers.mean(0), numbers.std(0).clamp_min(LEAST_STD), trunk)
            self.network = make(config, eyes, Hands(actions.amin(0), actions.amax(0))).to(device)
        if config.see.views and not eyes.learns and not self.network.by_cells:
            seen = eyes.fit(self.demos.pictures, device)
            if not config.see.shift_px:
                self.demos.seen, self.demos.pictures = seen, {}  # they would be the same every time
        self.average = copy.deepcopy(self.network).requires_grad_(False)
        cfg = self.config
        self.optimiser = torch.optim.AdamW(
            self.network.parameters(), lr=cfg.learning_rate, weight_decay=cfg.weight_decay
        )
        self.steps_done = 0
        self._window: Window | None = None

    @property
    def total_steps(self) -> int:
        """See `Learner`."""
        return self.config.steps

    def step(self) -> dict[str, float]:
        """See `Learner`."""
        cfg, before = self.config, (self.rng.bit_generator.state, self.generator.get_state())
        window = self._window = self.demos.window(self.rng.integers(len(self.demos), size=cfg.batch), self.device)
        with mixed(self.device, cfg.precision):
            loss, metrics = self.network.loss(window, self.generator)
        rate = cfg.learning_rate * warmed_cosine(self.steps_done, cfg.steps, cfg.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        try:
            size = clipped(
                self.network.parameters(), loss, 1.0, "lower train.learning_rate", f" at step {self.steps_done}"
            )
        except NonFiniteError:
            self.rng.bit_generator.state = before[0]
            self.generator.set_state(before[1])
            raise
        self.optimiser.step()
        self.steps_done += 1
        # Early on the average follows quickly, or it would be mostly of what was there before training.
        decay = min(cfg.average, self.steps_done / (self.steps_done + 10))
        with torch.no_grad():
            for mean, value in zip(self.average.parameters(), self.network.parameters(), strict=True):
                if value.requires_grad:
                    mean.lerp_(value, 1 - decay)
        found = {name: value.item() for name, value in metrics.items()}
        return {"loss": loss.item(), **found, "gradient": size, "learning_rate": rate}

    def batch(self) -> Tensors:
        """See `Learner`."""
        return stored(self._window.named()) if self._window else {}

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        tensors = {f"network.{k}": v for k, v in self.network.state_dict().items()}
        tensors |= {f"average.{k}": v for k, v in self.average.state_dict().items()}
        tensors |= slots_of(self.optimiser, "adam.") | {"generator": self.generator.get_state()}
        return stored(tensors), {"steps_done": self.steps_done, "rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""
        try:
            self.network.load_state_dict(under(tensors, "network."))
            self.average.load_state_dict(under(tensors, "average."))
            load_slots(self.optimiser, tensors, "adam.")
            self.generator.set_state(tensors["generator"])
            self.steps_done = int(meta["steps_done"])
            self.rng.bit_generator.state = meta["rng"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this task and configuration: {reason}") from error

    def weights(self) -> Tensors:
        """See `Learner`: the averaged network."""
        return stored(self.average.state_dict())
