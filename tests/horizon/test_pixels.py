"""Where in pictures things are: as the simulator's own cameras say, and as one sees."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest

from hardware.robots.mjcf import hand_in_tool
from policies.horizon import tool
from policies.horizon.pixels import Pixels
from policies.horizon.wander import start
from policies.observed import proprioception, surroundings
from robo.core.errors import UnknownNameError
from sim.pointcloud import extrinsics, intrinsics
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task

VIEWS, SIZE = ("front", "left", "right", "wrist", "overhead"), 64


@pytest.mark.parametrize("name", ["pick_and_place", "put_item_in_drawer"])
def test_they_are_where_the_simulator_projects_them(name: str) -> None:
    task = tabletop_task(load_task(name))
    env, pixels = TabletopEnv(task), Pixels(task, VIEWS)
    inside = 0
    for seed in range(4):
        obs, _ = env.reset(seed=seed, options={"instance": start(task, seed)})
        around = surroundings(task, obs)
        found = pixels.at(proprioception(obs)[None], around[None])[0]
        assert found.shape == (len(VIEWS), len(tool.places(task)), 2)
        for view, row in zip(VIEWS, found, strict=True):
            pose = extrinsics(env.scene.model, env.data, view, task.robot)
            lens = intrinsics(env.scene.model, view, SIZE)
            for first, place in zip(tool.places(task), row, strict=True):
                seen = lens @ pose[:3, :3].T @ (around[first : first + 3] - pose[:3, 3])
                if seen[2] < 0.01:
                    assert np.isinf(place).all()
                    continue
                expected = (seen[:2] / seen[2] + 0.5) * 2 / SIZE - 1
                np.testing.assert_allclose(place, expected, atol=1e-4)
                inside += bool((np.abs(place) < 1).all())
    env.close()
    assert inside > 10


def test_a_thing_is_seen_where_it_is_said_to_be() -> None:
    task = tabletop_task(load_task("pick_and_place"))
    env, pixels = TabletopEnv(task, cameras=VIEWS, size=SIZE), Pixels(task, VIEWS)
    reds = []
    for seed in range(3):
        obs, _ = env.reset(seed=seed)
        found = pixels.at(proprioception(obs)[None], surroundings(task, obs)[None])[0, :, 0]
        for view, (right, down) in zip(VIEWS, found, strict=True):
            if not max(abs(right), abs(down)) < 0.9:
                continue
            row, column = (int((x + 1) * SIZE / 2) for x in (down, right))
            picture = obs[f"rgb_{view}"].astype(int)
            cube = picture[row, column]
            reds.append(np.abs(cube - np.median(picture, axis=(0, 1))).max())
    env.close()
    assert len(reds) >= 9 and np.median(reds) > 60  # not what the table looks like


def lenses(name: str, seeds: range) -> tuple[Pixels, np.ndarray, np.ndarray]:
    """Of a task; states (T, J + 8) and surroundings (T, E) of starts with the arm anywhere."""
    task = tabletop_task(load_task(name))
    env = TabletopEnv(task)
    seen = [env.reset(seed=seed, options={"instance": start(task, seed)})[0] for seed in seeds]
    env.close()
    state, around = ([of(obs) for obs in seen] for of in (proprioception, partial(surroundings, task)))
    return Pixels(task, VIEWS[:4]), np.stack(state), np.stack(around)


def test_what_two_views_show_is_where_both_see_it_whatever_a_third_one_says() -> None:
    pixels, state, around = lenses("put_item_in_drawer", range(12))
    places = tool.places(tabletop_task(load_task("put_item_in_drawer")))
    true = np.stack([around[:, i : i + 3] for i in places], axis=1)
    rng = np.random.default_rng(0)
    guess = true + 0.02 * rng.uniform(-1, 1, size=true.shape)
    seen, spread = pixels.at(state, around), np.full(true.shape, 0.02)
    off = np.full(seen.shape[:3], 0.01)
    shown = np.where(np.isfinite(seen), seen, 0.3)  # where it is in no picture, anything is said
    exact = pixels.refined(state, guess, spread, shown, off)
    assert np.abs(exact - true).max() < 2e-3 and np.median(np.abs(exact - true)) < 3e-4
    # Who is sure is believed; one of them says it is somewhere else.
    wrong = shown.copy()
    wrong[:, 1] += 0.4
    believed = pixels.refined(state, guess, spread, wrong, off)
    assert np.median(np.linalg.norm(believed - true, axis=-1)) < 4e-3
    off[:, 1] = 1.0  # and says that it may be wrong
    doubted = pixels.refined(state, guess, spread, wrong, off)
    assert np.abs(doubted - true).max() < 5e-3
    # Who sees nothing stays with the guess.
    np.testing.assert_allclose(pixels.refined(state, guess, spread, shown, np.full(off.shape, 1e6)), guess, atol=1e-6)


def test_a_sure_guess_moves_little() -> None:
    pixels, state, around = lenses("pick_and_place", range(4))
    places = tool.places(tabletop_task(load_task("pick_and_place")))
    guess = np.stack([around[:, i : i + 3] for i in places], axis=1) + np.array([0.02, 0.0, 0.0])
    seen = np.nan_to_num(pixels.at(state, around), posinf=0.0)
    moved = [
        np.linalg.norm(
            pixels.refined(state, guess, np.full(guess.shape, spread), seen, np.full(seen.shape[:3], 0.1)) - guess,
            axis=-1,
        ).mean()
        for spread in (0.001, 0.005, 0.05)
    ]
    assert moved[0] < 0.1 * moved[2] and moved[0] < moved[1] < moved[2] == pytest.approx(0.02, rel=0.1)


def test_a_camera_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown camera 'frnt'.*front"):
        Pixels(tabletop_task(load_task("reach")), ["frnt"])


def test_the_hand_is_behind_the_tool() -> None:
    robot = tabletop_task(load_task("pick_and_place")).robot
    pose = hand_in_tool(robot)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    assert pose[2, 3] < -0.05 and np.abs(pose[:2, 3]).max() < 1e-6
