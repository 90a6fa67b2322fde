"""Episodes, demonstrated or lived through, as the moments that a world model learns from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hardware.robots.commands import REACH_M_S, TURN_RAD_S, angle
from policies.horizon import tool
from policies.horizon.config import HorizonConfig, KeysConfig
from policies.observed import told
from policies.perception.keyframes import key_horizons, keyframes
from policies.world.replay import Columns, moments
from tasks.tabletop.base import TabletopTask

BOUNDLESS = np.iinfo(np.int32).max
IDLE = 0.05
"""Of the gripper's range: what moves less does nothing."""


def episode(task: TabletopTask, config: HorizonConfig, values: Mapping[str, np.ndarray], demo: bool) -> Columns:
    """An episode, see `policies.world.replay.moments`, beginning with what was seen before the first action.

    Args:
        task: What is wanted; rewards are its, whatever was recorded.
        config: Settings.
        values: Columns of a dataset, see `policies.observed.frame`, and ``features`` of what was seen, (T, ...).
        demo: Whether somebody demonstrated it, who comes to rest at keyframes.
    """
    signals, state = np.asarray(values["signals"], np.float32), np.asarray(values["observation.state"], float)
    keys = keyframes_of(task, config.keys, state)
    actions = tool.seen_from(state, np.clip(np.asarray(values["action.ee_delta"], float), -1.0, 1.0))
    # Rows hold what was seen before an action and the signals after it; no picture shows where the last one led.
    observed = {
        "features": np.asarray(values["features"], np.float32),
        "proprio": proprio(task, values),
        "signals": np.concatenate([signals[:1], signals[:-1]]),
        "horizons": horizons(config.keys, keys, len(state)),
        "cloned": cloned(task, config.keys, state, actions, keys) if demo else actions,
    }
    observed["cloned"] = np.clip(observed["cloned"], -1.0, 1.0).astype(np.float32)
    if config.train.truth:
        things = tool.around_it(task, state, truth(task, values).astype(float)).astype(np.float32)
        observed["signals"] = np.concatenate([observed["signals"], things], axis=1)
    done = np.clip(actions, -1.0, 1.0).astype(np.float32)
    return moments(observed, done[:-1], rewards(task, config, signals)[:-1], over=False)


def until_done(task: TabletopTask, after_s: float, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """An episode until `after_s` [s] after its last stage was reached; all of it, if that was not."""
    signals = np.asarray(values["signals"], float)
    reached = task.stage_samples({name: signals[:, i] for i, name in enumerate(task.signals)})
    if len(reached) < len(task.stages):
        return dict(values)
    end = reached[-1] + 1 + round(after_s / task.ctrl_dt_s)
    return {name: column[:end] if np.ndim(column) else column for name, column in values.items()}


def proprio(task: TabletopTask, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arm's own state, and what policies are told of the instance, (T, P) float32."""
    own = tool.own(np.asarray(values["observation.state"], float)).astype(np.float32)
    if not len(told(task)):
        return own
    return np.concatenate([own, np.asarray(values["observation.environment_state"], np.float32)[:, told(task)]], 1)


def truth(task: TabletopTask, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """What is around the arm, see `tool.scene`, (T, K) float32; K may be 0."""
    state = np.asarray(values["observation.state"], float)
    return tool.scene(task, state, around_of(values)).astype(np.float32)


def around_of(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """``observation.environment_state`` (T, E); E is 0 where nothing is around."""
    nothing = np.zeros((len(values["observation.state"]), 0))
    return np.asarray(values.get("observation.environment_state", nothing), float)


def rewards(task: TabletopTask, config: HorizonConfig, signals: np.ndarray) -> np.ndarray:
    """Rewards (T,) of an episode whose signals after each action are (T, S)."""
    trace = {name: signals[:, i].astype(float) for i, name in enumerate(task.signals)}
    frames = len(signals)
    reached = np.zeros(frames, int)
    for at in task.stage_samples(trace):
        reached[at:] += 1
    if config.train.reward == "success":
        done = (reached == len(task.stages)) & task.verdict(task.goal, trace)
        return done.astype(np.float32)
    found = np.zeros(frames, np.float32)
    for stage in np.unique(reached):
        found[reached == stage] = np.broadcast_to(task.staged_reward(trace, int(stage)), frames)[reached == stage]
    return found


def keyframes_of(task: TabletopTask, config: KeysConfig, state: np.ndarray) -> np.ndarray:
    """Keyframes (K,) of an episode whose ``observation.state`` is (T, J + 8)."""
    dof = task.robot.dof
    moved = np.gradient(state, task.ctrl_dt_s, axis=0) if len(state) > 1 else np.zeros_like(state)
    tool_m_s = np.linalg.norm(moved[:, -7:-4], axis=1)
    return keyframes(moved[:, :dof], state[:, dof], task.ctrl_dt_s, config.find, tool_m_s)


def horizons(config: KeysConfig, keys: np.ndarray, frames: int) -> np.ndarray:
    """How many steps may be imagined from each of some moments with keyframes, (T,) int64; of the last one none."""
    left = key_horizons(keys, frames) if config.on else np.full(frames, BOUNDLESS)
    left[-1] = 0
    return left.astype(np.int64)


def cloned(
    task: TabletopTask, config: KeysConfig, state: np.ndarray, actions: np.ndarray, keys: np.ndarray
) -> np.ndarray:
    """What a demonstration says is to be done at each of its moments, (T, 7), as the tool sees it; see `KeysConfig`.

    Args:
        task: The task.
        config: Whether that is the way to the next keyframe, and how it is gone.
        state: ``observation.state``, (T, J + 8).
        actions: What was done, as the tool saw it, (T, 7).
        keys: Keyframes, (K,).
    """
    if not config.on:
        return actions
    frames, dt = np.arange(len(state)), task.ctrl_dt_s
    edges = np.concatenate([[0], keys])
    gripper = actions[:, -1]
    after = [*edges[2:], edges[-1]]  # the keyframe after the next
    idle = np.array([np.ptp(gripper[a:b]) < IDLE for a, b in zip(edges[:-1], after, strict=True)])
    left = keys - np.where(idle, round(config.before_s / dt), 0)
    ahead = keys[np.minimum(np.searchsorted(np.maximum.accumulate(left), frames, side="right"), len(keys) - 1)]
    turns = tool.turned(state)
    back = turns.transpose(0, 2, 1)
    way = np.einsum("tij,tj->ti", back, state[ahead, -7:-4] - state[:, -7:-4]) / (REACH_M_S * config.near_s)
    spin = angle(back @ turns[ahead]) / (TURN_RAD_S * config.near_s)
    most = np.maximum(1.0, np.abs(np.concatenate([way, spin], axis=1)).max(1, keepdims=True) / config.speed)
    soon = np.minimum(frames + round(config.grip_s / dt), len(frames) - 1)
    then = keys[np.minimum(np.searchsorted(keys, soon, side="right"), len(keys) - 1)]
    return np.concatenate([way / most, spin / most, gripper[np.maximum(then - 1, 0), None]], axis=1)
