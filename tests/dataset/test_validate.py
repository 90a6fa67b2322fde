"""Datasets that are damaged: each problem is found, and said with the file it is in."""

from __future__ import annotations

import io
import json
import re
import shutil

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from robo.core.errors import RunError
from robo.dataset.lerobot import Dataset, Writer, validate
from robo.dataset.video import Encoder, Film
from tests.dataset.recordings import CAMERA, FEATURES, SIZE, add_frames, extra, length, picture, record

INFO, STATS, TASKS = "meta/info.json", "meta/stats.json", "meta/tasks.parquet"
EPISODES, DATA = "meta/episodes/chunk-000/file-000.parquet", "data/chunk-000/file-000.parquet"
VIDEO = f"videos/{CAMERA}/chunk-000/file-000.mp4"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "set", [0, 1, 2])


@pytest.fixture
def folder(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "set")


def change_json(path, **changes):
    value = json.loads(path.read_text())
    path.write_text(json.dumps({**value, **changes}))


def change_feature(folder, name, **changes):
    features = json.loads((folder / INFO).read_text())["features"]
    features[name] = {**features[name], **changes}
    change_json(folder / INFO, features=features)


def change_column(path, name, change):
    """Replace a column by what `change` makes of its values."""
    table = pq.read_table(path)
    place = table.column_names.index(name)
    pq.write_table(table.set_column(place, name, change(table[name])), path)


def at(row, value):
    """A change of one value of a column."""

    def change(column):
        values = column.to_pylist()
        values[row] = value
        return pa.array(values, column.type)

    return change


def movie(frames, size=SIZE, fps=20) -> bytes:
    encoder = Encoder(fps, size)
    for i in range(frames):
        encoder.add(np.resize(picture(0, i), (*size, 3)))
    return encoder.finish()


def test_nothing_is_wrong(whole):
    assert validate(whole, decode=True) == []


