"""A long run of random actions over all tabletop tasks: nothing breaks, nothing grows."""

from __future__ import annotations

import gc
import sys
import time
from collections.abc import Sequence

import numpy as np
import psutil

from robo.bench import Report
from robo.bench.tasks import tabletop_names
from robo.core.errors import ConfigError, NonFiniteError
from sim.batch import TabletopBatch
from sim.randomise import Randomisation

CHANGE_STEPS = 10
"""A new action is drawn so often."""
PARTS = 5
"""Memory is read after each of so many equal parts of the run; the first one fills caches."""
_MB = 1e6


def soak_bench(steps: int = 1_000_000, tasks: Sequence[str] = (), worlds: int = 16, seed: int = 0) -> Report:
    """Random motions of tool and gripper, worlds off by up to a tenth, shared out evenly over the tasks.

    Every observation and reward must be finite, every step must return; memory of the process is read after each of
    five parts, each of which goes through all tasks.

    Args:
        steps: Control steps in all.
        tasks: Which; empty: all there are.
        worlds: That step together.
        seed: Of actions and episodes.

    Raises:
        RoboError: Physics blew up, or something is not finite.
    """
    if min(steps, worlds) < 1:
        raise ConfigError("steps and worlds must be at least 1")
    names = list(tasks) or tabletop_names()
    rng, process, memory_mb = np.random.default_rng(seed), psutil.Process(), []
    taken = dict.fromkeys(names, 0.0)
    counts = dict.fromkeys(names, 0)
    turns = max(1, -(-steps // (PARTS * len(names) * worlds)))
    for part in range(PARTS):
        for name in names:
            print(f"part {part + 1} of {PARTS}: {name} ...", file=sys.stderr, flush=True)
            batch = TabletopBatch(name, worlds, control="ee_delta", randomise=Randomisation.mismatch(0.1))
            low, high = batch.worlds[0].command.low, batch.worlds[0].command.high
            batch.reset(seed=seed + part * worlds)
            action = np.zeros((worlds, len(low)))
            began = time.perf_counter()
            for k in range(turns):
                if k % CHANGE_STEPS == 0:
                    action = rng.uniform(low, high, action.shape)
                obs, reward, *_ = batch.step(action)
                if not (np.isfinite(reward).all() and all(np.isfinite(value).all() for value in obs.values())):
                    raise NonFiniteError(f"{name}: something that is observed is not finite at step {k}")
            taken[name] += time.perf_counter() - began
            counts[name] += turns * worlds
            batch.close()
            del batch
        gc.collect()
        memory_mb.append(process.memory_info().rss / _MB)
    rows = [
        {"task": name, "control steps": counts[name], "control steps/s": round(counts[name] / taken[name])}
        for name in names
    ]
    growth = memory_mb[-1] - memory_mb[0]
    return Report(
        title="Random actions without end",
        rows=rows,
        seeds=[seed],
        notes=[
            f"{sum(counts.values())} control steps, all finite",
            f"memory after each part [MB]: {', '.join(f'{m:.0f}' for m in memory_mb)}; grew by {growth:+.1f} MB "
            "from the first to the last",
        ],
    )
