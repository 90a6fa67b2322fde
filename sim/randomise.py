"""Domain randomisation of tabletop scenes: what is drawn anew every episode, besides where things are."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import mujoco
import numpy as np

from robo.core.errors import ConfigError

if TYPE_CHECKING:
    from sim.tabletop import TabletopScene

Range = tuple[float, float]
LONGEST_DELAY_S = 1.0
"""More is no delay but another mistake, such as milliseconds."""
TABLE_TEXTURE, TEXELS = "table", 64
PATTERNS = 4
"""Kinds of random textures: plain, checkered, striped, grained."""


@dataclass(frozen=True, kw_only=True)
class Randomisation:
    """How far worlds differ from each other and from the nominal one; the default: not at all.

    Attributes:
        mass_scale: Factor on mass and inertia of every thing, each drawn by itself.
        link_mass_scale: The same for the links of the arm; gravity compensation still carries the nominal weight.
        friction_scale: Factor on the friction of every thing and fixture, each drawn by itself.
        gain_scale: Factor on every servo gain of the arm, each drawn by itself.
        joint_scale: Factor on damping and dry friction of the fixtures' joints.
        delay_s: References act this much later, in whole physics steps [s].
        colour: Every colour but the arm's is off by up to this much in each channel, 0..1.
        texture: Probability that the table has a random pattern.
        light: The light is up to this share brighter or darker, and comes from up to this many radians elsewhere.
        camera_m, camera_rad: Cameras that stand are off by up to this much in place and direction.
    """

    mass_scale: Range = (1.0, 1.0)
    link_mass_scale: Range = (1.0, 1.0)
    friction_scale: Range = (1.0, 1.0)
    gain_scale: Range = (1.0, 1.0)
    joint_scale: Range = (1.0, 1.0)
    delay_s: Range = (0.0, 0.0)
    colour: float = 0.0
    texture: float = 0.0
    light: float = 0.0
    camera_m: float = 0.0
    camera_rad: float = 0.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, tuple):
                least, most = (0.0, LONGEST_DELAY_S) if field.name == "delay_s" else (1e-3, np.inf)
                fits = len(value) == 2 and np.isfinite(value).all() and least <= value[0] <= value[1] <= most
                if not fits:
                    raise ConfigError(f"{field.name} must be (low, high) with {least} <= low <= high, not {value}")
            elif not 0.0 <= value <= 1.0:
                raise ConfigError(f"{field.name} must lie in [0, 1], not {value}")

    @classmethod
    def mismatch(cls, share: float, delay_s: float = 0.0) -> Randomisation:
        """Masses, friction, gains and joints off by up to ``share`` (0.1: ±10 %); references up to ``delay_s`` late.

        Raises:
            ConfigError: Out of range.
        """
        if not 0.0 <= share < 1.0:
            raise ConfigError(f"mismatch must lie in [0, 1), not {share}; 0.1 means ±10 %")
        if not 0.0 <= delay_s <= LONGEST_DELAY_S:
            raise ConfigError(f"delay must lie in [0, {LONGEST_DELAY_S:g}] s, not {delay_s}")
        off = (1.0 - share, 1.0 + share)
        return cls(
            mass_scale=off,
            link_mass_scale=off,
            friction_scale=off,
            gain_scale=off,
            joint_scale=off,
            delay_s=(0.0, delay_s),
        )

    @classmethod
    def looks(cls) -> Randomisation:
        """Colours, textures, light and cameras, as for policies that see; physics stays."""
        return cls(colour=0.15, texture=0.7, light=0.3, camera_m=0.02, camera_rad=0.03)

    def draw(self, rng: np.random.Generator, model: mujoco.MjModel) -> dict[str, np.ndarray]:
        """One world's numbers, for `apply`; the same ones whatever is switched on, so that worlds stay comparable."""
        joints, unit = model.njnt, rng.normal(size=(model.ncam, 2, 3))
        unit /= np.maximum(np.linalg.norm(unit, axis=-1, keepdims=True), 1e-9)
        return {
            "mass": rng.uniform(*self.mass_scale, model.nbody),
            "link_mass": rng.uniform(*self.link_mass_scale, model.nbody),
            "friction": rng.uniform(*self.friction_scale, model.ngeom),
            "gain": rng.uniform(*self.gain_scale, model.nu),
            "joint": rng.uniform(*self.joint_scale, joints),
            "delay_s": rng.uniform(*self.delay_s, 1),
            "colour": rng.uniform(-self.colour, self.colour, (model.ngeom, 3)),
            "light": 1.0 + rng.uniform(-self.light, self.light, 3),
            "camera": unit * rng.uniform(0, 1, (model.ncam, 2, 1)) * [[self.camera_m], [self.camera_rad]],
            "pattern": np.array([rng.uniform() < self.texture, rng.integers(PATTERNS), rng.integers(2**31)], float),
        }


