"""What every driver promises, run over all of them. A new driver adds one line to `OPENERS`.

Patient watchdogs: a busy test machine may keep a sender from its deadline.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from hardware.driver import Driver, JointCommand, Lifecycle
from hardware.drivers import DRIVERS, open_driver
from hardware.robots import ROBOTS, JointLimits
from robo.core.errors import FaultError, RobotError

OPENERS: dict[str, Callable[[], Driver]] = {"sim": lambda: open_driver("sim://panda?watchdog_s=1")}


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> Iterator[Driver]:
    driver = OPENERS[request.param]()
    yield driver
    driver.disconnect()


@pytest.fixture
def connected(driver: Driver) -> Driver:
    driver.connect()
    return driver


def here(driver: Driver, offset_rad: float = 0.0) -> JointCommand:
    pos = driver.read().joint_pos + offset_rad
    return JointCommand(time_s=time.monotonic(), joint_pos=pos, joint_vel=np.zeros_like(pos))


def move(driver: Driver, offset_rad: float = 0.05, seconds: float = 0.3) -> JointCommand:
    """Send a ramp at the driver's rate; returns the last command that was sent."""
    start, n = driver.read().joint_pos, int(seconds * driver.info.rate_hz)
    sent = here(driver)
    for i in range(1, n + 1):
        pos = start + offset_rad * i / n
        vel = np.full_like(pos, offset_rad / seconds) if i < n else np.zeros_like(pos)
        sent = driver.send(JointCommand(time_s=time.monotonic(), joint_pos=pos, joint_vel=vel))
        time.sleep(1.0 / driver.info.rate_hz)
    return sent


def test_info_is_readable_while_disconnected_and_complete(driver: Driver):
    info = driver.info
    assert driver.lifecycle is Lifecycle.UNCONFIGURED
    assert info.robot in ROBOTS and info.joints and info.rate_hz > 0 and info.modes and info.stop_categories
    assert "proprioception" in info.sources
    for field in dataclasses.fields(JointLimits):
        value = getattr(info.limits, field.name)
        assert value.shape == (len(info.joints),) and np.isfinite(value).all()


def test_limits_cannot_be_left_out_or_infinite(driver: Driver):
    with pytest.raises(TypeError, match="limits"):
        type(driver)(driver.robot)  # type: ignore[call-arg]
    endless = np.full(driver.robot.dof, np.inf)
    with pytest.raises(RobotError, match="velocity_rad_s"):
        dataclasses.replace(driver.limits, velocity_rad_s=endless)


def test_nothing_works_before_connecting(driver: Driver):
    zeros = np.zeros(driver.robot.dof)
    with pytest.raises(RobotError, match="not connected"):
        driver.read()
    with pytest.raises(RobotError, match="not connected"):
        driver.send(JointCommand(time_s=0.0, joint_pos=zeros, joint_vel=zeros))
    driver.stop()
    driver.disconnect()


def test_lifecycle(connected: Driver):
    assert connected.lifecycle is Lifecycle.INACTIVE
    with pytest.raises(RobotError, match="disconnect"):
        connected.connect()
    move(connected)
    assert connected.lifecycle is Lifecycle.ACTIVE
    connected.stop()
    connected.stop()
    assert connected.lifecycle is Lifecycle.INACTIVE
    move(connected)  # a stop is no fault: the next command takes the arm up again
    connected.disconnect()
    connected.disconnect()
    assert connected.lifecycle is Lifecycle.UNCONFIGURED
    connected.connect()
    connected.read()


def test_state_is_finite_fresh_and_of_the_right_shape(connected: Driver):
    before = connected.read()
    time.sleep(2.0 / connected.info.rate_hz + 0.02)
    after = connected.read()
    for value in (after.joint_pos, after.joint_vel):
        assert value.shape == (connected.robot.dof,) and np.isfinite(value).all()
    assert before.time_s < after.time_s <= time.monotonic()


def test_connecting_and_reading_do_not_move_the_arm(connected: Driver):
    before = connected.read().joint_pos
    time.sleep(0.2)
    assert np.abs(connected.read().joint_pos - before).max() < 1e-3


