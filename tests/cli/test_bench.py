"""robo-bench: names, options, tables, JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Literal

import pytest

from robo import bench
from robo.bench import Rate, Report
from robo.cli.bench import _show, main


def long_bench(missing: bool = True) -> Report:
    """Takes hours where something is missing."""
    return Report(title="Long", rows=[{"trained": missing}], seeds=[], notes=[])


def toy_bench(
    episodes: int = 3, sizes: Sequence[int] = (64, 96), run: str = "runs/toy/last", way: Literal["up", "down"] = "up"
) -> Report:
    """Counts to three.

    Args:
        episodes: How far.
    """
    rows = [{"size": size, "rate [1/s]": 0.123456, "label": f"{episodes} of {run}"} for size in sizes]
    return Report(title="Toy", rows=[*rows, {"size": 1, "more": "x"}], seeds=list(range(episodes)), notes=["noted"])


@pytest.fixture(autouse=True)
def benches(monkeypatch):
    for name in list(bench.BENCHES):
        monkeypatch.delitem(bench.BENCHES, name)
    monkeypatch.setitem(bench.BENCHES, "toy", f"{__name__}:toy_bench")


def test_every_registered_benchmark_is_there(monkeypatch):
    monkeypatch.undo()
    for name in bench.BENCHES:
        found = bench.find(name)
        assert found.__doc__, name
        assert all(parameter.default is not parameter.empty for parameter in bench.options(found).values()), name


def test_table(capsys):
    assert main(["toy"]) == 0
    printed = capsys.readouterr().out
    for text in ("Toy", "rate [1/s]", "0.1235", "3 of runs/toy/last", "machine: ", "seeds: 0..2", "noted"):
        assert text in printed


def test_options(capsys):
    assert main(["toy", "--episodes", "5", "--sizes=32,48", "--run", "x", "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert [row["size"] for row in report["rows"]] == [32, 48, 1]
    assert report["rows"][0]["label"] == "5 of x"
    assert report["seeds"] == [0, 1, 2, 3, 4]
    assert report["hardware"]


def test_all_into_a_file_begins_no_trainings_of_hours(capsys, monkeypatch, tmp_path):
    monkeypatch.setitem(bench.BENCHES, "long", f"{__name__}:long_bench")
    assert main(["all", "--json", str(tmp_path / "out.json")]) == 0
    assert "written: " in capsys.readouterr().out
    found = json.loads((tmp_path / "out.json").read_text())
    assert list(found) == ["toy", "long"] and found["long"]["rows"] == [{"trained": False}]
    assert main(["long", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == [{"trained": True}]


def test_markdown(capsys):
    assert main(["toy", "--markdown"]) == 0
    printed = capsys.readouterr().out
    assert "| size | rate [1/s] | label | more |\n| --- | --- | --- | --- |\n| 64 | 0.1235 |" in printed


def test_help(capsys):
    assert main(["--help"]) == 0
    assert main(["toy", "--help"]) == 0
    printed = capsys.readouterr().out
    assert "usage: robo-bench" in printed
    assert "--episodes (default: 3)" in printed
    assert "Counts to three." in printed


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["tyo"], "unknown benchmark 'tyo': did you mean 'toy'?"),
        (["toy", "--episode", "3"], "unknown option '--episode': did you mean '--episodes'?"),
        (["toy", "extra"], "unknown option 'extra'"),
        (["toy", "--episodes"], "option --episodes needs a value"),
        (["toy", "--episodes", "many"], "option --episodes must be int, not 'many'"),
        (["toy", "--way", "left"], "option --way must be one of up, down, not 'left'"),
        (["toy", "--sizes", "a"], "option --sizes must be int, more of them after commas, not 'a'"),
        (["all", "--episodes", "3"], "'all' takes no options"),
    ],
)
def test_bad_input(capsys, words, message):
    assert main(words) == 2
    assert message in capsys.readouterr().err


def test_rates_are_numbers_for_machines_and_text_for_people(capsys, monkeypatch):
    assert str(Rate.of(199, 200)) == "99.5 % [97.2, 99.9]"
    monkeypatch.setattr(
        f"{__name__}.toy_bench", lambda: Report(title="T", rows=[{"a": Rate.of(1, 2)}], seeds=[], notes=[])
    )
    assert main(["toy", "--json"]) == 0
    rate = json.loads(capsys.readouterr().out)["rows"][0]["a"]
    assert rate["value"] == 0.5
    assert 0 < rate["low"] < 0.5 < rate["high"] < 1


def test_a_table_that_is_too_wide_is_printed_row_by_row(monkeypatch, capsys) -> None:
    wide = {f"column {i}": f"value {i}" for i in range(20)}
    report = Report(title="wide", rows=[wide, {"column 0": "other"}], seeds=[0], notes=[])
    _show(report, "a machine", markdown=False)
    out = capsys.readouterr().out
    assert "  column 19:                   value 19\n" in out and "  column 0:                    other\n" in out
    _show(Report(title="narrow", rows=[{"a": 1, "b": 2}], seeds=[0], notes=[]), "a machine", markdown=False)
    assert "a:" not in capsys.readouterr().out.replace("machine: a", "")
