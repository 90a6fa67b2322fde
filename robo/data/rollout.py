"""One executed episode as arrays, in one file.

A rollout file is an ``.npz`` of plain arrays (read with ``allow_pickle=False``) plus one text
entry, ``meta``, that holds a JSON object. It is written to a temporary name and
renamed, so that a file with the right name is a whole file.
"""

from __future__ import annotations

import io
import json
import zipfile
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from robo.core.errors import RunError
from robo.core.files import make_parent, write_bytes

LAYOUT = 2
"""Version of the file layout."""

CONTROLLERS = ("policy", "refinement", "backup")
"""Who made the motion, as numbered in `Rollout.controller`."""


@dataclass(frozen=True, kw_only=True)
class Rollout(ABC):
    """Everything of one executed episode: N steps, N + 1 samples (sample 0 is the start).

    Attributes:
        task: Name of the task.
        policy: Name of the policy.
        seed: Evaluation seed of the episode.
        dt_s: Distance of samples [s].
        controller: (N,) index into `CONTROLLERS` of who made the motion of each step.
        instance: Name → array, drawn at reset.
        signals: Name → (N + 1,) signals of the task, truth.
        predicates: Text → (N + 1,) robustness of each predicate of the specification at each sample.
        parts: Text → robustness of each top-level part of the specification over the executed trace, at time 0.
        rho: Robustness of the whole specification, likewise: the smallest of `parts`.
        rho_low, rho_high: (N + 1,) interval of `rho` known after each sample (online monitor).
        plan_rho: (N,) robustness the plan predicted; NaN if unknown.
        plan_ms: (N,) planning time [ms].
        violations: One line for every safety violation.
        success: Whether the task's own measure of success held.
        extra: Further JSON-able facts (env options, policy numbers).
    """

    GROUPS: ClassVar[tuple[str, ...]] = ("instance", "signals", "predicates")
    """Fields that are mappings of arrays."""
    PER_STEP: ClassVar[tuple[str, ...]] = ("controller", "plan_rho", "plan_ms")
    """Arrays with a row for every step; all others but the instance have one for every sample."""
    KINDS: ClassVar[dict[str, type[Rollout]]] = {}

    task: str
    policy: str
    seed: int
    dt_s: float
    controller: np.ndarray
    instance: Mapping[str, np.ndarray]
    signals: Mapping[str, np.ndarray]
    predicates: Mapping[str, np.ndarray]
    parts: Mapping[str, float]
    rho: float
    rho_low: np.ndarray
    rho_high: np.ndarray
    plan_rho: np.ndarray
    plan_ms: np.ndarray
    violations: tuple[str, ...] = ()
    success: bool = False
    extra: Mapping[str, Any] = field(default_factory=dict)

    def __init_subclass__(cls, kind: str) -> None:
        cls.KINDS[kind] = cls

    def __post_init__(self) -> None:
        n, samples = self.steps, self.steps + 1
        for name in ("rho_low", "rho_high"):
            _expect(getattr(self, name).shape == (samples,), name, (samples,), getattr(self, name))
        for name in ("controller", "plan_rho", "plan_ms"):
            _expect(getattr(self, name).shape == (n,), name, (n,), getattr(self, name))
        known = np.isin(self.controller, range(len(CONTROLLERS))).all()
        if not known:
            raise RunError(f"rollout: controller holds numbers that are none of {dict(enumerate(CONTROLLERS))}")
        for group in self.GROUPS:
            for name, value in getattr(self, group).items():
                if group != "instance":
                    _expect(len(value) == samples, f"{group}/{name}", (samples, "..."), value)

    @property
    @abstractmethod
    def steps(self) -> int:
        """Number of executed steps N."""

    @property
    def time_s(self) -> np.ndarray:
        """(N + 1,) time of every sample since the start [s]."""
        return np.arange(self.steps + 1) * self.dt_s

    @property
    def satisfied(self) -> bool:
        """Whether the executed trace satisfies the specification."""
        return self.rho > 0

    def share(self, controller: str) -> float:
        """Share of steps, 0..1, whose reference a controller (``policy``, ``refinement``, ``backup``) made."""
        return float(np.mean(self.controller == CONTROLLERS.index(controller))) if self.steps else 0.0

    def save(self, path: Path) -> Path:
        """Write to a file, atomically.

        Raises:
            RoboError: No room on the disk; a file of that name stays as it was.
        """
        arrays: dict[str, np.ndarray] = {}
        kind = next(name for name, cls in self.KINDS.items() if cls is type(self))
        meta: dict[str, Any] = {"layout": LAYOUT, "kind": kind}
        for f in fields(self):
            value = getattr(self, f.name)
            if isinstance(value, np.ndarray):
                arrays[f.name] = value
            elif f.name in self.GROUPS:
                arrays.update({f"{f.name}/{key}": np.asarray(item) for key, item in value.items()})
                meta[f.name] = list(value)
            else:
                meta[f.name] = value
        path = Path(path)
        buffer = io.BytesIO()
        np.savez_compressed(buffer, allow_pickle=False, meta=np.array(json.dumps(meta)), **arrays)
        make_parent(path)
        write_bytes(path, buffer.getvalue())
        return path

    @classmethod
    def load(cls, path: Path) -> Rollout:
        """Read a file written by `save`.

        Raises:
            RunError: The file is missing, corrupt, of another layout, or its parts do not fit together.
        """
        path = Path(path)
        mend = "record it again with: robo-view RUN --rollout SEED"
        if not path.is_file():
            raise RunError(f"no rollout at {path}; {mend}")
        try:
            with np.load(path, allow_pickle=False) as data:
                meta = json.loads(str(data["meta"][()]))
                layout = meta.pop("layout")
                if layout != LAYOUT:
                    raise RunError(f"rollout {path} has layout {layout}, this version reads {LAYOUT}; {mend}")
                found = cls.KINDS[meta.pop("kind")]
                values = dict(meta)
                for f in fields(found):
                    if f.name in found.GROUPS:
                        values[f.name] = {key: data[f"{f.name}/{key}"] for key in meta[f.name]}
                    elif f.name not in meta:
                        values[f.name] = data[f.name]
            values["violations"] = tuple(values["violations"])
        except (OSError, EOFError, KeyError, TypeError, ValueError, AttributeError, zipfile.BadZipFile) as error:
            raise RunError(f"rollout {path} is corrupt ({type(error).__name__}: {error}); {mend}") from error
        try:
            return found(**values)
        except (RunError, TypeError, AttributeError) as error:
            raise RunError(f"rollout {path} is corrupt: {error}; {mend}") from error


