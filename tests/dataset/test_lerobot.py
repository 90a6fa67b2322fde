"""Datasets: what was recorded is what is read, in any order, alone and in windows."""

from __future__ import annotations

import copy
import json
import multiprocessing
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from robo.core.errors import ConfigError, NonFiniteError, RoboError, RunError, UnknownNameError
from robo.dataset import layout, statistics
from robo.dataset.lerobot import Dataset, Feature, Features, Writer, stats, validate
from robo.dataset.video import Encoder, Film
from tests.dataset import recordings
from tests.dataset.recordings import CAMERA, FEATURES, SIZE, add_frames, extra, length, picture, record, task, values

SEEDS = (0, 1, 2, 3, 4)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return record(tmp_path_factory.mktemp("data") / "set", SEEDS)


@pytest.fixture(scope="module")
def dataset(folder):
    return Dataset(folder)


def test_round_trip(dataset):
    assert (dataset.features, dataset.tasks) == (FEATURES, ("task 0", "task 1", "task 2"))
    assert len(dataset) == sum(map(length, SEEDS))
    frame = 0
    for seed, episode in zip(SEEDS, dataset.episodes, strict=True):
        assert (episode.start, episode.length, episode.tasks) == (frame, length(seed), (task(seed),))
        assert episode.extra == extra(seed)
        for i in range(length(seed)):
            item = dataset[frame]
            for name, value in values(seed, i).items():
                feature = FEATURES.values[name]
                assert (item[name].dtype, item[name].shape) == (np.dtype(feature.dtype), feature.shape)
                assert np.array_equal(item[name], np.reshape(value, feature.shape))
            assert item["timestamp"] == np.float32(i / 20)
            told = [item[name].item() for name in ("frame_index", "episode_index", "index", "task_index")]
            assert told == [i, SEEDS.index(seed), frame, seed % 3]
            assert (item[CAMERA].dtype, item[CAMERA].shape) == (np.uint8, (*SIZE, 3))
            difference = np.abs(item[CAMERA].astype(int) - picture(seed, i))
            assert difference.mean() < 2.5
            assert difference.max() < 25
            frame += 1


def test_colours_of_small_things_come_back(tmp_path):
    """A red square of three pixels on green is red, not half as bright and brown, in every single pixel."""
    shown = np.full((*SIZE, 3), (40, 160, 60), np.uint8)
    shown[7:10, 5:8], shown[20:23, 14:17] = (220, 30, 30), (30, 40, 210)
    encoder = Encoder(20, SIZE)
    for _ in range(5):
        encoder.add(shown)
    (tmp_path / "a.mp4").write_bytes(encoder.finish())
    film = Film(tmp_path / "a.mp4", 20, SIZE)
    for i in range(5):
        assert np.abs(film.picture(i).astype(int) - shown).max() < 16
    film.close()


def test_the_files_are_those_of_the_format(folder):
    files = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert files == {
        "meta/info.json",
        "meta/stats.json",
        "meta/tasks.parquet",
        "meta/episodes/chunk-000/file-000.parquet",
        "data/chunk-000/file-000.parquet",
        f"videos/{CAMERA}/chunk-000/file-000.mp4",
    }
    info = json.loads((folder / "meta/info.json").read_text())
    frames = sum(map(length, SEEDS))
    assert info["codebase_version"] == "v3.0"
    assert (info["total_episodes"], info["total_frames"], info["total_tasks"]) == (5, frames, 3)
    assert info["splits"] == {"train": "0:5"}
    assert info["features"]["action"] == {"dtype": "float32", "shape": [2], "names": None}
    assert info["features"][CAMERA]["shape"] == [*SIZE, 3]
    assert info["features"][CAMERA]["info"]["video.codec"] == "h264"
    tasks = pq.read_table(folder / "meta/tasks.parquet")
    assert tasks.to_pydict() == {"task_index": [0, 1, 2], "task": ["task 0", "task 1", "task 2"]}
    assert json.loads((tasks.schema.metadata or {})[b"pandas"])["index_columns"] == ["task"]
    data = pq.ParquetFile(folder / "data/chunk-000/file-000.parquet")
    assert data.num_row_groups == 5
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    start = length(0) + length(1)
    assert (rows[2]["dataset_from_index"], rows[2]["dataset_to_index"]) == (start, start + length(2))
    assert rows[2][f"videos/{CAMERA}/from_timestamp"] == start / 20
    assert rows[2][f"videos/{CAMERA}/to_timestamp"] == (start + length(2)) / 20
    assert rows[2]["stats/action/count"] == [length(2)]
    assert np.shape(rows[2][f"stats/{CAMERA}/q50"]) == (3, 1, 1)


