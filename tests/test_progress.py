"""How far something long is, on a terminal and in a log."""

from __future__ import annotations

import pytest

from robo.core.progress import progress


@pytest.mark.parametrize("terminal", [False, True])
def test_the_last_line_says_all(capsys, monkeypatch, terminal):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1") if terminal else monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.setenv("COLUMNS", "100")
    with progress("steps", 5, done=3) as advance:
        advance("loss 2")
        advance("loss 1")
    last = capsys.readouterr().err.removesuffix("\x1b[?25h").splitlines()[-1]
    for text in ("5/5", "/s", "loss 1", "ETA"):
        assert text in last


def test_a_log_stays_short(capsys):
    with progress("steps", 1000) as advance:
        for _ in range(1000):
            advance("")
    assert 1 <= len(capsys.readouterr().err.splitlines()) <= 3