@dataclass(frozen=True, kw_only=True)
class ArmRollout(Rollout, kind="arm"):
    """An episode of an arm; see `Rollout`.

    Attributes:
        joint_pos: (N + 1, J) as executed, truth [rad].
        joint_vel: (N + 1, J) as executed, truth [rad/s].
        command_pos: (N + 1, J) joint reference that was due at each sample [rad]; row 0 is the start.
        command_vel: (N + 1, J) its velocity [rad/s].
        ee_pos: (N + 1, 3) tool centre point, truth [m].
        observation: Name → (N + 1, ...) what the policy saw.
        world: Name → (N + 1, ...) state of what moves by itself, truth.
        bodies: Name → (N + 1, 3) positions of the scene's mocap bodies [m].
        plan_ee: (N, P, 3) tool path predicted when each step was planned [m]; NaN pads shorter ones.
    """

    GROUPS = (*Rollout.GROUPS, "observation", "world", "bodies")
    PER_STEP = (*Rollout.PER_STEP, "plan_ee")

    joint_pos: np.ndarray
    joint_vel: np.ndarray
    command_pos: np.ndarray
    command_vel: np.ndarray
    ee_pos: np.ndarray
    observation: Mapping[str, np.ndarray]
    world: Mapping[str, np.ndarray]
    bodies: Mapping[str, np.ndarray]
    plan_ee: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        n, samples = self.steps, self.steps + 1
        for name in ("joint_vel", "command_pos", "command_vel"):
            _expect(getattr(self, name).shape == self.joint_pos.shape, name, self.joint_pos.shape, getattr(self, name))
        _expect(self.ee_pos.shape == (samples, 3), "ee_pos", (samples, 3), self.ee_pos)
        _expect(self.plan_ee.ndim == 3 and self.plan_ee.shape[::2] == (n, 3), "plan_ee", (n, "P", 3), self.plan_ee)

    @property
    def steps(self) -> int:
        """Number of executed steps N."""
        return len(self.joint_pos) - 1


@dataclass(frozen=True, kw_only=True)
class TabletopRollout(ArmRollout, kind="tabletop"):
    """An episode of an arm with a gripper among things it moves; see `ArmRollout`.

    Attributes:
        qpos: (N + 1, nq) positions of all joints of the simulation, things included.
        command_width_m: (N + 1,) width of the gripper that was due at each sample.
    """

    qpos: np.ndarray
    command_width_m: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        samples = self.steps + 1
        _expect(self.qpos.ndim == 2 and len(self.qpos) == samples, "qpos", (samples, "nq"), self.qpos)
        _expect(self.command_width_m.shape == (samples,), "command_width_m", (samples,), self.command_width_m)


@dataclass(frozen=True, kw_only=True)
class SystemRollout(Rollout, kind="system"):
    """An episode of a system with known dynamics; see `Rollout`.

    Attributes:
        state: (N + 1, n) as executed, truth.
        control: (N, m) applied at each step.
        plan_state: (N, P, n) states predicted when each step was planned; NaN pads shorter ones.
    """

    PER_STEP = (*Rollout.PER_STEP, "control", "plan_state")

    state: np.ndarray
    control: np.ndarray
    plan_state: np.ndarray

    def __post_init__(self) -> None:
        super().__post_init__()
        n, width = self.steps, self.state.shape[1]
        _expect(self.control.ndim == 2 and len(self.control) == n, "control", (n, "m"), self.control)
        fits = self.plan_state.ndim == 3 and self.plan_state.shape[::2] == (n, width)
        _expect(fits, "plan_state", (n, "P", width), self.plan_state)

    @property
    def steps(self) -> int:
        """Number of executed steps N."""
        return len(self.state) - 1


def _expect(ok: bool, name: str, shape: tuple, value: np.ndarray) -> None:
    if not ok:
        raise RunError(f"rollout: {name} has shape {np.shape(value)}, expected {shape}")