def test_random_access_equals_sequential(dataset):
    whole = [dataset.episode(k) for k in range(len(SEEDS))]
    sequential = {name: np.concatenate([episode[name] for episode in whole]) for name in dataset.names}
    order = np.random.default_rng(0).integers(0, len(dataset), 200)
    batch = dataset.batch(order)
    assert set(batch) == set(dataset.names)
    for name, found in batch.items():
        assert np.array_equal(found, sequential[name][order])
    for index in order[:40].tolist():
        assert np.array_equal(dataset[index][CAMERA], sequential[CAMERA][index])
    assert np.array_equal(dataset[-1]["index"], [len(dataset) - 1])
    assert len(list(dataset)) == len(dataset)


def test_windows_are_padded_inside_the_episode(dataset):
    start, end = length(0), length(0) + length(1)
    steps = {"action": range(4), CAMERA: (-2, 0), "rho": (-1,)}
    batch = dataset.batch([start, end - 2, start + 5], steps, names=["action"])
    assert set(batch) == {"action", "action_is_pad", CAMERA, f"{CAMERA}_is_pad", "rho", "rho_is_pad"}
    actions = dataset.column("action")
    rows = [[start + j for j in range(4)], [end - 2] + [end - 1] * 3, [start + 5 + j for j in range(4)]]
    assert np.array_equal(batch["action"], actions[np.array(rows)])
    assert batch["action_is_pad"].tolist() == [[False] * 4, [False, False, True, True], [False] * 4]
    assert batch[CAMERA].shape == (3, 2, *SIZE, 3)
    assert np.array_equal(batch[CAMERA][0, 0], dataset[start][CAMERA])
    assert np.array_equal(batch[CAMERA][1, 0], dataset[end - 4][CAMERA])
    assert batch[f"{CAMERA}_is_pad"].tolist() == [[True, False], [False, False], [False, False]]
    assert batch["rho"].shape == (3, 1, 1)


def test_questions_that_have_no_answer(dataset):
    with pytest.raises(IndexError, match="no frame 999"):
        dataset[999]
    with pytest.raises(ConfigError, match="holds frames 0 to"):
        dataset.batch([0, 999])
    with pytest.raises(ConfigError, match="whole numbers"):
        dataset.batch([0.5])
    with pytest.raises(ConfigError, match="steps of 'action'"):
        dataset.batch([0], {"action": [0.1]})
    with pytest.raises(UnknownNameError, match="did you mean 'action'"):
        dataset.batch([0], {"actoin": [0]})
    with pytest.raises(UnknownNameError, match="unknown column"):
        dataset.column(CAMERA)
    with pytest.raises(ConfigError, match="no episode 5"):
        dataset.episode(5)
    with pytest.raises(RunError, match="no dataset in"):
        Dataset(dataset.folder / "meta")
    assert dataset.batch([])["action"].shape == (0, 2)


def test_threads_and_forked_processes_read_at_the_same_time(dataset):
    orders = [np.random.default_rng(k).integers(0, len(dataset), 60) for k in range(4)]
    expected = [dataset.batch(order)[CAMERA] for order in orders]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda order: dataset.batch(order)[CAMERA], orders))
    assert all(map(np.array_equal, found, expected))

    def child(queue):
        queue.put(dataset.batch(orders[0])[CAMERA])

    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,))
    process.start()
    assert np.array_equal(queue.get(timeout=30), expected[0])
    process.join()
    assert np.array_equal(dataset.batch(orders[1])[CAMERA], expected[1])
    assert np.array_equal(copy.copy(dataset).batch(orders[2])[CAMERA], expected[2])  # as a spawned process gets it
    dataset.close()
    assert np.array_equal(dataset.batch(orders[3])[CAMERA], expected[3])


