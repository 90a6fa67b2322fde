"""Keyframes of an episode, and the key-horizons between them. numpy only.

RoboHorizon (arXiv 2501.06605) takes frames where the joints all but rest and the gripper stays as it is; C2F-ARM
(arXiv 2106.12534) and PerAct (arXiv 2209.05451) add those where the gripper changes, and the last one. Joints rest for
a while, and a gripper that is not merely open or closed changes for a while; the keyframe of a while is the frame from
which something new is done. So a key-horizon, from one keyframe to the next, holds one action from its beginning.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from policies.checks import require_positive
from robo.core.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class KeyframeConfig:
    """What counts as rest, and as a motion of the gripper."""

    rest_rad_s: float = 0.1
    """An arm rests while no joint is faster."""
    still_rad_s: float = 0.02
    """It leaves a rest when a joint gets faster than this; where a rest is nowhere so slow, where it is slowest."""
    gripper_m_s: float = 0.02
    """The gripper moves while its width changes faster, in one direction ..."""
    gripper_m: float = 0.002
    """... by at least so much altogether."""
    dip: float = 0.4
    """What is done in passing, while joints still turn, has no rest behind it: there the tool is slower than this share
    of how fast it was before and gets after; 0: only rests count."""
    slow_m_s: float = 0.02
    """Slower than this a tool counts as standing still."""
    hold_off_s: float = 0.2
    """Keyframes are at least so far apart; of some that are not, the first counts."""

    def __post_init__(self) -> None:
        require_positive(self, "keys.find", "rest_rad_s", "still_rad_s", "slow_m_s", "gripper_m_s", "gripper_m")
        if not 0 <= self.dip < 1:
            raise ConfigError(f"keys.find.dip must lie in [0, 1), not {self.dip}")
        if self.hold_off_s < 0:
            raise ConfigError(f"keys.find.hold_off_s must not be negative, not {self.hold_off_s}")
        if self.still_rad_s > self.rest_rad_s:
            raise ConfigError(
                f"keys.find.still_rad_s must not exceed keys.find.rest_rad_s ({self.rest_rad_s}), "
                f"not be {self.still_rad_s}"
            )


def keyframes(
    joint_vel: np.ndarray,
    gripper_width_m: np.ndarray,
    dt_s: float,
    config: KeyframeConfig | None = None,
    tool_m_s: np.ndarray | None = None,
) -> np.ndarray:
    """Frames (K,), ascending, from which something new is done: the arm leaves a rest, or the tool a place at which it
    got slow, or the gripper begins to move.

    Of a rest that lasts to the end it is the frame at which it is reached. The first frame is no keyframe, the last one
    always is.

    Args:
        joint_vel: Of one episode, (T, J) [rad/s].
        gripper_width_m: Measured or commanded, (T,) [m]; constant for arms without a gripper.
        dt_s: Distance of frames [s].
        config: Thresholds.
        tool_m_s: Speed of the tool, (T,); None: what is done in passing is not found.

    Raises:
        ConfigError: Shapes do not fit, or there is no frame.
    """
    config = config or KeyframeConfig()
    frames = len(joint_vel)
    if joint_vel.ndim != 2 or gripper_width_m.shape != (frames,) or not frames or dt_s <= 0:
        raise ConfigError(
            f"keyframes need velocities (T, J), widths (T,) and a positive dt_s, not {joint_vel.shape}, "
            f"{gripper_width_m.shape} and {dt_s}"
        )
    if tool_m_s is not None and tool_m_s.shape != (frames,):
        raise ConfigError(f"tool_m_s must be ({frames},) as there are frames, not {tool_m_s.shape}")
    speed = np.abs(joint_vel).max(axis=1, initial=0.0)
    width = np.asarray(gripper_width_m, float)
    found = [*_departures(speed, config), *_gripper_starts(width, dt_s, config)]
    if tool_m_s is not None:
        found += _dips(tool_m_s, config)
    hold, kept = round(config.hold_off_s / dt_s), [0]
    for frame in sorted(found):
        if frame - kept[-1] >= hold and frame < frames - 1:
            kept.append(frame)
    return np.array([*kept[1:], frames - 1])


def key_horizons(keyframes: np.ndarray, frames: int) -> np.ndarray:
    """Of every frame how many steps it is to the next keyframe after it, (T,); 0 for the last frame.

    Args:
        keyframes: As of `keyframes`.
        frames: T, how many the episode has.

    Raises:
        ConfigError: The last keyframe is not the last frame.
    """
    keys = _checked(keyframes, frames)
    after = np.minimum(np.searchsorted(keys, np.arange(frames), side="right"), len(keys) - 1)
    return keys[after] - np.arange(frames)


def cut(keyframes: Sequence[np.ndarray], longest: int | None = None) -> np.ndarray:
    """Key-horizons of some episodes, (N, 3): number of the episode, first frame, last frame, both within it.

    Neighbours share the keyframe between them. Together they hold every step of every episode once.

    Args:
        keyframes: Of every episode.
        longest: Steps; longer ones are cut into pieces that differ by one step at most.
    """
    rows = [np.empty((0, 3), int)]
    for episode, keys in enumerate(keyframes):
        for first, last in itertools.pairwise([0, *keys.tolist()]):
            pieces = 1 if longest is None else max(1, -(-(last - first) // longest))
            edges = np.linspace(first, last, pieces + 1).astype(int)
            if last > first:
                rows.append(np.column_stack([np.full(pieces, episode), edges[:-1], edges[1:]]))
    return np.concatenate(rows)


def pad(episodes: Sequence[np.ndarray], horizons: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Key-horizons of one kind of data as a batch.

    Args:
        episodes: Frames of every episode, (T, ...), all of one type.
        horizons: Some rows (B, 3) of `cut`.

    Returns:
        values: (B, L, ...), L the frames of the longest; 0 where a shorter one has ended.
        mask: (B, L), which of them are frames.
    """
    lengths = horizons[:, 2] - horizons[:, 1] + 1
    mask = np.arange(lengths.max()) < lengths[:, None]
    like = episodes[horizons[0, 0]]
    values = np.zeros((*mask.shape, *like.shape[1:]), like.dtype)
    for row, (episode, first, last) in zip(values, horizons, strict=True):
        row[: last - first + 1] = episodes[episode][first : last + 1]
    return values, mask


