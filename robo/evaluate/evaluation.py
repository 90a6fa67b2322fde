"""Many episodes of one policy, scored on what was executed."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np

from policies.learner import AnyPolicy
from robo.core.errors import RoboError
from robo.core.processes import process_context
from robo.data.rollout import Rollout
from robo.evaluate.metrics import wilson
from robo.evaluate.worlds import World, open_world
from tasks.task import Task

Load = Callable[[], tuple[Task, AnyPolicy]]
"""Makes task and policy; a module-level function or a `functools.partial` of one: worker processes call it."""
Enter = Callable[[Task], World]
"""Makes the world of a task; likewise."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """What an evaluation keeps of an episode.

    Attributes:
        seed: Evaluation seed of the episode.
        rho: Robustness of the specification over the executed trace, the truth.
        satisfied: ``rho > 0``.
        success: The task's own measure.
        violations: One line for every safety violation.
        backup, refinement: Share of steps that the backup or the refinement made, 0..1.
        plan_ms: Planning time of every step [ms].
        plans: Share of steps, 0..1, at which the predicted plan satisfied the specification; NaN if unknown.
        certified: Whether the first plan was known to be safe to the end of the episode.
    """

    seed: int
    rho: float
    satisfied: bool
    success: bool
    violations: tuple[str, ...]
    backup: float
    refinement: float
    plan_ms: tuple[float, ...]
    plans: float = math.nan
    certified: bool = False

    @classmethod
    def of(cls, rollout: Rollout) -> Episode:
        """The episode of a rollout."""
        return cls(
            seed=rollout.seed,
            rho=rollout.rho,
            satisfied=rollout.satisfied,
            success=rollout.success,
            violations=rollout.violations,
            backup=rollout.share("backup"),
            refinement=rollout.share("refinement"),
            plan_ms=tuple(float(x) for x in rollout.plan_ms),
            plans=float(np.mean(rollout.plan_rho > 0)) if np.isfinite(rollout.plan_rho).all() else math.nan,
            certified=bool(rollout.extra.get("certified", [False])[0] == 1.0),
        )


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Episodes of one policy on one task.

    Attributes:
        task, policy: Names.
        seed: First evaluation seed; episode i has seed ``seed + i``.
        mismatch: Relative bound of payload and servo gain errors, 0 for none.
        delay_s: Commands act up to this much later [s].
        episodes: In order of their seeds.
    """

    task: str
    policy: str
    seed: int
    mismatch: float
    delay_s: float = 0.0
    episodes: tuple[Episode, ...]

    def summary(self) -> dict[str, Any]:
        """Rates (0..1) with 95 % Wilson intervals, robustness and planning time [ms]; JSON-able.

        ``safety_violations`` counts episodes with at least one. ``backup_fraction`` and ``refinement_fraction``
        are shares of executed steps over all episodes.
        """
        n = len(self.episodes)
        rho = np.array([e.rho for e in self.episodes])
        plan_ms = np.concatenate([e.plan_ms for e in self.episodes])
        steps = np.array([len(e.plan_ms) for e in self.episodes])
        result: dict[str, Any] = {
            "task": self.task,
            "policy": self.policy,
            "episodes": n,
            "seed": self.seed,
            "mismatch": self.mismatch,
            "delay_s": self.delay_s,
        }
        for name, hits in (
            ("satisfied", sum(e.satisfied for e in self.episodes)),
            ("success", sum(e.success for e in self.episodes)),
        ):
            result[name], result[f"{name}_ci95"] = hits / n, list(wilson(hits, n))
        unsafe = sum(bool(e.violations) for e in self.episodes)
        result |= {
            "safety_violations": unsafe,
            "safety_violation_rate": unsafe / n,
            "safety_violation_rate_ci95": list(wilson(unsafe, n)),
            "rho_mean": float(rho.mean()),
            "rho_min": float(rho.min()),
            "backup_fraction": float(np.average([e.backup for e in self.episodes], weights=steps)),
            "refinement_fraction": float(np.average([e.refinement for e in self.episodes], weights=steps)),
            "plan_ms_p50": float(np.percentile(plan_ms, 50)),
            "plan_ms_p99": float(np.percentile(plan_ms, 99)),
            "plan_ms_max": float(plan_ms.max()),
        }
        return result

    def record(self) -> dict[str, Any]:
        """`summary` plus every episode by seed, as in ``eval.json``; of the planning times [ms] median and maximum."""
        by_seed = []
        for episode in self.episodes:
            row = asdict(episode) | {"violations": list(episode.violations)}
            del row["plan_ms"], row["plans"], row["certified"]
            plan_ms = np.array(episode.plan_ms)
            by_seed.append(row | {"plan_ms_p50": float(np.median(plan_ms)), "plan_ms_max": float(plan_ms.max())})
        return self.summary() | {"by_seed": by_seed}


