"""The LeRobotDataset v3.0 layout: where things lie, how they are read, and whether they fit together.

A dataset is a folder::

    meta/info.json                              features, frames a second, totals
    meta/stats.json                             statistics of each feature
    meta/tasks.parquet                          text of each task
    meta/episodes/chunk-000/file-000.parquet    a row for each episode: length, tasks, where its frames lie
    data/chunk-000/file-000.parquet             numbers, a row for each frame, many episodes in a file
    videos/<camera>/chunk-000/file-000.mp4      pictures, many episodes in a file
    parts/episode-000007/                       finished episodes of a recording that goes on

``meta/info.json`` is written last: episodes beyond its total, and files these alone need, are leftovers of a process
that died. ``parts`` is our own addition; it is gone once the recording is closed, and other tools do not look into it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from robo.core.errors import ConfigError, RoboError, RunError
from robo.core.files import read_json
from robo.dataset import statistics
from robo.dataset.features import BOOKKEEPING, DTYPES, EXTRA, Feature, Features, arrow_type, from_arrow
from robo.dataset.video import MEND, Film, describe

VERSION = "v3.0"
INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
PLACE = "chunk-{chunk_index:03d}/file-{file_index:03d}"
DATA_PATH = f"data/{PLACE}.parquet"
VIDEO_PATH = f"videos/{{video_key}}/{PLACE}.mp4"
EPISODES_PATH = f"meta/episodes/{PLACE}.parquet"
CHUNK_SIZE, DATA_MB, VIDEO_MB = 1000, 100, 200
"""Files in a folder, and the size at which the next file of numbers or pictures is begun."""
PARTS = "parts"
PART_DATA, PART_FACTS = "data.parquet", "episode.json"
TOLERANCE_S = 1e-4
"""How far a time may lie from frame / fps [s]."""


@dataclass(frozen=True, kw_only=True)
class Episode:
    """One episode of a dataset.

    Attributes:
        index: Its number.
        start: Frame of the dataset at which it begins.
        length: Its number of frames.
        tasks: Texts of its tasks.
        extra: Facts of the episode, as declared.
        videos: Camera → file and the number of the first picture in it.
        pictures: Camera → statistics of its pictures, empty if unknown.
    """

    index: int
    start: int
    length: int
    tasks: tuple[str, ...]
    extra: Mapping[str, Any]
    videos: Mapping[str, tuple[Path, int]]
    pictures: Mapping[str, Mapping[str, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class Contents:
    """All of a dataset but its pictures.

    Attributes:
        features: What it holds.
        tasks: Text of each task.
        episodes: In order.
        columns: Name → (frames, *shape) numbers of all frames.
        packed: How many of the episodes lie in the files of the layout; the others are parts.
        files: The files that the packed episodes need.
    """

    features: Features
    tasks: tuple[str, ...]
    episodes: tuple[Episode, ...]
    columns: Mapping[str, np.ndarray]
    packed: int
    files: frozenset[Path]


def load(folder: Path) -> Contents:
    """Read a dataset, checked.

    Raises:
        RunError: The first thing that does not fit; names the file.
    """
    examination = Examination(folder)
    for problem in examination.problems():
        raise RunError(problem)
    return examination.contents()


class Examination:
    """Reads a dataset piece by piece, and says what does not fit.

    Args:
        folder: The dataset.
        thorough: Whether to compare the statistics too.
        decode: Whether to decode every picture.
    """

    def __init__(self, folder: Path, *, thorough: bool = False, decode: bool = False) -> None:
        self.folder, self.thorough, self.decode = Path(folder), thorough, decode

    def contents(self) -> Contents:
        """What was read, once `problems` came to its end without one."""
        columns = {name: np.concatenate([part[name] for part in self._columns]) for name in self._features.columns}
        packed = self._info["total_episodes"]
        videos = {path for episode in self._episodes[:packed] for path, _ in episode.videos.values()}
        return Contents(
            features=self._features,
            tasks=tuple(self._tasks),
            episodes=tuple(self._episodes),
            columns=columns,
            packed=packed,
            files=frozenset({*self._files, *videos}),
        )

    def problems(self) -> Iterator[str]:
        """What does not fit, one line each; without metadata that can be read there is nothing else to say."""
        try:
            self._info, declared = _read_info(self.folder)
            rows, self._features = _read_rows(self.folder, declared)
            self._tasks = _read_tasks(self.folder, self._info["total_tasks"])
            self._parts = _list_parts(self.folder, self._info["total_episodes"])
        except RoboError as error:
            yield str(error)
            return
        yield from self._totals(rows)
        rows = rows[: self._info["total_episodes"]]
        self._files = {row["file"] for row in rows}
        self._columns = [_no_frames(self._features)]
        self._episodes = [self._episode(row) for row in rows]
        yield from self._numbers(rows)
        for path in self._parts:
            try:
                self._add_part(path)
            except RoboError as error:
                yield str(error)
        yield from self._videos()
        if self.thorough:
            yield from self._statistics()

    def _totals(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        total, where = self._info["total_episodes"], self.folder / "meta" / "episodes"
        # More rows than that are the leftovers of a recording that died while it was packed.
        if len(rows) < total or (len(rows) > total and not self._parts):
            yield f"{where} holds {len(rows)} episodes, {INFO} says {total}; {MEND}"
        start = 0
        for number, row in enumerate(rows[:total]):
            found = row["episode_index"], row["dataset_from_index"], row["dataset_to_index"]
            if row["length"] < 1 or found != (number, start, start + row["length"]):
                yield (
                    f"{where}: row {number} is episode {found[0]}, frames {found[1]} to {found[2]} of length "
                    f"{row['length']}; expected episode {number} from frame {start}; {MEND}"
                )
            unknown = [task for task in row["tasks"] if task not in self._tasks]
            if unknown:
                yield f"{where}: episode {number} is of task {unknown[0]!r}, which {TASKS} does not hold; {MEND}"
            start += row["length"]
        if start != self._info["total_frames"] and len(rows) >= total:
            yield f"the episodes in {where} hold {start} frames, {INFO} says {self._info['total_frames']}; {MEND}"

    def _episode(self, row: Mapping[str, Any]) -> Episode:
        videos = {}
        for camera in self._features.cameras:
            where = f"videos/{camera}"
            path = self.folder / VIDEO_PATH.format(
                video_key=camera, chunk_index=row[f"{where}/chunk_index"], file_index=row[f"{where}/file_index"]
            )
            videos[camera] = path, round(row[f"{where}/from_timestamp"] * self._features.fps)
        return Episode(
            index=row["episode_index"],
            start=row["dataset_from_index"],
            length=row["length"],
            tasks=tuple(row["tasks"]),
            extra={name: row[name] for name in self._features.extra},
            videos=videos,
            pictures={
                camera: _picture_statistics({name: row.get(f"stats/{camera}/{name}") for name in statistics.NAMES})
                for camera in self._features.cameras
            },
        )

    def _numbers(self, rows: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        def place(row: Mapping[str, Any]) -> tuple[int, int]:
            return row["data/chunk_index"], row["data/file_index"]

        for (chunk, file), group in groupby(rows, key=place):
            path, members = self.folder / DATA_PATH.format(chunk_index=chunk, file_index=file), list(group)
            try:
                columns = _read_columns(path, self._features.columns)
            except RoboError as error:
                yield str(error)
                continue
            self._files.add(path)
            self._columns.append(columns)
            yield from _frame_problems(path, columns, members, self._features.fps, len(self._tasks))

    def _add_part(self, path: Path) -> None:
        features, last = self._features, self._episodes[-1] if self._episodes else None
        index, start = (last.index + 1, last.start + last.length) if last else (0, 0)
        facts = read_json(path / PART_FACTS, {"length": int, "tasks": list, "extra": dict, "pictures": dict})
        columns = _read_columns(path / PART_DATA, {**features.values, "task_index": BOOKKEEPING["task_index"]})
        length, tasks = facts["length"], facts["tasks"]
        fits = len(columns["task_index"]) == length > 0 and all(isinstance(task, str) for task in tasks)
        if not fits or not np.isin(columns["task_index"], range(len(tasks))).all():
            raise RunError(f"{path / PART_DATA} and {path / PART_FACTS} do not belong together; remove {path}")
        for problem in _finite_problems(path / PART_DATA, columns):
            raise RunError(problem)
        try:
            extra = features.check_extra(facts["extra"])
        except RoboError as error:
            raise RunError(f"{path / PART_FACTS}: {error}") from error
        self._tasks += [task for task in tasks if task not in self._tasks]
        places = np.array([self._tasks.index(task) for task in tasks])
        self._columns.append(
            {**columns, **bookkeeping(index, start, length, features.fps), "task_index": places[columns["task_index"]]}
        )
        self._episodes.append(
            Episode(
                index=index,
                start=start,
                length=length,
                tasks=tuple(tasks),
                extra=extra,
                videos={camera: (path / f"{camera}.mp4", 0) for camera in features.cameras},
                pictures={camera: _picture_statistics(facts["pictures"].get(camera)) for camera in features.cameras},
            )
        )

    def _videos(self) -> Iterator[str]:
        cameras = self._features.cameras
        for path in sorted((self.folder / "videos").glob("*")):
            if path.name not in cameras:
                yield f"{path} belongs to no feature of {INFO} ({', '.join(cameras) or 'no cameras'}); {MEND}"
        for camera, size in cameras.items():
            members = sorted((*episode.videos[camera], episode.length, episode.index) for episode in self._episodes)
            for path, group in groupby(members, key=lambda member: member[0]):
                try:
                    film = Film(path, self._features.fps, size)
                except RoboError as error:
                    yield str(error)
                    continue
                end = 0
                for _, first, length, index in group:
                    if first < end:
                        yield f"video {path}: the pictures of episode {index} belong to another episode too; {MEND}"
                    end = first + length
                if end != film.frames:
                    yield f"video {path} holds {film.frames} pictures, its episodes need {end}; {MEND}"
                elif self.decode:
                    yield from _decoding_problems(film)
                film.close()

    def _statistics(self) -> Iterator[str]:
        path, total = self.folder / STATS, self._info["total_frames"]
        if self._parts or not total:
            return
        try:
            found = read_json(path)
        except RoboError as error:
            yield str(error)
            return
        for name in {*self._features.columns, *self._features.cameras}.symmetric_difference(found):
            yield f"{path}: {name} stands there or in {INFO}, but not in both; {MEND}"
        for name in self._features.values:
            values = [part[name] for part in self._columns]
            if name not in found or sum(map(len, values)) != total:
                continue
            problem = _statistics_problem(found[name], np.concatenate(values))
            if problem:
                yield f"{path}: {name}: {problem}; {MEND}"


def bookkeeping(episode: int, start: int, length: int, fps: int) -> dict[str, np.ndarray]:
    """The columns, (length, 1), that follow from an episode's place in its dataset."""
    frames = np.arange(length, dtype=np.int64)[:, None]
    return {
        "timestamp": (frames / fps).astype(np.float32),
        "frame_index": frames,
        "episode_index": np.full_like(frames, episode),
        "index": frames + start,
    }


