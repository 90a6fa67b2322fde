"""A task played live: the play against a clock, its page in a browser, the command."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import pytest
from playwright.sync_api import Locator
from playwright.sync_api import Page as Tab

from robo.cli import view as command
from robo.core.errors import ConfigError, RenderError, RobotError, TaskError, UnknownNameError
from robo.data.collect import actor
from robo.view import page as page_module
from robo.view.live import LAG_S, Session
from robo.view.page import Page
from sim.open import make
from sim.scene import geom_rgba
from tasks.registry import load_task
from tests.evaluate import runs
from tests.view.tools import page as browser
from tests.view.tools import screenshot, share_of_hue

TASK, DT_S, STEPS = "pick_and_place", 0.05, 240


class Clock:
    """Seconds that pass when told."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def session(clock: Clock) -> Iterator[Session]:
    session = Session(load_task(TASK), seed=5, clock=clock)
    yield session
    session.close()


@pytest.fixture(scope="module")
def run(tmp_path_factory) -> Path:
    return runs.train(tmp_path_factory.mktemp("runs"))


def pass_s(session: Session, clock: Clock, seconds: float, tick_s: float = 0.02) -> int:
    """Let time pass in ticks, the session being looked after at each; returns the control steps it took."""
    before = session.moment.step
    for _ in range(round(seconds / tick_s)):
        clock.now_s += tick_s
        session.advance()
    return session.moment.step - before


# ---- the play --------------------------------------------------------------------


def test_time_passes_as_told(session: Session, clock: Clock) -> None:
    assert pass_s(session, clock, 1.0) == 0, "paused at first"
    session.run()
    for speed in (1.0, 4.0, 0.1):
        session.set_speed(speed)
        assert pass_s(session, clock, 2.0) == pytest.approx(2.0 * speed / DT_S, abs=1)
    session.pause()
    assert pass_s(session, clock, 1.0) == 0 and session.wait_s() == math.inf
    session.run()
    assert session.wait_s() == pytest.approx(DT_S / 0.1), "what passed while it was paused is not made up for"


def test_a_slow_machine_is_late_but_does_not_run_after_its_clock(session: Session, clock: Clock) -> None:
    session.run()
    clock.now_s += 60.0
    session.advance()
    assert session.moment.step == pytest.approx(LAG_S / DT_S, abs=1)


def test_as_fast_as_possible(session: Session, clock: Clock) -> None:
    session.set_speed(math.inf)
    session.run()
    assert session.advance() and session.moment.ended and session.moment.step == STEPS, "no time passed at all"
    assert not session.running and not session.advance()


def test_a_step_is_one_step_and_pauses(session: Session, clock: Clock) -> None:
    session.run()
    session.step()
    assert (session.moment.step, session.moment.time_s, session.running) == (1, pytest.approx(DT_S), False)
    assert session.env.data.time == pytest.approx(DT_S)
    assert pass_s(session, clock, 1.0) == 0


@pytest.mark.parametrize("policy", ["expert", "random", "zero"])
def test_it_is_the_episode_of_environment_and_policy(session: Session, policy: str) -> None:
    session.step()
    session.choose(policy)
    session.reset(8)
    env = make(TASK)
    obs, info = env.reset(seed=8)
    other = actor(policy, env.task)
    other.reset(obs, 8)
    assert session.moment.signals == info["signals"] and session.moment.instruction == info["instruction"]
    for _ in range(40):
        np.testing.assert_array_equal(session.env.data.qpos, env.data.qpos)
        obs, reward, _, _, info = env.step(env.action(other.act(obs)))
        session.step()
    assert (session.moment.reward, session.moment.stage) == (reward, info["stage"])
    env.close()


def test_the_end_of_an_episode(session: Session, clock: Clock) -> None:
    session.set_speed(math.inf)
    session.run()
    trace = {name: [value] for name, value in session.moment.signals.items()}
    session.pause()
    while not session.moment.ended:
        session.step()
        for name, value in session.moment.signals.items():
            trace[name].append(value)
    arrays = {name: np.array(values) for name, values in trace.items()}
    moment, task = session.moment, session.task
    assert moment.success is task.success(arrays) is True and moment.stage == len(task.stages)
    assert moment.robustness.lo == moment.robustness.hi == pytest.approx(float(task.formula.rho(arrays, DT_S)[0]))
    session.step()
    assert session.moment is moment, "there is no step after the last"
    session.run()
    assert session.moment.step == 0 and session.running and session.seed == 5, "it begins again"


