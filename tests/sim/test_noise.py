"""Pictures as real cameras take them: the statistics are those of the formulas."""

from __future__ import annotations

import numpy as np
import pytest

from robo.core.errors import ConfigError, UnknownNameError
from sim.noise import (
    ColourNoise,
    DepthNoise,
    NoisyPictures,
    axial_std_m,
    colour,
    depth,
    draw_gain,
    lateral_std_px,
)
from sim.open import make
from sim.perturb import perturbed
from sim.tabletop import TabletopEnv

SHAPE = (96, 128)
EXACT = DepthNoise(axial=0.0, lateral=0.0, levels_m=0.0, edge_holes=0.0, holes=0.0)
STILL = ColourNoise(exposure=0.0, white_balance=0.0, blur_px=0.0, photons=0.0, read=0.0)


def flat(z: float) -> np.ndarray:
    return np.full(SHAPE, z, np.float32)


def tilted(z: float, slope: float, fovy_deg: float = 45.0) -> np.ndarray:
    """A plane whose normal is turned away from the axis by ``atan(slope)``, about the vertical of the picture."""
    focal = SHAPE[0] / 2 / np.tan(np.radians(fovy_deg) / 2)
    u = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) / focal
    return np.broadcast_to(z / (1 - slope * u), SHAPE).astype(np.float32)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


# ---- depth -----------------------------------------------------------------------


@pytest.mark.parametrize("z", [0.5, 1.0, 2.0, 3.5])
def test_noise_along_the_axis_is_that_of_the_formula(z: float) -> None:
    settings = DepthNoise(lateral=0.0, levels_m=0.0, holes=0.0)
    error = depth(flat(z), rng(), settings) - z
    std = 0.0012 + 0.0019 * (z - 0.4) ** 2
    assert np.std(error) == pytest.approx(std, rel=0.03) and abs(np.mean(error)) < 4 * std / np.sqrt(error.size)
    assert float(axial_std_m(np.float32(z))) == pytest.approx(std, rel=1e-5)
    twice = depth(flat(z), rng(), DepthNoise(axial=2.0, lateral=0.0, levels_m=0.0, holes=0.0)) - z
    np.testing.assert_allclose(twice, 2 * error, atol=1e-5)


def test_noise_grows_on_surfaces_that_turn_away() -> None:
    angle = np.radians(70.0)
    steep = 0.0001 * angle**2 / (np.pi / 2 - angle) ** 2
    assert float(axial_std_m(np.float32(1.0), angle)) == pytest.approx(0.0012 + 0.0019 * 0.36 + steep, rel=1e-4)
    assert float(lateral_std_px(angle)) == pytest.approx(0.8 + 0.035 * angle / (np.pi / 2 - angle), rel=1e-4)
    settings = DepthNoise(lateral=0.0, levels_m=0.0, holes=0.0)
    picture = tilted(1.0, np.tan(angle))
    inside = (picture > 0.6) & (picture < 1.5)
    error = ((depth(picture, rng(), settings) - picture) / axial_std_m(picture, angle))[inside]
    assert np.std(error) == pytest.approx(1.0, abs=0.05)


def test_pixels_look_beside_themselves() -> None:
    """On a plane the error is its slope times the shift; at an edge pixels take the other side's depth."""
    settings = DepthNoise(axial=0.0, levels_m=0.0, holes=0.0)
    slope = 0.5
    picture = tilted(1.0, slope)
    error = depth(picture, rng(), settings) - picture
    std_px = float(lateral_std_px(np.arctan(slope))) * SHAPE[1] / 640
    np.testing.assert_allclose(error.std(0)[5:-5].mean(), (std_px * np.diff(picture[0]).mean()), rtol=0.1)
    step = flat(1.0)
    step[:, 64:] = 1.5
    seen = depth(step, rng(), DepthNoise(axial=0.0, levels_m=0.0, holes=0.0, edge_holes=0.0))
    assert set(np.unique(seen)) == {np.float32(1.0), np.float32(1.5)}, "nothing floats between the two"
    swapped = seen != step
    assert not swapped[:, :60].any() and not swapped[:, 68:].any()
    share = float(lateral_std_px()) * SHAPE[1] / 640 * np.sqrt(2 / np.pi) / 2  # E max(shift, 0)
    assert swapped[:, 63:65].mean() == pytest.approx(share, abs=0.05)