def statistics_of(contents: Contents) -> dict[str, dict[str, np.ndarray]]:
    """Statistics of each feature over all episodes: those of numbers exact, those of pictures `statistics.pooled`."""
    if not contents.episodes:
        return {}
    found = {name: statistics.of_numbers(values) for name, values in contents.columns.items()}
    for camera in contents.features.cameras:
        known = [episode.pictures[camera] for episode in contents.episodes if episode.pictures[camera]]
        if known:
            found[camera] = statistics.pooled(known)
    return found


def info_of(features: Features, *, episodes: int, frames: int, tasks: int) -> dict[str, Any]:
    """What stands in ``meta/info.json``."""
    declared: dict[str, Any] = {
        name: {"dtype": feature.dtype, "shape": list(feature.shape), "names": feature.names and list(feature.names)}
        for name, feature in features.columns.items()
    }
    for name, size in features.cameras.items():
        names = ["height", "width", "channels"]
        info = describe(features.fps, size)
        declared[name] = {"dtype": "video", "shape": [*size, 3], "names": names, "info": info}
    return {
        "codebase_version": VERSION,
        "robot_type": features.robot_type,
        "total_episodes": episodes,
        "total_frames": frames,
        "total_tasks": tasks,
        "chunks_size": CHUNK_SIZE,
        "data_files_size_in_mb": DATA_MB,
        "video_files_size_in_mb": VIDEO_MB,
        "fps": features.fps,
        "splits": {"train": f"0:{episodes}"},
        "data_path": DATA_PATH,
        "video_path": VIDEO_PATH if features.cameras else None,
        "features": declared,
    }


