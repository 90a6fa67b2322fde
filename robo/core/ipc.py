"""Processes that work side by side, and what they share. numpy and the standard library only.

A helper process is `python -m MODULE`: it gets its configuration as one line of JSON,
answers in lines of JSON, and ends when its parent does. What passes at a rate goes
through anonymous shared memory (`memfd`) that has no name: nothing is left behind, however a
process ends. Everything shared is a record of float64 arrays, laid out by a JSON-able `Layout`.
"""

from __future__ import annotations

import json
import mmap
import os
import select
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from robo.core.errors import RoboError

Layout = Mapping[str, Sequence[int]]
"""Names → shapes of the float64 arrays of a record."""

Values = Mapping[str, Any]
"""Names → arrays or numbers, of a record."""

_HEADER = 64  # a cache line of its own


def record_dtype(layout: Layout) -> np.dtype:
    """The numpy record type of a layout."""
    return np.dtype([(name, "<f8", tuple(int(n) for n in shape)) for name, shape in layout.items()])


class Shared:
    """A piece of anonymous shared memory.

    Args:
        size: Bytes.
        fd: Descriptor inherited from the process that made it; None makes it. It belongs to this object.
    """

    def __init__(self, size: int, fd: int | None = None) -> None:
        self.fd = os.memfd_create("robo") if fd is None else fd
        if fd is None:
            os.ftruncate(self.fd, size)
        self.memory = memoryview(mmap.mmap(self.fd, size))

    def close(self) -> None:
        """Give the descriptor back; the memory goes with the last process that maps it."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Slot(Shared):
    """The newest record of one writer, for any number of readers, without locks.

    Two buffers: the writer fills the one that is not the newest, then publishes it. A
    reader takes a record only when its stamp stood still and its checksum fits, so a torn
    read is noticed on any processor, whatever its memory order.

    Args:
        layout: What a record holds.
        fd: See `Shared`.
    """

    def __init__(self, layout: Layout, fd: int | None = None) -> None:
        self.dtype = record_dtype(layout)
        size, stride = self.dtype.itemsize, _HEADER + self.dtype.itemsize + -self.dtype.itemsize % 8
        super().__init__(_HEADER + 2 * stride, fd)
        words = np.frombuffer(self.memory, np.uint64)
        self._newest = words[:1]
        starts = (_HEADER, _HEADER + stride)
        self._stamps = [words[s // 8 : s // 8 + 2] for s in starts]
        self._bytes = [self.memory[s + _HEADER : s + _HEADER + size] for s in starts]
        scratch = np.zeros(1, self.dtype)
        self._scratch, self._scratch_bytes = scratch[0], scratch.view(np.uint8).data

    @property
    def count(self) -> int:
        """How many records have been written."""
        return int(self._newest[0])

    def write(self, values: Values) -> None:
        """Publish a record; every name of the layout must be given."""
        for name in self.dtype.names or ():
            self._scratch[name] = values[name]
        number = self.count + 1
        stamp, target = self._stamps[number % 2], self._bytes[number % 2]
        stamp[0] = 0
        target[:] = self._scratch_bytes
        stamp[1] = zlib.crc32(self._scratch_bytes)
        stamp[0] = number
        self._newest[0] = number

    def read(self) -> tuple[int, np.void] | None:
        """Number of the newest record (1, 2, ...) and the record, read-only; None before the first.

        Raises:
            RoboError: The memory does not hold a whole record (its writer runs wild).
        """
        for _ in range(1000):
            number = self.count
            if number == 0:
                return None
            stamp = self._stamps[number % 2]
            data, checksum = bytes(self._bytes[number % 2]), int(stamp[1])
            if int(stamp[0]) == number and zlib.crc32(data) == checksum:
                return number, np.frombuffer(data, self.dtype)[0]
        raise RoboError("shared memory holds no whole record; its writer does not behave")


class Ring(Shared):
    """The last records of one writer, in order, for one reader that may lag.

    Args:
        layout: What a record holds.
        capacity: How many records a reader may lag before it loses some.
        fd: See `Shared`.
    """

    def __init__(self, layout: Layout, capacity: int, fd: int | None = None) -> None:
        self.dtype, self.capacity = record_dtype(layout), capacity
        super().__init__(_HEADER + capacity * self.dtype.itemsize, fd)
        self._count = np.frombuffer(self.memory, np.uint64, 1)
        self.rows = np.frombuffer(self.memory, self.dtype, capacity, _HEADER)
        self._read = 0

    def append(self, values: Values) -> None:
        """Write a record; names that are left out keep NaN."""
        count = int(self._count[0])
        row = self.rows[count % self.capacity]
        for name in self.dtype.names or ():
            row[name] = values.get(name, np.nan)
        self._count[0] = count + 1

    def drain(self) -> np.ndarray:
        """Records since the last call, oldest first; a reader that lags too far gets only the newest."""
        end = int(self._count[0])
        start = max(self._read, end - self.capacity)
        rows = self.rows[np.arange(start, end) % self.capacity]
        # What the writer overwrote while it was being copied is not whole.
        torn = max(0, int(self._count[0]) + 1 - self.capacity - start)
        self._read = end
        return rows[torn:] if torn else rows


class Bell:
    """Wakes another process (an eventfd).

    Args:
        fd: Descriptor inherited from the process that made it; None makes it.
    """

    def __init__(self, fd: int | None = None) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) if fd is None else fd

    def ring(self) -> None:
        """Wake whoever waits; never blocks."""
        os.eventfd_write(self.fd, 1)

    def wait(self, timeout_s: float) -> bool:
        """Wait for a ring; False when none came in time."""
        if not select.select([self.fd], [], [], timeout_s)[0]:
            return False
        os.eventfd_read(self.fd)
        return True

    def close(self) -> None:
        """Give the descriptor back."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