def _checked(keyframes: np.ndarray, frames: int) -> np.ndarray:
    keys = np.asarray(keyframes, int)
    if not len(keys) or keys[-1] != frames - 1 or (np.diff(keys) <= 0).any() or keys[0] < 0:
        raise ConfigError(f"keyframes must ascend and end with the last frame, {frames - 1}, not be {keys.tolist()}")
    return keys


def _departures(speed: np.ndarray, config: KeyframeConfig) -> Iterator[int]:
    """Last frames of rests; of one that lasts to the end the first."""
    for rest in _runs(speed < config.rest_rad_s):
        within = speed[rest]
        for still in _runs(within <= max(config.still_rad_s, within.min())):
            lasts = rest.start + still.stop == len(speed)
            yield rest.start + (still.start if lasts else still.stop - 1)


def _dips(speed: np.ndarray, config: KeyframeConfig) -> list[int]:
    """Last frames at which a tool is slow beside the fastest before and behind."""
    if not config.dip:
        return []
    from scipy.signal import find_peaks  # lazily: seconds, for every command knows the settings above

    slowness = -np.log(np.maximum(speed, config.slow_m_s))
    _, about = find_peaks(slowness, prominence=-np.log(config.dip), plateau_size=1)
    return about["right_edges"].tolist()


def _gripper_starts(width: np.ndarray, dt_s: float, config: KeyframeConfig) -> Iterator[int]:
    """Last frames before the gripper moves."""
    change = np.diff(width)
    for sign in (1, -1):
        for run in _runs(sign * change > config.gripper_m_s * dt_s):
            if abs(change[run].sum()) >= config.gripper_m:
                yield run.start


def _runs(flags: np.ndarray) -> Iterator[slice]:
    """Gapless runs of what is true."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(np.int8)))
    for start, stop in zip(edges[::2], edges[1::2], strict=True):
        yield slice(int(start), int(stop))
