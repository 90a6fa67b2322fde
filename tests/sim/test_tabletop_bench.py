"""The benchmarks of tabletop tasks measure what they say, in small."""

from __future__ import annotations

import json

import pytest

from robo.bench import tasks as tasks_module
from robo.bench.data import data_bench
from robo.bench.soak import soak_bench
from robo.bench.speed import speed_bench
from robo.bench.tasks import elsewhere, tabletop_names, tasks_bench
from robo.core.errors import ConfigError, UnknownNameError


def test_tasks_are_measured_once_and_read_after_that(tmp_path, monkeypatch) -> None:
    small = dict(tasks=("reach", "push@ur5e"), episodes=2, random_episodes=2, workers=1, results=str(tmp_path))
    report = tasks_bench(**small)
    assert [row["task"] for row in report.rows] == ["reach", "push@ur5e"]
    assert all(row["expert, solved"].value == 1.0 for row in report.rows)
    assert json.loads((tmp_path / "push@ur5e.json").read_text())["result"]["failed"] == []
    monkeypatch.setattr(tasks_module, "_measure", lambda *_: pytest.fail("measured again"))
    assert tasks_bench(**small).rows == report.rows
    assert len(tabletop_names()) == 19 and len(elsewhere()) == 8


def test_a_soak_goes_through_all_tasks_it_is_given() -> None:
    report = soak_bench(steps=400, tasks=("reach", "open_drawer"), worlds=4)
    assert [row["task"] for row in report.rows] == ["reach", "open_drawer"]
    assert any("all finite" in note for note in report.notes)


def test_speed_is_measured_beside_the_bare_loop() -> None:
    ours, bare, batch, threads = speed_bench(seconds=0.5, worlds=4, processes=1, peers=()).rows
    assert ours["control steps/s"] > 0 and bare["control steps/s"] > 0 and threads["control steps/s"] > 0
    assert batch["share of bare [%]"] == pytest.approx(100 * batch["control steps/s"] / threads["control steps/s"])


def test_reading_demonstrations() -> None:
    rows = data_bench(task="reach", episodes=1, processes=1, seconds=0.3, views=("front", "wrist"), size=32).rows
    assert [row["frames with"][:10] for row in rows] == ["1 pictures", "2 pictures"]
    assert all(row["frames/s"] > 0 for row in rows)


def test_what_cannot_be_measured() -> None:
    with pytest.raises(ConfigError, match="at least 1"):
        tasks_bench(episodes=0)
    with pytest.raises(UnknownNameError, match="did you mean 'push'"):
        tasks_bench(tasks=("posh",))
    with pytest.raises(UnknownNameError, match="unknown peer"):
        speed_bench(peers=("robosuit",))