def test_depth_comes_in_steps_of_disparity() -> None:
    exact = np.linspace(0.5, 3.5, SHAPE[1], dtype=np.float32)[None].repeat(SHAPE[0], 0)
    settings = DepthNoise(axial=0.0, lateral=0.0, holes=0.0, edge_holes=0.0, grazing_rad=np.pi / 2)
    seen = depth(exact, rng(), settings)
    levels = 351.3 / seen
    np.testing.assert_allclose(levels, np.rint(levels), atol=1e-3)
    assert (np.abs(seen - exact) <= 0.5 * seen**2 / 351.3 * 1.05).all()


def test_what_is_not_measured() -> None:
    assert np.array_equal(depth(flat(1.0), rng(), EXACT), flat(1.0))
    holes = depth(flat(1.0), rng(), DepthNoise(axial=0.0, lateral=0.0, levels_m=0.0, holes=0.2)) == 0
    assert holes.mean() == pytest.approx(0.2, abs=0.02)
    step = flat(1.0)
    step[:, 64:] = 1.5
    settings = DepthNoise(axial=0.0, lateral=0.0, levels_m=0.0, holes=0.0, edge_holes=1.0)
    lost = np.flatnonzero((depth(step, rng(), settings) == 0).all(0))
    assert lost.tolist() == [63, 64]
    assert not depth(tilted(1.0, np.tan(1.45)), rng(), EXACT)[:, 60:68].any(), "turned away too far"
    for z in (0.1, 5.0, 0.0):
        assert not depth(flat(z), rng(), EXACT).any()
    hole = flat(1.0)
    hole[20:30, 20:30] = 0.0
    assert np.array_equal(depth(hole, rng(), EXACT) == 0, hole == 0), "nothing stays nothing, and no wider"


# ---- colour ----------------------------------------------------------------------


@pytest.mark.parametrize("value", [40, 128, 220])
def test_noise_of_colour_is_that_of_the_formula(value: int) -> None:
    settings = ColourNoise(exposure=0.0, white_balance=0.0, blur_px=0.0, photons=400.0, read=0.02)
    seen = colour(np.full((*SHAPE, 3), value, np.uint8), rng(), settings) / 255.0
    variance = value / 255 / 400.0 + 0.02**2 + 1 / (12 * 255**2)
    assert np.var(seen) == pytest.approx(variance, rel=0.05)
    assert np.mean(seen) == pytest.approx(value / 255, abs=2e-3)


def test_gain_of_the_channels() -> None:
    settings = ColourNoise(exposure=0.2, white_balance=0.1, blur_px=0.0, photons=0.0, read=0.0)
    gains = np.stack([draw_gain(rng(i), settings) for i in range(500)])
    assert gains.min() >= 0.8 * 0.9 and gains.max() <= 1.2 * 1.1
    bright = gains.mean(1)
    assert 0.09 < bright.std() < 0.14 and 0.03 < (gains / bright[:, None]).std() < 0.07
    picture = rng().integers(0, 200, (*SHAPE, 3)).astype(np.uint8)
    seen = colour(picture, rng(), settings, gain=np.array([0.5, 1.0, 1.1]))
    assert np.abs(seen - picture * [0.5, 1.0, 1.1]).max() <= 0.51
    assert np.array_equal(colour(picture, rng(), STILL), picture)


def test_blur_is_gaussian_and_keeps_light() -> None:
    point = np.zeros((*SHAPE, 3), np.uint8)
    point[40, 50] = 250
    seen = colour(point, rng(), ColourNoise(exposure=0, white_balance=0, blur_px=1.5, photons=0, read=0))[..., 0] / 250
    assert seen.sum() == pytest.approx(1.0, abs=0.05)  # rounded to whole steps of 255
    v, u = np.indices(SHAPE)
    for axis, middle in ((v, 40), (u, 50)):
        assert np.sqrt((seen * (axis - middle) ** 2).sum() / seen.sum()) == pytest.approx(1.5, abs=0.15)
    even = np.full((*SHAPE, 3), 77, np.uint8)
    blurred = ColourNoise(exposure=0, white_balance=0, blur_px=3.0, photons=0, read=0)
    assert np.array_equal(colour(even, rng(), blurred), even)


def test_jpeg_loses_more_the_lower_its_quality() -> None:
    picture = rng().integers(0, 256, (*SHAPE, 1)).astype(np.uint8).repeat(3, -1)  # grey: half the colour goes anyway
    options = dict(exposure=0.0, white_balance=0.0, blur_px=0.0, photons=0.0, read=0.0)
    low, high = (colour(picture, rng(), ColourNoise(jpeg=quality, **options)).astype(int) for quality in (20, 95))
    assert np.abs(low - picture).mean() > 2 * np.abs(high - picture).mean() > 0


