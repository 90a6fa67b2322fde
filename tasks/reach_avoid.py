"""Visit region A, then hold in region B, within time windows, clear of obstacles, one of which moves.

Why every instance is satisfiable: `ReachAvoid.sample` first draws a *witness*, a joint
trajectory from the start through A to B that keeps inside the joint limits, the planning
velocities and the time windows and clear of itself and the floor. The regions are then
put where the witness's tool passes, and obstacles only where they keep `WITNESS_CLEARANCE_M`
from all of it, the moving one with its whole path. Whatever the mover does within its stated bounds,
the witness satisfies the specification.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from array_api_compat import array_namespace

from robo.core.errors import TaskError
from robo.core.geometry import norm, segment_distance
from tasks.arm import ArmTask, Camera
from tasks.dynamics.arm import planning_velocity
from tasks.task import Array, Arrays, Signal, Source, Stage

if TYPE_CHECKING:
    import mujoco

REGION_RADIUS_M = 0.08
HOLD_S = 1.0
"""How long B is to be held."""
POST_RADIUS_M, POST_HEIGHT_M = 0.05, 0.40
BALL_RADIUS_M = 0.08
MOVER_RADIUS_M = 0.07
MOVER_SPEED_M_S = 0.20
"""Stated bound on the mover's speed; it never leaves its path, a straight segment."""
MOVER_PATH_M = (0.30, 0.50)
MOVER_TURN_RATE_HZ = 0.7
"""Mean rate at which the mover draws a new velocity, unpredictable within its bound."""
TRACKER_ERROR_M = 0.01
"""Bound on the tracker's error of the mover's position."""
WITNESS_CLEARANCE_M = 0.08
FIXED_CAPSULES = 2
"""The first capsules (base, shoulder) never move; obstacles are kept off them at reset."""


