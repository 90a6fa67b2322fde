"""Statistics of features, as normalization needs them: of numbers, of pictures, and of many episodes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

QUANTILES = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}
MOMENTS = ("min", "max", "mean", "std")
NAMES = (*MOMENTS, "count", *QUANTILES)
"""What is known of each feature; ``count`` is the number of frames it is known from."""
SAMPLE_EVERY = 4
"""Every how many frames a picture goes into the statistics."""
SAMPLE_SIDE = 150
"""Larger pictures are thinned out until their longer side has between one and two times this many pixels."""


def of_numbers(values: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics of values (N, *shape), N ≥ 1: each of the shape of one value, ``count`` (1,)."""
    wide = values.astype(np.float64)
    quantiles = np.quantile(wide, list(QUANTILES.values()), axis=0)
    return {
        "min": wide.min(axis=0),
        "max": wide.max(axis=0),
        "mean": wide.mean(axis=0),
        "std": wide.std(axis=0),
        "count": np.array([len(wide)]),
        **dict(zip(QUANTILES, quantiles, strict=True)),
    }


class PictureSample:
    """Statistics of the pictures of one camera, from how often each of the 256 levels occurs in each channel."""

    def __init__(self) -> None:
        self._seen = self._sampled = 0
        self._histogram = np.zeros((3, 256), np.int64)

    def add(self, picture: np.ndarray) -> None:
        """Take note of the next picture (H, W, 3) uint8."""
        if self._seen % SAMPLE_EVERY == 0:
            stride = max(1, max(picture.shape[:2]) // SAMPLE_SIDE)
            for channel, counts in enumerate(self._histogram):
                counts += np.bincount(picture[::stride, ::stride, channel].reshape(-1), minlength=256)
            self._sampled += 1
        self._seen += 1

    def result(self) -> dict[str, np.ndarray]:
        """Statistics (3, 1, 1) of levels scaled to 0..1, ``count`` (1,); at least one picture must have come."""
        levels = np.arange(256) / 255
        share = self._histogram / self._histogram.sum(axis=1, keepdims=True)
        mean = share @ levels
        cumulated = np.cumsum(self._histogram, axis=1)
        found = {
            "min": levels[np.argmax(self._histogram > 0, axis=1)],
            "max": levels[255 - np.argmax(self._histogram[:, ::-1] > 0, axis=1)],
            "mean": mean,
            "std": np.sqrt((share * (levels - mean[:, None]) ** 2).sum(axis=1)),
        }
        for name, q in QUANTILES.items():
            found[name] = levels[np.argmax(cumulated >= q * cumulated[:, -1:], axis=1)]
        return {"count": np.array([self._sampled]), **{name: value.reshape(3, 1, 1) for name, value in found.items()}}


def pooled(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Statistics of several episodes together.

    Quantiles cannot be pooled: the lower ones (up to the median) are the smallest of all episodes, the upper
    ones the largest, as the format's own tools have it.
    """
    stacked = {name: np.stack([part[name] for part in parts]) for name in NAMES}
    counts = stacked["count"].sum(axis=0)
    weights = stacked["count"].reshape(-1, *(1,) * (stacked["mean"].ndim - 1)) / counts
    mean = (weights * stacked["mean"]).sum(axis=0)
    variance = (weights * (stacked["std"] ** 2 + (stacked["mean"] - mean) ** 2)).sum(axis=0)
    return {
        "min": stacked["min"].min(axis=0),
        "max": stacked["max"].max(axis=0),
        "mean": mean,
        "std": np.sqrt(variance),
        "count": counts,
        **{q: (np.min if at <= 0.5 else np.max)(stacked[q], axis=0) for q, at in QUANTILES.items()},
    }
