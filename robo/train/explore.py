"""Episodes that a policy plays while it is being trained: in processes of their own, so that learning never waits."""

from __future__ import annotations

import os
from collections.abc import Sequence
from multiprocessing.connection import Connection
from typing import Any

import numpy as np

from policies.learner import Episode, Tensors
from policies.observed import frame
from policies.policy import Policy
from robo.core.errors import ConfigError, RoboError
from robo.core.processes import process_context
from robo.train.config import Config
from tasks.tabletop.base import tabletop_task

_STOP_S = 5.0
FIRST_SEED = 20_000_000
"""Episodes are the environment's seeds from here on: robo-eval and robo-collect draw from others."""


class Processes:
    """See `policies.learner.Explorer`. Episode i is played by process ``i % processes``.

    Args:
        config: Of the run: its task, and how its policy is loaded.
        processes: How many.

    Raises:
        ConfigError: None at all.
    """

    def __init__(self, config: Config, processes: int) -> None:
        if processes < 1:
            raise ConfigError(f"episodes are played by at least 1 process, not {processes}")
        context = process_context()
        self._pipes: list[Connection] = []
        self._processes: list[Any] = []
        self._shares: list[Sequence[int]] = []
        for _ in range(processes):
            ours, theirs = context.Pipe()
            process = context.Process(target=_work, args=(theirs, config), daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)

    def begin(self, weights: Tensors, seeds: Sequence[int], steps: int | Sequence[int] = 0) -> None:
        """See `policies.learner.Explorer`."""
        if self._shares:
            raise RoboError("begin() before finish(): episodes are being played already")
        arrays = {name: value.detach().cpu().numpy() for name, value in weights.items()}
        self._shares = [seeds[i :: len(self._pipes)] for i in range(len(self._pipes))]
        lengths = [steps] * len(seeds) if isinstance(steps, int) else list(steps)
        for i, (pipe, share) in enumerate(zip(self._pipes, self._shares, strict=True)):
            pipe.send((arrays, list(zip(share, lengths[i :: len(self._pipes)], strict=True))))

    def finish(self) -> list[Episode]:
        """See `policies.learner.Explorer`."""
        if not self._shares:
            raise RoboError("finish() before begin(): no episode is being played")
        played: dict[int, list[Episode]] = {}
        for i, pipe in enumerate(self._pipes):
            try:
                answer = pipe.recv()
            except (EOFError, ConnectionResetError):
                raise RoboError("a process that plays episodes died (out of memory?); resume the training") from None
            if isinstance(answer, str):
                raise RoboError(answer)
            played[i] = answer
        count = sum(map(len, self._shares))
        self._shares = []
        return [played[i % len(self._pipes)][i // len(self._pipes)] for i in range(count)]

    def close(self) -> None:
        """See `policies.learner.Explorer`."""
        for pipe in self._pipes:
            pipe.close()
        for process in self._processes:
            process.terminate()
            process.join(_STOP_S)
        self._pipes, self._processes = [], []


def _work(pipe: Connection, config: Config) -> None:
    """A process: play what is asked for until nobody asks any more."""
    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # see `sim.vector`
    task, env = tabletop_task(config.open_task()), None
    while True:
        try:
            arrays, episodes = pipe.recv()
        except (EOFError, KeyboardInterrupt):  # closed, or Ctrl-C in the terminal, which the other process handles
            break
        try:
            weights = {name: torch.from_numpy(value) for name, value in arrays.items()}
            policy = config.kind.load(task, config.settings, weights, "cpu")
            if not isinstance(policy, Policy):
                raise ConfigError(f"policy {config.policy} moves no arm")
            policy.exploring = True
            if env is None:
                from sim.tabletop import TabletopEnv

                env = TabletopEnv(task, cameras=policy.info.views, size=policy.info.size)
            pipe.send([play(env, policy, seed, steps) for seed, steps in episodes])
        except RoboError as error:
            pipe.send(str(error))
        except KeyboardInterrupt:
            break
    if env is not None:
        env.close()


def play(env: Any, policy: Policy, seed: int, steps: int = 0) -> Episode:
    """One episode of world and policy of a seed, in a `sim.tabletop.TabletopEnv`; see `policies.learner.Explorer`."""
    obs, info = env.reset(seed=FIRST_SEED + seed, options=dict(policy.begins_at(FIRST_SEED + seed)))
    policy.reset(obs, seed)
    rows: list[dict[str, np.ndarray]] = []
    ended = False
    while not ended:
        before = info["reference"]
        after, reward, terminated, truncated, info = env.step(env.action(policy.act(obs)))
        rows.append(frame(env.task, obs, before, info, reward) | dict(policy.keeps(obs)))
        obs, ended = after, terminated or truncated or len(rows) == steps
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]} | {"success": np.array(info["success"])}
