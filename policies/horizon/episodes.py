"""Episodes, demonstrated or lived through, as the moments that a world model learns from."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from policies.horizon.config import HorizonConfig, KeysConfig
from policies.observed import told
from policies.perception.keyframes import key_horizons, keyframes
from policies.world.replay import Columns, moments
from tasks.tabletop.base import TabletopTask

BOUNDLESS = np.iinfo(np.int32).max


def episode(task: TabletopTask, config: HorizonConfig, values: Mapping[str, np.ndarray]) -> Columns:
    """An episode, see `policies.world.replay.moments`, beginning with what was seen before the first action.

    Args:
        task: What is wanted; rewards are its, whatever was recorded.
        config: Settings.
        values: Columns of a dataset, see `policies.observed.frame`, and ``features`` of what was seen, (T, ...).
    """
    signals = np.asarray(values["signals"], np.float32)
    # Rows hold what was seen before an action and the signals after it; no picture shows where the last one led.
    observed = {
        "features": np.asarray(values["features"], np.float32),
        "proprio": proprio(task, values),
        "signals": np.concatenate([signals[:1], signals[:-1]]),
        "horizons": horizons(task, config.keys, values["observation.state"]),
    }
    if config.train.truth:
        observed["signals"] = np.concatenate([observed["signals"], truth(values)], axis=1)
    actions = np.clip(np.asarray(values["action.ee_delta"], np.float32), -1.0, 1.0)
    return moments(observed, actions[:-1], rewards(task, config, signals)[:-1], over=False)


def proprio(task: TabletopTask, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The arm's own state, and what policies are told of the instance, (T, P) float32."""
    state = np.asarray(values["observation.state"], np.float32)
    if not len(told(task)):
        return state
    return np.concatenate([state, np.asarray(values["observation.environment_state"], np.float32)[:, told(task)]], 1)


def truth(values: Mapping[str, np.ndarray]) -> np.ndarray:
    """What is around the arm, (T, E) float32; E may be 0."""
    nothing = np.zeros((len(values["signals"]), 0))
    return np.asarray(values.get("observation.environment_state", nothing), np.float32)


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


def horizons(task: TabletopTask, config: KeysConfig, state: np.ndarray) -> np.ndarray:
    """How many steps may be imagined from each moment, (T,) int64; of the last one none.

    Args:
        task: The task.
        config: Whether keyframes count.
        state: ``observation.state``, (T, J + 8).
    """
    frames = len(state)
    left = np.full(frames, BOUNDLESS)
    if config.on:
        dof = task.robot.dof
        velocity = np.gradient(state[:, :dof].astype(float), task.ctrl_dt_s, axis=0)
        keys = keyframes(velocity, state[:, dof].astype(float), task.ctrl_dt_s, config.find)
        left = key_horizons(keys, frames)
    left[-1] = 0
    return left.astype(np.int64)
