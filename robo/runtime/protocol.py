"""What passes between the processes of a deployment. numpy only."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from robo.core.errors import ConfigError
from robo.core.ipc import Layout
from robo.core.protocols import ActionChunk, Obs
from tasks.arm import ArmTask

CONTROLLERS = ("policy", "refinement", "backup", "hold", "stop")
"""Who made the reference of a tick, as numbered in logs: the last two are the runtime's own."""

MAX_SAMPLES = 256
"""Most samples of a chunk."""


@dataclass(frozen=True, kw_only=True)
class Factory:
    """An object that another process is to make: a function by its place, and its arguments.

    Attributes:
        call: ``"module:function"``.
        arguments: JSON-able keyword arguments.
    """

    call: str
    arguments: Mapping[str, Any] = field(default_factory=dict)

    def make(self) -> Any:
        """Import the function and call it.

        Raises:
            ConfigError: There is no such function.
        """
        module, _, name = self.call.partition(":")
        try:
            function = getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"no function {self.call!r} ({error}); give it as 'module:function'") from error
        return function(**self.arguments)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return asdict(self)


def observation_keys(task: ArmTask) -> dict[str, tuple[int, ...]]:
    """Names and shapes of everything a policy of a task observes."""
    joints = (task.robot.dof,)
    return {"joint_pos": joints, "joint_vel": joints, "time_s": (1,), **task.observation}


def question_layout(task: ArmTask) -> Layout:
    """Control → inference: an observation, and what to do with it.

    ``generation`` counts starts: when it changes the policy is reset with this observation and ``seed``.
    ``act`` is 1 when a chunk is wanted, 0 for a reset alone.
    """
    return {"generation": (), "seed": (), "act": ()} | {f"obs/{k}": v for k, v in observation_keys(task).items()}


def obs_of(question: np.void) -> Obs:
    """The observation in a record of `question_layout`."""
    return {name[4:]: np.array(question[name]) for name in question.dtype.names or () if name.startswith("obs/")}


def chunk_layout(dof: int) -> Layout:
    """Inference → control: an `ActionChunk` and how long it took."""
    scalars = ("generation", "start_s", "dt_s", "samples", "tail", "controller", "plan_ms")
    samples = {"joint_pos": (MAX_SAMPLES, dof), "joint_vel": (MAX_SAMPLES, dof), "stops": (MAX_SAMPLES,)}
    return {name: () for name in scalars} | samples


def pack_chunk(chunk: ActionChunk, generation: int, plan_ms: float) -> dict[str, Any]:
    """Values of `chunk_layout`.

    Raises:
        ConfigError: The chunk is longer than `MAX_SAMPLES`.
    """
    n = len(chunk.joint_pos)
    if n > MAX_SAMPLES:
        raise ConfigError(f"a chunk of {n} samples does not fit, at most {MAX_SAMPLES} do; plan a shorter horizon")
    pos, vel = np.zeros((2, MAX_SAMPLES, chunk.joint_pos.shape[1]))
    pos[:n], vel[:n] = chunk.joint_pos, chunk.joint_vel
    stops = np.zeros(MAX_SAMPLES)
    stops[list(chunk.stops)] = 1.0
    return {
        "generation": generation,
        "start_s": chunk.start_s,
        "dt_s": chunk.dt_s,
        "samples": n,
        "tail": chunk.tail,
        "controller": CONTROLLERS.index(chunk.controller),
        "plan_ms": plan_ms,
        "joint_pos": pos,
        "joint_vel": vel,
        "stops": stops,
    }


def unpack_chunk(record: np.void) -> ActionChunk:
    """The chunk in a record of `chunk_layout`.

    Raises:
        NonFiniteError: It holds NaN or infinity.
    """
    n = int(record["samples"])
    return ActionChunk(
        start_s=float(record["start_s"]),
        dt_s=float(record["dt_s"]),
        joint_pos=record["joint_pos"][:n],
        joint_vel=record["joint_vel"][:n],
        tail=int(record["tail"]),
        controller=CONTROLLERS[int(record["controller"])],  # type: ignore[arg-type]
        stops=tuple(np.flatnonzero(record["stops"][:n]).tolist()),
    )


def tick_layout(task: ArmTask) -> Layout:
    """One row of the log: one tick of the control loop. NaN where something does not apply.

    Times ``due_s``, ``state_s`` are on the monotonic clock; ``time_s`` is that of the episode.
    ``asked_*`` is the reference before the supervisor's limits, ``sent_*`` what the driver says it sent;
    ``missed`` counts the ticks skipped just before; ``safety_rho`` and the signals are measured values less their
    error bounds; ``rho_low``, ``rho_high`` enclose the robustness of the whole specification.
    """
    dof = (task.robot.dof,)
    scalars = ("tick", "due_s", "late_s", "work_s", "state_s", "missed", "episode", "time_s", "controller")
    scalars += ("limited", "chunk_start_s", "plan_ms", "safety_rho", "rho_low", "rho_high")
    joints = ("joint_pos", "joint_vel", "asked_pos", "asked_vel", "sent_pos", "sent_vel")
    return (
        {name: () for name in scalars}
        | {name: dof for name in joints}
        | {f"obs/{name}": shape for name, shape in task.observation.items()}
        | {f"signal/{name}": () for name in task.signals}
    )
