"""How far something long is: a bar in a terminal, now and then a line elsewhere; on stderr, results have stdout."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_FIRST_S, _PERIOD_S = 1.0, 10.0
"""When the first line comes where there is no terminal, and how long after it the next."""


@contextmanager
def progress(what: str, total: int, done: int = 0) -> Iterator[Callable[[str], None]]:
    """Shows progress within the block; call what it gives after every finished item, with a remark.

    Args:
        what: What is counted, in the plural (``"steps"``).
        total: How many there are.
        done: How many were done before.
    """
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console, began, first = Console(stderr=True), time.monotonic(), done

    def rate(now: float) -> float:
        return (done - first) / max(now - began, 1e-9)

    if console.is_terminal:
        columns = (
            BarColumn(bar_width=16),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TextColumn("ETA"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[remark]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, completed=done, rate="", remark="")

            def draw(remark: str) -> None:
                nonlocal done
                done += 1
                bar.update(task, completed=done, rate=f"{rate(time.monotonic()):.1f} {what}/s", remark=remark)

            yield draw
        return

    due = began + _FIRST_S

    def say(remark: str) -> None:
        nonlocal done, due
        done, now = done + 1, time.monotonic()
        if now >= due or done == total:
            due = now + _PERIOD_S
            left_s = (total - done) / max(rate(now), 1e-9)
            print(
                f"{what} {done}/{total}  {rate(now):.1f}/s  ETA {left_s:.0f} s  {remark}", file=sys.stderr, flush=True
            )

    yield say
