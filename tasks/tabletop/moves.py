"""Pieces of scripts: reach for something, close on it, carry it, let go."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from tasks.tabletop.base import Waypoint

UP = np.array([0.0, 0.0, 1.0])
GRIP_S, RELEASE_S = 0.35, 0.25
SQUEEZE_M = 0.008
"""The jaws are told to close this much beyond what they hold; with the gripper's stiffness that gives its force."""


def grasp(
    pos: np.ndarray, rot: np.ndarray, thickness_m: float, open_m: float, back_m: float = 0.10
) -> Iterator[Waypoint]:
    """Come from behind along the tool's axis with open jaws, close on something of a thickness."""
    behind = pos - back_m * rot[:, 2]
    yield Waypoint(pos=behind, rot=rot, width_m=open_m, near_m=0.01, free=True)
    yield Waypoint(pos=pos, rot=rot, width_m=open_m, speed_m_s=0.2)
    yield close(pos, rot, thickness_m)


def close(pos: np.ndarray, rot: np.ndarray, thickness_m: float) -> Waypoint:
    """Close on something of a thickness."""
    return Waypoint(pos=pos, rot=rot, width_m=max(thickness_m - SQUEEZE_M, 0.0), wait_s=GRIP_S, near_m=0.01)


def carry(start: np.ndarray, end: np.ndarray, rot: np.ndarray, width_m: float, over_m: float) -> Iterator[Waypoint]:
    """Lift what is held to a height, take it over the end, put it down there."""
    yield Waypoint(pos=np.array([*start[:2], over_m]), rot=rot, width_m=width_m, near_m=0.015)
    yield Waypoint(pos=np.array([*end[:2], over_m]), rot=rot, width_m=width_m, near_m=0.006, free=True)
    yield Waypoint(pos=end, rot=rot, width_m=width_m, speed_m_s=0.12)


def release(pos: np.ndarray, rot: np.ndarray, open_m: float, back_m: float = 0.08) -> Iterator[Waypoint]:
    """Open the jaws and go back along the tool's axis."""
    yield Waypoint(pos=pos, rot=rot, width_m=open_m, wait_s=RELEASE_S, near_m=0.01)
    yield Waypoint(pos=pos - back_m * rot[:, 2], rot=rot, width_m=open_m, speed_m_s=0.25, near_m=0.02)


def squeezed(thickness_m: float) -> float:
    """Width to command while something of a thickness is held."""
    return max(thickness_m - SQUEEZE_M, 0.0)