def row_schema(features: Features) -> pa.Schema:
    """Columns of ``meta/episodes``."""
    integer, number = pa.int64(), pa.float64()
    fields: dict[str, pa.DataType] = {"episode_index": integer, "tasks": pa.list_(pa.string()), "length": integer}
    fields |= {f"data/{name}": integer for name in ("chunk_index", "file_index")}
    fields |= {"dataset_from_index": integer, "dataset_to_index": integer}
    for camera in features.cameras:
        fields |= {f"videos/{camera}/{name}": integer for name in ("chunk_index", "file_index")}
        fields |= {f"videos/{camera}/{name}": number for name in ("from_timestamp", "to_timestamp")}
    fields |= {name: EXTRA[kind] for name, kind in features.extra.items()}
    ranks = {name: len(feature.shape) for name, feature in features.columns.items()}
    for feature, rank in {**ranks, **dict.fromkeys(features.cameras, 3)}.items():
        for name in statistics.NAMES:
            kind = pa.list_(integer) if name == "count" else number
            for _ in range(0 if name == "count" else rank):
                kind = pa.list_(kind)
            fields[f"stats/{feature}/{name}"] = kind
    fields |= {f"meta/episodes/{name}": integer for name in ("chunk_index", "file_index")}
    return pa.schema(fields)