def test_the_arm_follows_what_is_sent(connected: Driver):
    last = move(connected, offset_rad=0.1)
    for _ in range(20):
        connected.send(dataclasses.replace(last, time_s=time.monotonic()))
        time.sleep(1.0 / connected.info.rate_hz)
    assert np.abs(connected.read().joint_pos - last.joint_pos).max() < 5e-3


def test_send_returns_what_was_really_sent(connected: Driver):
    command, limits = here(connected), connected.limits
    far = dataclasses.replace(command, joint_pos=np.full(7, 100.0), joint_vel=limits.velocity_rad_s * 2)
    sent = connected.send(far)
    # No further than the velocity limit allows in a period.
    assert np.allclose(sent.joint_pos, command.joint_pos + limits.velocity_rad_s / connected.info.rate_hz, atol=1e-3)
    assert (sent.joint_vel == limits.velocity_rad_s).all()
    for _ in range(5):
        time.sleep(0.01)
        before, sent = sent, connected.send(dataclasses.replace(far, time_s=time.monotonic()))
        step = limits.velocity_rad_s * (sent.time_s - before.time_s)
        assert (sent.joint_pos <= np.minimum(before.joint_pos + step, limits.upper_rad) + 1e-12).all()


@pytest.mark.parametrize("shift_s", [-1.0, 1.0, 1e6])
def test_a_command_out_of_time_latches_a_fault(connected: Driver, shift_s: float):
    command = here(connected)
    with pytest.raises(FaultError, match="times must increase and follow"):
        connected.send(dataclasses.replace(command, time_s=command.time_s + shift_s))
    connected.acknowledge()
    connected.send(here(connected))
    with pytest.raises(FaultError, match="times must increase and follow"):
        connected.send(command)


@pytest.mark.parametrize("field", ["joint_pos", "joint_vel"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_latches_a_fault(connected: Driver, field: str, value: float):
    command = here(connected)
    with pytest.raises(FaultError, match="NaN or infinity"):
        connected.send(dataclasses.replace(command, **{field: np.full(connected.robot.dof, value)}))
    assert connected.lifecycle is Lifecycle.FAULT and "NaN" in connected.fault
    for _ in range(2):  # it stays
        with pytest.raises(FaultError, match="acknowledge"):
            connected.send(command)
    connected.read()
    connected.stop()
    assert connected.lifecycle is Lifecycle.FAULT
    connected.acknowledge()
    assert connected.lifecycle is Lifecycle.INACTIVE and not connected.fault
    connected.send(here(connected))


def test_a_command_of_the_wrong_shape_latches_a_fault(connected: Driver):
    command = here(connected)
    with pytest.raises(FaultError, match=r"\(7,\) positions and velocities, got \(3,\)"):
        connected.send(dataclasses.replace(command, joint_pos=np.zeros(3)))
    assert connected.lifecycle is Lifecycle.FAULT


def test_silence_brakes_the_arm_and_latches_a_fault(connected: Driver):
    move(connected)
    time.sleep(1.5)
    with pytest.raises(FaultError, match="braked by itself"):
        connected.read()
    assert np.abs(connected.read().joint_vel).max() < 1e-2  # a fault can be read through
    with pytest.raises(FaultError, match="acknowledge"):
        connected.send(here(connected))
    connected.acknowledge()
    move(connected)


def test_stop_brakes_and_holds(connected: Driver):
    start = connected.read().joint_pos
    for i in range(1, 21):  # stopped in full motion
        vel = np.full_like(start, 0.5)
        connected.send(JointCommand(time_s=time.monotonic(), joint_pos=start + 0.005 * i, joint_vel=vel))
        time.sleep(0.01)
    connected.stop()
    stopped = connected.read()
    assert np.abs(stopped.joint_vel).max() < 1e-3
    time.sleep(0.3)
    assert np.abs(connected.read().joint_pos - stopped.joint_pos).max() < 2e-3


def test_a_world_can_be_put_back_only_where_it_is_simulated(driver: Driver):
    if driver.info.simulated:
        driver.connect()
        with pytest.raises(RobotError, match="episode"):
            driver.rewind(99, 0.0)
    else:
        with pytest.raises(RobotError, match="no simulation"):
            driver.rewind(0, 0.0)
