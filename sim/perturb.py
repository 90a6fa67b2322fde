"""Stochastic worlds: wrappers that disturb what an environment does and what it shows, repeatably.

They cover the kinds of Barsainyan et al., *STORI: A Benchmark and Taxonomy for Stochastic Environments* (2025):

| kind there | here |
|---|---|
| 1, what is done depends on chance | `ActionNoise`, `StickyActions`, `RandomActions` |
| 2.1, chance acts by itself | `sim.randomise.Randomisation`, drawn by the environment |
| 2.2, the world drifts | `DriftingDynamics` |
| 3.1, the state is shown otherwise, noisily | `ObservationNoise`, `sim.noise.NoisyPictures` |
| 3.2, parts of the state are missing | `ObservationDropout`, `PartialObservability` |

They work over `sim.env.TaskEnv` and `sim.tabletop.TabletopEnv` and over each other; `perturbed` builds a stack of them.
"""

from __future__ import annotations

import copy
import inspect
import zlib
from collections.abc import Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, ClassVar

import gymnasium
import mujoco
import numpy as np
from gymnasium import spaces

from robo.core.errors import ConfigError, RoboError, UnknownNameError
from sim.pictures import IMAGES
from sim.randomise import apply
from sim.tabletop import TabletopEnv

Obs = dict[str, np.ndarray]
ALWAYS = ("joint_pos", "joint_vel", "time_s")
"""Every observation holds these, see `robo.core.protocols.Obs`."""