def rows(record: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """A record of `Evaluation.summary` for people: what, value, 95 % interval."""

    def percent(x: float) -> str:
        return f"{100 * x:.1f} %"

    def interval(name: str) -> str:
        low, high = record[f"{name}_ci95"]
        return f"{percent(low)} .. {percent(high)}"

    return [
        ("satisfied", percent(record["satisfied"]), interval("satisfied")),
        ("success", percent(record["success"]), interval("success")),
        ("safety violations", f"{record['safety_violations']} episodes", interval("safety_violation_rate")),
        ("robustness, mean", f"{record['rho_mean']:+.4f}", ""),
        ("robustness, worst", f"{record['rho_min']:+.4f}", ""),
        ("steps by the backup", percent(record["backup_fraction"]), ""),
        ("steps by the refinement", percent(record["refinement_fraction"]), ""),
        ("planning time, p50", f"{record['plan_ms_p50']:.1f} ms", ""),
        ("planning time, p99", f"{record['plan_ms_p99']:.1f} ms", ""),
    ]


def evaluate(
    load: Load,
    *,
    episodes: int,
    seed: int = 0,
    workers: int = 1,
    mismatch: float = 0.0,
    delay_s: float = 0.0,
    policy: str = "policy",
    on_rollout: Callable[[Rollout], None] | None = None,
) -> Evaluation:
    """Run a policy in physics and score what was executed.

    The same seeds give the same result whatever the number of workers (planning times apart): every
    episode starts from its own seed, and torch runs on one thread in each process.

    Args:
        load: Makes task and policy, once in each process.
        episodes: How many, at least 1.
        seed: First evaluation seed; see `robo.evaluate.rollout.FIRST_SEED`.
        workers: Processes; 1 runs in this one.
        mismatch: Relative bound of payload and servo gain errors, drawn from the episode's seed.
        delay_s: Commands act up to this much later, drawn likewise [s].
        policy: Name of the policy, for the records.
        on_rollout: Called with every rollout, in order of finishing, in this process.

    Raises:
        RoboError: The policy, the task or the environment refuses; or a worker process died.
    """
    if episodes < 1 or workers < 1 or seed < 0:
        raise RoboError(
            f"cannot evaluate {episodes} episodes from seed {seed} with {workers} workers; "
            "give at least one of each and a seed of 0 or more"
        )
    seeds = range(seed, seed + episodes)
    done: dict[int, Episode] = {}
    task = ""
    for rollout in _rollouts(
        load, seeds, min(workers, episodes), partial(open_world, mismatch=mismatch, delay_s=delay_s), policy
    ):
        task = rollout.task
        done[rollout.seed] = Episode.of(rollout)
        if on_rollout is not None:
            on_rollout(rollout)
    found = tuple(done[s] for s in seeds)
    return Evaluation(task=task, policy=policy, seed=seed, mismatch=mismatch, delay_s=delay_s, episodes=found)


def _rollouts(load: Load, seeds: Sequence[int], workers: int, enter: Enter, name: str) -> Iterator[Rollout]:
    if workers == 1:
        with one_thread():
            runner = _Runner(load, enter, name)
            try:
                for seed in seeds:
                    yield runner(seed)
            finally:
                runner.close()
        return
    context = process_context()
    with ProcessPoolExecutor(workers, context, initializer=_start, initargs=(load, enter, name)) as pool:
        left = {pool.submit(_run, seed) for seed in seeds}
        try:
            while left:
                ready, left = wait(left, return_when=FIRST_COMPLETED)
                for future in ready:
                    yield future.result()
        except BrokenProcessPool as error:
            raise RoboError("a worker process died (out of memory?); try again with --workers 1") from error
        finally:
            for future in left:
                future.cancel()


class _Runner:
    """Policy and world of one process."""

    def __init__(self, load: Load, enter: Enter, name: str) -> None:
        task, self.policy = load()
        self.name = name
        self.world = enter(task)

    def __call__(self, seed: int) -> Rollout:
        return self.world.roll_out(self.policy, seed, self.name)

    def close(self) -> None:
        self.world.close()


_runner: _Runner | None = None
_failure = ""


def _start(load: Load, enter: Enter, name: str) -> None:
    global _runner, _failure
    import torch

    # Ctrl-C reaches every process of a terminal; the one that asked for the work ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    torch.set_num_threads(1)
    try:
        _runner = _Runner(load, enter, name)
    except RoboError as error:
        # An error in an initializer would only break the pool; the first episode tells it instead.
        _failure = str(error)


def _run(seed: int) -> Rollout:
    if _runner is None:
        raise RoboError(_failure)
    try:
        return _runner(seed)
    except RoboError as error:
        # Not every error of the tree survives the way between processes; its text does.
        raise RoboError(str(error)) from None


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread within the block: the same bits whatever the number of cores, and no contention."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