def data_schema(features: Features) -> pa.Schema:
    """Columns of ``data``."""
    return pa.schema({name: arrow_type(feature) for name, feature in features.columns.items()})


def tasks_table(tasks: Sequence[str]) -> pa.Table:
    """``meta/tasks.parquet``; for pandas, the texts are the index of the table."""
    table = pa.table({"task_index": pa.array(range(len(tasks)), pa.int64()), "task": pa.array(tasks, pa.string())})
    columns = [
        {"name": name, "field_name": name, "pandas_type": kind, "numpy_type": numpy, "metadata": None}
        for name, kind, numpy in (("task_index", "int64", "int64"), ("task", "unicode", "object"))
    ]
    hint = {"index_columns": ["task"], "column_indexes": [], "columns": columns, "pandas_version": "2.0.0"}
    return table.replace_schema_metadata({"pandas": json.dumps(hint)})


def read_table(path: Path) -> pa.Table:
    """Read a parquet file.

    Raises:
        RunError: The file is missing or damaged.
    """
    if not path.is_file():
        raise RunError(f"no file {path}; {MEND}")
    try:
        with pq.ParquetFile(path) as file:
            return file.read()
    except (OSError, pa.ArrowException) as error:
        raise RunError(f"{path} is damaged ({' '.join(str(error).split())}); {MEND}") from error


