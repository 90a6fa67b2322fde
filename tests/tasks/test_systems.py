"""The contract of every system task, and the benchmarks' dynamics against second implementations."""

from __future__ import annotations

import math

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env
from matplotlib.figure import Figure

import sim
from hardware.robots.kinematics import Kinematics
from robo.core.errors import ConfigError, NonFiniteError, RoboError, TaskError, UnknownNameError
from sim.open import open_env
from sim.system import SystemEnv
from tasks.arm import arm_task
from tasks.benchmarks import car, maze, rover, ship
from tasks.registry import TASKS, load_task
from tasks.system import SystemTask, system_task

NAMES = [name for name in TASKS if isinstance(load_task(name), SystemTask)]


@pytest.fixture(params=NAMES)
def task(request: pytest.FixtureRequest) -> SystemTask:
    return system_task(load_task(request.param))


def random_rollouts(task: SystemTask, n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """States (n, T + 1, k) under random controls (n, T, m) that change now and then."""
    rng = np.random.default_rng(seed)
    starts = np.stack([task.sample(rng)["state"] for _ in range(n)])
    controls = rng.uniform(task.control_low, task.control_high, (n, -(-task.steps // 3), task.control_size))
    controls = np.repeat(controls, 3, axis=1)[:, : task.steps]
    return task.roll_out(starts, controls), controls


# ---- the contract --------------------------------------------------------------


def test_all_six_benchmarks_are_there() -> None:
    assert {"bench/car", "bench/maze", "bench/ship_safe", "bench/ship_track", "bench/rover", "bench/panda"} <= set(
        NAMES
    )


def test_the_same_seed_draws_the_same_start_and_others_differ(task: SystemTask) -> None:
    first, again, other = (task.sample(np.random.default_rng(s))["state"] for s in (1, 1, 2))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert first.dtype == np.float64 and np.isfinite(first).all()


def test_no_start_is_unsafe(task: SystemTask) -> None:
    rng = np.random.default_rng(0)
    signals = task.measure(np.stack([task.sample(rng)["state"] for _ in range(300)])[:, None])
    assert task.safety_formula.verdict(signals, task.ctrl_dt_s).all()


def test_numpy_and_torch_agree_and_gradients_are_finite(task: SystemTask) -> None:
    states, controls = random_rollouts(task, 40)
    raw = torch.tensor(np.random.default_rng(1).normal(size=controls.shape), requires_grad=True)
    start = torch.tensor(states[:, 0])
    rolled = task.roll_out(start, task.squash(raw))
    np.testing.assert_allclose(
        rolled.detach(), task.roll_out(states[:, 0], task.squash(raw.detach().numpy())), atol=1e-9
    )
    signals = task.measure(rolled)
    plain = task.measure(rolled.detach().numpy())
    assert set(signals) == set(task.signals) == set(plain)
    for name, value in signals.items():
        np.testing.assert_allclose(value.detach(), plain[name], atol=1e-9)
    assert task.features(rolled).isfinite().all() and float(task.features(rolled).abs().max()) < 30
    task.formula.robustness_at_start(signals, task.ctrl_dt_s, smooth=20.0).sum().backward()
    assert raw.grad is not None and raw.grad.isfinite().all() and (raw.grad != 0).any()


def test_squashed_numbers_keep_the_bounds_and_reach_them(task: SystemTask) -> None:
    rng = np.random.default_rng(0)
    raw = rng.normal(size=(4000, task.control_size)) * rng.choice([0.01, 1.0, 5.0], (4000, 1))
    control = task.squash(raw)
    low, high = np.array(task.control_low), np.array(task.control_high)
    assert (control >= low - 1e-12).all() and (control <= high + 1e-12).all()
    assert (control.min(0) < low + 0.05 * (high - low)).all() and (control.max(0) > high - 0.05 * (high - low)).all()
    assert (task.clip(10 * control) <= high).all() and (task.clip(10 * control) >= low).all()


def test_no_signal_is_constant(task: SystemTask) -> None:
    states, _ = random_rollouts(task, 200)
    for name, value in task.measure(states).items():
        assert np.ptp(value) > 0, name


def test_what_satisfies_the_specification_succeeds(task: SystemTask) -> None:
    states, _ = random_rollouts(task, 400)
    signals = task.measure(states)
    verdict = task.formula.verdict(signals, task.ctrl_dt_s)[:, 0]
    success = np.array([task.success({k: v[i] for k, v in signals.items()}) for i in range(len(states))])
    assert not (verdict & ~success).any()


def test_the_environment_keeps_gymnasiums_contract(task: SystemTask) -> None:
    check_env(SystemEnv(task), skip_render_check=True)


def test_the_same_seed_gives_the_same_trajectory(task: SystemTask) -> None:
    def run() -> list[np.ndarray]:
        env = SystemEnv(task, mismatch=0.1)
        obs, info = env.reset(seed=3)
        states = [obs["state"], info["mismatch"]["strength"]]
        rng = np.random.default_rng(0)
        for _ in range(task.steps):
            obs, reward, terminated, truncated, info = env.step(rng.uniform(task.control_low, task.control_high))
            states.append(obs["state"])
        assert truncated and not terminated
        return [*states, np.array(reward)]

    first, second = run(), run()
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))


def test_the_reward_is_the_robustness_of_what_was_executed(task: SystemTask) -> None:
    env = SystemEnv(task)
    obs, _ = env.reset(seed=1)
    states, rewards = [obs["state"]], []
    for k in range(task.steps):
        obs, reward, *_ = env.step(np.array(task.control_high) * (-1) ** k)
        states.append(obs["state"])
        rewards.append(reward)
    signals = task.measure(np.stack(states))
    assert not any(rewards[:-1])
    assert rewards[-1] == pytest.approx(float(task.formula.rho(signals, task.ctrl_dt_s)[0]))


def test_it_can_be_drawn(task: SystemTask) -> None:
    axes = Figure().add_subplot()
    state = task.sample(np.random.default_rng(0))["state"]
    task.draw(axes, state)
    x, y = task.position(state)
    assert axes.get_xlim()[0] <= x <= axes.get_xlim()[1] and axes.get_ylim()[0] <= y <= axes.get_ylim()[1]


# ---- what is refused -------------------------------------------------------------


def test_environments_refuse_what_does_not_fit() -> None:
    env = SystemEnv("bench/car")
    with pytest.raises(RoboError, match="reset"):
        env.step(np.zeros(1))
    env.reset(seed=0)
    with pytest.raises(RoboError, match=r"shape \(2,\), expected \(1,\)"):
        env.step(np.zeros(2))
    with pytest.raises(NonFiniteError, match="nothing was executed"):
        env.step(np.array([math.nan]))
    with pytest.raises(UnknownNameError, match="did you mean 'instance'"):
        env.reset(options={"instanse": 1})
    with pytest.raises(ConfigError, match="mismatch"):
        SystemEnv("bench/car", mismatch=1.5)
    with pytest.raises(ConfigError, match=r"delay must lie between 0 and a control step \(0\.1 s\)"):
        SystemEnv("bench/car", delay_s=0.2)
    with pytest.raises(TaskError, match="no system with known dynamics; train it with: --policy stl"):
        SystemEnv("reach_avoid")
    with pytest.raises(TaskError, match="bench/car moves no arm"):
        arm_task(load_task("bench/car"))


def test_a_task_whose_parts_do_not_fit_is_refused() -> None:
    class Narrow(car.Car):
        control_low, control_high = (1.0,), (1.0,)

    with pytest.raises(TaskError, match="low below high"):
        Narrow().validate()

    class Short(car.Car):
        def sample(self, rng):
            return {"state": np.zeros(3)}

    with pytest.raises(TaskError, match=r"a state of 7 numbers \(x, speed, .*not \(3,\)"):
        Short().validate()


def test_gymnasium_knows_them_by_name() -> None:
    env = gymnasium.make("bench/maze-v0")
    obs, _ = env.reset(seed=0)
    assert obs["state"].shape == (9,) and sim.__name__ == "sim"
    assert isinstance(open_env(load_task("bench/rover")), SystemEnv)


# ---- dynamics and geometry ---------------------------------------------------------


def test_car_waits_rolls_and_keeps_its_light() -> None:
    task = car.Car()
    stop = task.roll_out(np.array([-0.5, 0.0, 0.0, 0.0, -1.0, 0.0, 0.0]), np.zeros((15, 1)))
    np.testing.assert_allclose(stop[:, 3], 0.1 * np.arange(16), atol=1e-6)
    over = task.roll_out(np.array([-0.25, 5.0, 0.0, 0.7, -1.0, 0.0, 0.0]), np.zeros((2, 1)))
    assert over[-1, 0] == pytest.approx(0.75) and over[-1, 3] == pytest.approx(0.0, abs=1e-6)
    light = task.roll_out(np.array([-9.0, 1.0, 1.0, 7.95, 3.0, 2.0, 0.0]), np.full((10, 1), 10.0))
    assert light[1, 3] == pytest.approx(0.05) and light[-1, 1] == 10.0
    # The gap grows by what the car ahead is faster.
    assert light[1, 4] == pytest.approx(3.1)


def test_a_start_of_a_car_can_brake_before_line_and_lead() -> None:
    task, rng = car.Car(), np.random.default_rng(0)
    starts = np.stack([task.sample(rng)["state"] for _ in range(500)])
    starts = starts[starts[:, 0] < -1.0]
    braked = task.measure(task.roll_out(starts, np.full((len(starts), 25, 1), -10.0)))
    # Euler with the old speed rolls up to half a step's speed farther than the square-root law.
    assert (braked["x_m"].max(1) < -1.0 + 0.5).all()
    follows = starts[:, 4] >= 0
    assert (braked["gap_m"][follows].min(1) > 0.4).all()


def test_maze_rows_leave_room_beside_their_walls() -> None:
    rng = np.random.default_rng(0)
    for _ in range(500):
        left, width, goal = maze.Maze._row(rng)
        assert 2.0 <= width <= 4.0 and 0.0 <= left <= maze.WIDTH_M - width + 1e-12
        if goal != maze.NO_GOAL:
            r = maze.GOAL_RADIUS_M
            assert r <= goal <= left - r or left + width + r <= goal <= maze.WIDTH_M - r


def test_ship_sails_as_written_down() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        own = ship.draw_start(rng)
        control = rng.uniform((-0.5, -3.0), (0.5, 3.0))
        x, y, phi, u, v, r = own
        for _ in range(2):
            dx, dy = u * math.cos(phi) - v * math.sin(phi), u * math.sin(phi) + v * math.cos(phi)
            x, y, phi, u, v, r = (
                x + 0.075 * dx,
                y + 0.075 * dy,
                min(max(phi + 0.075 * r, -0.5), 0.5),
                min(max(u + 0.075 * control[0], 3.0), 5.0),
                min(max(v + 0.075 * 0.01 * control[1], -0.3), 0.3),
                min(max(r + 0.075 * 0.5 * control[1], -0.5), 0.5),
            )
        np.testing.assert_allclose(ship.sail(list(own), control, 0.15), [x, y, phi, u, v, r], atol=1e-12)


def test_time_runs_off_the_track_only() -> None:
    task = load_task("bench/ship_track")
    assert isinstance(task, SystemTask)
    for y, spent in ((1.0, 1.0), (0.1, 0.0)):
        start = np.array([0.0, y, 0.0, 3.0, 0.0, 0.0, -5.0, 0.0, 1.0, 2.0])
        states = task.roll_out(start, np.zeros((10, 2)))
        np.testing.assert_allclose(states[:, 9], 2.0 - spent * 0.15 * np.arange(11), atol=1e-6)


def test_rover_charges_and_its_way_counts() -> None:
    task = rover.Rover()
    place = [5.0, 1.0, 9.0, 9.0, 5.5, 1.0]
    beside = np.array([*place, 1.0, 0.6, 5.0, 1.0, 5.0, 1.0])
    charged = task.advance(beside, np.array([0.0, 0.0]))
    assert charged[6] == 5.0 and charged[7] == pytest.approx(0.4)
    # Straight through the box in the middle, from one free place to another.
    leap = np.array([5.0, 4.0, 9.0, 9.0, 1.0, 9.0, 3.0, 0.6, 5.0, 4.0, 5.0, 4.0])
    after = task.advance(leap, np.array([1.0, np.pi / 2]))
    assert after[:2] == pytest.approx([5.0, 6.0])
    assert (rover._box_distance(np.array([5.0, 5.0]), np.array([6.0, 4.0])) > 0).all()
    assert task.measure(after)["clearance_m"] < 0


def test_distances_from_boxes_are_those_of_a_brute_force_search() -> None:
    rng = np.random.default_rng(0)
    edges = []
    for left, bottom, right, top in rover.BOXES_M:
        along = np.linspace(0, 1, 2001)
        xs, ys = left + (right - left) * along, bottom + (top - bottom) * along
        edges += [np.stack(np.broadcast_arrays(xs, y), -1) for y in (bottom, top)]
        edges += [np.stack(np.broadcast_arrays(x, ys), -1) for x in (left, right)]
    outline = np.concatenate(edges)
    for point in rng.uniform(0, 10, (200, 2)):
        inside = any(a < point[0] < c and b < point[1] < d for a, b, c, d in rover.BOXES_M)
        wanted = np.linalg.norm(outline - point, axis=1).min() * (-1 if inside else 1)
        assert float(rover._box_distance(*point[:, None])[0]) == pytest.approx(wanted, abs=2e-3)
        assert rover._hits_a_box(*point) == inside


def test_the_flange_is_where_the_kinematics_of_the_arm_has_it() -> None:
    task = load_task("bench/panda")
    kinematics = Kinematics(task._robot)  # type: ignore[attr-defined]
    rng = np.random.default_rng(0)
    limits = task._robot.limits  # type: ignore[attr-defined]
    for q in rng.uniform(limits.lower_rad, limits.upper_rad, (50, 7)):
        # The tool lies 0.1034 m ahead of the flange, along the hand: from joint 7 both are on one line.
        flange, tool = task.flange(q), kinematics.ee_pos(q)  # type: ignore[attr-defined]
        assert np.linalg.norm(tool - flange) == pytest.approx(0.1034, abs=1e-9)
        turned = q.copy()
        turned[6] += 1.0
        np.testing.assert_allclose(task.flange(turned), flange, atol=1e-12)  # type: ignore[attr-defined]


def test_controls_act_late() -> None:
    late, prompt = SystemEnv("bench/maze", delay_s=0.2), SystemEnv("bench/maze")
    start = prompt.task.sample(np.random.default_rng(0))
    drawn = [late.reset(seed=s, options={"instance": start})[1]["mismatch"]["delay_s"][0] for s in range(5)]
    assert all(0 <= delay <= 0.2 for delay in drawn) and len(set(drawn)) == 5
    prompt.reset(seed=4, options={"instance": start})
    control, share = np.array([3.0]), drawn[-1] / 0.2
    late.step(control)
    prompt.step((1 - share) * control)  # before there was no control
    np.testing.assert_allclose(late._state, prompt._state)
    late.step(-control)
    prompt.step(share * control - (1 - share) * control)
    np.testing.assert_allclose(late._state, prompt._state)
