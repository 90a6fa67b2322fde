"""The online monitor: time per sample, however long the windows are, beside rtamt's."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from robo.bench import Median, Report
from robo.core.errors import ConfigError, MissingDependencyError, RoboError
from tasks.stl import parse

FORMULAS = {
    "G[0,w](x > 0)": "G[0,{w}](x > 0)",
    "G[0,w](F[0,w](x > 0))": "G[0,{w}](F[0,{w}](x > 0))",
    "F[0,w](G[0,w](x > 0) and F[0,w](y > 0))": "F[0,{w}](G[0,{w}](x > 0) and F[0,{w}](y > 0))",
    "G[0,w]((x > 0) U[0,w] (y > 0))": "G[0,{w}]((x > 0) U[0,{w}] (y > 0))",
    "G[0,w](O[0,w](x > 0))": "G[0,{w}](O[0,{w}](x > 0))",
}
"""What is written in the table → text, for windows of w samples one second apart."""
PEER_MOST = 1000
"""Longest windows that rtamt is given: it looks at the whole window at every sample."""


def monitor_bench(windows: Sequence[int] = (10, 100, 1000, 10000), peer: bool = True, seed: int = 0) -> Report:
    """Time that the monitor takes for a sample, until the formula is decided, on random walks that decide it late.

    Both are fed one sample at a time and say after each what they know. Ours: the interval in which the robustness at
    the start will end up. rtamt: the robustness of the formula rewritten to look back, for which it too keeps windows.

    Args:
        windows: Lengths w of the windows [samples].
        peer: Measure rtamt too, up to windows of 1,000 samples.
        seed: Of the random walks.

    Raises:
        MissingDependencyError: rtamt is not installed.
    """
    if min(windows, default=0) < 1:
        raise ConfigError(f"windows must be positive whole numbers, not {list(windows)}")
    rows = []
    for shown, text in FORMULAS.items():
        for width in windows:
            formula = parse(text.format(w=width))
            samples = int(formula.horizon(1.0)) + 1
            walk = np.cumsum(np.random.default_rng(seed).normal(size=(2, samples)), axis=1)
            signals = {"x": walk[0].tolist(), "y": walk[1].tolist()}
            taken, value = _ours(text.format(w=width), signals)
            wanted = float(formula.rho({k: np.array(v) for k, v in signals.items()}, 1.0)[0])
            if value != wanted:
                raise RoboError(f"{formula}: the monitor ends at {value}, offline it is {wanted}")
            row = {
                "formula": f"`{shown}`",
                "w [samples]": width,
                "samples": len(taken),
                "ours, median [us]": Median.of(1e6 * np.array(taken)),
                "ours, mean [us]": round(1e6 * float(np.mean(taken)), 1),
                "ours, p99 [us]": round(1e6 * float(np.percentile(taken, 99)), 1),
            }
            if peer and width <= PEER_MOST:
                theirs = _rtamt(text.format(w=width), signals)
                row["rtamt, mean [us]"] = round(1e6 * theirs, 1)
                row["ours is faster, mean"] = f"{theirs / float(np.mean(taken)):.3g} times"
            rows.append(row)
    return Report(
        title="Online monitoring: time for a sample",
        rows=rows,
        seeds=[seed],
        notes=[
            "the monitor's last value was equal to the robustness of the whole trace, for every row",
            "ours stops when the formula is decided; one thread, plain Python",
        ],
    )


def _ours(text: str, signals: dict[str, list[float]]) -> tuple[list[float], float]:
    """Seconds of every sample, and the value it ends at."""
    monitor, taken = parse(text).monitor(1.0), []
    for x, y in zip(signals["x"], signals["y"], strict=True):
        sample = {"x": x, "y": y}
        began = time.perf_counter()
        interval = monitor.update(sample)
        taken.append(time.perf_counter() - began)
        if interval.lo == interval.hi:
            break
    return taken, interval.lo


def _rtamt(text: str, signals: dict[str, list[float]]) -> float:
    """Mean seconds of a sample."""
    try:
        import rtamt
    except ImportError as error:
        raise MissingDependencyError("the peer rtamt is not installed: pip install rtamt, or --peer false") from error
    monitor = rtamt.StlDiscreteTimeOnlineSpecification()
    for name in signals:
        monitor.declare_var(name, "float")
    monitor.spec = text
    monitor.parse()
    monitor.pastify()
    count = min(len(signals["x"]), 2000)
    began = time.perf_counter()
    for k in range(count):
        monitor.update(k, [(name, value[k]) for name, value in signals.items()])
    return (time.perf_counter() - began) / count
