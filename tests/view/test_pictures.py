"""Playback, video and picture: things stand where they were."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from robo.core.errors import RunError
from robo.data.rollout import Rollout
from robo.evaluate.rollout import roll_out
from robo.view import charts
from robo.view.movie import FPS, STILL_S, VIEW, film, frame_count, frames, poster
from robo.view.playback import FILM, open_playback
from robo.view.record import record
from sim.env import TaskEnv
from sim.render import Renderer
from tasks.registry import load_task
from tests.evaluate.doubles import Hold
from tests.view.tools import OBSTACLES, share_of_hue, shorten


@pytest.mark.parametrize("time_s", [0.0, 3.33, 8.0])
def test_playback_shows_what_was(task, rollout, time_s: float) -> None:
    playback = open_playback(task, rollout)
    playback.pose(time_s)
    k = round(time_s / rollout.dt_s)
    tip = playback.data.site("tcp").xpos
    np.testing.assert_allclose(tip, rollout.ee_pos[k], atol=1e-6 if k * rollout.dt_s == time_s else 0.05)
    np.testing.assert_allclose(playback.data.body("mover").xpos, rollout.bodies["mover"][k], atol=0.01)


@pytest.mark.parametrize("camera", [FILM, "front"])
def test_obstacles_stand_where_they_project(task, rollout, camera: str) -> None:
    playback = open_playback(task, rollout)
    playback.pose(2.0)
    with Renderer(playback.model, (480, 640)) as renderer:
        picture = renderer.rgb(playback.data, camera)
    for name, (_, colour) in OBSTACLES.items():
        ((x, y),) = playback.project(rollout.bodies[name][20][None], camera, (640, 480))
        assert share_of_hue(picture, (x, y), 6, colour) > 0.9, name


def test_points_behind_a_camera_are_nowhere(task, rollout) -> None:
    playback = open_playback(task, rollout)
    assert np.isnan(playback.project(np.array([[10.0, 0.0, 1.0]]), FILM, (640, 480))).all()


def test_video_decodes_with_the_expected_frames(task, rollout, tmp_path: Path) -> None:
    short = shorten(rollout, 6)
    path = film(task, short, tmp_path / "new" / "x.mp4")
    assert [p.name for p in path.parent.iterdir()] == ["x.mp4"]
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert (stream.codec_context.name, stream.average_rate) == ("h264", FPS)
        pictures = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
    # 0.6 s at 20 pictures a second, the first and the last one shown, and a second of standing still.
    assert len(pictures) == frame_count(short) == 12 + 1 + STILL_S * FPS
    assert pictures[0].shape[1] == VIEW[0]
    raw = next(frames(task, short))
    assert np.abs(pictures[0].astype(int) - raw).mean() < 6
    moved = np.abs(pictures[0].astype(int) - pictures[12])[: VIEW[1]]
    still = np.abs(pictures[14].astype(int) - pictures[-1])[: VIEW[1]]
    assert (moved > 60).any(axis=-1).sum() > 100 > (still > 60).any(axis=-1).sum()


def test_poster(task, rollout, tmp_path: Path) -> None:
    with Image.open(poster(task, rollout, tmp_path / "x.png")) as picture:
        assert picture.size == (3 * 480, 2 * 360 + 260)
        assert len(np.unique(np.asarray(picture).reshape(-1, 3), axis=0)) > 1000


def test_controller_spans_cover_the_rollout(rollout) -> None:
    assert charts.spans(rollout) == [
        (0.0, pytest.approx(1.9), "policy"),
        (pytest.approx(1.9), pytest.approx(2.9), "refinement"),
        (pytest.approx(2.9), pytest.approx(5.9), "policy"),
        (pytest.approx(5.9), pytest.approx(6.3), "backup"),
        (pytest.approx(6.3), pytest.approx(8.0), "policy"),
    ]


def test_predicates_are_grouped_by_unit(task, rollout) -> None:
    groups = charts.predicates_by_unit(task, rollout)
    assert list(groups) == ["m", "rad", "rad/s"]
    assert sum(map(len, groups.values())) == len(rollout.predicates) == 7


def test_charts_are_repeatable(task, rollout) -> None:
    once, twice = (charts.svg(charts.timeline(task, rollout, (600, 300))) for _ in range(2))
    assert once.startswith("<svg") and once == twice


@pytest.mark.parametrize(("write", "name"), [(film, "x.avi"), (poster, "x.jpg")])
def test_other_endings_are_refused(task, rollout, tmp_path: Path, write, name: str) -> None:
    with pytest.raises(RunError, match=rf"not '{name}'; try --"):
        write(task, rollout, tmp_path / name)


def test_rollouts_of_other_tasks_are_refused(task, rollout) -> None:
    with pytest.raises(RunError, match="of task 'push' with 7 joints"):
        open_playback(task, dataclasses.replace(rollout, task="push"))


def test_a_task_without_cameras_or_bodies_is_shown_too(tmp_path: Path) -> None:
    toy = load_task(Path(__file__).parents[1] / "train" / "toy_task.py")
    env = TaskEnv(toy)
    rollout = roll_out(env, Hold(toy), 0)
    env.close()
    assert rollout.bodies == {} and rollout.steps == 10
    loaded = Rollout.load(rollout.save(tmp_path / "rollout-0.npz"))
    assert record(toy, loaded, tmp_path / "x.rrd").stat().st_size > 10_000
    with Image.open(poster(toy, loaded, tmp_path / "x.png")) as picture:
        assert picture.width == 3 * 480
