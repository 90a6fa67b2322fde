"""The rendering benchmark measures what it says."""

from __future__ import annotations

import numpy as np
import pytest

from robo.bench.render import _Bare, render_bench
from robo.core.errors import ConfigError, RenderError
from sim.open import make


def test_one_row_per_size_with_an_interval_around_the_ratio() -> None:
    report = render_bench(seconds=1.0, sizes=(32,))
    (row,) = report.rows
    assert row["size"] == "32x32" and row["turns"] >= 4
    low, high = map(float, row["ratio_ci95"].split(" .. "))
    assert 0 < low <= row["ratio"] <= high
    assert row["env_fps"] > 0 and row["bare_fps"] > 0


def test_different_or_empty_pictures_are_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mujoco.Renderer", _FakeRenderer)
    with make("reach_avoid") as env:
        env.pictures.cameras = ("front",)
        bare = _Bare(env, 8)
        bare.check({"rgb_front": _FakeRenderer.picture})
        with pytest.raises(RenderError, match="different pictures"):
            bare.check({"rgb_front": _FakeRenderer.picture + 1})
        monkeypatch.setattr(_FakeRenderer, "picture", np.zeros((8, 8, 3), np.uint8))
        with pytest.raises(RenderError, match="one colour"):
            bare.check({"rgb_front": _FakeRenderer.picture})


def test_a_benchmark_needs_time_and_sizes() -> None:
    for bad in (dict(seconds=0.0), dict(sizes=())):
        with pytest.raises(ConfigError, match="time and sizes"):
            render_bench(**bad)


class _FakeRenderer:
    """Stands in for `mujoco.Renderer`, whose OpenGL library is fixed when mujoco is imported."""

    picture = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)

    def __init__(self, model, height: int, width: int) -> None:
        self.scene = type("Scene", (), {"flags": np.zeros(32)})

    def update_scene(self, data, camera: str, scene_option) -> None:
        pass

    def render(self) -> np.ndarray:
        return self.picture