def _read_info(folder: Path) -> tuple[dict[str, Any], Features]:
    path = folder / INFO
    if not path.is_file():
        raise RunError(f"no dataset in {folder}: it has no {INFO}; name the folder that holds 'meta' and 'data'")
    version = read_json(path, {"codebase_version": str})["codebase_version"]
    if version != VERSION:
        hint = "lerobot's own converter renews older ones (lerobot.scripts.convert_dataset_v21_to_v30)"
        raise RunError(f"{path} is of version {version!r}, this reads {VERSION!r}; {hint}")
    keys = ("fps", "total_episodes", "total_frames", "total_tasks")
    info = read_json(path, {**dict.fromkeys(keys, int), "features": dict})
    for key in keys[1:]:
        if info[key] < 0:
            raise RunError(f"{path}: {key!r} is {info[key]}, expected 0 or more; {MEND}")
    cameras = {name for name, value in info["features"].items() if isinstance(value, dict) and _is_video(value)}
    expected = {"data_path": DATA_PATH} | ({"video_path": VIDEO_PATH} if cameras else {})
    for key, template in expected.items():
        if info.get(key) != template:
            raise RunError(f"{path}: {key!r} must be {template!r}, not {info.get(key)!r}; move the files there")
    robot = info.get("robot_type")
    if not isinstance(robot, str | None):
        raise RunError(f"{path}: 'robot_type' must be a text or null, not {robot!r}")
    try:
        values = {name: _feature(value) for name, value in info["features"].items() if name not in cameras}
        for name, feature in BOOKKEEPING.items():
            found = values.pop(name, None)
            if found is None or (found.dtype, found.shape) != (feature.dtype, feature.shape):
                raise ConfigError(f"feature {name!r} must be {feature.dtype} of shape (1,), not {found}")
        sizes = {name: _size(name, info["features"][name]) for name in info["features"] if name in cameras}
        return info, Features(values=values, fps=info["fps"], robot_type=robot, cameras=sizes)
    except ConfigError as error:
        raise RunError(f"{path}: {error}") from error


def _is_video(value: Mapping[str, Any]) -> bool:
    return value.get("dtype") == "video"


def _feature(value: Any) -> Feature:
    if not isinstance(value, dict) or not isinstance(value.get("shape"), list):
        raise ConfigError(f"a feature must have 'dtype' and 'shape', not {value!r}")
    if value.get("dtype") not in DTYPES:
        raise ConfigError(
            f"features of dtype {value.get('dtype')!r} cannot be read; available: video, {', '.join(DTYPES)}"
        )
    # Names are free text in this format: those that do not name the elements are of no use.
    found, shape = value.get("names"), tuple(value["shape"])
    names = tuple(name for name in found if isinstance(name, str)) if isinstance(found, list) else ()
    return Feature(value["dtype"], shape, names if shape[:1] == (len(names),) else None)


def _size(name: str, value: Mapping[str, Any]) -> tuple[int, int]:
    found, info = value.get("shape"), value.get("info")
    shape = tuple(n for n in found if type(n) is int) if isinstance(found, list) else ()
    depth = isinstance(info, dict) and bool(info.get("is_depth_map") or info.get("video.is_depth_map"))
    if depth or len(shape) != 3 or 3 not in (shape[0], shape[2]):
        kind = f"{found}{' of depth' * depth}"
        raise ConfigError(f"the video {name!r} must hold pictures (H, W, 3) or (3, H, W), not {kind}")
    return (shape[0], shape[1]) if shape[2] == 3 else (shape[1], shape[2])