@pytest.mark.parametrize("name", [INFO, STATS, TASKS, EPISODES, DATA, VIDEO])
@pytest.mark.parametrize("damage", ["missing", "empty", "half", "noise"])
def test_files_missing_or_damaged(folder, name, damage):
    path = folder / name
    data = path.read_bytes()
    noise = np.random.default_rng(0).bytes(len(data))
    path.unlink()
    if damage != "missing":
        path.write_bytes({"empty": b"", "half": data[: len(data) // 2], "noise": noise}[damage])
    problems = validate(folder)
    assert len(problems) == 1
    assert str(folder) in problems[0]
    assert path.name in problems[0]
    if name != STATS:  # which nothing is read from
        with pytest.raises(RunError, match=re.escape(problems[0])):
            Dataset(folder)


INFO_CHANGES = [
    (lambda d: change_json(d / INFO, codebase_version="v2.1"), "is of version 'v2.1', this reads 'v3.0'"),
    (lambda d: change_json(d / INFO, codebase_version=3), "'codebase_version' must be str"),
    (lambda d: change_json(d / INFO, fps="20"), "'fps' must be int"),
    (lambda d: change_json(d / INFO, fps=0), "fps must be"),
    (lambda d: change_json(d / INFO, robot_type=7), "'robot_type' must be"),
    (lambda d: change_json(d / INFO, total_frames=-1), "'total_frames' is -1"),
    (lambda d: change_json(d / INFO, data_path="../{chunk_index}"), "'data_path' must be"),
    (lambda d: change_json(d / INFO, video_path=None), "'video_path' must be"),
    (lambda d: change_json(d / INFO, features={}), "feature 'timestamp' must be"),
    (lambda d: change_json(d / INFO, features={"action": 1}), "a feature must have"),
    (lambda d: change_feature(d, "action", dtype="string"), "features of dtype 'string' cannot be read"),
    (lambda d: change_feature(d, "action", shape=["2"]), "the shape of a feature"),
    (lambda d: change_feature(d, "index", dtype="int32"), "feature 'index' must be int64"),
    (lambda d: change_feature(d, CAMERA, shape=[48, 64]), "must hold pictures"),
    (lambda d: change_feature(d, CAMERA, info={"is_depth_map": True}), "of depth"),
]
COUNT_CHANGES = [
    (lambda d: change_json(d / INFO, total_episodes=4), "holds 3 episodes, meta/info.json says 4"),
    (lambda d: change_json(d / INFO, total_episodes=2), "holds 3 episodes, meta/info.json says 2"),
    (lambda d: change_json(d / INFO, total_frames=99), "hold 36 frames, meta/info.json says 99"),
    (lambda d: change_json(d / INFO, total_tasks=4), r"holds tasks \[0, 1, 2\], meta/info.json says 4"),
    (lambda d: change_json(d / INFO, total_tasks=2), "of task 'task 2', which meta/tasks.parquet does not hold"),
    (lambda d: change_column(d / EPISODES, "length", at(1, 11)), "row 1 is episode 1, frames 11 to 23 of length 11"),
    (lambda d: change_column(d / EPISODES, "episode_index", at(1, 7)), "row 1 is episode 7"),
    (lambda d: change_column(d / EPISODES, "length", at(1, None)), "column 'length' must be int64 without gaps"),
    (lambda d: change_column(d / EPISODES, f"videos/{CAMERA}/from_timestamp", at(1, float("nan"))), "has times"),
    (lambda d: change_column(d / EPISODES, f"videos/{CAMERA}/from_timestamp", at(1, 0.0)), "to another episode too"),
    (lambda d: pq.write_table(pq.read_table(d / EPISODES).drop(["length"]), d / EPISODES), "has no column 'length'"),
    (lambda d: pq.write_table(pq.read_table(d / TASKS).drop(["task"]), d / TASKS), "must have columns 'task'"),
    (lambda d: pq.write_table(pq.read_table(d / DATA).slice(0, 30), d / DATA), "holds 30 frames, its episodes need 36"),
]
FRAME_CHANGES = [
    (lambda d: change_column(d / DATA, "timestamp", at(3, 0.1502)), r"timestamp of row 3 is 0\.150.*, expected 0\.15"),
    (lambda d: change_column(d / DATA, "timestamp", at(3, float("nan"))), "timestamp of row 3 is nan"),
    (lambda d: change_column(d / DATA, "index", at(3, 4)), "index of row 3 is 4, expected 3"),
    (lambda d: change_column(d / DATA, "frame_index", at(12, 0)), "frame_index of row 12 is 0, expected 1"),
    (lambda d: change_column(d / DATA, "episode_index", at(12, 0)), "episode_index of row 12 is 0, expected 1"),
    (lambda d: change_column(d / DATA, "task_index", at(12, 3)), "task_index 3 is none of the 3"),
    (lambda d: change_column(d / DATA, "rho", at(5, float("nan"))), "rho of row 5 holds NaN"),
    (lambda d: change_column(d / DATA, "action", at(5, [0, float("inf")])), "action of row 5 holds NaN or inf"),
    (lambda d: change_column(d / DATA, "rho", at(5, None)), "'rho': expected float64 .* 1 values are missing"),
    (lambda d: change_column(d / DATA, "rho", lambda c: c.cast("float")), "'rho': expected float64 .* not float"),
    (lambda d: change_column(d / DATA, "pose", at(5, [[1, 2, 3]])), "'pose': .* rows are of different lengths"),
    (lambda d: change_feature(d, "pose", shape=[3, 2]), r"'pose': expected float32 of shape \(3, 2\), not \(2, 3\)"),
    (lambda d: change_feature(d, "action", shape=[3]), r"'action': expected float32 of shape \(3,\), not \(2,\)"),
    (lambda d: change_column(d / DATA, "rho", lambda c: c.cast("string")), "expected float64"),
    (lambda d: pq.write_table(pq.read_table(d / DATA).drop(["rho"]), d / DATA), "lacks 'rho'"),
    (
        lambda d: pq.write_table(pq.read_table(d / DATA).append_column("more", pa.array(range(36))), d / DATA),
        "holds 'more', which meta/info.json does not name",
    ),
]
VIDEO_CHANGES = [
    (lambda d: (d / VIDEO).write_bytes(movie(30)), "holds 30 pictures, its episodes need 36"),
    (lambda d: (d / VIDEO).write_bytes(movie(40)), "holds 40 pictures, its episodes need 36"),
    (lambda d: (d / VIDEO).write_bytes(movie(36, size=(48, 66))), "is 48 x 66, expected 48 x 64"),
    (lambda d: (d / VIDEO).write_bytes(movie(36, fps=10)), "do not come 20 times a second"),
    (lambda d: (d / "videos" / "other").mkdir(), "other belongs to no feature"),
]
STATS_CHANGES = [
    (lambda d: change_json(d / STATS, action={}), "action: count is .*, expected"),
    (lambda d: change_json(d / STATS, action={"count": [36]}), "action: min and max must be of shape"),
    (lambda d: change_json(d / STATS, action={"count": [36], "min": [0, 0], "max": [9, 9]}), "action: min is"),
    (lambda d: change_json(d / STATS, more={}), "more stands there or in meta/info.json, but not in both"),
]


@pytest.mark.parametrize(("change", "message"), INFO_CHANGES + COUNT_CHANGES + FRAME_CHANGES + VIDEO_CHANGES)
def test_what_does_not_fit(folder, change, message):
    change(folder)
    problems = validate(folder)
    assert any(re.search(message, problem) for problem in problems), problems
    assert all(str(folder) in problem for problem in problems)
    with pytest.raises(RunError, match=re.escape(problems[0])):
        Dataset(folder)


@pytest.mark.parametrize(("change", "message"), STATS_CHANGES)
def test_statistics_that_are_not_those_of_the_frames(folder, change, message):
    change(folder)
    problems = validate(folder)
    assert len(problems) == 1
    assert re.search(message, problems[0])
    Dataset(folder)


def test_all_problems_are_found_at_once(folder):
    change_column(folder / DATA, "rho", at(5, float("nan")))
    change_column(folder / DATA, "index", at(3, 4))
    (folder / VIDEO).unlink()
    assert len(validate(folder)) == 4  # and the statistics are not those of the numbers


def test_damage_inside_a_video(folder):
    with av.open(str(folder / VIDEO)) as container:
        first = [e.pos for e in container.streams.video[0].index_entries][length(0)]
    data, start = bytearray((folder / VIDEO).read_bytes()), first + 20  # within the second episode
    data[start : start + 600] = np.random.default_rng(0).bytes(600)
    (folder / VIDEO).write_bytes(data)
    assert validate(folder) == []  # every picture is where it should be, none is looked at
    problems = validate(folder, decode=True)
    assert len(problems) == 1
    assert re.search(rf"video {re.escape(str(folder / VIDEO))} is damaged at picture \d+", problems[0])
    dataset = Dataset(folder)
    with pytest.raises(RunError, match="is damaged at picture"):
        dataset.episode(1)
    assert dataset.episode(2)[CAMERA].shape == (13, *SIZE, 3)  # what is whole stays readable


def test_a_video_that_was_cut(folder, tmp_path):
    """With its index in front, as other tools have it, a video opens although its end is missing."""
    path = tmp_path / "front.mp4"
    source = av.open(io.BytesIO((folder / VIDEO).read_bytes()), "r")
    with source, av.open(str(path), "w", options={"movflags": "faststart"}) as target:
        stream = target.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.size:
                packet.stream = stream
                target.mux(packet)
    data = path.read_bytes()
    (folder / VIDEO).write_bytes(data)
    assert validate(folder, decode=True) == []
    (folder / VIDEO).write_bytes(data[:-100])
    assert "is cut short" in validate(folder)[0]


def test_a_video_of_another_encoder(tmp_path):
    """Rare keyframes and B-frames: pictures are found by their time."""
    path, shots = tmp_path / "a.mp4", [picture(0, i) for i in range(60)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=20, options={"crf": "10", "g": "25", "bf": "3"})
        stream.height, stream.width = SIZE
        stream.pix_fmt = "yuv420p"
        for shot in shots:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(shot, format="rgb24")))
        container.mux(stream.encode(None))
    film = Film(path, 20, SIZE)
    assert film.frames == 60
    sequential = [film.picture(i).copy() for i in range(60)]
    assert all(np.abs(found.astype(int) - shot).mean() < 2.5 for found, shot in zip(sequential, shots, strict=True))
    for i in np.random.default_rng(0).integers(0, 60, 100).tolist():
        assert np.array_equal(film.picture(i), sequential[i])
    with pytest.raises(RunError, match="no picture 60, only 60"):
        film.picture(60)
    with pytest.raises(RunError, match="cannot be cut out"):
        film.packets(3, 5)
    film.close()


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda part: (part / "data.parquet").unlink(), "no file .*data.parquet"),
        (lambda part: (part / f"{CAMERA}.mp4").write_bytes(b""), "is damaged"),
        (lambda part: (part / f"{CAMERA}.mp4").write_bytes(movie(5)), "holds 5 pictures, its episodes need 11"),
        (lambda part: change_json(part / "episode.json", length=3), "do not belong together"),
        (lambda part: change_json(part / "episode.json", tasks=[]), "do not belong together"),
        (lambda part: change_json(part / "episode.json", extra={}), "seed, success, note, score missing"),
        (lambda part: change_column(part / "data.parquet", "rho", at(2, float("nan"))), "rho of row 2 holds NaN"),
        (lambda part: part.rename(part.with_name("episode-000002")), "holds episode-000002, but no episode 0"),
    ],
)
def test_a_recording_that_goes_on_is_checked_too(tmp_path, damage, message):
    folder = tmp_path / "set"
    writer = Writer(folder, FEATURES)
    add_frames(writer, 0)
    writer.save_episode(extra(0))
    assert validate(folder, decode=True) == []
    damage(folder / "parts" / "episode-000000")
    problems = validate(folder)
    assert len(problems) == 1
    assert re.search(message, problems[0])
    with pytest.raises(RunError, match=re.escape(problems[0])):
        Dataset(folder)
    with pytest.raises(RunError, match=re.escape(problems[0])):
        writer.close()
