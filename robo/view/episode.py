"""An episode of a dataset for people: a video of its cameras, or a recording for rerun."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import rerun as rr

from robo.core.errors import RoboError, RunError
from robo.core.files import make_parent, write_bytes
from robo.dataset.features import BOOKKEEPING
from robo.dataset.lerobot import Dataset

TIMELINE = "time"
SMALLEST = 192
"""Pictures are enlarged by a whole factor until they are at least so high [px]."""


def film_episode(dataset: Dataset, episode: int, path: Path) -> Path:
    """Write an episode as an H.264 video, its cameras side by side.

    Raises:
        RoboError: No such episode, no cameras, or no room on the disk.
    """
    import av

    found = _episode(dataset, episode)
    cameras = list(dataset.features.cameras)
    if not cameras:
        raise RunError(f"{dataset.folder} holds no pictures; see it with: robo-data view --save X.rrd")
    make_parent(path)
    grow = max(1, -(-SMALLEST // min(height for height, _ in dataset.features.cameras.values())))
    highest = max(height for height, _ in dataset.features.cameras.values()) * grow
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=dataset.features.fps, options={"crf": "20"})
        stream.pix_fmt, stream.height = "yuv420p", highest
        stream.width = sum(width for _, width in dataset.features.cameras.values()) * grow
        for row in zip(*(found[camera] for camera in cameras), strict=True):
            tiles = [np.repeat(np.repeat(tile, grow, 0), grow, 1) for tile in row]
            picture = np.concatenate([np.pad(t, ((0, highest - len(t)), (0, 0), (0, 0))) for t in tiles], axis=1)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    write_bytes(path, buffer.getvalue())
    return path


def record_episode(dataset: Dataset, episode: int, path: Path) -> Path:
    """Write an episode as ``.rrd``: pictures of every camera and every number over time.

    Raises:
        RoboError: No such episode, or no room on the disk.
    """
    found = _episode(dataset, episode)
    make_parent(path)
    stream = rr.RecordingStream("robo", recording_id=f"{dataset.folder.name}-{episode}")
    file = stream.binary_stream()
    times = np.arange(len(found["frame_index"])) / dataset.features.fps
    index = rr.TimeColumn(TIMELINE, duration=times)
    for name, feature in dataset.features.columns.items():
        if name in BOOKKEEPING or name not in found:
            continue
        values = np.asarray(found[name], float).reshape(len(times), -1)
        for i in range(values.shape[1]):
            part = feature.names[i] if feature.names else str(i)
            label = f"{name}/{part}" if values.shape[1] > 1 else name
            stream.log(label, rr.SeriesLines(names=[part]), static=True)
            stream.send_columns(label, indexes=[index], columns=rr.Scalars.columns(scalars=values[:, i]))
    for camera in dataset.features.cameras:
        for time_s, picture in zip(times, found[camera], strict=True):
            stream.set_time(TIMELINE, duration=float(time_s))
            stream.log(camera, rr.Image(picture).compress(jpeg_quality=85))
    content = file.read(flush=True)
    if content is None:
        raise RoboError("rerun recorded nothing; install it again: pip install -U rerun-sdk")
    write_bytes(path, content)
    return path


def _episode(dataset: Dataset, episode: int) -> dict[str, np.ndarray]:
    if not 0 <= episode < len(dataset.episodes):
        raise RunError(f"{dataset.folder} has episodes 0 .. {len(dataset.episodes) - 1}, not {episode}")
    return dataset.episode(episode)
