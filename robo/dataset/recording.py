"""Recording of datasets: episode by episode, so that none that is finished is lost, and shards merged into one."""

from __future__ import annotations

import fcntl
import io
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robo.core.errors import ConfigError, RunError, UnknownNameError
from robo.core.files import make_parent, room_for, sync_folder, write_bytes, write_json
from robo.dataset import layout, statistics
from robo.dataset.features import Features, to_arrow
from robo.dataset.layout import Contents, Episode
from robo.dataset.video import Encoder, Joiner, Shelf

_MB = 1 << 20


class Writer:
    """Records a new dataset.

    A finished episode is on the disk, in a folder of its own, before `save_episode` returns: a process that dies loses
    the episode it is at, nothing else, and `Dataset` reads what there is. `close` packs all episodes into the files of
    the layout. One process records into one folder; several record shards, see `merge`.

    Attributes:
        folder: Where it records.
        features: What it records.
        episodes: The number of episodes so far.

    Args:
        folder: Where; must not hold anything yet.
        features: What will be recorded.

    Raises:
        RoboError: The folder is in use, or cannot be written.
    """

    def __init__(self, folder: Path, features: Features) -> None:
        folder = Path(folder)
        # An empty 'meta' is left by a process that died before it recorded anything.
        if folder.exists() and ((folder / layout.INFO).exists() or {p.name for p in folder.iterdir()} - {"meta"}):
            raise RunError(f"{folder} is not empty; go on with Writer.resume, or name another folder")
        make_parent(folder / layout.INFO)
        self._open(folder, features, 0)
        # The columns of the episodes hold the names of the extra, which stand nowhere else.
        empty = folder / layout.EPISODES_PATH.format(chunk_index=0, file_index=0)
        make_parent(empty)
        write_bytes(empty, _parquet([layout.row_schema(features).empty_table()]))
        write_json(folder / layout.INFO, layout.info_of(features, episodes=0, frames=0, tasks=0))

    @classmethod
    def resume(cls, folder: Path) -> Writer:
        """Go on with a recording that was interrupted or closed, at its next episode.

        Raises:
            RoboError: No such dataset, it is damaged, or another process records into it.
        """
        contents = layout.load(Path(folder))
        writer = cls.__new__(cls)
        writer._open(Path(folder), contents.features, len(contents.episodes))
        return writer

    def _open(self, folder: Path, features: Features, episodes: int) -> None:
        self.folder, self.features, self.episodes = folder, features, episodes
        self._lock = os.open(folder, os.O_RDONLY)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._lock)
            raise RunError(f"another process records into {folder}; give each its own folder, then merge") from error
        for leftover in (folder / layout.PARTS).glob(".episode-*.tmp"):
            shutil.rmtree(leftover)
        self._closed = False
        self.drop_episode()

    @property
    def frames(self) -> int:
        """Frames of the episode that is being recorded."""
        return len(self._rows)

    def add_frame(self, values: Mapping[str, Any], pictures: Mapping[str, np.ndarray], task: str) -> None:
        """Add the next frame of the episode; its time is its number / fps.

        Args:
            values: Name → numbers of the declared shape.
            pictures: Camera → (H, W, 3) uint8.
            task: What the robot is told to do.

        Raises:
            RunError: A value or picture is missing, unknown or does not fit; the episode is as it was before.
            NonFiniteError: NaN or infinity; likewise.
        """
        self._check_open()
        row = self.features.check_values(values)
        self.features.check_pictures(pictures)
        if not isinstance(task, str) or not task:
            raise RunError(f"the task of a frame must be a text, not {task!r}")
        for camera, size in self.features.cameras.items():
            if not self._rows:
                self._encoders[camera] = Encoder(self.features.fps, size)
                self._samples[camera] = statistics.PictureSample()
            self._encoders[camera].add(pictures[camera])
            self._samples[camera].add(pictures[camera])
        self._rows.append(row)
        self._tasks.append(task)

    def save_episode(self, extra: Mapping[str, Any] | None = None) -> int:
        """Finish the episode; once this returns, it is on the disk.

        Args:
            extra: Facts of the episode, as declared in `Features.extra`.

        Returns:
            The number of the episode.

        Raises:
            RoboError: No frames; `extra` does not fit (the episode can be saved again); or no room on the disk (this
                episode is lost, all before are not).
        """
        self._check_open()
        if not self._rows:
            raise RunError("an episode needs at least one frame; call add_frame before save_episode")
        facts = self.features.check_extra(extra or {})
        final = self.folder / layout.PARTS / f"episode-{self.episodes:06d}"
        temporary = final.with_name(f".{final.name}.tmp")
        try:
            make_parent(temporary / layout.PART_DATA)
            self._write_part(temporary, facts)
            with room_for(final):
                temporary.rename(final)
                sync_folder(final.parent)
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)  # what remains is removed on resume
            raise
        finally:
            self.drop_episode()
        self.episodes += 1
        return self.episodes - 1

    def _write_part(self, folder: Path, extra: Mapping[str, Any]) -> None:
        tasks = list(dict.fromkeys(self._tasks))
        columns = {name: np.stack([row[name] for row in self._rows]) for name in self.features.values}
        arrays = {name: to_arrow(columns[name], feature) for name, feature in self.features.values.items()}
        arrays["task_index"] = pa.array([tasks.index(task) for task in self._tasks], pa.int64())
        write_bytes(folder / layout.PART_DATA, _parquet([pa.table(arrays)]))
        for camera, encoder in self._encoders.items():
            write_bytes(folder / f"{camera}.mp4", encoder.finish())
        samples = {camera: _plain(sample.result()) for camera, sample in self._samples.items()}
        facts = {"length": len(self._rows), "tasks": tasks, "extra": dict(extra), "pictures": samples}
        write_json(folder / layout.PART_FACTS, facts)

    def drop_episode(self) -> None:
        """Forget the frames added since the last episode was saved."""
        self._rows: list[dict[str, np.ndarray]] = []
        self._tasks: list[str] = []
        self._encoders: dict[str, Encoder] = {}
        self._samples: dict[str, statistics.PictureSample] = {}

    def close(self) -> None:
        """Pack all episodes into the files of the layout; without this only `Dataset` reads them.

        Raises:
            RoboError: Frames of an episode that was not saved; or no room on the disk, then nothing is lost and it can
                be called again.
        """
        if self._closed:
            return
        if self._rows:
            raise RunError(f"an episode of {self.frames} frames is not saved; call save_episode or drop_episode first")
        contents = layout.load(self.folder)
        if contents.packed < len(contents.episodes):
            pack(self.folder, contents)
        if (self.folder / layout.PARTS).exists():
            shutil.rmtree(self.folder / layout.PARTS)
        self._release()

    def _release(self) -> None:
        self._closed = True
        os.close(self._lock)

    def _check_open(self) -> None:
        if self._closed:
            raise RunError(f"the recording in {self.folder} is closed; Writer.resume goes on with it")

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        """Close; after an error the episodes stay as they are, for `resume`."""
        if kind is None:
            self.close()
        elif not self._closed:
            self._release()