class Perturbation(gymnasium.Wrapper):
    """One kind of disturbance over an environment. Subclasses override `_begin`, `_act` or `_see`.

    It draws from a stream of its own, which follows from the seed of the reset, its name and nothing else: the same
    seed gives the same disturbances to the bit, whatever others are in the stack, and what the environment itself draws
    stays what it was. ``info["perturbed"][name]`` tells what was done; all else in the info stays the truth. What else
    an environment has, such as its task, is reached through the wrapper.

    Attributes:
        kind: Its name in `perturbed`.
        name: The same, with a number where others of its kind lie below: ``"sticky_actions_2"``.
    """

    kind: ClassVar[str]

    def __init__(self, env: gymnasium.Env) -> None:
        super().__init__(env)
        alike, below = 1, env
        while isinstance(below, gymnasium.Wrapper):
            alike += isinstance(below, Perturbation) and below.kind == self.kind
            below = below.env
        self.name = self.kind if alike == 1 else f"{self.kind}_{alike}"
        self._seeds: np.random.Generator | None = None
        self._rng = np.random.default_rng(0)
        self._memory: dict[str, Any] = {}
        """What an episode's future depends on besides the stream."""

    def __getattr__(self, name: str) -> Any:
        if name == "env" or name.startswith("_"):
            raise AttributeError(f"{type(self).__name__} has no {name!r}")
        return self.env.get_wrapper_attr(name)

    # ---- Gymnasium -----------------------------------------------------------

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """Start an episode; errors are those of the environment."""
        obs, info = self.env.reset(seed=seed, options=options)
        if seed is not None or self._seeds is None:
            key = zlib.crc32(self.name.encode())
            self._seeds = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))
        self._rng = np.random.default_rng(self._seeds.integers(2**63))
        self._memory, told = {}, {}
        self._begin(obs, info)
        return self._see(obs, told), self._tell(info, told)

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        """One control step; errors are those of the environment.

        Raises:
            RoboError: `reset` of the wrapper was not called.
        """
        if self._seeds is None:
            raise RoboError(f"{self.name} has no episode yet; call its reset() first")
        told: dict[str, Any] = {}
        if self._fits(action):  # else it goes as it is to the environment, which refuses it in its own words
            action = self._act(np.array(action, float), told)
        obs, reward, terminated, truncated, info = self.env.step(action)
        return self._see(obs, told), float(reward), terminated, truncated, self._tell(info, told)

    def state(self) -> dict[str, Any]:
        """The environment's state, with that of the wrapper, as a copy.

        Raises:
            RoboError: The environment keeps none, or has no episode.
        """
        if self._seeds is None:
            raise RoboError(f"{self.name} has no episode yet; call its reset() first")
        streams = {"seeds": self._seeds.bit_generator.state, "rng": self._rng.bit_generator.state}
        own = copy.deepcopy({"streams": streams, "memory": self._memory})
        return self._below("state")() | {f"perturbed/{self.name}": own}

    def set_state(self, state: Mapping[str, Any]) -> None:
        """Go on from `state`, of this or another environment with the same stack: bit-equal to the original.

        Raises:
            RoboError: The state is of another environment or stack.
        """
        kept, seeds, rng = dict(state), np.random.default_rng(0), np.random.default_rng(0)
        try:
            own = copy.deepcopy(kept.pop(f"perturbed/{self.name}"))
            seeds.bit_generator.state, rng.bit_generator.state = own["streams"]["seeds"], own["streams"]["rng"]
            memory = dict(own["memory"])
        except (KeyError, TypeError, ValueError) as error:
            raise RoboError(
                f"not a state with {self.name}: {error}; pass what state() of the same stack gave"
            ) from error
        self._below("set_state")(kept)
        self._seeds, self._rng, self._memory = seeds, rng, memory

    # ---- for subclasses --------------------------------------------------------

    def _begin(self, obs: Obs, info: Mapping[str, Any]) -> None:
        """Draw what holds for an episode."""

    def _act(self, action: np.ndarray, told: dict[str, Any]) -> np.ndarray:
        """The action to execute in place of one; write into `told` what was done."""
        return action

    def _see(self, obs: Obs, told: dict[str, Any]) -> Obs:
        """What is seen in place of an observation; write into `told` what was done."""
        return obs

    def _chance(self, probability: float) -> bool:
        return bool(self._rng.random() < probability)

    # ---- within ------------------------------------------------------------------

    def _tell(self, info: dict[str, Any], told: dict[str, Any]) -> dict[str, Any]:
        return info | {"perturbed": {**info.get("perturbed", {}), self.name: told}}

    def _below(self, name: str) -> Any:
        try:
            return self.env.get_wrapper_attr(name)
        except AttributeError as error:
            raise RoboError(f"{type(self.unwrapped).__name__} has no {name}() to save or restore an episode") from error

    def _fits(self, action: Any) -> bool:
        try:
            numbers = np.asarray(action, float)
        except (TypeError, ValueError):
            return False
        return numbers.shape == self.action_space.shape and bool((np.abs(numbers) < mujoco.mjMAXVAL).all())


# ---- what is done ----------------------------------------------------------------


class ActionNoise(Perturbation):
    """Gaussian noise on every number of an action.

    The noise leads no further out of the action's range than the action itself. Info: ``action``, as executed.

    Args:
        env: With actions that are bounded.
        share: Standard deviation, as a share of the range of each number.

    Raises:
        ConfigError: Actions are not bounded; a negative share.
    """

    kind = "action_noise"

    def __init__(self, env: gymnasium.Env, *, share: float) -> None:
        super().__init__(env)
        self._low, self._high = _bounds(env)
        self._std = _number("share", share) * (self._high - self._low)

    def _act(self, action: np.ndarray, told: dict[str, Any]) -> np.ndarray:
        noisy = action + self._rng.normal(size=action.shape) * self._std
        noisy = np.clip(noisy, np.minimum(self._low, action), np.maximum(self._high, action))
        told["action"] = noisy.copy()
        return noisy


class StickyActions(Perturbation):
    """With some probability the action that was executed last is executed again (Machado et al. 2018, section 5).

    Info: ``stuck``, and ``action``, as executed.

    Args:
        env: Any.
        probability: Of every step but the first.

    Raises:
        ConfigError: It is not in [0, 1].
    """

    kind = "sticky_actions"

    def __init__(self, env: gymnasium.Env, *, probability: float) -> None:
        super().__init__(env)
        self._probability = _number("probability", probability, most=1.0)

    def _act(self, action: np.ndarray, told: dict[str, Any]) -> np.ndarray:
        stuck = self._chance(self._probability) and "last" in self._memory
        action = self._memory["last"].copy() if stuck else action
        self._memory["last"] = action.copy()
        told |= {"stuck": stuck, "action": action.copy()}
        return action


