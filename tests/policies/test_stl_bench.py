"""The benchmark that puts ours beside planners and SAC; its cells are measured once."""

from __future__ import annotations

import json

import pytest

from robo.bench import Rate
from robo.bench.cells import Cells
from robo.bench.stl import _row, _sign_test, stl_bench, summarise
from robo.core.errors import ConfigError, UnknownNameError
from robo.evaluate.evaluation import Episode
from robo.train.config import resolve
from robo.train.loop import train


def test_the_benchmark_puts_them_side_by_side(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    options = {"train.steps": "3", "train.batch": "8", "train.pool": "16", "train.width": "8", "plan.samples": "64"}
    train(resolve("bench/rover", options | {"plan.iterations": "4", "plan.rounds": "1"}))
    wanted = {"states": 6, "baselines": ["mppi-compiled", "milp"], "baseline_states": 2, "budget": 2}
    report = stl_bench(tasks=["rover"], results="cells", **wanted)  # type: ignore[arg-type]
    assert capsys.readouterr().err.count("measuring rover-") == 3, "milp's cannot be"
    ours, mppi = report.rows
    assert (ours["policy"], mppi["policy"]) == ("ours", "mppi-compiled")
    assert ours["satisfied, of satisfiable"].value >= ours["satisfied, of all"].value
    assert ours["unsafe of certified"] == 0 and 0 <= ours["plans [%]"] <= 100 and ours["training [min]"] >= 0
    assert mppi["decision p50 [ms]"] > ours["decision p50 [ms]"] and mppi["ours decides faster"].endswith(" times")
    assert any("rover, milp: task bench/rover is no mixed-integer linear program" in note for note in report.notes)
    again = stl_bench(tasks=["rover"], results="cells", **wanted)  # type: ignore[arg-type]
    assert again.rows == report.rows
    assert capsys.readouterr() == ("", ""), "nothing is measured twice"
    cell = json.loads((tmp_path / "cells/rover-ours.json").read_text())
    assert cell["inputs"]["states"] == 6 and len(cell["result"]["first_ms"]) == 6 and cell["machine"]


def test_what_does_not_exist_is_named() -> None:
    for wrong, message in (({"tasks": ["cars"]}, "did you mean 'car'"), ({"baselines": ["cme"]}, "did you mean 'cem'")):
        with pytest.raises(UnknownNameError, match=message):
            stl_bench(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="baseline_states"):
        stl_bench(states=1, baseline_states=2)


def _episode(seed: int, satisfied: bool, certified: bool = False, unsafe: bool = False) -> Episode:
    return Episode(
        seed=seed,
        rho=1.0 if satisfied else -1.0,
        satisfied=satisfied,
        success=satisfied,
        violations=("hit",) if unsafe else (),
        backup=0.0,
        refinement=0.0,
        plan_ms=(10.0, 1.0, 1.0),
        plans=float(satisfied),
        certified=certified,
    )


def test_rows_count_what_is_possible_and_what_was_promised() -> None:
    episodes = [_episode(0, True, True), _episode(1, False, False, True), _episode(2, False, True, True)]
    ours = summarise(episodes) | {"train_s": 90.0}
    theirs = summarise([_episode(0, False), _episode(1, False), _episode(2, True)]) | {"train_s": 0.0}
    hopeless = {"proven": {1}, "not found": set()}
    row = _row("car", "ours", ours, ours, hopeless, 0)
    assert row["satisfied, of satisfiable"] == Rate.of(1, 2) and row["satisfied, of all"] == Rate.of(1, 3)
    assert row["unsatisfiable"] == "1 proven, 0 not found" and row["unsafe of certified"] == 1
    assert row["certified [%]"] == pytest.approx(66.7) and row["decision p50 [ms]"] == 1.0
    assert row["first decision [ms]"].value == pytest.approx(10.0) and row["training [min]"] == 1.5
    other = _row("car", "grad", theirs, ours, hopeless, 0)
    assert other["against ours"] == "+1 -1, p = 0.75" and other["ours decides faster"] == "10 times"


def test_the_sign_test() -> None:
    assert _sign_test(0, 0) == 1.0 and _sign_test(5, 0) == pytest.approx(1 / 32) and _sign_test(0, 5) == 1.0


def test_cells_are_measured_again_when_their_inputs_change(tmp_path) -> None:
    calls: list[int] = []

    def measure() -> dict[str, int]:
        calls.append(1)
        return {"value": len(calls)}

    cells = Cells(tmp_path, "a machine")
    assert cells.get("a/b", {"n": 1}, measure) == {"value": 1, "machine": "a machine"}
    assert Cells(tmp_path, "another").get("a/b", {"n": 1}, measure) == {"value": 1, "machine": "a machine"}
    assert cells.get("a/b", {"n": 2}, measure)["value"] == 2
    assert Cells(None, "").get("a/b", {"n": 2}, measure)["value"] == 3