def merge(shards: Sequence[Path], folder: Path, *, order_by: str | None = None) -> Path:
    """Make one dataset of several; pictures are copied as they are encoded.

    Args:
        shards: Datasets of equal features, closed or not.
        folder: The new dataset; must not exist. It is whole, or not there.
        order_by: Extra of the episodes that numbers them (``seed``): then the result is the same however they were
            spread over the shards. Without, or where it is equal, they come in the order of the shards.

    Returns:
        The folder.

    Raises:
        RoboError: A shard is damaged or differs in its features, the folder exists, or no room on the disk.
    """
    folder = Path(folder)
    if not shards:
        raise ConfigError("nothing to merge; name at least one dataset")
    if folder.exists():
        raise RunError(f"{folder} exists; name another folder for the merged dataset")
    sources = [layout.load(Path(shard)) for shard in shards]
    features = sources[0].features
    for shard, source in zip(shards, sources, strict=True):
        if source.features != features:
            raise RunError(
                f"the features of {shard} differ from those of {shards[0]}: {_difference(source, sources[0])}"
            )
    if order_by is not None and order_by not in features.extra:
        raise UnknownNameError("extra", order_by, features.extra)
    pieces = [(source, episode) for source in sources for episode in source.episodes]
    if order_by is not None:
        pieces.sort(key=lambda piece: piece[1].extra[order_by])
    make_parent(folder)
    temporary = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    try:
        with room_for(folder):
            temporary.mkdir()
        pack(temporary, _joined(features, pieces))
        with room_for(folder):
            temporary.rename(folder)
            sync_folder(folder.parent)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)  # the error that led here is the one to tell
        raise
    return folder


