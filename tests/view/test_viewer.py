"""The web viewer in a real browser: what it draws, where, when, and who can reach it."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page

from robo.core.errors import ConfigError, RunError
from robo.view.record import EYE_POSITION, EYE_TARGET, record
from robo.view.serve import viewer
from tests.view.tools import OBSTACLES, page, screenshot, share_of_hue

WIDTH, HEIGHT = 1280, 800
EYE_FOVY_DEG = 55.0
"""Vertical field of view of rerun's 3D eye."""
PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def recording(task, rollout, tmp_path_factory) -> Path:
    return record(task, rollout, tmp_path_factory.mktemp("recordings") / "rollout.rrd")


def _scene(picture: np.ndarray) -> tuple[int, int, int, int]:
    """Where the 3D view is: left, top, right, bottom [px]; it begins at the left, below the bar on top."""
    top = 66
    sky = np.abs(picture[top + 4].astype(int) - picture[top + 4, 2]).max(axis=-1) < 6
    right = int(np.argmin(sky))
    white = (picture[:, 2] == 255).all(axis=-1)
    run = np.convolve(white[top:], np.ones(10), "valid") == 10
    return 0, top - 2, right, top + int(np.argmax(run))


def _project(point: np.ndarray, box: tuple[int, int, int, int]) -> tuple[float, float, float]:
    """Pixel of a point of the world in the 3D view, and pixels to a metre there."""
    eye = np.array(EYE_POSITION)
    forward = np.array(EYE_TARGET) - eye
    forward /= np.linalg.norm(forward)
    right = np.cross(forward, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    up = np.cross(right, forward)
    left, top, far_right, bottom = box
    offset = point - eye
    scale = (bottom - top) / 2 / np.tan(np.radians(EYE_FOVY_DEG) / 2) / (offset @ forward)
    return (left + far_right) / 2 + scale * (offset @ right), (top + bottom) / 2 - scale * (offset @ up), scale


def _seen(picture: np.ndarray, rollout, name: str, sample: int) -> float:
    """How much of the place where an obstacle is at a sample has its colour, 0..1; its name covers some."""
    x, y, scale = _project(rollout.bodies[name][sample], _scene(picture))
    radius, colour = OBSTACLES[name]
    return share_of_hue(picture, (x, y), 0.8 * radius * scale, colour)


def _wait(page: Page, condition) -> np.ndarray:
    """The first picture of the page that fulfils a condition."""
    end = time.monotonic() + PATIENCE_S
    while True:
        page.wait_for_timeout(1000)
        picture = screenshot(page)
        if condition(picture):
            return picture
        assert time.monotonic() < end, "the viewer never showed it"


def test_obstacles_stand_where_they_project_and_move_with_time(recording: Path, rollout) -> None:
    with viewer(recording) as url, page(WIDTH, HEIGHT) as tab:
        tab.goto(url)
        first = _wait(tab, lambda p: _seen(p, rollout, "mover", 0) > 0.4)
        for name in OBSTACLES:
            assert _seen(first, rollout, name, 0) > 0.4, name
        # Along the time line at the bottom, from its start (where the play head stands) to its end.
        tab.mouse.click(267 + 0.5 * (1075 - 267), HEIGHT - 14)
        later = _wait(tab, lambda p: _seen(p, rollout, "mover", 40) > 0.4)
        assert _seen(first, rollout, "mover", 40) < 0.2 and _seen(later, rollout, "mover", 0) < 0.2
        for name in ("post", "ball"):
            assert _seen(later, rollout, name, 40) > 0.4, name
        left, top, right, bottom = _scene(later)
        changed = np.abs(first.astype(int) - later)[top:bottom, left:right].max(axis=-1) > 40
        assert changed.mean() > 0.01
        # The camera pictures on the right changed too.
        assert (np.abs(first.astype(int) - later)[top : top + 140, right + 5 :].max(axis=-1) > 40).mean() > 0.01


def _listeners() -> dict[int, set[str]]:
    """Port → addresses (as the kernel writes them) that somebody listens at."""
    found: dict[int, set[str]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            _, local, _, state, *_ = line.split()
            if state == "0A":
                address, port = local.split(":")
                found.setdefault(int(port, 16), set()).add(address)
    return found


def test_only_this_machine_can_reach_it(recording: Path) -> None:
    before = set(_listeners())
    with viewer(recording) as url:
        new = {port: addresses for port, addresses in _listeners().items() if port not in before}
        assert len(new) == 2 and all(f":{port}/" in url or f"%3A{port}%2F" in url for port in new)
        assert set().union(*new.values()) == {"0100007F"}
        with viewer(recording) as other:
            assert other != url
        taken = r"port \d+ is taken; choose another --port"
        with pytest.raises(ConfigError, match=taken), viewer(recording, web_port=min(new)):
            pass
    assert not set(new) & set(_listeners())


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no recording at"), viewer(tmp_path / "x.rrd"):
        pass
    (tmp_path / "x.rrd").touch()
    with pytest.raises(ConfigError, match=r"--port must be 1 .. 65535"), viewer(tmp_path / "x.rrd", web_port=0):
        pass


def test_recordings_end_in_rrd(task, rollout, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not 'x.mp4'; try --save x.rrd"):
        record(task, rollout, tmp_path / "x.mp4")
