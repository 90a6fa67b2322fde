"""Processes of our own begin with what all need, and with nothing that this one holds."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from robo.core.processes import process_context

_HELD: list[int] = []


def _look(pipe) -> None:
    import torch

    torch.set_num_threads(1)
    pipe.send((_HELD, threading.active_count(), os.environ.get("MUJOCO_GL"), torch.ones(2).sum().item()))


def _seen() -> tuple[list[int], int, str | None, float]:
    context = process_context()
    ours, theirs = context.Pipe()
    process = context.Process(target=_look, args=(theirs,), daemon=True)
    process.start()
    theirs.close()
    found = ours.recv()
    process.join()
    assert process.exitcode == 0
    return found


def test_they_hold_nothing_of_this_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(f"{__name__}._HELD", [1])
    waiting = threading.Event()
    thread = threading.Thread(target=waiting.wait)
    thread.start()
    try:
        assert threading.active_count() > 1
        assert _seen() == ([], 1, os.environ.get("MUJOCO_GL"), 2.0)
    finally:
        waiting.set()
        thread.join()


def test_another_renderer_reaches_them(monkeypatch: pytest.MonkeyPatch) -> None:
    process_context()
    other = "osmesa" if os.environ.get("MUJOCO_GL") != "osmesa" else "egl"
    monkeypatch.setenv("MUJOCO_GL", other)
    assert process_context().get_start_method() == "spawn"
    assert _seen()[2] == other


def test_elsewhere_they_are_fresh_interpreters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert process_context().get_start_method() == "spawn"
