"""robo-bench distractors: only looks differ, and every objective is judged in both worlds."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from policies.horizon.config import PRESETS
from policies.perception.mae_config import preset
from robo.bench.distractors import LOOKS, distractors_bench, record
from robo.core.errors import ConfigError, UnknownNameError
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task


def test_the_same_happens_in_looks_that_change_while_it_does() -> None:
    task = tabletop_task(load_task("reach"))
    config = replace(PRESETS["small"], mae=preset("small", views=("front",), masked_views=0, size=32))
    (plain,), (changing,) = (record(task, config, 1, 0, looks, 0.5) for looks in (None, LOOKS))
    for name, values in plain.items():
        assert np.array_equal(values, changing[name]) == (name != "rgb_front"), name
    pictures = changing["rgb_front"].astype(float)
    steps = np.abs(np.diff(pictures, axis=0)).mean(axis=(1, 2, 3))
    others = np.arange(1, len(pictures)) % round(0.5 / task.ctrl_dt_s) == 0
    assert steps[others].min() > 3 * steps[~others].max()


def test_every_objective_is_judged_in_both_worlds() -> None:
    report = distractors_bench(
        "reach", ("features", "bottleneck"), ("front",), episodes=2, held_out=1, minutes=0.01, steps=2, seeds=(0, 1)
    )
    assert [row["objective"] for row in report.rows[:2]] == ["features", "bottleneck"]
    for row in report.rows[:2]:
        assert all(len(row[f"{world}, of each"].split(", ")) == 2 for world in ("as it is", "changing"))
        assert all(np.isfinite(row[f"{world}, mean"]) for world in ("as it is", "changing"))
    # What happens is the same in both.
    assert report.rows[2]["as it is, mean"] == report.rows[2]["changing, mean"] > 0


def test_wrong_input_is_told() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'features'"):
        distractors_bench(objectives=("feature",))
    with pytest.raises(ConfigError, match="positive"):
        distractors_bench(change_s=0.0)
