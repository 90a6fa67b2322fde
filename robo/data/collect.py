"""Recording of demonstrations: episodes of a policy on a tabletop task as a dataset, over several processes."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from queue import Empty
from typing import Any

import numpy as np

from policies.expert import ExpertConfig, MoveConfig
from policies.expert import load as load_expert
from policies.observed import around, frame
from policies.policy import Policy
from policies.registry import POLICIES
from robo.core.errors import ConfigError, RoboError, RunError
from robo.core.files import make_parent, read_json, write_json
from robo.core.processes import process_context
from robo.dataset import layout
from robo.dataset.features import Feature, Features
from robo.dataset.lerobot import Dataset
from robo.dataset.recording import Writer, merge
from robo.train.run import Run
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task

FIRST_SEED = 7_000_000
"""Episode i is the environment's seed FIRST_SEED + seed + i: neither training nor robo-eval draw from these."""
SHARDS, ORDER = "shards", "order.json"
"""What every process records by itself, and what was asked for; both are gone when the dataset is whole."""
_POLL_S, _STOP_S = 1.0, 5.0


@dataclass(frozen=True, kw_only=True)
class Order:
    """What is to be recorded.

    Attributes:
        task: Registered name or path of a task file.
        policy: ``expert``, ``random``, ``zero`` or a run folder.
        episodes: How many.
        seed: First seed.
        views: Cameras.
        size: Height and width of their pictures [px], an even number.
        looks: Whether colours, textures, light and cameras differ from episode to episode.
        successes: Keep episodes that succeed only; seeds go on until there are enough.
        sway: How much the ways of the expert differ, see `policies.expert.MoveConfig`.
    """

    task: str
    policy: str = "expert"
    episodes: int = 50
    seed: int = 0
    views: tuple[str, ...] = ("front", "wrist")
    size: int = 96
    looks: bool = False
    successes: bool = False
    sway: float = 0.0

    def __post_init__(self) -> None:
        if self.episodes < 1 or self.seed < 0:
            raise ConfigError(f"episodes must be at least 1 and seed at least 0, not {self.episodes} and {self.seed}")
        if self.size < 2 or self.size % 2:
            raise ConfigError(f"size must be an even number of pixels, not {self.size}")
        if self.sway and self.policy != "expert":
            raise ConfigError(f"sway is the expert's, policy {self.policy} has none; leave it out")


def features(task: TabletopTask, order: Order) -> Features:
    """What a dataset of a task holds.

    ``observation.state``: joint angles [rad], width of the gripper [m], position [m] and orientation (wxyz) of the
    tool. ``observation.environment_state``: poses of things and fixtures, joints, variation. ``action``: joint angles
    [rad] and width [m] that the control step ends with (``control="joint_pos"``); ``action.ee_delta`` says the same as
    motion of the tool (``control="ee_delta"``). ``reward``, ``stage`` and ``signals`` are those after the action.
    """
    j = len(task.robot.joints)
    tool = ("ee_x_m", "ee_y_m", "ee_z_m", "ee_qw", "ee_qx", "ee_qy", "ee_qz")
    joints = tuple(f"{name}_rad" for name in task.robot.joints)
    names = tuple(name if n == 1 else f"{name}.{i}" for name, n in around(task).items() for i in range(n))
    values = {
        "observation.state": Feature("float32", (j + 8,), (*joints, "gripper_width_m", *tool)),
        "action": Feature("float32", (j + 1,), (*joints, "gripper_width_m")),
        "action.ee_delta": Feature("float32", (7,), ("x", "y", "z", "turn_x", "turn_y", "turn_z", "gripper")),
        "reward": Feature("float32"),
        "stage": Feature("int64"),
        "signals": Feature("float32", (len(task.signals),), tuple(task.signals)),
    }
    if names:
        values["observation.environment_state"] = Feature("float32", (len(names),), names)
    return Features(
        values=values,
        fps=round(1.0 / task.ctrl_dt_s),
        robot_type=task.robot.name,
        cameras={f"observation.images.{view}": (order.size, order.size) for view in order.views},
        extra={"seed": "int64", "success": "bool", "satisfied": "bool", "rho": "float64", "policy": "string"},
    )