def test_statistics_are_those_of_numpy(dataset, folder):
    written = json.loads((folder / "meta/stats.json").read_text())
    assert set(written) == set(dataset.names) == set(dataset.statistics)
    rows = pq.read_table(folder / "meta/episodes/chunk-000/file-000.parquet").to_pylist()
    for name in FEATURES.columns:
        column = dataset.column(name).astype(np.float64)
        parts = [(written[name], column)]
        for episode, row in zip(dataset.episodes, rows, strict=True):
            said = {what: row[f"stats/{name}/{what}"] for what in statistics.NAMES}
            parts.append((said, column[episode.start : episode.start + episode.length]))
        for said, numbers in parts:
            expected = {"count": [len(numbers)]}
            expected |= {what: getattr(np, what)(numbers, axis=0) for what in ("min", "max", "mean", "std")}
            expected |= {what: np.quantile(numbers, q, axis=0) for what, q in statistics.QUANTILES.items()}
            for what, due in expected.items():
                assert np.allclose(said[what], due, rtol=1e-12, atol=1e-12), (name, what)
    sampled = [picture(s, i) / 255 for s in SEEDS for i in range(0, length(s), statistics.SAMPLE_EVERY)]
    pixels = np.stack(sampled).reshape(-1, 3)
    found = dataset.statistics[CAMERA]
    assert found["count"] == [len(sampled)]
    for what in ("min", "max", "mean", "std"):
        # All pictures are of the same size, but the episodes are not of the same length: pooled with their weights.
        assert np.allclose(found[what], getattr(np, what)(pixels, axis=0).reshape(3, 1, 1), atol=1e-12)


def test_quantiles_of_pictures():
    sample, shots = statistics.PictureSample(), [picture(seed, 3) for seed in range(9)]
    for shot in shots:
        sample.add(shot)
    seen = np.stack(shots[:: statistics.SAMPLE_EVERY]).reshape(-1, 3) / 255
    for what, q in statistics.QUANTILES.items():
        due = np.quantile(seen, q, axis=0, method="inverted_cdf")
        assert np.allclose(sample.result()[what].reshape(3), due)
    pooled = statistics.pooled([sample.result(), statistics.of_numbers(np.zeros((5, 3, 1, 1)))])
    assert (pooled["q01"] == 0).all()
    assert np.array_equal(pooled["q99"], sample.result()["q99"])


def test_many_files(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "DATA_MB", 0.003)
    monkeypatch.setattr(layout, "VIDEO_MB", 0.002)
    folder = record(tmp_path / "set", SEEDS)
    assert len(list(folder.glob("data/*/*"))) > 2
    assert len(list(folder.glob("videos/*/*/*"))) > 2
    assert validate(folder, decode=True) == []
    dataset = Dataset(folder)
    for seed in SEEDS:
        found = dataset.episode(seed)
        assert np.array_equal(found["rho"][:, 0], [values(seed, i)["rho"] for i in range(length(seed))])
        due = np.stack([picture(seed, i) for i in range(length(seed))])
        assert np.abs(found[CAMERA].astype(int) - due).mean() < 2.5


def test_without_cameras_and_with_several_tasks(tmp_path):
    features = Features(values={"action": Feature("float32")}, fps=10)
    with Writer(tmp_path / "set", features) as writer:
        for i in range(6):
            writer.add_frame({"action": i}, {}, "first" if i < 3 else "then")
        assert writer.save_episode() == 0
    dataset = Dataset(tmp_path / "set")
    assert validate(tmp_path / "set") == []
    assert dataset.tasks == dataset.episodes[0].tasks == ("first", "then")
    assert dataset.column("task_index").tolist() == [[0]] * 3 + [[1]] * 3
    assert dataset[4]["action"] == [4]


def test_an_empty_dataset(tmp_path):
    record(tmp_path / "set", ())
    assert validate(tmp_path / "set") == []
    assert len(Dataset(tmp_path / "set")) == 0
    assert Dataset(tmp_path / "set").features == FEATURES
    assert Dataset(tmp_path / "set").statistics == {}
    assert "0 episodes" in stats(tmp_path / "set")


