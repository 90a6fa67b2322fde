"""Keyframes found in the motion of scripted experts, against the moments at which these turned to something else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from policies.expert import MoveConfig
from policies.expert.policy import Expert
from policies.perception.keyframes import keyframes
from robo.bench import Rate, Report
from robo.bench.tasks import tabletop_names
from robo.core.errors import ConfigError
from robo.data.collect import FIRST_SEED
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task


def keyframes_bench(
    tasks: Sequence[str] = (), episodes: int = 20, tolerance_s: float = 0.2, strict_s: float = 0.1, seed: int = 0
) -> Report:
    """Precision, recall and F1 of keyframes on episodes of the expert.

    True are the moments at which the expert takes the next waypoint of its script, or has come to the last one; none is
    left out. A keyframe is right when it can be paired with one of them, each with one only, within the tolerance. The
    last frame, which is always a keyframe, does not count. "Stages": of the changes of the task's own stage, which are
    conditions on where things are and seldom coincide with a rest, the share with a keyframe within the tolerance.

    Args:
        tasks: Which; empty: all on the tabletop.
        episodes: Of each.
        tolerance_s: How far a keyframe may be off [s].
        strict_s: A second, tighter tolerance for comparison [s].
        seed: First.

    Raises:
        RoboError: A task is unknown or none on a tabletop.
    """
    if episodes < 1 or min(tolerance_s, strict_s) < 0:
        raise ConfigError("episodes must be at least 1, tolerances not negative")
    rows, total = [], Count()
    for name in tasks or tabletop_names():
        task, count = tabletop_task(load_task(name)), Count()
        env = TabletopEnv(task)
        for i in range(episodes):
            count += judge(Motion.of(env, FIRST_SEED + seed + i), tolerance_s, strict_s)
        env.close()
        rows.append({"task": name, **count.row(episodes)})
        total += count
    rows.append({"task": "all", **total.row(episodes * len(rows))})
    notes = [
        f"tolerance {tolerance_s:g} s; strict {strict_s:g} s",
        "velocities of joints and tool and widths of the gripper as measured in simulation, default thresholds",
    ]
    return Report(
        title="Keyframes of expert episodes", rows=rows, seeds=list(range(seed, seed + episodes)), notes=notes
    )


@dataclass(frozen=True)
class Motion:
    """What an episode of the expert looked like from outside, and when it turned to something else.

    Attributes:
        joint_vel: (T, J) [rad/s].
        gripper_width_m: (T,).
        tool_m_s: Speed of the tool, (T,).
        dt_s: Distance of frames.
        turns: Frames at which the expert took another waypoint or finished, the first and the last frame left out.
        stages: Frames at which another stage of the task was reached.
    """

    joint_vel: np.ndarray
    gripper_width_m: np.ndarray
    tool_m_s: np.ndarray
    dt_s: float
    turns: np.ndarray
    stages: np.ndarray

    @classmethod
    def of(cls, env: TabletopEnv, seed: int) -> Motion:
        """The motion in an environment from a seed."""
        expert = _Telling(env.task)
        obs, info = env.reset(seed=seed)
        expert.reset(obs)
        seen, stage, ended = [obs], [info["stage"]], False
        while not ended:
            obs, _, terminated, truncated, info = env.step(env.action(expert.act(obs)))
            seen.append(obs)
            stage.append(info["stage"])
            ended = terminated or truncated
        dt = env.task.ctrl_dt_s
        turns = np.unique(np.rint(np.array(expert.turns_s) / dt).astype(int))
        return cls(
            joint_vel=np.array([obs["joint_vel"] for obs in seen]),
            gripper_width_m=np.array([obs["gripper_width_m"][0] for obs in seen]),
            tool_m_s=np.linalg.norm(np.gradient([obs["ee_pos"] for obs in seen], dt, axis=0), axis=1),
            dt_s=dt,
            turns=turns[(turns > 0) & (turns < len(seen) - 1)],
            stages=np.flatnonzero(np.diff(stage)) + 1,
        )


class _Telling(Expert):
    """Keeps when it took the next waypoint."""

    def __init__(self, task: TabletopTask) -> None:
        super().__init__(task, MoveConfig())
        self.turns_s: list[float] = []

    def _next(self) -> None:
        self.turns_s.append(float(self._obs["time_s"][0]))
        super()._next()


@dataclass(frozen=True)
class Count:
    """What was found, what of it was right, and what there was to be found."""

    found: int = 0
    true: int = 0
    right: int = 0
    strict: int = 0
    stages: int = 0
    stages_met: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(*(a + b for a, b in zip(vars(self).values(), vars(other).values(), strict=True)))

    @property
    def f1(self) -> float:
        """Harmonic mean of precision and recall."""
        return 2 * self.right / (self.found + self.true)

    def row(self, episodes: int) -> dict[str, object]:
        """Columns of the table."""
        return {
            "keyframes / episode": self.found / episodes,
            "precision": Rate.of(self.right, self.found),
            "recall": Rate.of(self.right, self.true),
            "F1": round(self.f1, 3),
            "F1, strict": round(2 * self.strict / (self.found + self.true), 3),
            "stages": Rate.of(self.stages_met, self.stages),
        }


def judge(motion: Motion, tolerance_s: float, strict_s: float) -> Count:
    """Compare the keyframes of a motion with its turns."""
    found = keyframes(motion.joint_vel, motion.gripper_width_m, motion.dt_s, tool_m_s=motion.tool_m_s)[:-1]
    within, tight = (round(t / motion.dt_s) for t in (tolerance_s, strict_s))
    return Count(
        found=len(found),
        true=len(motion.turns),
        right=pairs(found, motion.turns, within),
        strict=pairs(found, motion.turns, tight),
        stages=len(motion.stages),
        stages_met=sum(bool((np.abs(found - stage) <= within).any()) for stage in motion.stages),
    )


def pairs(found: np.ndarray, true: np.ndarray, within: int) -> int:
    """Most pairs of two ascending rows of frames that are at most so many frames apart, each frame in one pair only."""
    i = j = paired = 0
    while i < len(found) and j < len(true):
        if abs(found[i] - true[j]) <= within:
            i, j, paired = i + 1, j + 1, paired + 1
        elif found[i] < true[j]:
            i += 1
        else:
            j += 1
    return paired