class RandomActions(Perturbation):
    """With some probability a random action, uniform over the range, is executed instead.

    Meant for actions that are changes, such as ``control="joint_delta"``: a random position is far away. Info:
    ``random``, and ``action``, as executed.

    Args:
        env: With actions that are bounded.
        probability: Of every step.

    Raises:
        ConfigError: Actions are not bounded; the probability is not in [0, 1].
    """

    kind = "random_actions"

    def __init__(self, env: gymnasium.Env, *, probability: float) -> None:
        super().__init__(env)
        self._low, self._high = _bounds(env)
        self._probability = _number("probability", probability, most=1.0)

    def _act(self, action: np.ndarray, told: dict[str, Any]) -> np.ndarray:
        # Drawn in any case: what chance does later must not depend on what it did before.
        random, drawn = self._chance(self._probability), self._rng.uniform(self._low, self._high)
        action = drawn if random else action
        told |= {"random": random, "action": action.copy()}
        return action


# ---- what is seen ----------------------------------------------------------------


class ObservationNoise(Perturbation):
    """Gaussian noise on what is observed, and an offset that holds for an episode.

    Orientations (``*_quat_wxyz``) are brought back to length 1; pictures keep their kind of number and its bounds.
    Info: ``noise``, name → what was added, for all but pictures.

    Args:
        env: Any.
        std: Key, or pattern such as ``"*_pos"`` → standard deviation in the unit of the key; later ones win.
        bias: The same for the offset, drawn anew every episode for every number.

    Raises:
        UnknownNameError: No such key.
        ConfigError: A negative number, or a key of numbers that only name things (``seg_*``).
    """

    kind = "observation_noise"

    def __init__(
        self, env: gymnasium.Env, *, std: Mapping[str, float] | None = None, bias: Mapping[str, float] | None = None
    ) -> None:
        super().__init__(env)
        seen = observed(env)
        self._std, self._bias = (
            {name: _number(f"{what} of {name}", value) for name, value in _by_key(seen, given or {}).items()}
            for what, given in (("std", std), ("bias", bias))
        )
        self._spaces = {name: box for name, box in seen.items() if name in self._std or name in self._bias}
        for name in self._spaces:
            if _picture(name) and name.startswith("seg_"):
                raise ConfigError(f"{name} names things, which noise cannot change a little; leave it out")

    def _begin(self, obs: Obs, info: Mapping[str, Any]) -> None:
        self._memory["bias"] = {n: self._rng.normal(0.0, b, self._spaces[n].shape) for n, b in self._bias.items()}

    def _see(self, obs: Obs, told: dict[str, Any]) -> Obs:
        seen, told["noise"] = dict(obs), {}
        for name, box in self._spaces.items():
            noisy = obs[name] + self._memory["bias"].get(name, 0.0)
            if name in self._std:
                noisy = noisy + self._rng.normal(0.0, self._std[name], box.shape)
            if name.endswith("_quat_wxyz"):
                noisy = noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)
            if np.issubdtype(box.dtype, np.integer):
                noisy = np.round(noisy)
            seen[name] = np.clip(noisy, box.low, box.high).astype(box.dtype)
            if not _picture(name):
                told["noise"][name] = seen[name] - obs[name]
        return seen


