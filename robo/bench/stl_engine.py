"""The STL engine beside other libraries: robustness and its gradient, in one process, one thread, the same traces."""

from __future__ import annotations

import copy
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from robo.bench import Median, Report
from robo.core.errors import ConfigError, MissingDependencyError, RoboError

if TYPE_CHECKING:
    from torch import Tensor

FORWARD, BOTH = "forward [ms]", "forward + backward [ms]"
INSIDE = 30
"""Samples whose windows all lie inside the trace: beyond its end smooth values need no agreement."""
AGREES = 1e-4
"""How far the peers' values may be from ours, inside the trace [unit of the signals]."""


def stl_engine_bench(
    batch: int = 256, samples: int = 1000, seed: int = 0, turns: int = 100, peers: bool = True, share: int = 256
) -> Report:
    """Time of robustness of a whole batch at every sample, forward and with backward, beside stlcgpp and rtamt.

    Values are compared before anything is timed. Ours: the median of many turns with a 95 % interval of it. The
    slow peers get three turns, one where a turn takes longer than 10 s; rtamt takes one trace at a time.

    Args:
        batch: Traces.
        samples: Samples of each.
        seed: Of the traces.
        turns: Turns of ours per row.
        peers: Measure the others as well; they need some 12 GB for the whole batch.
        share: Traces that stlcgpp gets. Fewer than the batch are scaled up, in its favour: it then moves less memory.

    Raises:
        MissingDependencyError: stlcgpp or rtamt is not installed.
        ConfigError: No traces, samples or turns.
    """
    import torch

    if min(batch, turns) < 1 or samples < 120:
        raise ConfigError(f"needs traces, turns and 120 samples, not batch={batch}, turns={turns}, samples={samples}")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return _measure(batch, samples, seed, turns, peers, min(share, batch))
    finally:
        torch.set_num_threads(before)


def _measure(batch: int, samples: int, seed: int, turns: int, peers: bool, share: int) -> Report:
    import torch

    from tasks.stl import parse
    from tasks.stl.conventions import from_stlcgpp
    from tasks.stl.smooth import Dgmsr, LogSumExp, Softmax

    generator = torch.Generator().manual_seed(seed)
    x, y = (torch.randn(batch, samples, generator=generator) for _ in range(2))
    nested, until = parse("F[0,50](G[0,20](x > 0))"), parse("(x > 0) U[0,50] (y > 0)")
    short = {"x": x[:, :100].contiguous(), "y": y[:, :100].contiguous()}
    rows: list[dict[str, Any]] = []
    cases: list[tuple[str, Any, dict[str, Tensor], Any, bool]] = [
        ("`F[0,50](G[0,20](x > 0))`", nested, {"x": x}, None, True),
        ("`(x > 0) U[0,50] (y > 0)`", until, short, None, True),
        ("`F[0,50](G[0,20](x > 0))`, log-sum-exp", nested, {"x": x}, LogSumExp(10.0), True),
        ("`F[0,50](G[0,20](x > 0))`, softmax", nested, {"x": x}, Softmax(10.0), True),
        ("`F[0,50](G[0,20](x > 0))`, D-GMSR", nested, {"x": x}, Dgmsr(), False),
    ]
    for name, formula, signals, smooth, known in cases:
        size = f"{batch} x {next(iter(signals.values())).shape[1]}"
        forward, both = _ours(formula, signals, smooth, turns)
        ours = {"formula": f"{name}, {size}", "by": "ours"}
        rows.append(ours | {FORWARD: Median.of(1e3 * forward), BOTH: Median.of(1e3 * both)})
        if peers and known:
            few = {k: v[:share] for k, v in signals.items()}
            theirs, value = _stlcgpp(formula, few, smooth)
            _check(from_stlcgpp(formula).robustness(few, 1.0, smooth)[:, :INSIDE], value[:, :INSIDE], "stlcgpp")
            rows.append(_peer(ours["formula"], f"stlcgpp, {share} traces", rows[-1], theirs, batch / share))
        if peers and smooth is None:
            theirs, value = _rtamt(formula, signals)
            _check(formula.robustness({k: v[:1] for k, v in signals.items()}, 1.0)[0], value, "rtamt")
            ours_row = next(row for row in reversed(rows) if row["by"] == "ours")
            rows.append(_peer(ours["formula"], "rtamt, 1 trace", ours_row, (theirs, None), batch))
    notes = ["one thread; median of many turns, 95 % interval of the median; the peers' values were equal to ours"]
    notes += _bandwidth(x, rows[0])
    return Report(title="STL engine: robustness at every sample", rows=rows, seeds=[seed], notes=notes)


