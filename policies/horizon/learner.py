"""Training of ``horizon``: first what sees, then world model and actor, while episodes are played."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from policies.horizon import tool
from policies.horizon.aims import Shown
from policies.horizon.config import HorizonConfig
from policies.horizon.episodes import episode, rewards, truth, until_done
from policies.horizon.film import imagination, played
from policies.horizon.network import HorizonNetwork, acting
from policies.horizon.score import score_of
from policies.horizon.seeing import Frames, Seeing
from policies.imitation.config import DoConfig, SeeConfig
from policies.imitation.demos import Demonstrations
from policies.learner import Episode, Explorer, Learner, Tensors
from policies.perception.sight import Sight
from policies.tensors import stored, under
from policies.world.model import Batch
from policies.world.replay import Columns, Replay
from robo.core.errors import ConfigError, NonFiniteError, RoboError, RunError
from tasks.tabletop.base import TabletopTask

RECENT = 20
"""Episodes of which is told what share succeeded, and what share of the stages they reached."""
SEEDS = 100_000
"""Of each training, for episodes."""
BABBLE = 50
"""Episodes of random motion that are played at once, while others are learned from."""


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
        demos = [self._frames(self._demo(i)) for i in range(len(self.demos.spans))]
        self.seeing = Seeing(self.sight, config.sense, demos, seed, device)
        self.replay = Replay(config.explore.capacity, seed)
        self.shown = Shown(task, config, seed)
        self.generator = torch.Generator().manual_seed(seed)
        self.score = score_of(task, config)
        self.steps_done, self.played, self.recent = 0, 0, list[list[float]]()
        self._playing: Tensors = {}
        self._latest: dict[str, np.ndarray] = {}
        self._lived: Tensors = {}
        self._babbled: list[Episode] = []
        self._babbles = self._again = 0
        self._explorer: Explorer | None = None

    @property
    def total_steps(self) -> int:
        """See `Learner`."""
        return self._to_see + self.config.train.steps

    def enter(self, explorer: Callable[[int], Explorer]) -> None:
        """See `Learner`."""
        explore = self.config.explore
        self._explorer = explorer(explore.processes)
        if self._again:
            self._begin_babble(0, self._again)
        elif self._babbles < self._rounds:
            self._begin_babble(self._babbles, self._babbles + 1)
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
        self._hear(self._explorer)
        if self.steps_done == 0 and self._to_see:
            self.seeing.fit(tool.least(self.task))
        to_see = self._to_see - self.steps_done
        found = self.seeing.step(self.steps_done) if to_see > 0 else self._live(-to_see)
        self.steps_done += 1
        return found

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """See `Learner`."""
        lived, drawn = self.replay.state()
        tensors = {f"sight.{k}": v for k, v in self.sight.state_dict().items()} | {"begun": self.network.begun}
        seeing, seen = self.seeing.state()
        tensors |= {f"seeing.{k}": v for k, v in seeing.items()} | {"generator": self.generator.get_state()}
        tensors |= {f"agent.{k}": v for k, v in self.agent.state().items()}
        tensors |= {f"replay.{k}": v for k, v in lived.items()}
        shown, picked = self.shown.state()
        tensors |= {f"shown.{k}": v for k, v in shown.items()}
        tensors |= {f"playing.{k}": v for k, v in self._playing.items()}
        meta = {
            "steps_done": self.steps_done,
            "played": self.played,
            "recent": copy.deepcopy(self.recent),
            "replay": drawn,
            "shown": picked,
            "seeing": seen,
        }
        return stored(tensors), meta

    def load_state(self, tensors: Mapping[str, torch.Tensor], meta: Mapping[str, Any]) -> None:
        """See `Learner`."""
        try:
            self.sight.load_state_dict(under(tensors, "sight."))
            self.network.begun.copy_(tensors["begun"])
            self.seeing.load_state(under(tensors, "seeing."), meta["seeing"], pools=bool(self.network.begun))
            self.agent.load_state(under(tensors, "agent."))
            self.replay.load_state(under(tensors, "replay."), meta["replay"])
            self.shown.load_state(under(tensors, "shown."), meta["shown"])
            self.generator.set_state(tensors["generator"])
            self._playing = under(tensors, "playing.")
            self.steps_done, self.played = int(meta["steps_done"]), int(meta["played"])
            self.recent = [[float(x) for x in pair] for pair in meta["recent"]]
            self._babbles = self._due(self.steps_done - 1) if self.steps_done else 0
            # Pictures of random motion are in no checkpoint: while all are needed, they are seen once more.
            self._again = 0 if self.network.begun else self._babbles
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = str(error).splitlines()[0]
            raise RunError(f"checkpoint does not fit this task and configuration: {reason}") from error

    def weights(self) -> Tensors:
        """See `Learner`."""
        return stored(acting(self.network.state_dict()))

    def batch(self) -> Tensors:
        """See `Learner`."""
        return stored(self.seeing.seen | self._lived)

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
        """See `Learner`: a demonstration as it was, reconstructed, and imagined; and the latest of its own, where
        policies still show what they see."""
        found = {"played": played(self._latest)} if self._latest else {}
        if self.network.begun and self.agent.model.decoder is not None:
            values = self._demo(0)
            columns = self._columns(values, demo=True)
            found["imagination"] = imagination(self.network, columns, self._pictures(values))
        return found

    # ---- to babble -----------------------------------------------------------------

    @property
    def _rounds(self) -> int:
        """Rounds of random motion."""
        return -(-self.config.explore.babble // BABBLE)

    def _due(self, step: int) -> int:
        """How many of them a step needs: the first at once, all after half of what comes before the first episode."""
        explore = self.config.explore
        span = max((self._to_see or explore.rest or explore.every) // 2, 1)
        return self._rounds if step >= span else 1 + step * self._rounds // span

    def _begin_babble(self, first: int, last: int) -> None:
        """Of these rounds."""
        assert self._explorer is not None
        explore, nothing = self.config.explore, self.weights() | {"begun": torch.tensor(False)}
        seeds, steps = list[int](), list[int]()
        for i in range(first, last):
            long = self._seeds(explore.babble)[i * BABBLE : (i + 1) * BABBLE]
            a, b = (k * explore.glances // self._rounds for k in (i, i + 1))
            glances = self._seeds(b - a, SEEDS // 2 + a)
            seeds += [*long, *glances]
            steps += [explore.babble_steps] * len(long) + [1] * len(glances)
        self._explorer.begin(nothing, seeds, steps)

    def _hear(self, explorer: Explorer) -> None:
        """Rounds of random motion that are due."""
        while self._again or self._babbles < self._due(self.steps_done):
            found = explorer.finish()
            frames = [self._frames(each) for each in found]
            # Of a glance there is nothing to live through.
            long = [each for each in found if len(each["signals"]) > 1]
            if self.network.learns_on:
                self.seeing.keep(frames, "random")
            if self.network.begun:
                for each in long:
                    self.replay.add(self._columns(each))
            else:
                self.seeing.add(frames)
                self._babbled += long
            self._babbles, self._again = self._babbles + (not self._again), 0
            if self._babbles < self._rounds:
                self._begin_babble(self._babbles, self._babbles + 1)

    def _frames(self, values: Episode) -> Frames:
        """All that is to be seen in an episode."""
        won = rewards(self.task, self.config, np.asarray(values["signals"], np.float32))
        state = np.asarray(values["observation.state"], float)
        scene = truth(self.task, values)
        return Frames.of(self.config.mae.views, values, won, scene, self.network.pixels.at(state, scene))

    def _demo(self, number: int) -> Episode:
        """A demonstration as `Explorer.finish` tells episodes."""
        rows = slice(*self.demos.spans[number])
        pictures = {f"rgb_{view}": x[rows] for view, x in self.demos.pictures.items()}
        return {name: values[rows] for name, values in self.demos.columns.items()} | pictures

    # ---- to live -------------------------------------------------------------------

    def _live(self, step: int) -> dict[str, float]:
        """A step of world model and actor, and the turn of a round where it is due."""
        cfg = self.config
        if not self.network.begun:
            self._begin_to_live()
        draws = (self.replay.rng, self.shown.rng)
        before = [rng.bit_generator.state for rng in draws]
        refreshed = self.network.learns_on and (step + 1) % cfg.sense.refresh == 0
        seen = self.seeing.refresh(step) if refreshed else {}
        try:
            batch = self._batch(cfg.world.batch, cfg.world.demos)
            shown = self._shown()
            self._lived = batch.named() | (dict(zip(("shown", "aims"), shown[-1], strict=True)) if shown else {})
            found = self.agent.update(batch, self.generator, self.score, shown)
        except NonFiniteError:
            for rng, state in zip(draws, before, strict=True):
                rng.bit_generator.state = state
            raise
        if refreshed:
            self.seeing.apply()
        since = step + 1 - cfg.explore.rest
        if since >= 0 and since % cfg.explore.every == 0:  # after the step, for one that fails must leave all as it was
            self._turn()
        if self.recent:
            success, stages = np.mean(self.recent, axis=0)
            found = {"success": success, "stages": stages} | found
        return {"loss": found["model_loss"], **found, **seen, "episodes": self.played}

    def _begin_to_live(self) -> None:
        """Look at all there is with eyes that learn no more."""
        for number in range(len(self.demos.spans)):
            shown = until_done(self.task, self.config.train.after_s, self._demo(number))
            self.replay.add(self._columns(shown, demo=True), demo=True)
            self._show(shown)
        for each in self._babbled:
            self.replay.add(self._columns(each))
        self._babbled = []
        self.seeing.forget()
        seen = self._batch(8 * self.config.world.batch, 8 * self.config.world.batch)
        self.agent.fit_scales(seen, self.shown.levels() if self.config.aiming else None)
        self.network.begun.fill_(True)

    def _pictures(self, values: Episode) -> dict[str, np.ndarray]:
        return {view: values[f"rgb_{view}"] for view in self.config.mae.views}

    def _columns(self, values: Episode, demo: bool = False) -> Columns:
        if "features" not in values:
            pictures = {view: torch.from_numpy(x) for view, x in self._pictures(values).items()}
            features = self.sight.along(pictures, self.device)
            values = {**values, "features": self.network.seen(features, np.asarray(values["observation.state"], float))}
        return episode(self.task, self.config, values, demo)

    def _batch(self, lived: int, demos: int) -> Batch:
        length = self.config.world.length
        batch = Batch.of(self.replay.sample(lived, length))
        if demos:
            batch = batch.join(Batch.of(self.replay.sample(demos, length, demo=True), demo=True))
        return batch.to(self.device)

    def _show(self, values: Episode) -> None:
        """What is to be cloned by an actor that aims: demonstrations. Its own stops are no keyframes."""
        if self.config.aiming:
            self.shown.add(values)

    def _shown(self) -> list[tuple[torch.Tensor, torch.Tensor]]:
        """Lessons of an actor that aims."""
        cfg = self.config.aims
        drawn = [self.shown.draw(cfg.batch) for _ in range(cfg.lessons)] if self.config.aiming else []
        return [(plain.to(self.device), aims.to(self.device)) for plain, aims in drawn]

    def _turn(self) -> None:
        """End a round of episodes, and begin the next."""
        assert self._explorer is not None
        explore = self.config.explore
        if self._playing:
            for each in self._explorer.finish():
                won, columns = bool(each["success"]), self._columns(each)
                self.replay.add(columns)
                if self.network.learns_on:
                    self.seeing.keep([self._frames(each)], "lived")
                    self._latest = self._pictures(each)
                if won and explore.imitate:
                    self.replay.add(columns, demo=True)
                self.recent = [*self.recent, [float(won), int(each["stage"].max()) / len(self.task.stages)]][-RECENT:]
                self.played += 1
        self._playing = self.weights()
        self._explorer.begin(self._playing, self._seeds(explore.episodes, explore.babble + self.played))

    def _seeds(self, count: int, first: int = 0) -> list[int]:
        return [self.seed % SEEDS * SEEDS + first + i for i in range(count)]
