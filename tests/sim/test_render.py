"""Pictures are the right way up, measured in metres, and say so when they cannot be taken."""

from __future__ import annotations

import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from robo.core.errors import ConfigError, RenderError, UnknownNameError
from sim import render
from sim.coarse import COARSE_GROUP
from sim.open import make
from sim.render import Renderer
from sim.scene import Scene
from tasks.registry import TASKS

SIZE = (72, 96)


@pytest.fixture(scope="module")
def scene() -> Scene:
    return Scene(TASKS.make("reach_avoid"))


@pytest.fixture
def data(scene: Scene) -> mujoco.MjData:
    """The arm at home, spheres to its sides, regions out of the way."""
    data = mujoco.MjData(scene.model)
    data.qpos[scene.qpos] = scene.task.robot.home_rad
    scene.place(
        data,
        {
            "mover": np.array([0.6, -0.25, 0.65]),
            "ball": np.array([0.25, -0.4, 0.2]),
            "post": np.array([-0.3, 0.5, 0.2]),
            "region_a": np.array([0.0, 0.0, -1.0]),
            "region_b": np.array([0.0, 0.0, -1.0]),
        },
    )
    mujoco.mj_forward(scene.model, data)
    return data


def pinhole(scene: Scene, data: mujoco.MjData, camera: str) -> tuple[np.ndarray, np.ndarray, float]:
    """Position (3,), rotation (3, 3) and focal length [pixels] of a camera that takes pictures of SIZE."""
    index = scene.model.camera(camera).id
    focal = SIZE[0] / 2 / np.tan(np.radians(scene.model.cam_fovy[index]) / 2)
    return data.cam_xpos[index], data.cam_xmat[index].reshape(3, 3), focal


def project(scene: Scene, data: mujoco.MjData, camera: str, point: np.ndarray) -> tuple[int, int]:
    """Row and column of a world point, top row first."""
    eye, rotation, focal = pinhole(scene, data, camera)
    x, y, z = rotation.T @ (point - eye)
    return int(np.floor(SIZE[0] / 2 - focal * y / -z)), int(np.floor(SIZE[1] / 2 + focal * x / -z))