def collect(
    folder: Path, order: Order, *, workers: int = 1, on_episode: Callable[[bool], None] | None = None
) -> Dataset:
    """Record a dataset; an interrupted recording goes on where it stopped when the same is asked for again.

    Args:
        folder: Where.
        order: What.
        workers: Processes. The dataset is the same whatever their number.
        on_episode: Called after every episode, with whether it succeeded.

    Raises:
        RoboError: A name is unknown, the folder holds something else, a process died, or there is no room.
    """
    task = tabletop_task(load_task(order.task))
    wanted = features(task, order)
    _check_pictures(order, actor(order.policy, task, order.sway))  # what does not fit is said now
    folder = Path(folder)
    if (folder / layout.INFO).exists():
        raise RunError(f"{folder} holds a whole dataset already; name another folder, or remove it")
    asked = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(order).items()}
    if (folder / ORDER).exists():
        if read_json(folder / ORDER, {"task": str}) != asked:
            raise RunError(f"{folder} holds the beginning of another recording; go on with its options, or remove it")
    else:
        if folder.exists() and any(folder.iterdir()):
            raise RunError(f"{folder} is not empty; name another folder")
        make_parent(folder / ORDER)
        write_json(folder / ORDER, asked)
    shards = _record(folder / SHARDS, order, wanted, workers, on_episode)
    whole = folder.with_name(f".{folder.name}.whole")
    shutil.rmtree(whole, ignore_errors=True)
    merge(shards, whole, order_by="seed")
    for part in whole.iterdir():
        part.rename(folder / part.name)
    whole.rmdir()
    shutil.rmtree(folder / SHARDS)
    (folder / ORDER).unlink()
    return Dataset(folder)


def actor(policy: str, task: TabletopTask, sway: float = 0.0) -> Policy:
    """A policy by name (``expert``, which may sway, ``random``, ``zero``), or that of a run folder.

    Raises:
        RoboError: No such policy or run, or it does not move a gripper.
    """
    if policy == "expert":
        found = load_expert(task, ExpertConfig(move=MoveConfig(sway=sway)), {}, "cpu")
    elif policy in ("random", "zero"):
        kind = POLICIES.make(policy)
        found = kind.load(task, kind.config(), {}, "cpu")
    else:
        found = Run.open(policy).policy()
    if not isinstance(found, Policy):
        raise ConfigError(f"policy {policy} moves no arm; take expert, random, zero or a run of a tabletop task")
    return found


def _check_pictures(order: Order, policy: Policy) -> None:
    """Refuse to record without the pictures that the policy acts by."""
    info = policy.info
    if not set(info.views) <= set(order.views) or (info.views and info.size != order.size):
        views = ",".join(info.views)
        raise ConfigError(
            f"policy {order.policy} sees {views} at {info.size} pixels, to be recorded: "
            f"{','.join(order.views) or 'none'} at {order.size}; try --views {views} --size {info.size}"
        )


# ---- processes -------------------------------------------------------------------


def _record(
    folder: Path, order: Order, wanted: Features, workers: int, on_episode: Callable[[bool], None] | None
) -> list[Path]:
    """Record all episodes into shards, one for every process there has ever been; returns them."""
    done = _known_seeds(folder)
    if on_episode is not None:
        for success in done.values():
            on_episode(success)
    todo = [seed for seed in range(order.seed, order.seed + order.episodes) if seed not in done]
    if todo:
        context = process_context()
        said = context.Queue()
        first = len(list(folder.glob("*"))) if folder.exists() else 0
        shares = [todo[i::workers] for i in range(min(workers, len(todo)))]
        processes = [
            context.Process(target=_work, args=(folder / f"{first + i:03d}", order, wanted, share, said), daemon=True)
            for i, share in enumerate(shares)
        ]
        for process in processes:
            process.start()
        try:
            _listen(processes, said, on_episode)
        finally:
            for process in processes:
                process.terminate()
                process.join(_STOP_S)
    return sorted(shard for shard in folder.iterdir() if (shard / layout.INFO).exists())