def pack(root: Path, contents: Contents) -> None:
    """Write the episodes of `contents` that are not packed yet into the files of the layout.

    They go into new files; that they count is decided by the last thing written, ``meta/info.json``.

    Raises:
        RoboError: A video is damaged, or no room on the disk.
    """
    for folder in ("data", "videos/*"):
        for path in root.glob(f"{folder}/chunk-*/file-*"):
            if path not in contents.files:  # left by a process that died while it packed
                path.unlink()
    fresh = [(episode, _row(contents, episode)) for episode in contents.episodes[contents.packed :]]
    _pack_numbers(root, contents, fresh)
    for camera in contents.features.cameras:
        _pack_pictures(root, contents, camera, fresh)
    _pack_rows(root, contents, [row for _, row in fresh])
    write_bytes(root / layout.TASKS, _parquet([layout.tasks_table(contents.tasks)]))
    found = layout.statistics_of(contents)
    write_json(root / layout.STATS, {name: _plain(values) for name, values in found.items()})
    episodes, frames, tasks = len(contents.episodes), len(contents.columns["index"]), len(contents.tasks)
    write_json(root / layout.INFO, layout.info_of(contents.features, episodes=episodes, frames=frames, tasks=tasks))


_Fresh = Sequence[tuple[Episode, dict[str, Any]]]
"""Episodes to be packed, each with its row of ``meta/episodes``, which packing fills in."""


def _row(contents: Contents, episode: Episode) -> dict[str, Any]:
    row: dict[str, Any] = {
        "episode_index": episode.index,
        "tasks": list(episode.tasks),
        "length": episode.length,
        "dataset_from_index": episode.start,
        "dataset_to_index": episode.start + episode.length,
        **episode.extra,
    }
    for name, values in contents.columns.items():
        found = statistics.of_numbers(values[episode.start : episode.start + episode.length])
        row |= {f"stats/{name}/{what}": value for what, value in _plain(found).items()}
    for camera, found in episode.pictures.items():
        row |= {f"stats/{camera}/{what}": value for what, value in _plain(found).items()}
    return row


def _pack_numbers(root: Path, contents: Contents, fresh: _Fresh) -> None:
    features, places = contents.features, _free_places(root / "data", contents)
    frame_bytes = sum(values.itemsize * int(np.prod(values.shape[1:])) for values in contents.columns.values())
    waiting: list[pa.Table] = []
    frames, place = 0, next(places)

    def write() -> None:
        path = root / layout.DATA_PATH.format(chunk_index=place[0], file_index=place[1])
        make_parent(path)
        write_bytes(path, _parquet(waiting))

    for episode, row in fresh:
        if waiting and (frames + episode.length) * frame_bytes > layout.DATA_MB * _MB:
            write()
            waiting, frames, place = [], 0, next(places)
        row |= {"data/chunk_index": place[0], "data/file_index": place[1]}
        piece = {
            name: values[episode.start : episode.start + episode.length] for name, values in contents.columns.items()
        }
        arrays = [to_arrow(piece[name], feature) for name, feature in features.columns.items()]
        waiting.append(pa.Table.from_arrays(arrays, schema=layout.data_schema(features)))
        frames += episode.length
    if waiting:
        write()


