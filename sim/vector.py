"""Many environments over a few processes, with pictures: what they see lies in shared memory."""

from __future__ import annotations

import ctypes
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from multiprocessing.connection import Connection
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import CloudpickleWrapper, batch_space

from robo.core.errors import RoboError
from robo.core.processes import process_context

_STOP_S = 5.0
"""A process that does not end by itself within this time is ended."""


class Serial(VectorEnv):
    """N environments of one task in this process, stepped one after the other; told as `SharedVector` tells them.

    Args:
        makers: Each makes an environment.
    """

    def __init__(self, makers: Sequence[Callable[[], gymnasium.Env]]) -> None:
        self.envs = [make() for make in makers]
        one, self.num_envs = self.envs[0], len(self.envs)
        self.task = one.unwrapped.task  # type: ignore[attr-defined]
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.single_observation_space, self.single_action_space = one.observation_space, one.action_space
        self.observation_space = batch_space(one.observation_space, self.num_envs)
        self.action_space = batch_space(one.action_space, self.num_envs)
        self._ended = np.zeros(self.num_envs, bool)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """See `SharedVector.reset`."""
        seeds = seeds_of(seed, self.num_envs)
        begun = [env.reset(seed=one, options=options) for env, one in zip(self.envs, seeds, strict=True)]
        self._ended[:] = False
        return self._stack([obs for obs, _ in begun]), self._told([info for _, info in begun])

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """See `SharedVector.step`."""
        seen, infos = [], []
        rewards, terminated, truncated = (np.zeros(self.num_envs, kind) for kind in (float, bool, bool))
        for i, (env, action) in enumerate(zip(self.envs, actions, strict=True)):
            if self._ended[i]:
                obs, info = env.reset()
            else:
                obs, rewards[i], terminated[i], truncated[i], info = env.step(action)
            seen.append(obs)
            infos.append(info)
        self._ended[:] = terminated | truncated
        return self._stack(seen), rewards, terminated, truncated, self._told(infos)

    def close_extras(self, **kwargs: Any) -> None:
        """Close them."""
        for env in self.envs:
            env.close()

    def _stack(self, seen: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
        return {name: np.stack([one[name] for one in seen]) for name in seen[0]}

    def _told(self, infos: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        return {
            "signals": {name: np.array([i["signals"][name] for i in infos]) for name in self.task.signals},
            "stage": np.array([i.get("stage", 0) for i in infos]),
            "success": np.array([i.get("success", False) for i in infos]),
        }


def seeds_of(seed: int | Sequence[int | None] | None, count: int) -> list[int | None]:
    """One seed for each of some environments: those of a list, or one after the other from the first on."""
    if isinstance(seed, Sequence):
        return list(seed)
    return [None if seed is None else seed + i for i in range(count)]


class SharedVector(VectorEnv):
    """N environments of one task, spread over processes, in each of which a share steps together.

    Environment i of ``reset(seed=s)`` gets seed s + i. Observations are copies. Infos hold ``signals`` (name → (N,)),
    ``stage`` and ``success`` (N,). An environment whose episode has ended begins the next one at the next step, whose
    action for it is ignored (Gymnasium's ``NEXT_STEP``).

    Args:
        make: Makes that many environments that step together; goes to other processes by cloudpickle.
        count: How many environments.
        processes: Over how many processes; at most `count`.

    Raises:
        RoboError: An environment cannot be made.
    """

    def __init__(self, make: Callable[[int], VectorEnv], count: int, processes: int) -> None:
        one = make(1)
        self.task = one.task  # type: ignore[attr-defined]
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP}
        self.num_envs = count
        self.single_observation_space = one.single_observation_space
        self.single_action_space = one.single_action_space
        self.observation_space = batch_space(self.single_observation_space, count)
        self.action_space = batch_space(self.single_action_space, count)
        one.close()
        context = process_context()
        fields = _fields(self.single_observation_space, self.single_action_space, tuple(self.task.signals))
        # Raw shared memory: every process writes rows of its own, and the pipes say when.
        memory = {
            name: context.RawArray(ctypes.c_byte, count * int(np.prod(shape)) * np.dtype(kind).itemsize)
            for name, (shape, kind) in fields.items()
        }
        self._rows = _views(memory, fields, count)
        self._pipes: list[Connection] = []
        self._processes = []
        ends = np.linspace(0, count, min(processes, count) + 1).round().astype(int).tolist()
        self._shares = [slice(first, last) for first, last in itertools.pairwise(ends)]
        for share in self._shares:
            ours, theirs = context.Pipe()
            begin: Any = CloudpickleWrapper(partial(make, share.stop - share.start))  # type: ignore[arg-type]
            arguments = (theirs, begin, memory, fields, count, share)
            process = context.Process(target=_work, args=arguments, daemon=True)
            process.start()
            theirs.close()
            self._pipes.append(ours)
            self._processes.append(process)
        self._wait()

    # ---- Gymnasium -----------------------------------------------------------

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Start an episode in every environment.

        Args:
            seed: Environment i gets seed + i, or the i-th of a list.
            options: Of every environment's reset.

        Raises:
            RoboError: An environment refuses.
        """
        seeds = seeds_of(seed, self.num_envs)
        for pipe, share in zip(self._pipes, self._shares, strict=True):
            self._tell(pipe, ("reset", seeds[share], options))
        self._wait()
        return self._observe(), self._info()

    def step(
        self, actions: np.ndarray
    ) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray, np.ndarray, dict[str, Any]]:
        """One control step of every environment.

        Raises:
            RoboError: The actions have another shape, or an environment refuses.
        """
        held = self._rows["action"]
        if np.shape(actions) != held.shape:
            raise RoboError(f"actions have shape {np.shape(actions)}, expected {held.shape}")
        held[:] = actions
        for pipe in self._pipes:
            self._tell(pipe, ("step",))
        self._wait()
        rewards, terminated, truncated = (self._rows[k].copy() for k in ("reward", "terminated", "truncated"))
        return self._observe(), rewards, terminated, truncated, self._info()

    def close_extras(self, **kwargs: Any) -> None:
        """End the processes."""
        for pipe in self._pipes:
            pipe.close()  # they end when nobody speaks to them
        for process in self._processes:
            process.join(_STOP_S)
            if process.is_alive():
                process.kill()

    # ---- within ------------------------------------------------------------------

    def _tell(self, pipe: Connection, message: tuple) -> None:
        try:
            pipe.send(message)
        except OSError as error:
            raise RoboError("a process of the environments died (out of memory?); make them again") from error

    def _wait(self) -> None:
        """Wait for all processes; an error of any is raised when all are done."""
        failures = []
        for pipe in self._pipes:
            try:
                failure = pipe.recv()
            except (EOFError, OSError) as error:
                raise RoboError("a process of the environments died (out of memory?); make them again") from error
            if failure is not None:
                failures.append(failure)
        if failures:
            raise RoboError(failures[0])

    def _observe(self) -> dict[str, np.ndarray]:
        return {name: self._rows[f"obs/{name}"].copy() for name in self.single_observation_space.spaces}  # type: ignore[attr-defined]

    def _info(self) -> dict[str, Any]:
        signals = self._rows["signals"].copy()
        return {
            "signals": {name: signals[:, i] for i, name in enumerate(self.task.signals)},
            "stage": self._rows["stage"].copy(),
            "success": self._rows["success"].copy(),
        }


Fields = Mapping[str, tuple[tuple[int, ...], str]]
"""Name → shape of a row, kind of its numbers."""


def _fields(observation: spaces.Space, action: spaces.Space, signals: tuple[str, ...]) -> Fields:
    seen = {f"obs/{k}": (tuple(s.shape), s.dtype.str) for k, s in observation.spaces.items()}  # type: ignore[attr-defined]
    flags = {name: ((), "?") for name in ("terminated", "truncated", "success")}
    return {
        **seen,
        **flags,
        "action": (tuple(action.shape or ()), "<f8"),
        "reward": ((), "<f8"),
        "stage": ((), "<i8"),
        "signals": ((len(signals),), "<f8"),
    }


def _views(memory: Mapping[str, Any], fields: Fields, count: int) -> dict[str, np.ndarray]:
    return {
        name: np.frombuffer(memory[name], np.dtype(kind)).reshape(count, *shape)
        for name, (shape, kind) in fields.items()
    }


def _work(
    pipe: Connection,
    make: Callable[[], VectorEnv],
    memory: Mapping[str, Any],
    fields: Fields,
    count: int,
    share: slice,
) -> None:
    """A process of its own: makes its environments, then does what it is told until nobody speaks to it any more."""
    # Mesa's software renderer starts a thread for every core in each process; they only get into each other's way.
    os.environ.setdefault("LP_NUM_THREADS", "0")
    rows = {name: view[share] for name, view in _views(memory, fields, count).items()}
    made: list[VectorEnv] = []

    def put(obs: Mapping[str, np.ndarray], info: Mapping[str, Any], **more: Any) -> None:
        for name, value in obs.items():
            rows[f"obs/{name}"][:] = value
        rows["signals"][:] = np.stack(list(info["signals"].values()), axis=-1)
        for name, value in (more | {"stage": info["stage"], "success": info["success"]}).items():
            rows[name][:] = value

    def do(what: str, *more: Any) -> None:
        if what == "reset":
            seeds, options = more
            put(*made[0].reset(seed=seeds, options=options), reward=0.0, terminated=False, truncated=False)
        else:
            obs, reward, terminated, truncated, info = made[0].step(rows["action"].copy())
            put(obs, info, reward=reward, terminated=terminated, truncated=truncated)

    def answer(work: Callable[[], None]) -> None:
        try:
            work()
        except RoboError as error:
            pipe.send(str(error))  # not every error of the tree survives the way between processes; its text does
        else:
            pipe.send(None)

    answer(lambda: made.append(make()))
    while True:
        try:
            message = pipe.recv()
        except (EOFError, KeyboardInterrupt):  # closed, or Ctrl-C in the terminal, which the other process handles
            break
        answer(lambda message=message: do(*message))
    for vector in made:
        vector.close()
