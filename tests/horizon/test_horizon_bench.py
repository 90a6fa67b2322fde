"""The benchmark of horizon trains, compares, keeps its cells and goes on with what was interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from robo.bench import Gain, Rate
from robo.bench import horizon as bench
from robo.bench.acting import acting_bench
from robo.core.errors import ConfigError, UnknownNameError
from tests.horizon.tiny import SIZE, TINY, VIEWS

FEW = {"steps": 3, "batch": 4, "warm_up": 1}
SEE = {"views": list(VIEWS), "size": SIZE}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Trainings: what one test trained is there for the next."""
    return tmp_path_factory.mktemp("bench") / "runs"


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, runs: Path) -> dict:
    monkeypatch.setattr(bench, "VIEWS", VIEWS)
    monkeypatch.setattr(bench, "SIZE", SIZE)
    variants = {
        "horizon": {"policy": "horizon", **TINY},
        "bc_encoder": {"policy": "bc", "see": SEE | {"shift_px": 0}, "train": FEW},
        "no_stages": {"policy": "horizon", **TINY, "train": TINY["train"] | {"reward": "success"}},
        "bc": {"policy": "bc", "see": SEE, "train": FEW},
    }
    monkeypatch.setattr(bench, "VARIANTS", variants)
    few = {"tasks": ("reach",), "seeds": (0, 3), "demos": 2, "episodes": 2, "workers": 1}
    return few | {"runs": str(runs), "results": str(tmp_path / "results")}


def test_it_trains_compares_and_keeps(tiny: dict, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = bench.horizon_bench(variants=("horizon", "bc_encoder"), **tiny)
    assert [(row["policy"], row["trainings"]) for row in first.rows] == [("horizon", 2), ("bc_encoder", 2)]
    assert isinstance(first.rows[0]["success"], Rate) and isinstance(first.rows[0]["above cloning [points]"], Gain)
    assert "above cloning [points]" not in first.rows[1]
    cell = json.loads((tmp_path / "results" / "reach" / "horizon-3.json").read_text())
    assert cell["inputs"]["settings"]["seed"] == 3 and cell["inputs"]["settings"]["keys"]["on"]
    assert len(cell["result"]["success"]) == 2 and cell["machine"]
    assert str(runs.parent) not in json.dumps(cell)
    config = (runs / "reach-bc_encoder-3" / "001" / "config.yaml").read_text()
    assert "reach-horizon-3/001/sight" in config

    def fails(*_: object) -> None:
        raise AssertionError("what is there is not measured again")

    monkeypatch.setattr(bench, "train", fails)
    again = bench.horizon_bench(variants=("horizon", "bc_encoder", "bc"), missing=False, **tiny)
    assert again.rows == first.rows
    assert again.notes[-1] == "cells that are missing: reach/bc-0, reach/bc-3"
    with pytest.raises(AssertionError, match="not measured again"):
        bench.horizon_bench(variants=("bc",), **tiny)
    # Of other settings nothing is known, neither of horizon nor of who has its encoder.
    changed = bench.VARIANTS | {"horizon": {"policy": "horizon", **TINY, "train": {"steps": 11}}}
    monkeypatch.setattr(bench, "VARIANTS", changed)
    assert bench.horizon_bench(variants=("horizon", "bc_encoder"), missing=False, **tiny).rows == []


def test_a_training_that_was_interrupted_goes_on(
    tiny: dict, runs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench.horizon_bench(variants=("bc",), **tiny)
    (tmp_path / "results" / "reach" / "bc-0.json").unlink()
    run = runs / "reach-bc-0" / "001"
    told = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(told | {"status": "stopped"}))
    monkeypatch.setattr(bench, "train", lambda *_: pytest.fail("trained anew"))
    assert bench.horizon_bench(variants=("bc",), **tiny).rows[0]["success"] == whole.rows[0]["success"]


def test_who_lacks_nothing_of_an_encoder_has_that_of_the_whole(tiny: dict, runs: Path, tmp_path: Path) -> None:
    found = bench.horizon_bench(variants=("no_stages",), **(tiny | {"seeds": (3,)}))
    assert [row["policy"] for row in found.rows] == ["no_stages"]
    config = (runs / "reach-no_stages-3" / "001" / "config.yaml").read_text()
    assert "ready: " in config and "reach-horizon-3/001/sight" in config and "reward: success" in config
    cell = json.loads((tmp_path / "results" / "reach" / "no_stages-3.json").read_text())
    assert cell["inputs"]["encoder"]["settings"]["train"]["reward"] == "staged"
    assert str(runs.parent) not in json.dumps(cell)


def test_gains_have_the_interval_of_a_bootstrap() -> None:
    rng = np.random.default_rng(0)
    ours, theirs = rng.uniform(size=(1, 200)) < 0.5, rng.uniform(size=(1, 200)) < 0.3
    found = Gain.of(ours, theirs)
    gained = ours[0].astype(float) - theirs[0]
    other = stats.bootstrap((gained,), np.mean, method="percentile", rng=np.random.default_rng(1))
    assert found.value == pytest.approx(100 * gained.mean())
    assert found.low == pytest.approx(100 * other.confidence_interval.low, abs=1.0)
    assert found.high == pytest.approx(100 * other.confidence_interval.high, abs=1.0)
    apart = np.repeat([[True], [False], [True]], 200, axis=1)  # trainings differ, starts do not
    wide = Gain.of(apart, np.zeros((3, 200), bool))
    assert (wide.low, wide.high) == (0.0, 100.0) and str(wide) == "+66.7 [+0.0, +100.0]"
    with pytest.raises(ValueError, match="pair"):
        Gain.of(ours, theirs[:, 1:])


def test_wrong_names_are_told(tiny: dict) -> None:
    with pytest.raises(UnknownNameError, match="horizon"):
        bench.horizon_bench(variants=("horizn",), **tiny)
    with pytest.raises(ConfigError, match="at least 1"):
        bench.horizon_bench(**(tiny | {"episodes": 0}))


def test_the_control_path_is_timed_for_everyone_who_acts() -> None:
    found = acting_bench(steps=3)
    assert [row["act"] for row in found.rows] == ["actor", "drawn", "mpc"]
    assert all(0 < row["step [ms]"].value <= row["p99 [ms]"] + 0.01 for row in found.rows)
    with pytest.raises(UnknownNameError, match="small"):
        acting_bench(preset="smal")