# ---- both ------------------------------------------------------------------------


def test_shapes_kinds_and_seeds() -> None:
    for shape in ((96, 96), (48, 64), (3, 5)):
        z, c = np.full(shape, 1.0, np.float32), np.full((*shape, 3), 99, np.uint8)
        for made, picture, kind in ((depth, z, DepthNoise()), (colour, c, ColourNoise(jpeg=80))):
            first, again, other = made(picture, rng(1), kind), made(picture, rng(1), kind), made(picture, rng(2), kind)
            assert first.shape == picture.shape and first.dtype == picture.dtype
            assert np.array_equal(first, again) and not np.array_equal(first, other)
            assert np.array_equal(picture, np.full_like(picture, picture.flat[0])), "the given picture stays"


@pytest.mark.parametrize(
    ("kind", "wrong", "message"),
    [
        (DepthNoise, {"holes": 1.5}, r"holes must lie in \[0, 1\], not 1.5"),
        (DepthNoise, {"axial": float("nan")}, "axial must lie in"),
        (DepthNoise, {"range_m": (2.0, 1.0)}, r"range_m must be \(near, far\)"),
        (DepthNoise, {"fovy_deg": 180.0}, r"fovy_deg must lie in \(0, 180\)"),
        (ColourNoise, {"read": -0.1}, r"read must lie in \[0, 1\]"),
        (ColourNoise, {"jpeg": "high"}, r"jpeg must lie in \[0, 95\], not 'high'"),
    ],
)
def test_settings_are_checked(kind, wrong: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        kind(**wrong)


def test_an_environment_with_noisy_pictures() -> None:
    options = dict(cameras=("front", "wrist"), images=("rgb", "depth", "seg"), size=48)
    plain = TabletopEnv("pick_and_place", **options)
    noisy = perturbed(TabletopEnv("pick_and_place", **options), {"noisy_pictures": {"rgb": {"exposure": 0.3}}})
    (a, _), (b, told), (c, _), (d, again) = (
        env.reset(seed=seed) for env, seed in ((plain, 0), (noisy, 0), (noisy, 1), (noisy, 0))
    )
    assert noisy.observation_space.contains(b)
    for name, value in a.items():
        changed = name.startswith(("rgb_", "depth_"))
        assert np.array_equal(value, b[name]) != changed, name
        assert np.array_equal(b[name], d[name]) and b[name].dtype == value.dtype
    gain = told["perturbed"]["noisy_pictures"]["gain"]
    assert set(gain) == {"front", "wrist"} and np.ptp(gain["front"]) > 0
    assert np.array_equal(gain["front"], again["perturbed"]["noisy_pictures"]["gain"]["front"])
    assert not np.array_equal(b["rgb_front"], c["rgb_front"])
    # Exposure stays for an episode, noise does not.
    obs, *_, info = noisy.step(info_action(noisy))
    assert np.array_equal(info["perturbed"]["noisy_pictures"]["gain"]["wrist"], gain["wrist"])
    assert not np.array_equal(obs["depth_front"], d["depth_front"])
    held = noisy.state()
    first, *_ = noisy.step(info_action(noisy))
    noisy.reset(seed=7)
    noisy.set_state(held)
    then, *_ = noisy.step(info_action(noisy))
    assert all(np.array_equal(value, then[name]) for name, value in first.items())
    assert all(camera in noisy.observation_space.spaces for camera in ("rgb_front", "depth_wrist"))
    plain.close(), noisy.close()


def info_action(env) -> np.ndarray:
    """The reference that stays at home."""
    robot, width = env.unwrapped.task.robot, env.unwrapped.scene.gripper.open_m
    return np.concatenate([robot.home_rad, np.zeros(robot.dof), [width]])


def test_pictures_there_must_be() -> None:
    env = make("pick_and_place")
    with pytest.raises(ConfigError, match="needs pictures of colour or depth"):
        NoisyPictures(env)
    with pytest.raises(UnknownNameError, match="did you mean 'edge_holes'"):
        NoisyPictures(env, depth={"edge_hole": 0.1})
    with pytest.raises(ConfigError, match="DepthNoise or a mapping"):
        NoisyPictures(env, depth=3)  # type: ignore[arg-type]