def _bandwidth(x: Tensor, row: dict[str, Any]) -> list[str]:
    """What moving the bytes alone would take."""
    import torch

    # forward: read the signal, write robustness and where it comes from (2 bytes); backward: read these two, write.
    moved = x.numel() * (4 + 4 + 2 + 4 + 2 + 4)
    large, small = torch.empty(2, 64_000_000), torch.empty(2, x.numel())
    lines = []
    for name, block in (("memory", large), ("this machine's caches", small)):
        block.fill_(1.0)
        seconds = np.median(_turns(lambda block=block: block[0].copy_(block[1]), 20))
        speed = 2 * block[0].numel() * 4 / seconds
        limit_ms = 1e3 * moved / speed
        lines.append(
            f"{name}: copies {speed / 1e9:.1f} GB/s, so {moved / 1e6:.1f} MB that must move forward and backward take "
            f"{limit_ms:.3f} ms; ours takes {row[BOTH].value / limit_ms:.1f} times that"
        )
    return lines


def _turns(work: Callable[[], Any], turns: int) -> np.ndarray:
    """Seconds of every turn, after one that is not counted."""
    work()
    taken = np.empty(turns)
    for k in range(turns):
        began = time.perf_counter()
        work()
        taken[k] = time.perf_counter() - began
    return taken


def _few_turns(work: Callable[[], Any]) -> list[float]:
    """Seconds of up to three turns; one where it takes longer than 10 s."""
    taken: list[float] = []
    while len(taken) < 3 and sum(taken) < 10.0:
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return taken


def _ours(formula: Any, signals: dict[str, Tensor], smooth: Any, turns: int) -> tuple[np.ndarray, np.ndarray]:
    import torch

    inputs = {name: value.clone().requires_grad_(True) for name, value in signals.items()}
    weights = torch.ones_like(next(iter(signals.values())))

    def forward() -> None:
        formula.robustness(signals, 1.0, smooth)

    def both() -> None:
        torch.autograd.grad(formula.robustness(inputs, 1.0, smooth), list(inputs.values()), weights)

    return _turns(forward, turns), _turns(both, turns)


def _peer(
    formula: str, by: str, ours: dict[str, Any], theirs: tuple[list[float], list[float] | None], scale: float
) -> dict[str, Any]:
    """A row of a peer, its times scaled up to the whole batch, and how many times faster ours is."""
    row: dict[str, Any] = {"formula": formula, "by": by}
    for column, taken in zip((FORWARD, BOTH), theirs, strict=True):
        if taken is not None:
            row[column] = Median.of(1e3 * scale * np.asarray(taken))
            row[f"ours is faster, {column.removesuffix(' [ms]')}"] = round(row[column].value / ours[column].value)
    return row


def _check(ours: Any, theirs: Any, peer: str) -> None:
    ours = np.asarray(ours.detach()).clip(-1e9, 1e9)
    worst = float(np.abs(ours - np.asarray(theirs).clip(-1e9, 1e9)).max())
    if not worst < AGREES:
        raise RoboError(f"{peer} gives other values than ours (by {worst:.3g}): nothing was timed")


def _stlcgpp(formula: Any, signals: dict[str, Tensor], smooth: Any) -> tuple[tuple[list[float], list[float]], Any]:
    """Seconds (forward, forward + backward) of a batch through `torch.vmap`, and the values."""
    import torch

    try:
        import stlcgpp.formula as peer
    except ImportError as error:
        raise MissingDependencyError("the peer stlcgpp is not installed: pip install stlcgpp, or --peers 0") from error
    x, y = (peer.Predicate(name, lambda s, i=i: s[:, i]) > 0.0 for i, name in enumerate("xy"))
    theirs = peer.Until(x, y, [0, 50]) if "y" in signals else peer.Eventually(peer.Always(x, [0, 20]), [0, 50])
    options = {}
    if smooth is not None:
        options = {"approx_method": type(smooth).__name__.lower(), "temperature": smooth.temperature}
    stacked = torch.stack(list(signals.values()), dim=-1)
    run = torch.vmap(lambda trace: theirs(trace, **options))
    inputs = stacked.clone().requires_grad_(True)

    def both() -> None:
        torch.autograd.grad(run(inputs).sum(), inputs)

    with torch.no_grad():
        value = run(stacked)
        forward = _few_turns(lambda: run(stacked))
    return (forward, _few_turns(both)), value


def _rtamt(formula: Any, signals: dict[str, Tensor]) -> tuple[list[float], list[float]]:
    """Seconds of one trace, and its values."""
    try:
        import rtamt
    except ImportError as error:
        raise MissingDependencyError("the peer rtamt is not installed: pip install rtamt, or --peers 0") from error
    monitor = rtamt.StlDiscreteTimeSpecification()
    for name in signals:
        monitor.declare_var(name, "float")
    monitor.spec = str(formula)
    monitor.parse()
    trace: dict[str, list[float]] = {name: value[0].tolist() for name, value in signals.items()}
    data = {"time": list(range(len(next(iter(trace.values()))))), **trace}
    values = [value for _, value in monitor.evaluate(copy.deepcopy(data))]
    taken = []
    for _ in range(3):
        fresh = copy.deepcopy(data)  # it changes what it is given
        began = time.perf_counter()
        monitor.evaluate(fresh)
        taken.append(time.perf_counter() - began)
    return taken, values