def test_summary(folder):
    text = stats(folder)
    for part in ("5 episodes", "at 20 Hz", "robot panda", "'task 0': 2 episodes", "success: 3 of 5", "seed: 0 to 4"):
        assert part in text
    assert re.search(r"^observation.images.front +video", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fps": 0}, "fps must be"),
        ({"fps": 29.97}, "fps must be"),
        ({"values": {}}, "needs numbers"),
        ({"values": {"a/b": Feature("float32")}}, "cannot name a feature"),
        ({"cameras": {"..": (48, 64)}}, "cannot name a feature"),
        ({"values": {"index": Feature("float32")}}, "is taken"),
        ({"cameras": {"action": (48, 64)}}, "is taken"),
        ({"cameras": {"front": (47, 64)}}, "even height and width"),
        ({"extra": {"seed": "int32"}}, "cannot be 'int32'"),
    ],
)
def test_features_that_cannot_be(change, message):
    with pytest.raises(ConfigError, match=message):
        replace(FEATURES, **change)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("complex64",), "dtype 'complex64'"),
        (("float32", ()), "shape"),
        (("float32", (0,)), "shape"),
        (("float32", (2,), ("a",)), "1 names"),
    ],
)
def test_a_feature_that_cannot_be(arguments, message):
    with pytest.raises(ConfigError, match=message):
        Feature(*arguments)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"action": np.zeros(3)}, RunError, r"action: expected shape \(2,\), not \(3,\)"),
        ({"action": [1, np.nan]}, NonFiniteError, "action holds nan"),
        ({"action": [1, 1e300]}, NonFiniteError, "action holds inf"),
        ({"contacts": 1.5}, RunError, "contacts: expected int32"),
        ({"grasped": 1.0}, RunError, "grasped: expected bool"),
        ({"acton": 1}, UnknownNameError, "did you mean 'action'"),
    ],
)
def test_values_that_do_not_fit(tmp_path, change, error, message):
    writer = Writer(tmp_path / "set", FEATURES)
    add_frames(writer, 0, 2)
    with pytest.raises(error, match=message):
        writer.add_frame({**values(0, 2), **change}, {CAMERA: picture(0, 2)}, task(0))
    assert writer.frames == 2


def test_frames_and_episodes_that_do_not_fit(tmp_path):
    writer = Writer(tmp_path / "set", FEATURES)
    with pytest.raises(RunError, match="rho missing"):
        writer.add_frame({k: v for k, v in values(0, 0).items() if k != "rho"}, {CAMERA: picture(0, 0)}, "t")
    with pytest.raises(RunError, match=f"{CAMERA} missing"):
        writer.add_frame(values(0, 0), {}, "t")
    for wrong in (picture(0, 0)[1:], picture(0, 0) / 255):
        with pytest.raises(RunError, match="expected uint8 of shape"):
            writer.add_frame(values(0, 0), {CAMERA: wrong}, "t")
    with pytest.raises(RunError, match="must be a text"):
        writer.add_frame(values(0, 0), {CAMERA: picture(0, 0)}, "")
    with pytest.raises(RunError, match="at least one frame"):
        writer.save_episode(extra(0))
    add_frames(writer, 0, 2)
    with pytest.raises(RunError, match="2 frames is not saved"):
        writer.close()
    for change, message in (({"seed": True}, "must be int64"), ({"note": 1}, "must be string")):
        with pytest.raises(RunError, match=message):
            writer.save_episode({**extra(0), **change})
    with pytest.raises(RoboError, match="score"):
        writer.save_episode({**extra(0), "score": float("inf")})
    with pytest.raises(RunError, match="score missing"):
        writer.save_episode({k: v for k, v in extra(0).items() if k != "score"})
    assert writer.save_episode({**extra(0), "seed": np.int64(7), "score": 1}) == 0
    add_frames(writer, 1, 3)
    writer.drop_episode()
    writer.close()
    with pytest.raises(RunError, match="is closed"):
        add_frames(writer, 1, 1)
    dataset = Dataset(tmp_path / "set")
    assert [(e.length, e.extra["seed"], e.extra["score"]) for e in dataset.episodes] == [(2, 7, 1.0)]
    assert recordings.length(0) != 2