def rays(
    scene: Scene, data: mujoco.MjData, camera: str, rows: np.ndarray, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Camera position (3,) and, through the middle of each pixel, the vector (n, 3) that goes 1 m deep."""
    eye, rotation, focal = pinhole(scene, data, camera)
    across, down = (columns + 0.5 - SIZE[1] / 2) / focal, (rows + 0.5 - SIZE[0] / 2) / focal
    return eye, np.stack([across, -down, -np.ones(len(rows))], axis=-1) @ rotation.T


@pytest.mark.parametrize("camera", ["front", "side"])
@pytest.mark.parametrize("body", ["mover", "ball"])
def test_a_body_stands_where_it_projects(scene: Scene, data: mujoco.MjData, camera: str, body: str) -> None:
    with Renderer(scene.model, SIZE) as renderer:
        rgb, depth, seg = (getattr(renderer, kind)(data, camera) for kind in ("rgb", "depth", "seg"))
    assert (rgb.shape, rgb.dtype) == ((*SIZE, 3), np.uint8)
    assert (depth.shape, depth.dtype) == (SIZE, np.float32)
    assert (seg.shape, seg.dtype) == (SIZE, np.int32)
    geom = scene.model.geom(body)
    centre, radius = data.body(body).xpos, geom.size[0]
    row, column = project(scene, data, camera, centre)
    colour, seen = geom.rgba[:3], rgb[row, column] / 255.0
    assert np.argmax(seen) == np.argmax(colour) and np.argmin(seen) == np.argmin(colour)
    assert seg[row, column] == geom.id
    rows, columns = np.nonzero(seg == geom.id)
    eye, ray = rays(scene, data, camera, rows, columns)
    # Ray and sphere: |eye + t ray - centre| = radius, the nearer of both.
    along, square = ray @ (centre - eye), (ray**2).sum(-1)
    miss = ((centre - eye) ** 2).sum() - along**2 / square
    middle = miss < (0.6 * radius) ** 2  # spheres are drawn as polyhedra: their rims are a little rough
    assert middle.sum() > 5
    true = ((along - np.sqrt(square * np.maximum(radius**2 - miss, 0.0))) / square)[middle]
    np.testing.assert_allclose(depth[rows, columns][middle], true, atol=1e-3)


@pytest.mark.parametrize("camera", ["front", "side", "wrist"])
def test_depth_of_the_floor_is_right_to_a_millimetre(scene: Scene, data: mujoco.MjData, camera: str) -> None:
    with Renderer(scene.model, SIZE) as renderer:
        depth, seg = renderer.depth(data, camera), renderer.seg(data, camera)
    rows, columns = np.nonzero(seg == scene.model.geom("floor").id)
    eye, ray = rays(scene, data, camera, rows, columns)
    true = -eye[2] / ray[:, 2]
    near = true < 2.0  # beyond, one pixel covers much floor
    assert near.sum() > 100
    np.testing.assert_allclose(depth[rows, columns][near], true[near], atol=1e-3)


def test_depth_and_segmentation_agree_about_emptiness(scene: Scene, data: mujoco.MjData) -> None:
    with Renderer(scene.model, SIZE) as renderer:
        depth, seg = renderer.depth(data, "front"), renderer.seg(data, "front")
    assert (seg == -1).any()
    np.testing.assert_array_equal(depth == 0, seg == -1)
    names = {scene.model.geom(i).name for i in np.unique(seg[seg >= 0])}
    assert {"floor", "mover", "ball"} <= names
    # The arm is seen as its shells, not as the capsules that the planner reasons with.
    assert not names & {c.name for c in scene.task.robot.capsules}
    arm = np.flatnonzero(scene.is_arm)
    assert np.isin(seg, arm).sum() > 50


def test_regions_are_seen_but_have_no_surface(scene: Scene, data: mujoco.MjData) -> None:
    with Renderer(scene.model, SIZE) as renderer:
        kinds = {"rgb": renderer.rgb, "depth": renderer.depth, "seg": renderer.seg}
        before = {name: take(data, "front") for name, take in kinds.items()}
        scene.place(data, {"region_a": np.array([0.4, 0.3, 0.4])})
        mujoco.mj_forward(scene.model, data)
        after = {name: take(data, "front") for name, take in kinds.items()}
    assert (before["rgb"] != after["rgb"]).any()
    np.testing.assert_array_equal(before["depth"], after["depth"])
    np.testing.assert_array_equal(before["seg"], after["seg"])


def test_environment_takes_the_pictures_asked_for() -> None:
    with make("reach_avoid", cameras=("front", "wrist"), images=("rgb", "depth", "seg"), size=SIZE) as env:
        obs, _ = env.reset(seed=0)
        assert env.observation_space.contains(obs)
        pictures = {f"{kind}_{camera}" for kind in ("rgb", "depth", "seg") for camera in ("front", "wrist")}
        assert pictures <= set(obs)
        later, *_ = env.step(np.concatenate([obs["joint_pos"] + 0.1, np.zeros(7)]))
        assert env.observation_space.contains(later)
        for name in pictures:
            assert np.ptp(obs[name]) > 0
            assert (obs[name] != later[name]).any()
            assert not np.shares_memory(obs[name], later[name])
        with Renderer(env.model, SIZE) as renderer:  # the pictures are of now
            np.testing.assert_array_equal(renderer.rgb(env.data, "wrist"), later["rgb_wrist"])


def test_same_seed_same_pictures() -> None:
    taken = []
    for _ in range(2):
        with make("reach_avoid", cameras=("side",), images=("rgb", "depth", "seg"), size=48) as env:
            taken.append(env.reset(seed=4)[0])
    for name, value in taken[0].items():
        np.testing.assert_array_equal(value, taken[1][name])


def test_pictures_for_people_have_shadows_and_smooth_edges(scene: Scene, data: mujoco.MjData) -> None:
    before = scene.model.vis.quality.shadowsize, scene.model.vis.global_.offwidth
    with Renderer(scene.model, (240, 320)) as plain:
        fast = plain.rgb(data, "front")
        with Renderer(scene.model, (240, 320), pretty=True) as pretty:
            slow = pretty.rgb(data, "front")
        np.testing.assert_array_equal(plain.rgb(data, "front"), fast)
    assert (scene.model.vis.quality.shadowsize, scene.model.vis.global_.offwidth) == before
    assert len(np.unique(slow.reshape(-1, 3), axis=0)) > len(np.unique(fast.reshape(-1, 3), axis=0))
    floor = slice(180, 240)
    assert slow[floor].min() < fast[floor].min() or slow[floor].std() > fast[floor].std()


@pytest.mark.parametrize("camera", ["front", "side"])
def test_an_arm_of_few_shapes_looks_like_the_arm(scene: Scene, data: mujoco.MjData, camera: str) -> None:
    arm, rgb = [], []
    for coarse in (False, True):
        with Renderer(scene.model, 128, coarse=coarse) as renderer:
            seg = renderer.seg(data, camera)
            arm.append(np.isin(seg, np.flatnonzero(scene.is_arm)))
            rgb.append(renderer.rgb(data, camera).astype(int))
            bodies = {scene.model.geom_bodyid[geom] for geom in np.unique(seg[arm[-1]])}
            assert len(bodies) >= 8  # every link that can be seen, not one blob
    assert arm[0].sum() > 300
    assert (arm[0] & arm[1]).sum() > 0.9 * (arm[0] | arm[1]).sum()
    assert np.abs(rgb[0] - rgb[1]).mean() < 4
    assert scene.model.geom_contype[scene.model.geom_group == COARSE_GROUP].max() == 0


def test_closing_or_dropping_a_renderer_leaves_others_alone(scene: Scene, data: mujoco.MjData) -> None:
    first = Renderer(scene.model, SIZE)
    wanted = first.rgb(data, "front")
    second = Renderer(scene.model, SIZE)
    second.rgb(data, "side")
    second.close()
    np.testing.assert_array_equal(first.rgb(data, "front"), wanted)
    first = Renderer(scene.model, SIZE)  # frees the one before while the new one is alive
    np.testing.assert_array_equal(first.rgb(data, "front"), wanted)
    first.close()
    first.close()
    with pytest.raises(RenderError, match="closed"):
        first.rgb(data, "front")


def test_a_process_that_forgets_to_close_ends_quietly() -> None:
    script = "import sim; env = sim.make('reach_avoid', cameras=('front',), size=16); env.reset(seed=0); keep = [env]"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")


def test_unknown_camera_names_the_nearest(scene: Scene, data: mujoco.MjData) -> None:
    with Renderer(scene.model, SIZE) as renderer, pytest.raises(UnknownNameError, match="did you mean 'front'"):
        renderer.depth(data, "frnt")


def test_impossible_size_is_refused(scene: Scene) -> None:
    with pytest.raises(ConfigError, match="size"):
        Renderer(scene.model, (0, 96))


# ---- choosing a renderer ---------------------------------------------------------------


@pytest.fixture
def choose(monkeypatch: pytest.MonkeyPatch):
    """Calls `backend` afresh, with MUJOCO_GL set and probes that find given failures."""

    def choose(mujoco_gl: str | None = None, **failures: str) -> str:
        if mujoco_gl is None:
            monkeypatch.delenv("MUJOCO_GL", raising=False)
        else:
            monkeypatch.setenv("MUJOCO_GL", mujoco_gl)
        monkeypatch.setattr(render, "probe", lambda name: failures.get(name, ""))
        return render.backend.__wrapped__()

    return choose


def test_renderer_of_the_environment_variable_is_honoured(choose) -> None:
    assert choose("osmesa") == "osmesa" and choose("EGL") == "egl" and choose("on") == "egl"
    with pytest.raises(RenderError, match="did you mean 'osmesa'"):
        choose("osmes")
    with pytest.raises(RenderError, match="switches rendering off; unset it"):
        choose("disabled")


def test_an_unknown_renderer_is_one_line_before_mujoco_is_imported() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sim"], env=os.environ | {"MUJOCO_GL": "elg"}, capture_output=True, text=True
    )
    assert done.stderr.splitlines()[-1].startswith(
        "robo.core.errors.RenderError: MUJOCO_GL=elg is no renderer: did you"
    )


def test_first_renderer_that_draws_is_taken(choose) -> None:
    assert choose() == "egl"
    assert choose(egl="no device") == "osmesa"
    with pytest.raises(RenderError, match=r"egl: no device; osmesa: no library.*apt-get install"):
        choose(egl="no device", osmesa="no library")


def test_probe_tells_what_is_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(render._MODULES, "egl", "no_such_module_of_opengl")
    assert "no_such_module_of_opengl" in render.probe.__wrapped__("egl")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert render.probe.__wrapped__("osmesa") == "ended with code 1"


def test_a_renderer_that_does_not_start_says_how_to_mend_it(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(render, "backend", lambda: "egl")
    monkeypatch.setitem(render._MODULES, "egl", "no_such_module_of_opengl")
    with pytest.raises(RenderError, match=r"egl does not start.*apt-get install"):
        Renderer(scene.model, SIZE)
