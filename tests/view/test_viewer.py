"""The web viewer in a real browser: what it draws, where, when, and who can reach it."""

from __future__ import annotations

import socket
import time
import urllib.request
from pathlib import Path

import numpy as np
import psutil
import pytest
from playwright.sync_api import Page

from robo.core.errors import ConfigError, RunError
from robo.view import serve
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


def _listening() -> dict[int, set[str]]:
    """Port → addresses at which this process and its descendants listen; other tests run beside this one."""
    found: dict[int, set[str]] = {}
    me = psutil.Process()
    for process in (me, *me.children(recursive=True)):
        for connection in process.net_connections("tcp"):
            if connection.status == psutil.CONN_LISTEN:
                found.setdefault(connection.laddr.port, set()).add(connection.laddr.ip)
    return found


def test_only_this_machine_can_reach_it(recording: Path) -> None:
    before = set(_listening())
    with viewer(recording) as url:
        new = {port: addresses for port, addresses in _listening().items() if port not in before}
        assert len(new) == 2 and all(f":{port}/" in url or f"%3A{port}%2F" in url for port in new)
        assert set().union(*new.values()) == {"127.0.0.1"}
        with viewer(recording) as other:
            assert other != url
        taken = r"port \d+ is taken; choose another --port"
        with pytest.raises(ConfigError, match=taken), viewer(recording, web_port=min(new)):
            pass
    assert not set(new) & set(_listening())


@pytest.mark.parametrize("which", [0, 1], ids=["page", "data"])
def test_a_port_lost_to_somebody_quicker_is_not_mistaken_for_ours(recording, monkeypatch, which: int) -> None:
    """Free when looked at, taken when bound: the address given must be that of our own server all the same."""
    with socket.create_server(("127.0.0.1", 0)) as quicker:
        lost, look = quicker.getsockname()[1], serve._free
        looked = iter([lost, look(0)] if which == 0 else [look(0), lost])
        monkeypatch.setattr(serve, "_free", lambda port: next(looked, None) or look(port))
        with viewer(recording) as url:
            assert str(lost) not in url
            port = int(url.split(":")[2].split("/")[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
                assert b"Rerun Viewer" in answer.read()


def test_what_cannot_be_served_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no recording at"), viewer(tmp_path / "x.rrd"):
        pass
    (tmp_path / "x.rrd").touch()
    with pytest.raises(ConfigError, match=r"--port must be 1 .. 65535"), viewer(tmp_path / "x.rrd", web_port=0):
        pass


def test_recordings_end_in_rrd(task, rollout, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"not 'x.mp4'; try --save x.rrd"):
        record(task, rollout, tmp_path / "x.mp4")
