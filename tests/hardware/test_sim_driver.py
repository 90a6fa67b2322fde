"""The simulated arm: worlds that move, faults, and nothing left behind."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hardware.driver import JointCommand, Lifecycle
from hardware.drivers import SimDriver, open_driver
from hardware.plant import Episode, Plant, PlantConfig, PlantScene, Request, Timeline
from hardware.robots import ROBOTS
from robo.core.errors import ConfigError, FaultError, RobotError, UnknownNameError

HOME = ROBOTS.make("panda").home_rad


def scene() -> PlantScene:
    spec = ROBOTS.make("panda").mjcf()
    spec.worldbody.add_body(name="ball", mocap=True).add_geom(size=[0.05, 0, 0])
    spec.compile()
    path = np.array([[1.0, 0, 0.5], [1.0, 1, 0.5], [1.0, 2, 0.5]])
    episodes = tuple(
        Episode(
            joint_pos=HOME + 0.1 * i,
            bodies=Timeline(dt_s=0.5, values={"ball": path}),
            tracker=Timeline(dt_s=0.5, values={"ball": path + 0.01, "fixed": np.full((1, 2), i)}),
        )
        for i in range(2)
    )
    return PlantScene(xml=spec.to_xml(), episodes=episodes)


@pytest.fixture
def driver() -> Iterator[SimDriver]:
    driver = open_driver("sim://panda?watchdog_s=1", scene())
    assert isinstance(driver, SimDriver)
    with driver:
        yield driver


def wait_for(condition: Callable[[], bool], seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "did not happen in time"
        time.sleep(0.005)


def test_a_scene_survives_the_wire():
    sent = scene()
    got = PlantScene.from_json(sent.to_json())
    assert got.xml == sent.xml
    for a, b in zip(sent.episodes, got.episodes, strict=True):
        assert (a.joint_pos == b.joint_pos).all()
        assert (a.bodies.values["ball"] == b.bodies.values["ball"]).all()
        assert (a.tracker.values["fixed"] == b.tracker.values["fixed"]).all()


def test_rewinding_starts_an_episode_at_a_given_time(driver: SimDriver):
    assert driver.read().episode == -1
    start_s = time.monotonic() + 0.3
    driver.rewind(1, start_s)
    wait_for(lambda: driver.read().episode == 1)
    state = driver.read()
    assert np.allclose(state.joint_pos, HOME + 0.1, atol=1e-3)
    assert state.extra["fixed"].tolist() == [1, 1]
    if state.time_s < start_s:
        assert state.extra["ball"].tolist() == [1.01, 0.01, 0.51]
    wait_for(lambda: driver.read().time_s > start_s + 0.2)
    state = driver.read()
    expected = min((state.time_s - start_s) / 0.5, 2.0) + 0.01
    assert state.extra["ball"][1] == pytest.approx(expected, abs=1e-6)
    wait_for(lambda: driver.read().time_s > start_s + 1.5)
    assert driver.read().extra["ball"][1] == 2.01  # after the end it stays


def test_after_a_rewind_commands_start_from_the_new_place(driver: SimDriver):
    driver.send(JointCommand(time_s=time.monotonic(), joint_pos=HOME, joint_vel=np.zeros(7)))
    driver.rewind(1, time.monotonic())
    wait_for(lambda: driver.read().episode == 1)
    command = JointCommand(time_s=time.monotonic(), joint_pos=HOME + 0.1, joint_vel=np.zeros(7))
    assert (driver.send(command).joint_pos == command.joint_pos).all()


def test_the_plant_is_deterministic():
    def play() -> np.ndarray:
        plant = Plant("panda", scene(), PlantConfig())
        plant.rewind(0, 0.0)
        dtype = [("time_s", "f8"), ("joint_pos", "f8", 7), ("joint_vel", "f8", 7)]
        for i in range(1, 200):
            if i % 5 == 0:
                command = np.array([(i * plant.dt_s, HOME + 1e-4 * i, np.full(7, 0.05))], dtype)[0]
                plant.command(command)
            plant.step(i * plant.dt_s)
        return np.concatenate([plant.data.qpos, plant.data.qvel, plant.data.mocap_pos.ravel()])

    assert (play() == play()).all()


def test_mismatch_changes_what_the_arm_does():
    def sag(**config: float) -> float:
        plant = Plant("panda", None, PlantConfig(**config))
        for i in range(1, 500):
            plant.step(i * plant.dt_s)
        return float(np.abs(plant.data.qpos[:7] - HOME).max())

    assert sag() < 1e-6
    light, soft = sag(payload_kg=1.0), sag(payload_kg=1.0, gain_scale=0.5)
    assert 1e-4 < light < soft < 0.02


@pytest.mark.parametrize(
    ("bodies", "message"),
    [({"no_such": np.zeros((1, 3))}, "no mocap body"), ({"link3": np.zeros((1, 3))}, "no mocap body")],
)
def test_a_scene_that_does_not_fit_is_refused(bodies: dict[str, np.ndarray], message: str):
    good = scene()
    bad = Episode(joint_pos=HOME, bodies=Timeline(dt_s=0.1, values=bodies), tracker=Timeline(dt_s=0.1, values={}))
    driver = open_driver("sim", PlantScene(xml=good.xml, episodes=(bad,)))
    with pytest.raises(RobotError, match=message):
        driver.connect()
    assert driver.lifecycle is Lifecycle.UNCONFIGURED


def test_broken_xml_is_told_in_one_line():
    driver = open_driver("sim", PlantScene(xml="<mujoco><nonsense/></mujoco>"))
    with pytest.raises(RobotError, match="no valid MJCF"):
        driver.connect()


def test_nan_from_the_arm_is_a_fault_until_it_is_mended_and_acknowledged(driver: SimDriver):
    driver.inject(Request.NAN)
    wait_for(lambda: not np.isfinite(driver._state()["joint_pos"]).all())
    with pytest.raises(FaultError, match="NaN"):
        driver.read()
    with pytest.raises(RobotError, match="still reports"):
        driver.acknowledge()
    assert driver.lifecycle is Lifecycle.FAULT


def test_a_stalled_arm_reports_old_states_then_a_fault(driver: SimDriver):
    driver.inject(Request.STALL, 2.0)
    wait_for(lambda: time.monotonic() - driver._state()["time_s"] > 0.2)
    with pytest.raises(FaultError, match="said nothing"):
        wait_for(lambda: driver.read() is None)
    wait_for(lambda: time.monotonic() - driver._state()["time_s"] < 0.2)
    driver.acknowledge()
    driver.read()


def test_a_killed_plant_is_a_fault_and_can_be_disconnected(driver: SimDriver):
    command = JointCommand(time_s=time.monotonic(), joint_pos=HOME, joint_vel=np.zeros(7))
    os.kill(driver.pid, signal.SIGKILL)
    with pytest.raises(FaultError, match="no longer answers"):
        wait_for(lambda: driver.read() is None)
    for call in (lambda: driver.send(command), driver.stop, driver.acknowledge):
        with pytest.raises(RobotError):
            call()
    driver.disconnect()
    driver.connect()
    driver.read()


def shared_memory() -> set[str]:
    """Names in use, but for semaphores of the usual name: tests in other processes come and go with those."""
    return {name for name in os.listdir("/dev/shm") if not name.startswith("sem.mp-")}


def test_nothing_is_left_behind(monkeypatch):
    # Semaphores made from here on, by this process or its children, have a name of their own.
    monkeypatch.setitem(multiprocessing.current_process()._config, "semprefix", "/left")
    before = shared_memory(), len(os.listdir("/proc/self/fd"))
    driver = open_driver("sim")
    assert isinstance(driver, SimDriver)
    with driver:
        pid = driver.pid
        assert os.path.exists(f"/proc/{pid}")
    assert not os.path.exists(f"/proc/{pid}")
    assert (shared_memory(), len(os.listdir("/proc/self/fd"))) == before


@pytest.mark.parametrize(
    ("uri", "error", "message"),
    [
        ("sin", UnknownNameError, "did you mean 'sim'"),
        ("sim://pandа", UnknownNameError, "unknown robot"),
        ("sim://pnda", UnknownNameError, "did you mean 'panda'"),
        ("sim://panda?payload=1", UnknownNameError, "did you mean 'payload_kg'"),
        ("sim://panda?payload_kg=heavy", ConfigError, "finite number"),
        ("sim://panda?payload_kg=nan", ConfigError, "finite number"),
        ("sim://panda?truth=maybe", ConfigError, "0 or 1"),
        ("sim://panda?payload_kg", ConfigError, "name=value"),
        ("", UnknownNameError, "available: sim"),
    ],
)
def test_a_uri_that_does_not_fit_is_told_in_words(uri: str, error: type, message: str):
    with pytest.raises(error, match=message):
        open_driver(uri)