def _read_rows(folder: Path, features: Features) -> tuple[list[dict[str, Any]], Features]:
    paths = sorted((folder / "meta" / "episodes").glob("chunk-*/file-*.parquet"))
    if not paths:
        raise RunError(f"no file {folder / EPISODES_PATH.format(chunk_index=0, file_index=0)}; {MEND}")
    tables = {path: read_table(path) for path in paths}
    expected = {
        field.name: field.type for field in row_schema(features) if not field.name.startswith(("stats/", "meta/"))
    }
    for path, table in tables.items():
        for name, kind in expected.items():
            if name not in table.column_names:
                raise RunError(f"{path} has no column {name!r}; {MEND}")
            column = table[name]
            if column.null_count or not _fits(column.type, kind):
                raise RunError(f"{path}: column {name!r} must be {kind} without gaps, not {column.type}; {MEND}")
    features = _with_extra(features, list(tables.values()))
    # Statistics of numbers are computed from the numbers; those of pictures would be slow to get again.
    wanted = {*expected, *features.extra}
    wanted |= {f"stats/{camera}/{name}" for camera in features.cameras for name in statistics.NAMES}
    rows = [
        {**row, "file": path}
        for path, table in tables.items()
        for row in table.select([name for name in table.column_names if name in wanted]).to_pylist()
    ]
    for row in rows:
        times = [row[name] for name, kind in expected.items() if kind == pa.float64()]
        if not all(math.isfinite(time) and time >= 0 for time in times):
            raise RunError(f"{folder / 'meta' / 'episodes'}: episode {row['episode_index']} has times {times}; {MEND}")
    return rows, features