def test_an_arm_that_must_touch_nothing_is_played_by_a_run(run: Path) -> None:
    task = load_task("reach_avoid")
    with pytest.raises(ConfigError, match=r"robo-view reach_avoid --policy runs/reach_avoid/last"):
        Session(task)
    session = Session(task, str(run))
    before = session.env.data.body("mover").xpos.copy()
    for _ in range(10):
        session.step()
    assert session.moment.time_s == pytest.approx(1.0) and not session.moment.success
    assert np.linalg.norm(session.env.data.body("mover").xpos - before) > 0.01
    with pytest.raises(ConfigError, match="trained with task 'reach_avoid', here it is 'pick_and_place'"):
        Session(load_task(TASK), str(run))
    session.close()


def test_what_does_not_fit_is_refused_and_what_was_stays(session: Session, monkeypatch) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'random'"):
        session.choose("randon")
    assert session.policy == "expert"
    with pytest.raises(ConfigError, match="--seed"):
        session.reset(-1)
    with pytest.raises(ConfigError, match="--speed"):
        session.set_speed(5.0)
    with pytest.raises(TaskError, match="bench/car has no scene"):
        Session(load_task("bench/car"))

    def refuse(obs):
        raise RobotError("no, not today")

    session.set_speed(math.inf)
    session.run()
    monkeypatch.setattr(session._actor, "act", refuse)
    with pytest.raises(RobotError, match="not today"):
        session.advance()
    assert not session.running


# ---- the page --------------------------------------------------------------------


class Served:
    """A page that another thread serves: MuJoCo and OpenGL are that thread's."""

    def __init__(self, seed: int, speed: float) -> None:
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(seed, speed))
        self._thread.start()
        assert self._ready.wait(60)

    def _serve(self, seed: int, speed: float) -> None:
        self.session = Session(load_task(TASK), seed=seed, speed=speed)
        with Page(self.session) as page:
            self.url = page.url
            self._ready.set()
            page.serve(self._stop)
        self.session.close()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()


@contextmanager
def served(seed: int = 5, speed: float = 1.0) -> Iterator[tuple[Served, Tab]]:
    it = Served(seed, speed)
    try:
        with browser(1000, 700) as tab:
            tab.goto(it.url)
            yield it, tab
    finally:
        it.stop()


def shown_s(tab: Tab) -> float:
    """The time that stands on the page."""
    found = re.search(r"time\s*([\d.]+) of 12 s", tab.locator("body").inner_text())
    assert found is not None
    return float(found[1])


def until(tab: Tab, holds: Callable[[], bool]) -> None:
    """Wait until something holds, half a minute at most."""
    for _ in range(300):
        if holds():
            return
        tab.wait_for_timeout(100)
    raise AssertionError("it never happened")


def press(tab: Tab, button: str) -> None:
    tab.get_by_role("button", name=button, exact=True).click()


def box(tab: Tab, name: str) -> Locator:
    return tab.get_by_role("checkbox", name=name, exact=True)


def pixel(tab: Tab, session: Session, point: np.ndarray) -> tuple[float, float]:
    """Where a point (3,) [m] of the world is on the page, as it opens."""
    eye, target = page_module._eye(session.task)
    ahead = (target - eye) / np.linalg.norm(target - eye)
    right = np.cross(ahead, [0.0, 0.0, 1.0])
    right /= np.linalg.norm(right)
    size = tab.viewport_size
    assert size is not None
    x, y, z = np.stack([right, np.cross(ahead, right), ahead]) @ (point - eye)
    focal = size["height"] / 2 / np.tan(page_module.FOV_RAD / 2)
    return size["width"] / 2 + focal * x / z, size["height"] / 2 + focal * y / z


