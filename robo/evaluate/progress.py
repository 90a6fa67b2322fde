"""How far an evaluation is: a bar in a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

_PLAIN_PERIOD_S = 10.0


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[str], None]]:
    """Shows progress within the block; call what it gives after every finished item, with a remark."""
    console = Console()
    done = 0
    if console.is_terminal:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[remark]}"),
        )
        with Progress(*columns, console=console) as bar:
            task = bar.add_task(what, total=total, remark="")
            yield lambda remark: bar.update(task, advance=1, remark=remark)
        return
    began = said = time.monotonic()

    def plain(remark: str) -> None:
        nonlocal done, said
        done, now = done + 1, time.monotonic()
        if now - said >= _PLAIN_PERIOD_S or done == total:
            said = now
            left_s = (now - began) / done * (total - done)
            print(f"{what} {done}/{total}, {left_s:.0f} s left, {remark}", flush=True)

    yield plain
