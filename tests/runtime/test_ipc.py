"""Shared memory and helper processes."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest

from robo.core.errors import RoboError
from robo.core.ipc import Bell, Child, Ring, Slot

LAYOUT = {"number": (), "matrix": (40, 50)}


def test_slot_gives_the_newest_record_and_nothing_before_the_first():
    slot = Slot(LAYOUT)
    assert slot.read() is None
    for i in range(5):
        slot.write({"number": i, "matrix": np.full((40, 50), i)})
    count, record = slot.read() or (0, None)
    assert count == 5 and record is not None
    assert record["number"] == 4 and (record["matrix"] == 4).all()
    with pytest.raises(ValueError, match="read-only"):
        record["matrix"][0, 0] = 1
    slot.close()


def test_slot_is_never_torn_while_another_maps_it_and_writes():
    writer = Slot(LAYOUT)
    reader = Slot(LAYOUT, os.dup(writer.fd))
    done = threading.Event()

    def write() -> None:
        i = 0
        while not done.is_set():
            i += 1
            writer.write({"number": i, "matrix": np.full((40, 50), i)})

    thread = threading.Thread(target=write)
    thread.start()
    last = 0.0
    try:
        while last < 3000:
            newest = reader.read()
            if newest:
                record = newest[1]
                assert (record["matrix"] == record["number"]).all() and record["number"] >= last
                last = record["number"]
    finally:
        done.set()
        thread.join()
        writer.close()
        reader.close()


def test_slot_notices_a_record_that_is_not_whole():
    slot = Slot(LAYOUT)
    slot.write({"number": 1, "matrix": np.zeros((40, 50))})
    slot.memory[-1] = slot.memory[-1] ^ 0xFF
    slot.memory[slot.memory.nbytes // 2 - 8] ^= 0xFF
    with pytest.raises(RoboError, match="no whole record"):
        slot.read()
    slot.close()


def test_ring_keeps_order_and_a_lagging_reader_gets_the_newest():
    ring = Ring({"i": (), "x": (2,)}, capacity=8)
    for i in range(3):
        ring.append({"i": i, "x": (i, i)})
    assert ring.drain()["i"].tolist() == [0, 1, 2]
    assert len(ring.drain()) == 0
    for i in range(3, 20):
        ring.append({"i": i})
    rows = ring.drain()
    # The oldest could be overwritten while it is being read, so it is left out.
    assert rows["i"].tolist() == list(range(13, 20))
    assert np.isnan(rows["x"]).all()
    ring.close()


def test_bell_wakes_once():
    bell = Bell()
    assert not bell.wait(0.0)
    bell.ring()
    bell.ring()
    assert bell.wait(1.0)
    assert not bell.wait(0.0)
    bell.close()


def test_child_reports_its_error_and_ends():
    child = Child("hardware.plant", {"robot": "no_such_arm", "scene": None, "plant": {}, "fds": {}}, (), "the plant")
    with pytest.raises(RoboError, match="no_such_arm"):
        child.wait_answer(30.0)
    child.end()
    child.end()
    assert not child.alive


def test_child_that_dies_without_a_word_is_told_so(capfd: pytest.CaptureFixture[str]):
    child = Child("hardware.plant", {}, (), "the plant")
    with pytest.raises(RoboError, match="the plant ended with status 1"):
        child.wait_answer(30.0)
    child.end()
    assert "KeyError" in capfd.readouterr().err  # a bug keeps its traceback


def gone(pid: int) -> bool:
    """Whether a process has ended, also while nobody has waited for it."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_child_ends_when_its_lifeline_is_cut():
    slots = [Slot({"x": ()}) for _ in range(3)]
    fds = {name: slot.fd for name, slot in zip(("command", "request", "state"), slots, strict=True)}
    child = Child("hardware.plant", {"robot": "panda", "scene": None, "plant": {}, "fds": fds}, [], "the plant")
    child._lifeline.close()
    deadline = time.monotonic() + 30
    while not gone(child.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert gone(child.pid)
    for slot in slots:
        slot.close()
