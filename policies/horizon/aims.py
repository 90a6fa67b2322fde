"""Where the tool is to be at the next keyframe: how one goes there, what demonstrations say, and how it is kept to.

An aim is seven numbers, as the tool sees them: where it is to be [m], how it is to be turned, as a rotation vector
[rad], and what the gripper does meanwhile, -1 closed to 1 open.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from hardware.robots.commands import REACH_M_S, TURN_RAD_S, angle, turn
from policies.horizon import tool
from policies.horizon.config import AimConfig, HorizonConfig, KeysConfig
from policies.horizon.episodes import IDLE, around_of, keyframes_of, proprio
from policies.learner import Tensors
from policies.observed import told
from policies.world.aims import Aims, Mixture
from policies.world.layers import picked, uniform
from robo.core.errors import ConfigError
from tasks.tabletop.base import TabletopTask
from tasks.tabletop.turns import turned

SCALES = (0.02, 0.02, 0.02, 0.15, 0.15, 0.15, 0.3)
"""Of the numbers of an aim: at such distances it is another one [m, rad, of the gripper's range]."""
PLACE_M, WIDTH_M = 0.01, 0.005
"""In such units small differences of places, and of the width between the jaws, count."""
BEGINS = 2
"""Frames from a keyframe on of which what comes next is decided."""
MOVED_M = 0.01
"""What moved by more than this between two keyframes moved with the tool."""
LEVELS = 8
"""Most values of what the gripper does."""


class ToolGuide:
    """Straight to where the tool is to be, slower near it; see `policies.world.aims.Guide`.

    Args:
        keys: How fast.
        dt_s: Control period.
    """

    def __init__(self, keys: KeysConfig, dt_s: float) -> None:
        self.scales: Sequence[float] = SCALES
        self._keys, self._dt_s = keys, dt_s

    def action(self, aim: torch.Tensor) -> torch.Tensor:
        """See `Guide`."""
        cfg = self._keys
        way, spin, jaws = aim.split([3, 3, 1], -1)
        motion = torch.cat([way / (REACH_M_S * cfg.near_s), spin / (TURN_RAD_S * cfg.near_s)], -1)
        most = motion.abs().amax(-1, keepdim=True).div(cfg.speed).clamp_min(1.0)
        return torch.cat([motion / most, jaws.clamp(-1.0, 1.0)], -1)

    def after(self, aim: torch.Tensor, action: torch.Tensor) -> torch.Tensor:
        """See `Guide`; exact for actions of `action`, which turn about the axis that is left to turn about."""
        way, spin, jaws = aim.split([3, 3, 1], -1)
        moved, turned, _ = action.split([3, 3, 1], -1)
        turned = turned * (TURN_RAD_S * self._dt_s)
        return torch.cat([_rotated(way - moved * (REACH_M_S * self._dt_s), -turned), spin - turned, jaws], -1)


def aims(task: TabletopTask, config: HorizonConfig) -> Aims | None:
    """What the actor aims at; its plain numbers are those of `tool.around_it`, `tool.own`, and what it is told."""
    if not config.aiming:
        return None
    own = [WIDTH_M, *[0.0] * (tool.OWN - 1 + len(told(task)))]
    return Aims(ToolGuide(config.keys, task.ctrl_dt_s), (*tool.lengths(task, PLACE_M), *own), LEVELS)


def settled(jaws: np.ndarray) -> np.ndarray:
    """What the gripper is on its way to at each moment, (T,) → (T,): where a change of its command ends.

    A command that goes from open to closed step by step never means what lies between.
    """
    found = jaws.copy()
    for i in reversed(range(len(jaws) - 1)):
        if abs(jaws[i + 1] - jaws[i]) > IDLE:
            found[i] = found[i + 1]
    return found


class Shown:
    """What demonstrations say is to be aimed at, also from where nobody was.

    A demonstrator goes one way; from beside it the next keyframe is where it is. So the tool is put aside, and what it
    holds with it, the less the nearer the keyframe. What is around it is told with errors, as it will be told.

    Args:
        task: The task.
        config: Settings.
        seed: Of what is drawn.
    """

    def __init__(self, task: TabletopTask, config: HorizonConfig, seed: int) -> None:
        self.task, self.config = task, config
        self.rng = np.random.default_rng([seed, 1])
        self._columns: dict[str, list[np.ndarray]] = {}
        self._places, self._turns, self._joints = tool.places(task), tool.orientations(task), tool.joints(task)

    def add(self, values: Mapping[str, np.ndarray]) -> None:
        """A demonstration as a dataset tells it, see `policies.observed.frame`."""
        state = np.asarray(values["observation.state"], float)
        frames, cfg = len(state) - 1, self.config.aims
        keys = keyframes_of(self.task, self.config.keys, state)
        if frames < 1:
            return
        edges = np.concatenate([[0], keys])
        ahead = np.searchsorted(keys, np.arange(frames), side="right")
        around, turns = around_of(values), tool.turned(state)
        jaws = np.clip(np.asarray(values["action.ee_delta"], float)[:, -1], -1.0, 1.0)
        there, settles = keys[ahead], settled(jaws)
        meant = np.array([np.median(settles[a:b]) for a, b in zip(edges[:-1], keys, strict=True)])
        far_m = np.linalg.norm(state[there, -7:-4] - state[:frames, -7:-4], axis=1)
        far_rad = np.linalg.norm(angle(turns[there] @ turns[:frames].transpose(0, 2, 1)), axis=1)
        far = np.maximum(far_m / cfg.taught_m, far_rad / cfg.taught_rad)
        # Where one almost is already, what comes next is what there is to learn.
        whole = np.array([far[a:b].max(initial=0.0) <= 1.0 for a, b in zip(edges[:-1], keys, strict=True)])
        moved = [np.linalg.norm(around[keys, i : i + 3] - around[edges[:-1], i : i + 3], axis=1) for i in self._places]
        columns = {
            "state": state[:frames],
            "around": around[:frames],
            "told": proprio(self.task, values)[:frames, tool.OWN :].astype(float),
            "place": state[there, -7:-4],
            "turn": turns[there],
            "jaws": meant[ahead],
            "far_m": far_m,
            "kept": meant[ahead] < settles.max() - IDLE,
            "held": (np.stack(moved, 1) > MOVED_M)[ahead] if moved else np.zeros((frames, 0), bool),
            "begins": np.arange(frames) - edges[ahead] < BEGINS,
        }
        # Behind the last keyframe nothing comes, and there one is to be content.
        taught = whole[ahead] | (far > 1.0) | (ahead == len(keys) - 1)
        for name, column in columns.items():
            self._columns.setdefault(name, []).append(column[taught])

    def draw(self, count: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Plain numbers (count, P) as the actor is to see them, and aims (count, 7).

        Raises:
            ConfigError: Demonstrations hold no moment with a keyframe ahead.
        """
        cfg, rng, columns = self.config.aims, self.rng, self._joined()
        rows = rng.integers(len(columns["far_m"]), size=count)
        first = np.flatnonzero(columns["begins"])
        if len(first):
            fresh = rng.uniform(size=count) < cfg.begins
            rows = np.where(fresh, first[rng.integers(len(first), size=count)], rows)
        at = {name: column[rows] for name, column in columns.items()}
        state, around = at["state"].copy(), at["around"].copy()

        def noise() -> np.ndarray:
            return rng.normal(size=(count, 3))

        near = at["begins"] * cfg.arrives
        aside = np.maximum(np.minimum(cfg.aside * at["far_m"], cfg.aside_m), near * cfg.near_m)[:, None] * noise()
        tilt = cfg.aside_rad * np.minimum(cfg.aside * at["far_m"] / cfg.aside_m, 1.0)
        tilt = np.where(at["held"].any(1), 0.0, np.maximum(tilt, near * cfg.near_rad))
        state[:, -7:-4] += aside
        state[:, -8] += at["kept"] * cfg.error_width_m * np.abs(rng.normal(size=count))
        state[:, -4:] = turned(state[:, -4:], tilt[:, None] * noise())
        for i, held in zip(self._places, at["held"].T, strict=True):
            around[:, i : i + 3] += aside * held[:, None] + cfg.error_m * noise()
        for i in self._turns:
            around[:, i : i + 4] = turned(around[:, i : i + 4], cfg.error_rad * noise())
        around[:, self._joints] += cfg.error_joint * rng.normal(size=(count, len(self._joints)))
        scene = tool.scene(self.task, state, around)
        plain = [tool.around_it(self.task, state, scene), tool.own(state), at["told"]]
        back = tool.turned(state).transpose(0, 2, 1)
        way = np.einsum("tij,tj->ti", back, at["place"] - state[:, -7:-4])
        aims = np.concatenate([way, angle(back @ at["turn"]), at["jaws"][:, None]], axis=1)
        return torch.from_numpy(np.concatenate(plain, axis=1).astype(np.float32)), torch.from_numpy(aims).float()

    def levels(self) -> torch.Tensor:
        """What the gripper does in demonstrations, (`LEVELS`,), the last of fewer repeated.

        Raises:
            ConfigError: As `draw`.
        """
        values = np.sort(self._joined()["jaws"])
        groups = np.split(values, np.flatnonzero(np.diff(values) > IDLE) + 1)
        found = np.array([np.median(group) for group in groups])
        if len(found) > LEVELS:
            found = np.quantile(values, np.linspace(0.0, 1.0, LEVELS))
        return torch.from_numpy(np.pad(found, (0, LEVELS - len(found)), mode="edge")).float()

    def state(self) -> tuple[Tensors, dict[str, Any]]:
        """All of it: tensors by name, and a JSON object."""
        tensors = {name: torch.from_numpy(np.concatenate(parts)) for name, parts in self._columns.items()}
        return tensors, {"rng": copy.deepcopy(self.rng.bit_generator.state)}

    def load_state(self, tensors: Tensors, meta: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._columns = {name: [values.numpy()] for name, values in tensors.items()}
        self.rng.bit_generator.state = meta["rng"]

    def _joined(self) -> dict[str, np.ndarray]:
        if not any(map(len, self._columns.get("far_m", []))):
            raise ConfigError(
                "no demonstration lasts for two moments, so that there is nothing to aim at; record longer ones"
            )
        if any(len(parts) > 1 for parts in self._columns.values()):
            self._columns = {name: [np.concatenate(parts)] for name, parts in self._columns.items()}
        return {name: parts[0] for name, parts in self._columns.items()}


class Follower:
    """Keeps to one aim until it is reached, and only then takes up the next, while episodes are played.

    Args:
        guide: How aims are followed.
        config: When one is reached.
        dt_s: Control period.
    """

    def __init__(self, guide: ToolGuide, config: AimConfig, dt_s: float) -> None:
        self.guide, self.config, self.dt_s = guide, config, dt_s
        self._aim: tuple[np.ndarray, np.ndarray, float] | None = None
        self._since, self._jaws, self._width = 0, 1.0, np.nan

    def motion(self, state: np.ndarray, says: Mixture, generator: torch.Generator | None) -> torch.Tensor:
        """What to do now, as the tool sees it, (1, 7).

        Args:
            state: ``observation.state``, (1, J + 8).
            says: What there is to aim at from there, (1, K, ...).
            generator: Draws the next aim where one is due; None: the likeliest is taken.
        """
        cfg, place, turns = self.config, state[0, -7:-4], tool.turned(state)[0]
        chances, aims = says.logits[0].exp().cpu(), says.places[0].cpu().double().numpy()
        # The gripper still moves while its width does.
        still = abs(state[0, -8] - self._width) <= cfg.still_m_s * self.dt_s
        self._width, self._since = state[0, -8], self._since + 1
        left = None if self._aim is None else self._left(self._aim, place, turns)
        if left is not None:
            there = np.linalg.norm(left[:3]) < cfg.near_m and np.linalg.norm(left[3:6]) < cfg.near_rad
            held = self._since * self.dt_s
            if (there and still and held >= cfg.least_s) or held >= cfg.patience_s:
                left = None
        if left is None:
            # Whoever is there already is to do something else, if there is anything that is likely enough.
            idle = (np.linalg.norm(aims[:, :3], axis=1) < cfg.other * cfg.near_m) & (
                np.linalg.norm(aims[:, 3:6], axis=1) < cfg.other * cfg.near_rad
            )
            idle &= np.abs(aims[:, 6] - self._jaws) < cfg.other_jaws
            weighed = torch.where(torch.from_numpy(idle), cfg.unlikely * chances, chances)
            weighed = torch.where(chances < cfg.unlikely, 0.0, weighed)
            chosen = int(weighed.argmax())
            if generator is not None:
                chosen = int(picked(weighed / weighed.sum(), uniform((), generator, weighed)))
            left, self._since = aims[chosen], 0
        elif np.linalg.norm(left[:3]) > cfg.fixed_m:
            # From nearer one sees better where it is; another aim is another thing.
            far = np.linalg.norm(aims[:, :3] - left[:3], axis=1) + cfg.near_m * np.abs(aims[:, 6] - left[6])
            same = int(far.argmin())
            if far[same] < cfg.same_m:
                left = np.concatenate([left[:6] + cfg.follow * (aims[same, :6] - left[:6]), aims[same, 6:]])
        self._aim = (place + turns @ left[:3], turns @ turn(left[3:6]), float(left[6]))
        self._jaws = self._aim[2]
        return self.guide.action(torch.from_numpy(left[None]).float())

    def _left(self, aim: tuple[np.ndarray, np.ndarray, float], place: np.ndarray, turns: np.ndarray) -> np.ndarray:
        """An aim as the tool sees it now, (7,)."""
        return np.concatenate([turns.T @ (aim[0] - place), angle(turns.T @ aim[1]), [aim[2]]])


def _rotated(vector: torch.Tensor, by: torch.Tensor) -> torch.Tensor:
    """Vectors (..., 3) turned about others (..., 3) by their length [rad] (Rodrigues), also where that is 0."""
    size = by.square().sum(-1, keepdim=True).add(1e-12).sqrt()
    axis = by / size
    along = (axis * vector).sum(-1, keepdim=True)
    across = torch.linalg.cross(axis.expand_as(vector), vector)
    return vector * size.cos() + across * size.sin() + axis * along * (1.0 - size.cos())
