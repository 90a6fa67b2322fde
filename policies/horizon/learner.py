"""Training of ``horizon``: first what sees, then world model and actor, while episodes are played."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies.horizon.config import HorizonConfig
from policies.horizon.episodes import episode, rewards, truth
from policies.horizon.film import imagination
from policies.horizon.network import HorizonNetwork
from policies.horizon.score import score_of
from policies.imitation.config import DoConfig, SeeConfig
from policies.imitation.demos import Demonstrations
from policies.learner import Episode, Explorer, Learner, Tensors
from policies.perception.sight import Sight, windows
from policies.steps import clipped, warmed_cosine
from policies.tensors import load_slots, slots_of, stored, under
from policies.world.model import Batch
from policies.world.replay import Columns, Replay
from robo.core.errors import ConfigError, NonFiniteError, RoboError, RunError
from tasks.tabletop.base import TabletopTask

CLIP = 1.0
"""Longest gradient of each part of what sees."""
RECENT = 20
"""Episodes of which is told what share succeeded, and what share of the stages they reached."""
SEEDS = 100_000
"""Of each training, for episodes."""


@dataclass(frozen=True, kw_only=True)
class Frames:
    """All that the autoencoder learns from, one episode after the other.

    Attributes:
        pictures: View → (F, H, W, 3) uint8.
        first: Where the episode of each frame begins, (F,).
        rewards: For getting there, (F,).
        truth: What is around the arm, (F, E).
        demos: So many of them, the first, are of demonstrations.
    """

    pictures: dict[str, torch.Tensor]
    first: torch.Tensor
    rewards: torch.Tensor
    truth: torch.Tensor
    demos: int


class HorizonLearner(Learner):
    """See the module and `policies.learner.Learner`.

    A round of episodes begins with the weights of a step and ends some steps later, so that what is learned does not
    depend on how fast they are played.

    Args:
        task: The task.
        config: Settings.
        seed: Seeds everything random.
        device: Where the networks are.

    Raises:
        ConfigError: The demonstrations do not fit.
    """

    def __init__(self, task: TabletopTask, config: HorizonConfig, seed: int, device: str) -> None:
        self.task, self.config, self.seed, self.device = task, config, seed, device
        see = SeeConfig(views=config.mae.views, size=config.mae.size)
        do = DoConfig(action="ee_delta", chunk=1, execute=1)
        self.demos = Demonstrations(config.demos, task, see, do, config.train.episodes, group="mae")
        self.network = HorizonNetwork(task, config, seed).to(device)
        self.sight, self.agent = self.network.sight, self.network.agent
        self._to_see = config.sense.steps
        if config.sense.ready:
            self._to_see = 0
            self._take(Path(config.sense.ready))
        self.optimiser = torch.optim.AdamW(
            self.sight.parameters(), lr=config.sense.learning_rate, betas=(0.9, 0.999), weight_decay=0.01
        )
        self.replay = Replay(config.explore.capacity, seed)
        self.rng, self.generator = np.random.default_rng([seed, 3]), torch.Generator().manual_seed(seed)
        self.score = score_of(task, config)
        self.steps_done, self.played, self.recent = 0, 0, list[list[float]]()
        self._playing: Tensors = {}
        self._frames: Frames | None = None
        self._babbled: list[Episode] = []
        self._explorer: Explorer | None = None

    @property
    def total_steps(self) -> int:
        """See `Learner`."""
        return self._to_see + self.config.train.steps

    def enter(self, explorer: Callable[[int], Explorer]) -> None:
        """See `Learner`."""
        explore = self.config.explore
        self._explorer = explorer(explore.processes)
        if self.steps_done <= self._to_see:
            self._explorer.begin(self.weights(), self._seeds(explore.babble), explore.babble_steps)
        elif self._playing:
            self._explorer.begin(self._playing, self._seeds(explore.episodes, explore.babble + self.played))

    def leave(self) -> None:
        """See `Learner`."""
        if self._explorer is not None:
            self._explorer.close()
        self._explorer = None

    def step(self) -> dict[str, float]:
        """See `Learner`."""
        if self._explorer is None:
            raise RoboError("step() before enter(); this learner plays episodes")
        if self.steps_done <= self._to_see and self._frames is None:
            self._babbled = self._explorer.finish()
            self._frames = self._gather(self._babbled)
            if self.steps_done == 0 and self._to_see and self.sight.marks is not None:
                self.sight.marks.scale.fit(self._frames.truth)
        found = self._see() if self.steps_done < self._to_see else self._live(self.steps_done - self._to_see)
        self.steps_done += 1
        return found

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        lived, drawn = self.replay.state()
        tensors = {f"sight.{k}": v for k, v in self.sight.state_dict().items()} | {"begun": self.network.begun}
        tensors |= slots_of(self.optimiser, "adam.") | {"generator": self.generator.get_state()}
        tensors |= {f"agent.{k}": v for k, v in self.agent.state().items()}
        tensors |= {f"replay.{k}": v for k, v in lived.items()}
        tensors |= {f"playing.{k}": v for k, v in self._playing.items()}
        meta = {
            "steps_done": self.steps_done,
            "played": self.played,
            "recent": copy.deepcopy(self.recent),
            "replay": drawn,
        }
        return stored(tensors), meta | {"rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""
        try:
            self.sight.load_state_dict(under(tensors, "sight."))
            self.network.begun.copy_(tensors["begun"])
            load_slots(self.optimiser, tensors, "adam.")
            self.agent.load_state(under(tensors, "agent."))
            self.replay.load_state(under(tensors, "replay."), meta["replay"])
            self.generator.set_state(tensors["generator"])
            self._playing = under(tensors, "playing.")
            self.steps_done, self.played = int(meta["steps_done"]), int(meta["played"])
            self.recent = [[float(x) for x in pair] for pair in meta["recent"]]
            self.rng.bit_generator.state = meta["rng"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this task and configuration: {reason}") from error

    def weights(self) -> Tensors:
        """See `Learner`."""
        return stored(self.network.state_dict())

    def exports(self) -> Mapping[str, Callable[[Path], None]]:
        """See `Learner`: what sees, for other policies (``--see.trunk``) and other trainings (``--sense.ready``)."""
        return {"sight": self.sight.save}

    def _take(self, folder: Path) -> None:
        """What sees, of another training."""
        found = Sight.load(folder)
        if (found.config, found.known) != (self.sight.config, self.sight.known):
            differs = next((name for name, value in self.sight.config.items() if found.config[name] != value), "known")
            raise ConfigError(f"{folder} was trained with other settings of {differs} than sense.ready is to have here")
        self.sight.load_state_dict(found.state_dict())

    def films(self) -> Mapping[str, np.ndarray]:
        """See `Learner`: a demonstration as it was, reconstructed, and imagined."""
        if not self.network.begun or self.agent.model.decoder is None:
            return {}
        values = self._demo(0)
        pictures = {view: values[f"rgb_{view}"] for view in self.config.mae.views}
        return {"imagination": imagination(self.network, self._columns(values, demo=True), pictures)}

    # ---- to see --------------------------------------------------------------------

    def _gather(self, babbled: list[Episode]) -> Frames:
        """Frames of demonstrations and of random motion."""
        views = self.config.mae.views
        parts = [self._demo(i) for i in range(len(self.demos.spans))] + babbled
        lengths = [len(part["signals"]) for part in parts]
        starts = np.cumsum([0, *lengths[:-1]])

        def put(arrays: list[np.ndarray]) -> torch.Tensor:
            return torch.from_numpy(np.concatenate(arrays))

        won = [rewards(self.task, self.config, np.asarray(part["signals"], np.float32)) for part in parts]
        return Frames(
            pictures={view: put([part[f"rgb_{view}"] for part in parts]) for view in views},
            first=torch.from_numpy(np.repeat(starts, lengths)),
            rewards=put([np.concatenate([[0.0], each[:-1]]).astype(np.float32) for each in won]),
            truth=put([truth(part) for part in parts]),
            demos=sum(lengths[: len(self.demos.spans)]),
        )

    def _demo(self, number: int) -> Episode:
        """A demonstration as `Explorer.finish` tells episodes."""
        rows = slice(*self.demos.spans[number])
        pictures = {f"rgb_{view}": x[rows] for view, x in self.demos.pictures.items()}
        return {name: values[rows] for name, values in self.demos.columns.items()} | pictures

    def _see(self) -> dict[str, float]:
        """A step of what sees, half on demonstrations, half on random motion."""
        cfg, frames, mae, marks = self.config.sense, self._frames, self.sight.mae, self.sight.marks
        assert frames is not None
        before = self.rng.bit_generator.state, self.generator.get_state()
        half = cfg.batch // 2
        rows = torch.from_numpy(
            np.concatenate(
                [
                    self.rng.integers(frames.demos, size=cfg.batch - half),
                    self.rng.integers(frames.demos, len(frames.first), size=half),
                ]
            )
        )
        time = windows(rows, frames.first[rows], mae.config.frames)
        seen = {view: x[time].to(self.device) for view, x in frames.pictures.items()}
        self.sight.train()
        loss, metrics = mae.loss(seen, frames.rewards[time].to(self.device), self.generator)
        if marks is not None:
            newest = {view: x[:, -1] for view, x in seen.items()}
            metrics["marks"] = marks.loss(newest, frames.truth[rows].to(self.device))
            loss = loss + metrics["marks"]
        self.sight.eval()
        rate = cfg.learning_rate * warmed_cosine(self.steps_done, cfg.steps, cfg.warm_up)
        for group in self.optimiser.param_groups:
            group["lr"] = rate
        self.optimiser.zero_grad(set_to_none=True)
        loss.backward()
        try:
            for part in self.sight.children():  # apart, so that neither slows the other down
                clipped(part.parameters(), loss, CLIP, "lower sense.learning_rate")
        except NonFiniteError:
            self.rng.bit_generator.state = before[0]
            self.generator.set_state(before[1])
            raise
        self.optimiser.step()
        return {"loss": loss.item(), **{name: value.item() for name, value in metrics.items()}, "learning_rate": rate}

    # ---- to live -------------------------------------------------------------------

    def _live(self, step: int) -> dict[str, float]:
        """A step of world model and actor, and the turn of a round where it is due."""
        cfg = self.config
        if not self.network.begun:
            self._begin_to_live()
        before = self.replay.rng.bit_generator.state
        try:
            found = self.agent.update(self._batch(cfg.world.batch, cfg.world.demos), self.generator, self.score)
        except NonFiniteError:
            self.replay.rng.bit_generator.state = before
            raise
        since = step + 1 - cfg.explore.rest
        if since >= 0 and since % cfg.explore.every == 0:  # after the step, for one that fails must leave all as it was
            self._turn()
        if self.recent:
            success, stages = np.mean(self.recent, axis=0)
            found = {"success": success, "stages": stages} | found
        return {"loss": found["model_loss"], **found, "episodes": self.played}

    def _begin_to_live(self) -> None:
        """Look at all there is with eyes that learn no more."""
        for number in range(len(self.demos.spans)):
            self.replay.add(self._columns(self._demo(number), demo=True), demo=True)
        for each in self._babbled:
            self.replay.add(self._columns(each))
        self._frames, self._babbled = None, []
        self.agent.model.fit_scales(self._batch(8 * self.config.world.batch, 8 * self.config.world.batch))
        self.network.begun.fill_(True)

    def _columns(self, values: Episode, demo: bool = False) -> Columns:
        if "features" not in values:
            pictures = {view: torch.from_numpy(values[f"rgb_{view}"]) for view in self.config.mae.views}
            features = self.sight.along(pictures, self.device)
            values = {**values, "features": self.network.seen(features, np.asarray(values["observation.state"], float))}
        return episode(self.task, self.config, values, demo)

    def _batch(self, lived: int, demos: int) -> Batch:
        length = self.config.world.length
        batch = Batch.of(self.replay.sample(lived, length))
        if demos:
            batch = batch.join(Batch.of(self.replay.sample(demos, length, demo=True), demo=True))
        return batch.to(self.device)

    def _turn(self) -> None:
        """End a round of episodes, and begin the next."""
        assert self._explorer is not None
        explore = self.config.explore
        if self._playing:
            for each in self._explorer.finish():
                won, columns = bool(each["success"]), self._columns(each)
                self.replay.add(columns)
                if won and explore.imitate:
                    self.replay.add(columns, demo=True)
                self.recent = [*self.recent, [float(won), int(each["stage"].max()) / len(self.task.stages)]][-RECENT:]
                self.played += 1
        self._playing = self.weights()
        self._explorer.begin(self._playing, self._seeds(explore.episodes, explore.babble + self.played))

    def _seeds(self, count: int, first: int = 0) -> list[int]:
        return [self.seed % SEEDS * SEEDS + first + i for i in range(count)]
