"""Where in pictures things are: as the simulator's own cameras say, and as one sees."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import pytest

from hardware.robots.mjcf import hand_in_tool
from policies.horizon import tool
from policies.horizon.pixels import Pixels
from policies.horizon.wander import start
from policies.observed import proprioception, surroundings
from robo.core.errors import UnknownNameError
from robo.core.protocols import Obs
from sim.pointcloud import extrinsics, intrinsics
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task

VIEWS, SIZE = ("front", "left", "right", "wrist", "overhead"), 64


@pytest.mark.parametrize("name", ["pick_and_place", "put_item_in_drawer"])
def test_they_are_where_the_simulator_projects_them(name: str) -> None:
    task = tabletop_task(load_task(name))
    env, pixels = TabletopEnv(task), Pixels(task, VIEWS)
    inside = 0
    for seed in range(4):
        obs, _ = env.reset(seed=seed, options={"instance": start(task, seed)})
        found = pixels.at(*told(task, [obs]))[0]
        there = [obs[f"{body}_pos"] for body in (*task.things, *task.fixtures)]
        there += [env.data.site(f"{joint}_handle").xpos for joint in task.joints]
        assert found.shape == (len(VIEWS), len(there), 2) and pixels.count == len(there)
        for view, row in zip(VIEWS, found, strict=True):
            pose = extrinsics(env.scene.model, env.data, view, task.robot)
            lens = intrinsics(env.scene.model, view, SIZE)
            for place, true in zip(row, there, strict=True):
                seen = lens @ pose[:3, :3].T @ (true - pose[:3, 3])
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
        found = pixels.at(*told(task, [obs]))[0, :, 0]
        for view, (right, down) in zip(VIEWS, found, strict=True):
            if not max(abs(right), abs(down)) < 0.9:
                continue
            row, column = (int((x + 1) * SIZE / 2) for x in (down, right))
            picture = obs[f"rgb_{view}"].astype(int)
            cube = picture[row, column]
            reds.append(np.abs(cube - np.median(picture, axis=(0, 1))).max())
    env.close()
    assert len(reds) >= 9 and np.median(reds) > 60  # not what the table looks like


def told(task: TabletopTask, seen: Sequence[Obs]) -> tuple[np.ndarray, np.ndarray]:
    """States (T, J + 8) and scenes (T, K) of observations."""
    state, around = (np.stack([of(obs) for obs in seen]) for of in (proprioception, partial(surroundings, task)))
    return state, tool.scene(task, state, around)


class Starts(NamedTuple):
    """Of a task, with the arm and joints anywhere."""

    pixels: Pixels
    state: np.ndarray
    scene: np.ndarray
    places: np.ndarray
    joints: np.ndarray

    @classmethod
    def of(cls, name: str, seeds: range) -> Starts:
        task = tabletop_task(load_task(name))
        env = TabletopEnv(task)
        seen = [env.reset(seed=seed, options={"instance": start(task, seed)})[0] for seed in seeds]
        env.close()
        places = np.array(tool.placed(task))[:, None] + np.arange(3)
        joints = np.array([handle.value for handle in tool.handles(task)], int)
        return cls(Pixels(task, VIEWS[:4]), *told(task, seen), places, joints)


def test_what_two_views_show_is_where_both_see_it_whatever_a_third_one_says() -> None:
    pixels, state, scene, places, _ = Starts.of("put_item_in_drawer", range(12))
    true, rng = scene[:, places], np.random.default_rng(0)
    guess, spread = scene.copy(), np.full(scene.shape, 0.02)
    guess[:, places] += 0.02 * rng.uniform(-1, 1, size=true.shape)
    seen = pixels.at(state, scene)
    off = np.full(seen.shape[:3], 0.01)
    shown = np.where(np.isfinite(seen), seen, 0.3)  # where it is in no picture, anything is said

    def corrected(shown: np.ndarray, off: np.ndarray) -> np.ndarray:
        return pixels.corrected(state, guess, spread, shown, off)[:, places]

    exact = corrected(shown, off)
    assert np.abs(exact - true).max() < 2e-3 and np.median(np.abs(exact - true)) < 3e-4
    # Who is sure is believed; one of them says it is somewhere else.
    wrong = shown.copy()
    wrong[:, 1] += 0.4
    assert np.median(np.linalg.norm(corrected(wrong, off) - true, axis=-1)) < 4e-3
    off[:, 1] = 1.0  # and says that it may be wrong
    assert np.abs(corrected(wrong, off) - true).max() < 5e-3
    # Who sees nothing stays with the guess.
    np.testing.assert_allclose(corrected(shown, np.full(off.shape, 1e6)), guess[:, places], atol=1e-6)


@pytest.mark.parametrize("name", ["put_item_in_drawer", "slide_cabinet_open_and_place_cups", "take_shoes_out_of_box"])
def test_a_joint_is_as_far_open_as_its_handle_is_seen(name: str) -> None:
    pixels, state, scene, _, joints = Starts.of(name, range(12))
    seen, true = pixels.at(state, scene), scene[:, joints]
    inside, rng = (np.abs(seen[:, :, -len(joints) :]) < 1).all(axis=-1), np.random.default_rng(0)
    assert np.ptp(true, axis=0).min() > 0.05 and inside.mean() > 0.5
    guess, spread = scene.copy(), np.full(scene.shape, 0.01)
    guess[:, joints] = rng.permuted(true)  # anything
    off = np.full(seen.shape[:3], 0.01)
    off[:, :, -len(joints) :][~inside] = 1.0  # it is known where nothing is to be seen
    shown = np.where(np.isfinite(seen), seen, 0.3)
    found = pixels.corrected(state, guess, spread, shown, off)
    assert np.abs(found[:, joints] - true).max() < 0.01 and np.median(np.abs(found[:, joints] - true)) < 2e-3
    shown[:, 1] += 0.4
    found = pixels.corrected(state, guess, spread, shown, off)
    assert np.median(np.abs(found[:, joints] - true)) < 0.02
    # Who sees nothing stays with the guess; and beyond its ends no joint goes.
    unseen = pixels.corrected(state, guess, spread, shown, np.full(off.shape, 1e6))
    ranges = [handle.joint.high - handle.joint.low for handle in tool.handles(tabletop_task(load_task(name)))]
    assert (np.abs(unseen - guess)[:, joints] < np.array(ranges) / 500).all()
    guess[:, joints] = 9.0
    found = pixels.corrected(state, guess, spread, shown, np.full(off.shape, 1e6))[:, joints]
    np.testing.assert_allclose(
        found, [[handle.joint.high for handle in tool.handles(tabletop_task(load_task(name)))]] * 12
    )


def test_a_sure_guess_moves_little() -> None:
    pixels, state, scene, places, _ = Starts.of("pick_and_place", range(4))
    guess = scene.copy()
    guess[:, places[:, 0]] += 0.02
    seen = np.nan_to_num(pixels.at(state, scene), posinf=0.0)
    off = np.full(seen.shape[:3], 0.1)
    moved = [
        np.linalg.norm(
            (pixels.corrected(state, guess, np.full(scene.shape, spread), seen, off) - guess)[:, places], axis=-1
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