def test_a_page_that_is_played_with() -> None:
    with served(speed=0.1) as (it, tab):
        session, asked = it.session, []
        tab.on("request", lambda request: asked.append(request.url))
        tab.reload()
        tab.get_by_text("put the red cube onto the green target").wait_for()
        until(tab, lambda: shown_s(tab) > 0.0)  # it begins when the browser looks
        press(tab, "Pause")
        tab.get_by_role("button", name="Run", exact=True).wait_for()
        step = session.moment.step
        until(tab, lambda: shown_s(tab) == pytest.approx(DT_S * step))
        tab.wait_for_timeout(1000)
        assert session.moment.step == step and shown_s(tab) == pytest.approx(DT_S * step), "pause stops time"
        press(tab, "Step")
        until(tab, lambda: shown_s(tab) == pytest.approx(DT_S * (step + 1)))
        assert session.moment.step == step + 1

        tab.get_by_label("Seed").fill("8")
        press(tab, "Reset")
        until(tab, lambda: session.seed == 8 and shown_s(tab) == 0.0)
        env = make(TASK)
        env.reset(seed=8)
        np.testing.assert_array_equal(session.env.data.qpos, env.data.qpos)
        env.close()
        cube = pixel(tab, session, session.env.data.body("cube").xpos)
        until(tab, lambda: share_of_hue(screenshot(tab), cube, 5, (0.83, 0.18, 0.16)) > 0.8)

        press(tab, "Next seed")
        until(tab, lambda: session.seed == 9 and tab.get_by_label("Seed").input_value() == "9")
        until(tab, lambda: share_of_hue(screenshot(tab), cube, 5, (0.83, 0.18, 0.16)) == 0.0)

        tab.get_by_label("Policy").click()
        tab.get_by_role("option", name="zero").click()
        until(tab, lambda: session.policy == "zero")
        box(tab, "Unlimited").check()
        until(tab, lambda: session.speed == math.inf)
        press(tab, "Run")
        until(tab, lambda: shown_s(tab) == 12.0)
        text = tab.locator("body").inner_text()
        assert "12.00 of 12 s (over)" in text and "▶ grasp" in text and "not satisfied" in text

        assert all(url.startswith((it.url, "data:", "blob:", "ws://127.0.0.1:")) for url in asked)
        listening = [c for c in psutil.Process().net_connections("tcp") if c.status == psutil.CONN_LISTEN]
        port = int(it.url.rpartition(":")[2])
        assert {c.laddr.ip for c in listening if c.laddr.port == port} == {"127.0.0.1"}
    with pytest.raises(OSError):
        urllib.request.urlopen(it.url, timeout=5)


def test_pictures_and_the_point_cloud() -> None:
    with served() as (it, tab):
        tab.get_by_role("button", name="Pause", exact=True).click()
        press(tab, "Reset")
        until(tab, lambda: shown_s(tab) == 0.0)
        picture = tab.locator("img").last
        pictures = {}
        for camera in ("front", "overhead", "wrist"):
            tab.get_by_label("Picture").click()
            tab.get_by_role("option", name=camera).click()
            until(tab, lambda: picture.get_attribute("src") not in (None, *pictures.values()))
            pictures[camera] = picture.get_attribute("src")
            assert picture.evaluate("i => i.naturalWidth / i.naturalHeight") == pytest.approx(4 / 3)

        cube = pixel(tab, it.session, it.session.env.data.body("cube").xpos)
        red = (0.83, 0.18, 0.16)
        until(tab, lambda: share_of_hue(screenshot(tab), cube, 5, red) > 0.8)
        box(tab, "Shapes").uncheck()
        until(tab, lambda: share_of_hue(screenshot(tab), cube, 5, red) == 0.0)
        box(tab, "Point cloud").check()
        until(tab, lambda: share_of_hue(screenshot(tab), cube, 5, red) > 0.4)
        box(tab, "Point cloud").uncheck()
        until(tab, lambda: share_of_hue(screenshot(tab), cube, 5, red) == 0.0)


def test_without_open3d_or_a_renderer_the_page_says_so(session: Session, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "open3d", None)
    with Page(session) as page:
        assert page._cloud.disabled and "pip install -e '.[pointcloud]'" in page._views.no_cloud
        assert not page._camera.disabled and page._camera.value == "front"

    def broken(*args, **kwargs):
        raise RenderError("no renderer works; apt-get install something")

    monkeypatch.setattr(page_module, "Renderer", broken)
    with Page(session) as page:
        assert page._cloud.disabled and page._camera.disabled and page._camera.value == "none"
        assert page._views.no_picture == page._views.no_cloud == "no renderer works; apt-get install something"
        for layer in page._layers:
            layer.draw_if_due()