def _fits(found: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_list(expected):
        return pa.types.is_list(found) and found.value_type in (pa.string(), pa.large_string())
    return found == expected


def _with_extra(features: Features, tables: Sequence[pa.Table]) -> Features:
    """Columns of plain facts that are no part of the layout are the extra of the episodes."""
    known, kinds = row_schema(features).names, {kind: name for name, kind in EXTRA.items()}
    extra = {
        field.name: kinds[field.type]
        for field in tables[0].schema
        if field.name not in known
        and "/" not in field.name
        and field.type in kinds
        and all(field.name in t.column_names and t[field.name].type == field.type for t in tables)
        and not any(t[field.name].null_count for t in tables)
    }
    return replace(features, extra=extra)


def _read_tasks(folder: Path, total: int) -> list[str]:
    if not total:
        return []
    path = folder / TASKS
    table = read_table(path)
    # The column of texts was an index without a name in older files.
    texts = next((table[name] for name in ("task", "__index_level_0__") if name in table.column_names), None)
    if texts is None or "task_index" not in table.column_names:
        raise RunError(f"{path} must have columns 'task' and 'task_index', not {table.column_names}; {MEND}")
    tasks = dict(zip(table["task_index"].to_pylist(), texts.to_pylist(), strict=True))
    if len(tasks) < total or any(not isinstance(tasks.get(index), str) for index in range(total)):
        raise RunError(f"{path} holds tasks {sorted(tasks, key=str)}, {INFO} says {total}; {MEND}")
    return [tasks[index] for index in range(total)]


def _list_parts(folder: Path, packed: int) -> list[Path]:
    found = {int(path.name[len("episode-") :]): path for path in (folder / PARTS).glob("episode-" + "[0-9]" * 6)}
    parts = [found[number] for number in sorted(found) if number >= packed]
    for number, path in enumerate(parts, start=packed):
        if path.name != f"episode-{number:06d}":
            raise RunError(f"{folder / PARTS} holds {path.name}, but no episode {number}; {MEND}")
    return parts


def _read_columns(path: Path, features: Mapping[str, Feature]) -> dict[str, np.ndarray]:
    table = read_table(path)
    missing = [name for name in features if name not in table.column_names]
    unknown = [name for name in table.column_names if name not in features]
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"holds {unknown[0]!r}, which {INFO} does not name"
        raise RunError(f"{path} {what}; expected the columns {', '.join(features)}; {MEND}")
    return {name: from_arrow(table[name], feature, f"{path}, column {name!r}") for name, feature in features.items()}


def _no_frames(features: Features) -> dict[str, np.ndarray]:
    return {name: np.empty((0, *feature.shape), feature.dtype) for name, feature in features.columns.items()}


def _frame_problems(
    path: Path, columns: Mapping[str, np.ndarray], members: Sequence[Mapping[str, Any]], fps: int, tasks: int
) -> Iterator[str]:
    length = sum(row["length"] for row in members)
    if len(columns["index"]) != length:
        yield f"{path} holds {len(columns['index'])} frames, its episodes need {length}; {MEND}"
        return
    expected = [bookkeeping(row["episode_index"], row["dataset_from_index"], row["length"], fps) for row in members]
    for name in ("episode_index", "index", "frame_index", "timestamp"):
        due = np.concatenate([part[name] for part in expected])
        tolerance = TOLERANCE_S if name == "timestamp" else 0
        off = np.flatnonzero(~(np.abs(columns[name] - due) <= tolerance))  # also true of NaN
        if len(off):
            said, should = columns[name][off[0], 0], due[off[0], 0]
            yield f"{path}: {name} of row {off[0]} is {said}, expected {should} ({len(off)} such rows); {MEND}"
    strange = ~np.isin(columns["task_index"], range(tasks))
    if strange.any():
        yield f"{path}: task_index {columns['task_index'][strange][0]} is none of the {tasks} in {TASKS}; {MEND}"
    yield from _finite_problems(path, columns)


def _finite_problems(path: Path, columns: Mapping[str, np.ndarray]) -> Iterator[str]:
    for name, values in columns.items():
        if not np.isfinite(values).all():
            row = np.argwhere(~np.isfinite(values))[0][0]
            yield f"{path}: {name} of row {row} holds NaN or infinity; finite numbers are needed, record it again"


def _decoding_problems(film: Film) -> Iterable[str]:
    for number in range(film.frames):
        try:
            film.picture(number)
        except RoboError as error:
            yield str(error)
            return


def _picture_statistics(values: Any) -> dict[str, np.ndarray]:
    """Statistics of the pictures of one camera; empty where these are unknown or of another shape."""
    if not isinstance(values, Mapping) or any(values.get(name) is None for name in statistics.NAMES):
        return {}
    found = {name: _array(values[name]) for name in statistics.NAMES}
    if any(value is None or value.shape != (3, 1, 1) for name, value in found.items() if name != "count"):
        return {}
    count = found["count"]
    if count is None or count.shape != (1,) or count[0] < 1:
        return {}
    return {**{name: value for name, value in found.items() if value is not None}, "count": count.astype(np.int64)}


def _statistics_problem(said: Any, values: np.ndarray) -> str:
    """What is wrong with the statistics of values (N, *shape); those of other tools are rounded to float32."""
    found = {name: _array(said.get(name)) for name in ("count", "min", "max")} if isinstance(said, Mapping) else {}
    low, high, count = found.get("min"), found.get("max"), found.get("count")
    if count is None or count.tolist() != [len(values)]:
        return f"count is {count}, expected {[len(values)]}"
    if low is None or high is None or low.shape != high.shape or low.shape not in (values.shape[1:], values.shape[-1:]):
        return f"min and max must be of shape {values.shape[1:]}"
    rows = values.reshape(-1, *low.shape).astype(np.float64)  # other tools have one for each element of the last axis
    for name, known, due in (("min", low, rows.min(axis=0)), ("max", high, rows.max(axis=0))):
        if not np.allclose(known, due, rtol=1e-3, atol=1e-6):
            return f"{name} is {known.tolist()}, the frames have {due.tolist()}"
    return ""


def _array(value: Any) -> np.ndarray | None:
    """Numbers in nested lists as an array; None if they are no numbers, or rows of different lengths."""
    try:
        return np.array(value, np.float64)
    except (TypeError, ValueError):
        return None
