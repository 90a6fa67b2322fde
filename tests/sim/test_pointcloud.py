"""Point clouds lie where the things are, in metres and in the frame of the robot's base."""

from __future__ import annotations

import sys
from collections.abc import Iterator

import gymnasium
import numpy as np
import pytest

from robo.core.errors import ConfigError, MissingDependencyError, TaskError, UnknownNameError
from sim.open import make
from sim.pointcloud import Shot, extrinsics, fuse, intrinsics, point_cloud, shots
from sim.tabletop import TabletopEnv, TabletopScene, compose_tabletop
from tasks.reach_avoid import BALL_RADIUS_M, MOVER_RADIUS_M
from tasks.tabletop.pick_and_place import HALF_M, PickAndPlace

SIZE = (120, 160)
ALL = ("front", "left", "right", "wrist", "overhead")
ABOVE = ((0.1, -0.6, -0.01), (0.9, 0.6, 0.6))
"""A box around the table top."""
BASE_M, BASE_YAW_RAD = np.array([0.10, -0.05, 0.0]), 0.3


@pytest.fixture(scope="module")
def env() -> Iterator[TabletopEnv]:
    """A cube beneath the hand, so that the wrist's camera sees it too; the robot's base is not where the world's is."""
    task = PickAndPlace()
    spec = compose_tabletop(task)
    base = spec.body("link0")
    base.pos, base.quat = BASE_M, [np.cos(BASE_YAW_RAD / 2), 0.0, 0.0, np.sin(BASE_YAW_RAD / 2)]
    env = TabletopEnv(task, scene=TabletopScene(task, spec), cameras=ALL, images=("rgb", "depth", "seg"), size=SIZE)
    instance = task.sample(np.random.default_rng(0))
    instance["cube_pos"], instance["target_pos"] = np.array([0.55, 0.10, HALF_M]), np.array([0.45, -0.15, 0.0])
    env.reset(seed=0, options={"instance": instance})
    yield env
    env.close()


@pytest.fixture(scope="module")
def pictures(env: TabletopEnv) -> dict[str, np.ndarray]:
    return env.pictures.take(env.data)


def seen_by(pictures: dict[str, np.ndarray], *cameras: str) -> dict[str, np.ndarray]:
    return {name: picture for name, picture in pictures.items() if name.partition("_")[2] in cameras}


def in_cube(env: TabletopEnv, points: np.ndarray) -> np.ndarray:
    """Points of the base's frame in the frame of the cube, in halves of its side."""
    base, cube = env.data.body("link0"), env.data.geom("cube")
    world = points @ base.xmat.reshape(3, 3).T + base.xpos
    return (world - cube.xpos) @ cube.xmat.reshape(3, 3) / HALF_M


@pytest.mark.parametrize("camera", ALL)
def test_points_of_a_cube_lie_on_its_faces(env, pictures, camera: str) -> None:
    cloud = point_cloud(env, seen_by(pictures, camera), bodies=("cube",), voxel_m=0)
    assert len(cloud) > 20
    off_m = HALF_M * (np.abs(in_cube(env, cloud.points)).max(axis=1) - 1.0)
    assert np.abs(off_m).max() < 1e-3
    red, green, blue = cloud.colours.T.astype(int)
    assert (red > 2 * np.maximum(green, blue)).all()


def test_cameras_together_see_more_faces_than_each(env, pictures) -> None:
    def faces(*cameras: str) -> set[tuple[int, int]]:
        at = in_cube(env, point_cloud(env, seen_by(pictures, *cameras), bodies=("cube",), voxel_m=0).points)
        axis = np.abs(at).argmax(axis=1)
        clear = np.sort(np.abs(at), axis=1)[:, 1] < 0.9  # not at an edge
        return set(zip(axis[clear].tolist(), np.sign(at[np.arange(len(at)), axis])[clear].tolist(), strict=True))

    alone = [faces(camera) for camera in ("left", "right", "front")]
    assert all(len(seen) <= 3 for seen in alone)
    assert set.union(*alone) == faces("left", "right", "front")
    assert len(faces("left", "right", "front")) == 5, "all but the one it stands on"


def test_the_table_is_the_plane_z_0_of_its_own_colour(env, pictures) -> None:
    cloud = point_cloud(env, pictures, bodies=("table",), box=ABOVE)
    assert len(cloud) > 5_000
    assert np.abs(cloud.points[:, 2]).max() < 1e-3
    # Light brightens and darkens; the proportions of the colours stay.
    share = cloud.colours / cloud.colours.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.median(share, axis=0), np.array([0.80, 0.74, 0.66]) / 2.20, atol=0.01)


def test_box_and_voxels(env, pictures) -> None:
    everything, above = point_cloud(env, pictures, voxel_m=0), point_cloud(env, pictures, voxel_m=0, box=ABOVE)
    inside = ((everything.points >= ABOVE[0]) & (everything.points <= ABOVE[1])).all(axis=1)
    assert len(above) == inside.sum() < len(everything)
    low, high = above.points.min(axis=0), above.points.max(axis=0)
    assert (low >= ABOVE[0]).all() and (high <= ABOVE[1]).all()
    sparse = point_cloud(env, pictures, voxel_m=0.02, box=ABOVE)
    assert len(sparse) < len(above) / 4
    nearest = np.linalg.norm(above.points[:, None] - sparse.points[None, ::50], axis=-1).min(axis=0)
    assert nearest.max() < 0.02 * np.sqrt(3) / 2, "a voxel's point is the mean of points in it"