def _pack_pictures(root: Path, contents: Contents, camera: str, fresh: _Fresh) -> None:
    features, places = contents.features, _free_places(root / "videos" / camera, contents)
    shelf = Shelf(features.fps)
    joiner, place = None, (0, 0)

    def write(joiner: Joiner) -> None:
        path = root / layout.VIDEO_PATH.format(video_key=camera, chunk_index=place[0], file_index=place[1])
        make_parent(path)
        write_bytes(path, joiner.finish())

    for episode, row in fresh:
        path, first = episode.videos[camera]
        film = shelf.film(path, features.cameras[camera])
        if joiner is None or joiner.kind != film.kind or joiner.size >= layout.VIDEO_MB * _MB:
            if joiner is not None:
                write(joiner)
            joiner, place = Joiner(film), next(places)
        where, start = f"videos/{camera}", joiner.frames
        joiner.add(film, first, episode.length)
        row |= {f"{where}/chunk_index": place[0], f"{where}/file_index": place[1]}
        row |= {f"{where}/from_timestamp": start / features.fps, f"{where}/to_timestamp": joiner.frames / features.fps}
    if joiner is not None:
        write(joiner)
    shelf.close()


def _pack_rows(root: Path, contents: Contents, rows: Sequence[dict[str, Any]]) -> None:
    chunk, file = next(_free_places(root / "meta" / "episodes", contents))
    for row in rows:
        row |= {"meta/episodes/chunk_index": chunk, "meta/episodes/file_index": file}
    path = root / layout.EPISODES_PATH.format(chunk_index=chunk, file_index=file)
    make_parent(path)
    write_bytes(path, _parquet([pa.Table.from_pylist(list(rows), layout.row_schema(contents.features))]))


def _free_places(folder: Path, contents: Contents) -> Iterator[tuple[int, int]]:
    """Numbers (chunk, file) of files in a folder, after those that are needed."""
    taken = [
        int(path.parent.name.removeprefix("chunk-")) * layout.CHUNK_SIZE + int(path.stem.removeprefix("file-"))
        for path in contents.files
        if path.parent.parent == folder
    ]
    return (divmod(number, layout.CHUNK_SIZE) for number in count(max(taken, default=-1) + 1))


def _joined(features: Features, pieces: Sequence[tuple[Contents, Episode]]) -> Contents:
    """Episodes of several datasets as those of one, numbered in the order they come in."""
    tasks = list(dict.fromkeys(task for _, episode in pieces for task in episode.tasks))
    columns = {name: [np.empty((0, *f.shape), f.dtype)] for name, f in features.columns.items()}
    episodes, start = [], 0
    for index, (source, old) in enumerate(pieces):
        piece = {name: values[old.start : old.start + old.length] for name, values in source.columns.items()}
        texts = [source.tasks[number] for number in piece["task_index"][:, 0]]
        tasks += [text for text in dict.fromkeys(texts) if text not in tasks]
        piece |= layout.bookkeeping(index, start, old.length, features.fps)
        piece["task_index"] = np.array([[tasks.index(text)] for text in texts], np.int64)
        for name, values in piece.items():
            columns[name].append(values)
        episodes.append(replace(old, index=index, start=start))
        start += old.length
    whole = {name: np.concatenate(parts) for name, parts in columns.items()}
    return Contents(
        features=features, tasks=tuple(tasks), episodes=tuple(episodes), columns=whole, packed=0, files=frozenset()
    )


def _difference(one: Contents, other: Contents) -> str:
    pairs = ((f.name, getattr(one.features, f.name), getattr(other.features, f.name)) for f in fields(Features))
    return next(f"{name} {value} is not {due}" for name, value, due in pairs if value != due)


def _plain(found: Mapping[str, np.ndarray]) -> dict[str, Any]:
    return {name: value.tolist() for name, value in found.items()}


def _parquet(tables: Sequence[pa.Table]) -> bytes:
    """A parquet file with a row group for each table."""
    buffer = io.BytesIO()
    with pq.ParquetWriter(buffer, tables[0].schema) as writer:
        for table in tables:
            writer.write_table(table)
    return buffer.getvalue()
