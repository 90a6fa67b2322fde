"""The benchmark of the STL engine measures what it says, and compares before it times."""

from __future__ import annotations

import numpy as np
import pytest

from robo.bench import Median
from robo.bench import stl_engine as bench
from robo.core.errors import ConfigError, RoboError


def test_every_row_stands_beside_its_peer() -> None:
    report = bench.stl_engine_bench(batch=2, samples=120, turns=20, share=1)
    assert [row["by"] for row in report.rows] == [
        *("ours", "stlcgpp, 1 traces", "rtamt, 1 trace"),
        *("ours", "stlcgpp, 1 traces", "rtamt, 1 trace"),
        *("ours", "stlcgpp, 1 traces"),
        *("ours", "stlcgpp, 1 traces"),
        "ours",
    ]
    for row in report.rows:
        assert row[bench.FORWARD].value > 0
        if row["by"] == "ours":
            assert row[bench.FORWARD].low <= row[bench.FORWARD].value <= row[bench.FORWARD].high
            assert row[bench.BOTH].value > row[bench.FORWARD].value
        else:
            assert row["ours is faster, forward"] > 1
    assert sum("bytes" in note or "GB/s" in note for note in report.notes) == 2


def test_a_peer_that_disagrees_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "_rtamt", lambda formula, signals: ([1.0], np.zeros(120)))
    with pytest.raises(RoboError, match="rtamt gives other values than ours"):
        bench.stl_engine_bench(batch=1, samples=120, turns=1, share=1)


def test_sizes_are_checked() -> None:
    with pytest.raises(ConfigError, match="samples=100"):
        bench.stl_engine_bench(samples=100)


def test_the_interval_of_a_median_covers_it() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(400):
        found = Median.of(rng.exponential(size=60))
        assert found.low is not None and found.high is not None
        covered += found.low <= np.log(2) <= found.high
    assert 0.93 <= covered / 400 <= 0.99
    assert Median.of([3.0, 1.0, 2.0]) == Median(2.0) and str(Median(2.0)) == "2"
    assert str(Median.of(np.arange(100.0))).startswith("49.5 [")