def apply(scene: TabletopScene, drawn: dict[str, np.ndarray]) -> None:
    """Change a scene's model from the nominal one to what was drawn."""
    model, nominal = scene.model, scene.nominal
    # What MuJoCo derives below must not depend on where fixtures stood in the episode before.
    model.body_pos[:], model.body_quat[:] = nominal.body_pos, nominal.body_quat
    arm = nominal.body_rootid == nominal.body("link0").id
    scale = np.where(arm, drawn["link_mass"], drawn["mass"])
    model.body_mass[:] = nominal.body_mass * scale
    model.body_inertia[:] = nominal.body_inertia * scale[:, None]
    model.body_gravcomp[:] = nominal.body_gravcomp / scale
    own = arm[nominal.geom_bodyid]
    model.geom_friction[:] = nominal.geom_friction * np.where(own, 1.0, drawn["friction"])[:, None]
    servos = np.concatenate([scene.pos_ctrl, scene.vel_ctrl])
    model.actuator_gainprm[servos] = nominal.actuator_gainprm[servos] * drawn["gain"][servos, None]
    model.actuator_biasprm[servos] = nominal.actuator_biasprm[servos] * drawn["gain"][servos, None]
    for name in scene.joint_qpos:
        joint = model.joint(name)
        dof = joint.dofadr[0]
        model.dof_damping[dof] = nominal.dof_damping[dof] * drawn["joint"][joint.id]
        model.dof_frictionloss[dof] = nominal.dof_frictionloss[dof] * drawn["joint"][joint.id]
    model.geom_rgba[:, :3] = np.clip(nominal.geom_rgba[:, :3] + np.where(own[:, None], 0.0, drawn["colour"]), 0.0, 1.0)
    bright, *turned = drawn["light"]
    model.light_diffuse[:] = nominal.light_diffuse * bright
    model.light_dir[:, :2] = nominal.light_dir[:, :2] + np.subtract(turned, 1.0)
    standing = nominal.cam_bodyid == 0
    model.cam_pos[:] = nominal.cam_pos + standing[:, None] * drawn["camera"][:, 0]
    for i in np.flatnonzero(standing):
        vector, quat = drawn["camera"][i, 1], np.empty(4)
        angle = float(np.linalg.norm(vector))
        mujoco.mju_axisAngle2Quat(quat, vector / max(angle, 1e-9), angle)
        mujoco.mju_mulQuat(model.cam_quat[i], quat, nominal.cam_quat[i])
    texels(model)[:] = _pattern(drawn["pattern"]).ravel()
    mujoco.mj_setConst(model, mujoco.MjData(model))


def texels(model: mujoco.MjModel) -> np.ndarray:
    """The texture of the table, a view (n,) uint8 into the model."""
    start = model.texture(TABLE_TEXTURE).adr[0]
    return model.tex_data[start : start + 3 * TEXELS**2]


def _pattern(numbers: np.ndarray) -> np.ndarray:
    """Texels (n, n, 3) uint8: white, which leaves the table's own colour, or a random pattern."""
    drawn, kind, seed = numbers
    if not drawn:
        return np.full((TEXELS, TEXELS, 3), 255, np.uint8)
    rng = np.random.default_rng(int(seed))
    first, second = rng.uniform(60, 255, (2, 3))
    size, (x, y) = int(rng.integers(4, 17)), np.indices((TEXELS, TEXELS))
    share = {
        0: np.zeros((TEXELS, TEXELS)),
        1: (x // size + y // size) % 2,
        2: (x // size) % 2,
        3: rng.uniform(0, 0.5, (TEXELS, TEXELS)),
    }[int(kind)]
    return np.round(first + share[..., None] * (second - first)).astype(np.uint8)