class ObservationDropout(Perturbation):
    """With some probability what was seen last is seen again, or a picture is black.

    The first observation of an episode is whole. Info: ``dropped``, names.

    Args:
        env: Any.
        probability: Key or pattern → probability of every step; later ones win.
        black: Dropped colour and depth are 0 everywhere, a dropped segmentation -1, instead of being old.

    Raises:
        UnknownNameError: No such key.
        ConfigError: A probability is not in [0, 1].
    """

    kind = "observation_dropout"

    def __init__(self, env: gymnasium.Env, *, probability: Mapping[str, float], black: bool = False) -> None:
        super().__init__(env)
        given = _by_key(observed(env), probability)
        self._probability = {n: _number(f"probability of {n}", p, most=1.0) for n, p in given.items()}
        self._black = bool(black)

    def _see(self, obs: Obs, told: dict[str, Any]) -> Obs:
        seen, told["dropped"] = dict(obs), []
        last = self._memory.setdefault("last", {})
        for name, probability in self._probability.items():
            dropped = self._chance(probability) and name in last
            if dropped:
                told["dropped"].append(name)
                black = self._black and _picture(name)
                seen[name] = np.full_like(obs[name], _nothing(name)) if black else last[name].copy()
            else:
                last[name] = obs[name].copy()
        return seen


class PartialObservability(Perturbation):
    """Parts of the observation are missing: keys always, keys most of the time, a patch of a camera's pictures.

    Info: ``old`` (name → steps since it was seen), ``occluded`` (camera → top, left, height, width [pixels]).

    Args:
        env: Any.
        hidden: Keys or patterns that are not there at all; the space lacks them as well.
        every: Key or pattern → it is seen at every n-th step only, in between as it was then; later ones win.
        occluded: Camera → share of its pictures that is hidden behind a rectangle, drawn anew every episode: colour and
            depth 0, segmentation -1.

    Raises:
        UnknownNameError: No such key or camera.
        ConfigError: A key that is always there is hidden; a number out of range.
    """

    kind = "partial_observability"

    def __init__(
        self,
        env: gymnasium.Env,
        *,
        hidden: Sequence[str] = (),
        every: Mapping[str, int] | None = None,
        occluded: Mapping[str, float] | None = None,
    ) -> None:
        super().__init__(env)
        if isinstance(hidden, str):
            raise ConfigError(f"hidden is a list of keys, not {hidden!r}; write [{hidden}]")
        seen = observed(env)
        gone = _by_key(seen, dict.fromkeys(hidden, True))
        if kept := [name for name in ALWAYS if name in gone]:
            raise ConfigError(f"{kept[0]} cannot be hidden, every policy counts on it; use every={{{kept[0]}: n}}")
        self._kept = [name for name in seen if name not in gone]
        self.observation_space = spaces.Dict({name: seen[name] for name in self._kept})
        self._every = _by_key(self._kept, every or {})
        for name, n in self._every.items():
            if not isinstance(n, int) or isinstance(n, bool) or n < 1:
                raise ConfigError(f"every of {name} must be a whole number of steps, 1 or more, not {n!r}")
        pictures = {name: _picture(name) for name in self._kept}
        self._views: dict[str, list[str]] = {}
        for camera in occluded or {}:
            self._views[camera] = [name for name, seen_by in pictures.items() if seen_by == camera]
            if not self._views[camera]:
                raise UnknownNameError("camera", camera, {c for c in pictures.values() if c})
        self._occluded = {c: _number(f"occluded share of {c}", s, most=1.0) for c, s in (occluded or {}).items()}

    def _begin(self, obs: Obs, info: Mapping[str, Any]) -> None:
        self._memory |= {"age": dict.fromkeys(self._every, 0), "last": {}, "patches": {}}
        for camera, share in self._occluded.items():
            drawn, (height, width) = self._rng.random(3), obs[self._views[camera][0]].shape[:2]
            # Between half and twice as high as wide, as far as that fits into the picture.
            low, high = np.log(max(0.5, share)), np.log(min(2.0, 1.0 / max(share, 1e-9)))
            aspect = np.exp(low + drawn[0] * (high - low))
            tall = min(round(height * np.sqrt(share * aspect)), height)
            wide = min(round(width * np.sqrt(share / aspect)), width)
            top, left = int(drawn[1] * (height - tall + 1)), int(drawn[2] * (width - wide + 1))
            self._memory["patches"][camera] = (top, left, tall, wide)

    def _see(self, obs: Obs, told: dict[str, Any]) -> Obs:
        seen = {name: obs[name] for name in self._kept}
        age, last, patches = (self._memory[name] for name in ("age", "last", "patches"))
        for camera, (top, left, tall, wide) in patches.items():
            for name in self._views[camera]:
                seen[name] = seen[name].copy()
                seen[name][top : top + tall, left : left + wide] = _nothing(name)
        for name, n in self._every.items():
            if name not in last or age[name] + 1 == n:
                age[name], last[name] = 0, seen[name].copy()
            else:
                age[name] += 1
                seen[name] = last[name].copy()
        told |= {"old": dict(age), "occluded": dict(patches)}
        return seen