def test_normals_stand_on_the_surface_towards_the_camera(env, pictures) -> None:
    table = point_cloud(env, pictures, bodies=("table",), box=ABOVE, normals=True)
    assert table.normals is not None and table.normals.shape == table.points.shape
    np.testing.assert_allclose(np.linalg.norm(table.normals, axis=1), 1.0, atol=1e-6)
    assert (table.normals[:, 2] > 0.999).mean() > 0.99
    assert point_cloud(env, pictures, bodies=("cube",)).normals is None


def test_a_body_comes_with_what_hangs_on_it(env, pictures) -> None:
    arm = point_cloud(env, pictures, bodies=("link0",), box=((-0.5, -0.6, 0.02), (0.9, 0.6, 1.2)))
    hand = env.data.body("hand").xpos
    base = env.data.body("link0")
    nearby = np.linalg.norm(arm.points - (hand - base.xpos) @ base.xmat.reshape(3, 3), axis=1)
    assert nearby.min() < 0.08
    assert point_cloud(env, pictures, bodies=("cube", "target")).points[:, 2].max() < 2 * HALF_M + 1e-3


def test_intrinsics_and_extrinsics_project_points_to_where_they_are_seen(env, pictures) -> None:
    base, middle = env.data.body("link0"), env.data.body("cube").xpos
    point = np.append((middle - base.xpos) @ base.xmat.reshape(3, 3), 1.0)
    cube = env.model.geom("cube").id
    for camera in ("front", "left", "right", "wrist"):
        pose = extrinsics(env.model, env.data, camera, env.task.robot)
        u, v, z = intrinsics(env.model, camera, SIZE) @ (np.linalg.inv(pose) @ point)[:3]
        assert z > 0
        assert pictures[f"seg_{camera}"][round(v / z), round(u / z)] == cube


def test_a_tilted_plane_from_a_camera_of_ones_own() -> None:
    """What a real camera's driver would hand over: no simulator is in it."""
    rows, columns = np.mgrid[:60, :80]
    depth = (1.0 / (1.0 + 0.1 * (columns - 39.5) / 100.0)).astype(np.float32)  # the plane z + 0.1 x = 1
    depth[:, :10] = 0.0
    rgb = np.zeros((60, 80, 3), np.uint8)
    rgb[..., 1] = 4 * rows
    matrix = np.array([[100.0, 0, 39.5], [0, 100.0, 29.5], [0, 0, 1]])
    cloud = fuse([Shot(rgb=rgb, depth=depth, intrinsics=matrix, extrinsics=np.eye(4))], voxel_m=0)
    assert len(cloud) == 60 * 70, "where nothing was measured, there is no point"
    x, y, z = cloud.points.T
    np.testing.assert_allclose(z + 0.1 * x, 1.0, atol=1e-6)
    np.testing.assert_array_equal(cloud.colours[:, 1], np.round(4 * (100.0 * y / z + 29.5)))


def test_an_arm_task_and_a_wrapper_will_do() -> None:
    images = ("rgb", "depth", "seg")
    env = gymnasium.make("robo/reach_avoid-v0", cameras=("front", "side"), images=images, size=(60, 80))
    obs, info = env.reset(seed=1)
    for name, radius in (("ball", BALL_RADIUS_M), ("mover", MOVER_RADIUS_M)):
        cloud = point_cloud(env, obs, bodies=(name,), voxel_m=0)
        away = np.linalg.norm(cloud.points - info["bodies"][name], axis=1)
        assert len(away) > 20
        np.testing.assert_allclose(away, radius, atol=2e-3)
    env.close()


def test_errors(env, pictures, monkeypatch) -> None:
    with pytest.raises(ConfigError, match=r"needs depth pictures; .* images=\('rgb', 'depth'\)"):
        point_cloud(env, {"rgb_front": pictures["rgb_front"]})
    with pytest.raises(ConfigError, match="needs seg_front; "):
        shots(env, {k: pictures[k] for k in ("rgb_front", "depth_front")}, bodies=("cube",))
    with pytest.raises(UnknownNameError, match="did you mean 'cube'"):
        point_cloud(env, pictures, bodies=("cub",))
    with pytest.raises(UnknownNameError, match="unknown camera 'frnt': did you mean 'front'"):
        intrinsics(env.model, "frnt", SIZE)
    with pytest.raises(ConfigError, match="box is"):
        fuse([], box=((0, 0, 0), (1, 0, 1)))
    with pytest.raises(ConfigError, match="voxel_m"):
        fuse([], voxel_m=-1)
    with pytest.raises(TaskError, match="bench/car has no scene"):
        shots(make("bench/car"), {})
    monkeypatch.setitem(sys.modules, "open3d", None)
    with pytest.raises(MissingDependencyError, match=r"pip install -e '\.\[pointcloud\]'"):
        point_cloud(env, pictures)