def _known_seeds(folder: Path) -> dict[int, bool]:
    """Seeds that are recorded already, and whether they succeeded."""
    found: dict[int, bool] = {}
    for shard in sorted(folder.glob("*")) if folder.exists() else []:
        if (shard / layout.INFO).exists():
            found |= {int(e.extra["seed"]): bool(e.extra["success"]) for e in layout.load(shard).episodes}
    return found


def _listen(processes: Sequence[Any], said: Any, on_episode: Callable[[bool], None] | None) -> None:
    """Hear what processes say until each has closed its shard: whether an episode succeeded, an error, or that."""
    left = len(processes)
    while left:
        try:
            word = said.get(timeout=_POLL_S)
        except Empty:
            if not any(process.is_alive() for process in processes):
                raise RoboError("a recording process died (out of memory?); the same command goes on") from None
            continue
        if isinstance(word, str):
            raise RoboError(word)
        if word is None:
            left -= 1
        elif on_episode is not None:
            on_episode(word)


def _work(folder: Path, order: Order, wanted: Features, seeds: list[int], said: Any) -> None:
    import os

    import torch

    torch.set_num_threads(1)
    os.environ.setdefault("LP_NUM_THREADS", "0")  # see `sim.vector`
    try:
        task = tabletop_task(load_task(order.task))
        policy = actor(order.policy, task, order.sway)
        env = _environment(task, order)
        with Writer(folder, wanted) as writer:
            for seed in seeds:
                said.put(_episode(writer, env, policy, order, seed))
        env.close()
        said.put(None)
    except RoboError as error:
        said.put(str(error))
    except KeyboardInterrupt:  # the process that asked for it says so
        pass


def _environment(task: TabletopTask, order: Order) -> Any:
    from sim.randomise import Randomisation  # lazily: mujoco
    from sim.tabletop import TabletopEnv

    looks = Randomisation.looks() if order.looks else None
    return TabletopEnv(task, randomise=looks, cameras=order.views, size=order.size)


def _episode(writer: Writer, env: Any, policy: Policy, order: Order, seed: int) -> bool:
    """Record one episode; whether it succeeded."""
    task: TabletopTask = env.task
    attempt = 0
    while True:
        # An attempt that fails where only successes are wanted is followed by others from seeds of their own.
        obs, info = env.reset(seed=FIRST_SEED + seed + attempt * order.episodes)
        policy.reset(obs, seed)
        instruction, trace = info["instruction"], [info["signals"]]
        ended = False
        while not ended:
            before = info["reference"]
            after, reward, terminated, truncated, info = env.step(env.action(policy.act(obs)))
            trace.append(info["signals"])
            pictures = {f"observation.images.{view}": obs[f"rgb_{view}"] for view in order.views}
            writer.add_frame(frame(task, obs, before, info, reward), pictures, instruction)
            obs, ended = after, terminated or truncated
        signals = {name: np.array([row[name] for row in trace]) for name in trace[0]}
        success = task.success(signals)
        if success or not order.successes:
            rho = float(task.formula.rho(signals, task.ctrl_dt_s)[0])
            writer.save_episode(
                {"seed": seed, "success": success, "satisfied": rho > 0, "rho": rho, "policy": order.policy}
            )
            return success
        writer.drop_episode()
        attempt += 1
        if attempt > MOST_ATTEMPTS:
            raise RunError(f"{order.policy} failed {attempt} times at seed {seed}; record without --successes")


MOST_ATTEMPTS = 50