# ---- the world itself --------------------------------------------------------------


class DriftingDynamics(Perturbation):
    """Masses, friction and servo gains drift during an episode: a random walk of each, reflected at its bounds.

    An episode begins with what the environment has drawn, and a reset undoes all that has drifted. Gravity compensation
    carries the weight that the arm had without drift. Info: factors ``mass`` (nbody,), ``friction`` (ngeom,) and
    ``gain`` (nu,) on what was drawn.

    Args:
        env: Over a `TabletopEnv`.
        mass, friction, gain: Each factor stays within 1 ± this.
        speed: Standard deviation of a control step of the walk, as a share of those bounds.

    Raises:
        ConfigError: Another environment, or one that drifts already; a bound outside [0, 1), a negative speed.
    """

    kind = "drifting_dynamics"

    def __init__(
        self, env: gymnasium.Env, *, mass: float = 0.0, friction: float = 0.0, gain: float = 0.0, speed: float = 0.02
    ) -> None:
        super().__init__(env)
        if type(env.unwrapped) is not TabletopEnv:  # one of the same kind may move by another physics
            raise ConfigError(f"{self.kind} needs a tabletop task in MuJoCo, not {type(env.unwrapped).__name__}")
        if self.name != self.kind:
            raise ConfigError(
                f"{self.kind} lies below already, and a world drifts in one way; give it all bounds at once"
            )
        self._scene, self._speed = env.unwrapped.scene, _number("speed", speed)
        model = self._scene.model
        sizes = {"mass": model.nbody, "friction": model.ngeom, "gain": model.nu}
        bounds = [_number(name, bound, most=0.999) for name, bound in zip(sizes, (mass, friction, gain), strict=True)]
        self._bound = np.repeat(bounds, list(sizes.values()))
        self._ends = np.cumsum(list(sizes.values()))[:-1]
        self._drawn: dict[str, np.ndarray] | None = None

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[Obs, dict[str, Any]]:
        """See `Perturbation`."""
        self._undo()
        return super().reset(seed=seed, options=options)

    def set_state(self, state: Mapping[str, Any]) -> None:
        """See `Perturbation`."""
        self._undo()
        super().set_state(state)
        self._drawn = copy.deepcopy(dict(state["drawn"]))

    def _undo(self) -> None:
        # The environment leaves a model alone whose draw has not changed.
        if self._drawn is not None:
            apply(self._scene, self._drawn)

    def _begin(self, obs: Obs, info: Mapping[str, Any]) -> None:
        self._drawn, self._memory["walk"] = copy.deepcopy(info["drawn"]), np.zeros(len(self._bound))

    def _act(self, action: np.ndarray, told: dict[str, Any]) -> np.ndarray:
        walk = self._memory["walk"] + self._speed * self._rng.normal(size=len(self._bound))
        self._memory["walk"] = walk = np.abs((walk - 1.0) % 4.0 - 2.0) - 1.0  # reflected at -1 and 1
        drawn, (mass, friction, gain) = self._drawn or {}, self._factors()
        scaled = {"mass": mass, "link_mass": mass, "friction": friction, "gain": gain}
        apply(self._scene, drawn | {name: drawn[name] * factor for name, factor in scaled.items()})
        return action

    def _see(self, obs: Obs, told: dict[str, Any]) -> Obs:
        told |= dict(zip(("mass", "friction", "gain"), self._factors(), strict=True))
        return obs

    def _factors(self) -> list[np.ndarray]:
        return np.split(1.0 + self._bound * self._memory["walk"], self._ends)