class ReachAvoid(ArmTask):
    """The arm visits A within 4 s, then stays a second in B, clear of a post, a ball and a moving ball."""

    name = "reach_avoid"
    instruction = "visit region A, then hold in region B, and keep clear of everything"
    robot_name = "panda"
    ctrl_dt_s = 0.1
    horizon_s = 8.0
    signals = {
        "at_a_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="depth of the tool inside region A"),
        "at_b_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="depth of the tool inside region B"),
        "clearance_m": Signal(
            unit="m", source=Source.PROPRIOCEPTION, text="distance of the arm from post, ball and floor"
        ),
        "self_clearance_m": Signal(unit="m", source=Source.PROPRIOCEPTION, text="distance of the arm from itself"),
        "mover_clearance_m": Signal(
            unit="m",
            source=Source.TRACKER,
            error_bound=TRACKER_ERROR_M,
            text="distance of the arm from the moving ball",
        ),
        "joint_margin_rad": Signal(unit="rad", source=Source.PROPRIOCEPTION, text="distance from the joint limits"),
        "speed_margin_rad_s": Signal(
            unit="rad/s", source=Source.PROPRIOCEPTION, text="distance from the joint velocity limits"
        ),
    }
    mission = "F[0,4](at_a_m > 0) and F[4,7](G[0,1](at_b_m > 0))"
    safety = (
        "clearance_m > 0 and self_clearance_m > 0 and mover_clearance_m > 0 "
        "and joint_margin_rad > 0 and speed_margin_rad_s > 0"
    )
    stages = (Stage(name="visit A", condition="at_a_m > 0"), Stage(name="hold B", condition="at_b_m > 0"))
    cameras = (
        Camera(name="front", position=(1.75, 0.0, 0.95), target=(0.25, 0.0, 0.40), fovy_deg=45),
        Camera(name="side", position=(0.35, -1.75, 0.85), target=(0.30, 0.0, 0.40), fovy_deg=45),
        Camera(name="wrist", position=(0.07, 0.0, 0.0), target=(0.03, 0.0, 0.3), fovy_deg=75, body="hand"),
    )
    observation = {
        "region_a": (3,),
        "region_b": (3,),
        "post": (3,),
        "ball": (3,),
        "mover": (3,),
        "mover_path": (2, 3),
    }

    # ---- scene -------------------------------------------------------------

    def build(self, scene: mujoco.MjSpec) -> None:
        """See `ArmTask.build`."""
        import mujoco

        sphere, capsule = mujoco.mjtGeom.mjGEOM_SPHERE, mujoco.mjtGeom.mjGEOM_CAPSULE
        for name, rgba in (("region_a", (0.15, 0.70, 0.25, 0.35)), ("region_b", (0.15, 0.35, 0.90, 0.35))):
            body = scene.worldbody.add_body(name=name, mocap=True)
            body.add_site(name=name, type=sphere, size=[REGION_RADIUS_M] * 3, rgba=rgba)
        solids = (
            ("post", capsule, [POST_RADIUS_M, POST_HEIGHT_M / 2, 0], (0.85, 0.55, 0.10, 1)),
            ("ball", sphere, [BALL_RADIUS_M, 0, 0], (0.60, 0.30, 0.70, 1)),
            ("mover", sphere, [MOVER_RADIUS_M, 0, 0], (0.90, 0.12, 0.12, 1)),
        )
        for name, shape, size, rgba in solids:
            body = scene.worldbody.add_body(name=name, mocap=True)
            body.add_geom(name=name, type=shape, size=size, rgba=rgba)

    def poses(self, instance: Arrays, world: Arrays) -> dict[str, np.ndarray]:
        """See `ArmTask.poses`."""
        fixed = {name: instance[name] for name in ("region_a", "region_b", "post", "ball")}
        return fixed | {"mover": self._mover(instance, world)}

    # ---- instances ---------------------------------------------------------

    def sample(self, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """Draw start, regions and obstacles around a witness trajectory (kept as ``witness`` (T + 1, J))."""
        for _ in range(1000):
            instance = self._draw(rng)
            if instance is not None:
                return instance
        raise TaskError("reach_avoid: found no satisfiable instance in 1000 tries; check the sizes in the task file")

    def _draw(self, rng: np.random.Generator) -> dict[str, np.ndarray] | None:
        centre = np.array([0.0, 0.0, 0.0, -1.9, 0.0, 1.9, np.pi / 4])
        spread = np.array([1.1, 0.7, 0.6, 0.7, 0.6, 0.7, 0.6])
        start, a, b = rng.uniform(centre - spread, centre + spread, (3, 7))
        # Peak velocity of a quintic is 1.875 times the mean; planning velocities keep 20 % for detours.
        budget = 0.8 * planning_velocity(self.robot) / 1.875
        if np.any(np.abs(a - start) > budget * 3.0) or np.any(np.abs(b - a) > budget * 2.5):
            return None
        times = np.arange(self.steps + 1) * self.ctrl_dt_s
        witness = (
            start
            + _quintic((times - 0.3) / 3.0)[:, None] * (a - start)
            + _quintic((times - 3.7) / 2.5)[:, None] * (b - a)
        )
        points = self.kinematics.points(witness)
        tool = points[:, -1]
        ee_start, ee_a, ee_b = tool[0], tool[round(3.5 / self.ctrl_dt_s)], tool[-1]
        if min(ee_start[2], ee_a[2], ee_b[2]) < 0.15 or np.linalg.norm(ee_a - ee_b) < 0.25:
            return None
        if np.linalg.norm(ee_a - ee_start) < 0.25:
            return None
        split = self._split(points)
        if min(self._self_clearance(split[0]).min(), self._floor_clearance(*split).min()) < 0.04:
            return None

        (rows, radii), c = split, len(self.robot.capsules)

        def gap(segments: np.ndarray, every: int) -> np.ndarray:
            """Distance (n,) of segments (n, 2, 3) from the arm on every so many samples of the witness [m]."""
            start, end = np.moveaxis(segments, (2, 1), (0, 1)).swapaxes(0, 1)[..., None, None]
            part = rows[:, None, :, ::every]
            return (segment_distance(part[:, :, :c], part[:, :, c : 2 * c], start, end) - radii).min((1, 2))

        def place(segments: np.ndarray, radius: float) -> np.ndarray | None:
            """One of the candidates (n, 2, 3) that is clear of the witness, but near enough to matter."""
            coarse = gap(segments, 8) - radius
            for i in np.flatnonzero((coarse > WITNESS_CLEARANCE_M) & (coarse < 0.25))[:4]:
                if gap(segments[i : i + 1], 1)[0] - radius > WITNESS_CLEARANCE_M:
                    return segments[i]
            return None

        def around(n: int, width: float) -> np.ndarray:
            """Points (n, 3) scattered about the straight lines start - A - B of the tool."""
            corner = np.stack([ee_start, ee_a, ee_b])
            leg = rng.integers(0, 2, n)
            u = rng.uniform(0.2, 0.8, (n, 1))
            return (1 - u) * corner[leg] + u * corner[leg + 1] + rng.normal(0, width, (n, 3))

        foot = around(24, 0.2)[:, :2]
        post = np.zeros((24, 2, 3))
        post[:, :, :2] = foot[:, None]
        post[:, 1, 2] = POST_HEIGHT_M
        post = place(post, POST_RADIUS_M)
        centres = around(24, 0.2)
        centres[:, 2] = np.maximum(centres[:, 2], BALL_RADIUS_M + 0.02)
        ball = place(np.stack([centres, centres], 1), BALL_RADIUS_M)
        middle = around(32, 0.25)
        way = rng.normal(size=(32, 3)) * [1.0, 1.0, 0.4]
        way *= rng.uniform(*MOVER_PATH_M, (32, 1)) / 2 / np.linalg.norm(way, axis=1, keepdims=True)
        paths = np.stack([middle - way, middle + way], 1)
        paths = paths[paths[:, :, 2].min(1) > MOVER_RADIUS_M + 0.02]
        path = place(paths, MOVER_RADIUS_M)
        if post is None or ball is None or path is None:
            return None
        return {
            "joint_pos": start,
            "region_a": ee_a,
            "region_b": ee_b,
            "post": post.mean(0),
            "ball": ball[0],
            "mover_path": path,
            "witness": witness,
        }

    # ---- the mover -----------------------------------------------------------

    def start_world(self, instance: Arrays, rng: np.random.Generator) -> dict[str, Any]:
        """Mover's place along its path [m] and velocity [m/s]."""
        length = np.linalg.norm(instance["mover_path"][1] - instance["mover_path"][0])
        return {"mover_along_m": rng.uniform(0, length), "mover_vel_m_s": self._velocity(rng)}

    def advance(self, instance: Arrays, world: Arrays, dt_s: float, rng: np.random.Generator) -> dict[str, Any]:
        """See `ArmTask.advance`: random velocities within the bound, reflected at the ends of the path."""
        length = np.linalg.norm(instance["mover_path"][1] - instance["mover_path"][0])
        turn, fresh = rng.uniform() < dt_s * MOVER_TURN_RATE_HZ, self._velocity(rng)
        vel = fresh if turn else world["mover_vel_m_s"]
        along = world["mover_along_m"] + vel * dt_s
        if along < 0.0 or along > length:
            vel, along = -vel, np.clip(along, 0.0, length)
        return {"mover_along_m": along, "mover_vel_m_s": vel}

    @staticmethod
    def _velocity(rng: np.random.Generator) -> float:
        return float(rng.choice([-1.0, 1.0]) * rng.uniform(0.3, 1.0) * MOVER_SPEED_M_S)

    @staticmethod
    def _mover(instance: Arrays, world: Arrays) -> np.ndarray:
        path = instance["mover_path"]
        return path[0] + world["mover_along_m"] * (path[1] - path[0]) / np.linalg.norm(path[1] - path[0])

    def observe(self, instance: Arrays, world: Arrays, rng: np.random.Generator) -> dict[str, np.ndarray]:
        """See `ArmTask.observe`; the tracker's error is uniform in a ball of its bound."""
        error = rng.normal(size=3)
        error *= TRACKER_ERROR_M * rng.uniform() ** (1 / 3) / np.linalg.norm(error)
        seen = {name: np.array(instance[name]) for name in self.observation if name != "mover"}
        return seen | {"mover": self._mover(instance, world) + error}

    # ---- signals ---------------------------------------------------------------

    def occupied(self, instance: Arrays, world: Arrays) -> dict[str, np.ndarray]:
        """The mover as a segment of length zero: ``mover_reach`` (2, 3) [m]."""
        return {"mover_reach": np.stack([self._mover(instance, world)] * 2)}

    def forecast(self, obs: Arrays, tau_s: Array) -> dict[str, Array]:
        """All the mover can reach by then: the part of its path within ``speed * tau`` of where it was seen.

        The tracker's error moves that part, and so any distance from it, by at most the signal's error bound.

        Returns:
            ``mover_reach`` (..., T, 2, 3): ends of that part of the path [m].
        """
        xp = array_namespace(tau_s)
        start, stop = obs["mover_path"][..., 0, :], obs["mover_path"][..., 1, :]
        length = norm(xp.moveaxis(stop - start, -1, 0))[..., None]
        direction = (stop - start) / length
        along = ((obs["mover"] - start) * direction).sum(-1)[..., None]
        slack = MOVER_SPEED_M_S * tau_s
        low = xp.minimum(xp.clip(along - slack, 0.0, None), length)
        high = xp.clip(xp.minimum(along + slack, length), 0.0, None)
        ends = xp.stack([low, high], axis=-1)[..., None]
        return {"mover_reach": start[..., None, None, :] + ends * direction[..., None, None, :]}

    def measure(self, state: Arrays, instance: Arrays) -> dict[str, Array]:
        """See `ArmTask.measure`."""
        xp = array_namespace(state["points"])
        dtype, limits = state["points"].dtype, self.robot.limits
        points, radii = self._split(state["points"])
        self_slack, joint_slack = 0.0, 0.0
        if "slack_rad" in state:  # no point of a capsule is further off than lever times slack
            slack, levers = state["slack_rad"], (self.kinematics.lever_m, self.kinematics.pair_lever_m)
            lever, pairs = (xp.asarray(x, dtype=dtype, device=slack.device) for x in levers)
            radii = radii + xp.moveaxis(xp.matmul(slack, lever), -1, 0)
            self_slack, joint_slack = xp.moveaxis(xp.matmul(slack, pairs), -1, 0), slack
        tool = points[:, -1]
        q, v = state["joint_pos"], state["joint_vel"]
        lower, upper, fastest = (
            xp.asarray(x, dtype=dtype, device=q.device)
            for x in (limits.lower_rad, limits.upper_rad, limits.velocity_rad_s)
        )
        a, b, post, ball = (_rows(instance[k], tool.ndim) for k in ("region_a", "region_b", "post", "ball"))
        half = _rows(xp.asarray([0.0, 0.0, POST_HEIGHT_M / 2], dtype=dtype, device=q.device), tool.ndim)
        mover = _rows(xp.moveaxis(state["mover_reach"], -2, 0), tool.ndim + 1)
        post_gap = self._gap(points, post - half, post + half, radii) - POST_RADIUS_M
        ball_gap = self._gap(points, ball, ball, radii) - BALL_RADIUS_M
        return {
            "at_a_m": REGION_RADIUS_M - norm(tool - a),
            "at_b_m": REGION_RADIUS_M - norm(tool - b),
            "clearance_m": xp.minimum(xp.minimum(post_gap, ball_gap), self._floor_clearance(points, radii)),
            "self_clearance_m": self._self_clearance(points, self_slack),
            "mover_clearance_m": self._gap(points, mover[:, 0], mover[:, 1], radii) - MOVER_RADIUS_M,
            "joint_margin_rad": xp.amin(xp.minimum(q - lower, upper - q) - joint_slack, axis=-1),
            "speed_margin_rad_s": xp.amin(fastest - xp.abs(v), axis=-1),
        }

    def _split(self, points: Array) -> tuple[Array, Array]:
        """Points and radii with components and capsules first: (3, P, ...) and (C, 1 ...)."""
        xp = array_namespace(points)
        radii = xp.asarray(self.kinematics.radii_m, dtype=points.dtype, device=points.device)
        return xp.moveaxis(points, (-1, -2), (0, 1)), radii.reshape((-1,) + (1,) * (points.ndim - 2))

    def _gap(self, points: Array, start: Array, end: Array, radii: Array) -> Array:
        """Distance of the moving capsules of the arm from a segment (3, ...), less the arm's radii: (...)."""
        xp, c, k = array_namespace(points), len(self.robot.capsules), FIXED_CAPSULES
        gap = segment_distance(points[:, k:c], points[:, c + k : 2 * c], start[:, None], end[:, None])
        return xp.amin(gap - radii[k:], axis=0)

    def _floor_clearance(self, points: Array, radii: Array) -> Array:
        xp, c, index = array_namespace(points), len(self.robot.capsules), list(self.robot.floor_capsules)
        return xp.amin((xp.minimum(points[2, :c], points[2, c : 2 * c]) - radii)[index], axis=0)

    def _self_clearance(self, points: Array, slack: Array | float = 0.0) -> Array:
        xp, c = array_namespace(points), len(self.robot.capsules)
        i, j = [p[0] for p in self.robot.self_pairs], [p[1] for p in self.robot.self_pairs]
        start, end = points[:, :c], points[:, c : 2 * c]
        gap = segment_distance(start[:, i], end[:, i], start[:, j], end[:, j])
        radii = xp.asarray(self._pair_radii, dtype=points.dtype, device=points.device)
        return xp.amin(gap - radii.reshape((-1,) + (1,) * (gap.ndim - 1)) - slack, axis=0)

    @cached_property
    def _pair_radii(self) -> np.ndarray:
        """Sum of radii of every self pair [m]."""
        return np.array([self.kinematics.radii_m[list(pair)].sum() for pair in self.robot.self_pairs])

    def success(self, trace: Arrays) -> bool:
        """A was visited, at any time, then B held for a second, and nothing was touched on the way."""
        in_a, in_b = trace["at_a_m"] > 0, trace["at_b_m"] > 0
        touched = min(trace[k].min() for k in ("clearance_m", "self_clearance_m", "mover_clearance_m")) <= 0
        hold = round(HOLD_S / self.ctrl_dt_s) + 1
        after = in_b[int(np.argmax(in_a)) :] if in_a.any() else in_b[:0]
        held = len(after) >= hold and np.lib.stride_tricks.sliding_window_view(after, hold).all(-1).any()
        return bool(held and not touched)


def _quintic(u: np.ndarray) -> np.ndarray:
    """Minimum-jerk blend from 0 to 1, clamped outside (Flash & Hogan 1985)."""
    u = np.clip(u, 0.0, 1.0)
    return u**3 * (10 - 15 * u + 6 * u**2)


def _rows(vectors: Array, ndim: int) -> Array:
    """Vectors (..., 3) as (3, ...), with axes of length one appended up to `ndim`."""
    xp = array_namespace(vectors)
    rows = xp.moveaxis(vectors, -1, 0)
    return rows.reshape(tuple(rows.shape) + (1,) * (ndim - rows.ndim))