class Child:
    """A helper process, seen from its parent.

    Args:
        module: Run as ``python -m MODULE``; its main hands over to `serve`.
        config: JSON-able configuration.
        fds: Descriptors it inherits, under the same numbers.
        what: What it is, for error texts.
        error: What is raised when it fails.
    """

    def __init__(
        self,
        module: str,
        config: Mapping[str, Any],
        fds: Sequence[int],
        what: str,
        error: type[RoboError] = RoboError,
    ) -> None:
        self.what, self.error = what, error
        # Children import what we import, wherever it was found.
        paths = os.pathsep.join(p or os.getcwd() for p in sys.path)
        one_thread = {name: "1" for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")}
        self._process = subprocess.Popen(
            # -P: what lies in the working directory does not get in front of our own modules.
            [sys.executable, "-P", "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=fds,
            # Of its own session: Ctrl-C reaches the parent alone, which ends its children in order.
            start_new_session=True,
            env=os.environ | one_thread | {"PYTHONPATH": paths},
        )
        assert self._process.stdin is not None and self._process.stdout is not None
        self._lifeline, self._answers = self._process.stdin, self._process.stdout
        os.set_blocking(self._answers.fileno(), False)
        self._partial, self._pending = b"", []
        with suppress(BrokenPipeError):  # it died at once; whoever waits for its first answer is told
            self._lifeline.write(json.dumps(config).encode() + b"\n")
            self._lifeline.flush()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it still runs."""
        return self._process.poll() is None

    @property
    def exit_code(self) -> int | None:
        """Exit status, negative for a signal; None while it runs."""
        return self._process.poll()

    def said(self) -> list[dict[str, Any]]:
        """What it said since the last call; never waits."""
        try:
            while piece := os.read(self._answers.fileno(), 1 << 16):
                self._partial += piece
        except BlockingIOError:
            pass
        *lines, self._partial = self._partial.split(b"\n")
        return [json.loads(line) for line in lines]

    def poll_answer(self) -> dict[str, Any] | None:
        """Its next answer, if there is one; never waits.

        Raises:
            RoboError: It answered with an error, or ended.
        """
        alive = self.alive  # asked first: what it said before it ended still counts
        self._pending += self.said()
        if self._pending:
            answer = self._pending.pop(0)
            if "error" in answer:
                raise self.error(answer["error"])
            return answer
        if not alive:
            raise self.error(f"{self.what} ended with status {self.exit_code}; what it said stands above")
        return None

    def wait_answer(self, timeout_s: float) -> dict[str, Any]:
        """Its next answer.

        Raises:
            RoboError: It answered with an error, ended, or said nothing in time.
        """
        deadline = time.monotonic() + timeout_s
        while (answer := self.poll_answer()) is None:
            left = deadline - time.monotonic()
            if left <= 0:
                raise self.error(f"{self.what} was not ready within {timeout_s:g} s")
            select.select([self._answers], [], [], min(left, 0.2))
        return answer

    def signal(self, number: int) -> None:
        """Send a signal, if it still runs."""
        if self.alive:
            self._process.send_signal(number)

    def end(self, timeout_s: float = 2.0) -> None:
        """Cut its lifeline, wait for its end, kill it when it takes too long. Twice does no harm."""
        with suppress(BrokenPipeError):
            self._lifeline.close()
        try:
            self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._answers.close()


class Parent:
    """The parent, seen from a helper process."""

    def __init__(self, pipe: int) -> None:
        self._pipe = pipe

    def tell(self, **answer: Any) -> None:
        """Send one line of JSON; quietly nothing when the parent is gone."""
        with suppress(BrokenPipeError, BlockingIOError):
            os.write(self._pipe, json.dumps(answer).encode() + b"\n")

    @staticmethod
    def gone() -> bool:
        """Whether the parent ended or cut the lifeline; never waits."""
        return bool(select.select([0], [], [], 0)[0]) and not os.read(0, 1)


def serve(body: Callable[[dict[str, Any], Parent], None], dies_with_parent: bool = True) -> int:
    """Run the body of a helper process; returns its exit status.

    Args:
        body: Gets the configuration and the parent. A `RoboError` it raises is told to the parent.
        dies_with_parent: End at once, wherever the body is, when the parent ends; otherwise the body
            asks `Parent.gone` itself.
    """
    # What a library or a user's file prints must not get between the answers.
    parent = Parent(os.dup(1))
    os.dup2(2, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    line = bytearray()
    while not line.endswith(b"\n"):
        piece = os.read(0, 1 << 20)
        if not piece:
            return 1
        line += piece
    if dies_with_parent:

        def lifeline() -> None:
            os.read(0, 1)
            os._exit(1)

        threading.Thread(target=lifeline, daemon=True, name="lifeline").start()
    try:
        body(json.loads(line), parent)
    except RoboError as error:
        parent.tell(error=str(error))
        return error.exit_code
    return 0