# ---- stacks ------------------------------------------------------------------------


def perturbations() -> dict[str, type[Perturbation]]:
    """Every kind by its name."""
    from sim.noise import NoisyPictures  # which builds on this module

    kinds = (
        ActionNoise,
        StickyActions,
        RandomActions,
        ObservationNoise,
        ObservationDropout,
        PartialObservability,
        DriftingDynamics,
        NoisyPictures,
    )
    return {kind.kind: kind for kind in kinds}


def perturbed(env: gymnasium.Env, spec: Mapping[str, Mapping[str, Any] | None]) -> Any:
    """An environment under a stack of perturbations.

    Args:
        env: The environment.
        spec: Kind → its settings, from the inside out: the first disturbs an action last and an observation first.
            ``{"action_noise": {"share": 0.05}, "sticky_actions": {"probability": 0.2}}``

    Raises:
        UnknownNameError: No such kind or setting.
        ConfigError: A setting is missing or out of range, or does not fit the environment.
    """
    kinds = perturbations()
    for name, given in spec.items():
        if name not in kinds:
            raise UnknownNameError("perturbation", name, kinds)
        if not isinstance(given, Mapping | None):
            raise ConfigError(f"settings of {name} are a mapping, not {given!r}")
        settings = dict(given or {})
        known = [p for p in inspect.signature(kinds[name]).parameters.values() if p.kind is p.KEYWORD_ONLY]
        for setting in settings:
            if setting not in {p.name for p in known}:
                raise UnknownNameError(f"setting of {name}", str(setting), [p.name for p in known])
        for parameter in known:
            if parameter.default is parameter.empty and parameter.name not in settings:
                raise ConfigError(f"{name} needs the setting {parameter.name!r}")
        env = kinds[name](env, **settings)
    return env


# ---- settings ----------------------------------------------------------------------


def _number(name: str, value: Any, most: float = np.inf) -> float:
    """A number in [0, most]."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0.0 <= value <= most or value == np.inf:
        raise ConfigError(f"{name} must be {'0 or more' if most == np.inf else f'in [0, {most:g}]'}, not {value!r}")
    return float(value)


def _bounds(env: gymnasium.Env) -> tuple[np.ndarray, np.ndarray]:
    """Low and high of bounded actions."""
    space = env.action_space
    if not isinstance(space, spaces.Box) or not space.is_bounded():
        raise ConfigError(f"actions of {type(env.unwrapped).__name__} are not bounded: {space}")
    return space.low.astype(float), space.high.astype(float)


def observed(env: gymnasium.Env) -> dict[str, spaces.Box]:
    """Spaces of an observation by key.

    Raises:
        ConfigError: Its parts have no names.
    """
    if not isinstance(env.observation_space, spaces.Dict):
        raise ConfigError(f"observations of {type(env.unwrapped).__name__} have no names")
    return dict(env.observation_space.spaces)  # type: ignore[arg-type]


def _by_key(known: Iterable[str], given: Any) -> dict[str, Any]:
    """Settings by key from settings by key or pattern, in the order of the known keys."""
    if not isinstance(given, Mapping):
        raise ConfigError(f"give settings by key, as in {{joint_pos: ...}}, not {given!r}")
    names = list(known)
    found: dict[str, Any] = {}
    for pattern, value in given.items():
        matched = [name for name in names if fnmatchcase(name, str(pattern))]
        if not matched:
            raise UnknownNameError("key of the observation", str(pattern), names)
        found |= dict.fromkeys(matched, value)
    return {name: found[name] for name in names if name in found}


def _picture(name: str) -> str:
    """The camera of a picture's key; empty for other keys."""
    kind, _, camera = name.partition("_")
    return camera if kind in IMAGES else ""


def _nothing(name: str) -> int:
    """What a picture shows where there is nothing."""
    return -1 if name.startswith("seg_") else 0
