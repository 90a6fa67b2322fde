"""Where in pictures things are: as the simulator's own cameras say, and as one sees."""

from __future__ import annotations

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


def test_a_camera_that_is_not_there_is_one_clear_error() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown camera 'frnt'.*front"):
        Pixels(tabletop_task(load_task("reach")), ["frnt"])


def test_the_hand_is_behind_the_tool() -> None:
    robot = tabletop_task(load_task("pick_and_place")).robot
    pose = hand_in_tool(robot)
    np.testing.assert_allclose(pose[:3, :3] @ pose[:3, :3].T, np.eye(3), atol=1e-9)
    assert pose[2, 3] < -0.05 and np.abs(pose[:2, 3]).max() < 1e-6