def test_what_goes_wrong_stands_on_the_page_until_something_else_is_pressed(session: Session, monkeypatch) -> None:
    def refuse(obs):
        raise RobotError("no, <not> today")

    def said() -> bool:
        page._draw_texts()
        return "no, &lt;not&gt; today" in page._head.content

    with Page(session) as page:
        session.set_speed(math.inf)
        monkeypatch.setattr(session._actor, "act", refuse)
        page._do(session.run)
        page._play()
        assert said() and not session.running and page._run.label == "Run"
        monkeypatch.undo()
        page._do(session.step)
        assert not said() and session.moment.step == 1


def test_the_page_cannot_be_shared_with_the_world(session: Session, monkeypatch) -> None:
    asked = []
    monkeypatch.setattr("viser._viser.ViserTunnel", lambda *args: asked.append(args))
    with Page(session) as page:
        assert page._server.request_share_url() is None and not asked


@pytest.mark.parametrize("name", ["reach_avoid", "stack_wine", "slide_cabinet_open_and_place_cups"])
def test_all_that_is_seen_of_a_scene_is_on_the_page(name: str, run: Path) -> None:
    """Every geom and site with a surface becomes a shape as large as MuJoCo has it."""
    session = Session(load_task(name), str(run) if name == "reach_avoid" else None)
    model = session.env.model
    with Page(session) as page:
        handles = page._server.scene._handle_from_node_name
        for geom in range(model.ngeom):
            rgba = geom_rgba(model, geom)
            where = f"{page_module.ROOT}/{model.geom_bodyid[geom]}/geom{geom}"
            assert (where in handles) == (model.geom_group[geom] <= 2 and rgba[3] > 0)
        page._draw_shapes()
        for body in range(model.nbody):
            frame = handles[f"{page_module.ROOT}/{body}"]
            np.testing.assert_allclose(frame.position, session.env.data.xpos[body], atol=1e-6)
    session.close()


# ---- the command -------------------------------------------------------------------


def test_the_command_serves_until_it_is_stopped() -> None:
    words = [Path(sys.executable).with_name("robo-view"), TASK, "--no-browser", "--policy", "random", "--speed", "max"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=runs.ONE_THREAD)
    try:
        assert process.stdout is not None
        url = process.stdout.readline().removeprefix("viewer: ").strip()
        assert url.startswith("http://127.0.0.1:") and "Ctrl-C" in process.stdout.readline()
        with urllib.request.urlopen(url, timeout=10) as answer:
            assert b"<html" in answer.read()
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=30)
        assert (process.returncode, rest, errors) == (0, "", "")
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["pick_and_plce"], "unknown run or task 'pick_and_plce': did you mean 'pick_and_place'?"),
        (["pick_and_plce"], "runs are folders such as runs/reach_avoid/last"),
        (["bench/cra"], "did you mean 'bench/car'?"),
        (["missing.py"], "no such task file"),
        (["bench/car", "--policy", "zero"], "bench/car has no scene to look at live"),
        (["reach_avoid", "--policy", "zero"], "unknown policy 'zero': available: none; a run folder will do too"),
        (
            [TASK, "--policy", "exprt"],
            "unknown policy 'exprt': did you mean 'expert'? (available: expert, random",
        ),
        ([TASK, "--policy", "runs/none/last"], "no such run folder: runs/none/last"),
        ([TASK, "--speed", "9"], "--speed must lie in 0.1 .. 4, or be max, not 9"),
        ([TASK, "--speed", "fast"], "--speed takes a number, 1 being real time, or max, not 'fast'"),
        ([TASK, "--seed", "-2"], "--seed must be 0 or more, not -2"),
        ([TASK, "--port", "0"], "--port must be 1 .. 65535, not 0"),
        ([TASK, "--rollout", "2"], "--rollout is for a run, and pick_and_place is a task"),
        (["bench/car", "--seed", "2"], "--seed is for a task, and bench/car is a run"),
    ],
)
def test_command_errors_are_one_line(words: list[str], message: str, capsys, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert command.main([*words, "--no-browser"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and message in said and len(said.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
