"""Recordings that are killed, go on, run out of room, or are made by several processes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from robo.core.errors import ConfigError, RoboError, RunError, UnknownNameError
from robo.dataset import recording
from robo.dataset.lerobot import Dataset, Writer, merge, validate
from tests.dataset.recordings import CAMERA, FEATURES, add_frames, extra, length, picture, record, values

ROOT = Path(__file__).parents[2]


def seeds(folder) -> list[int]:
    return [episode.extra["seed"] for episode in Dataset(folder).episodes]


def check(folder, expected) -> None:
    """The dataset holds exactly these episodes, whole."""
    assert validate(folder, decode=True) == []
    dataset = Dataset(folder)
    assert seeds(folder) == list(expected)
    for number, seed in enumerate(expected):
        found = dataset.episode(number)
        assert np.array_equal(found["rho"][:, 0], [values(seed, i)["rho"] for i in range(length(seed))])
        due = np.stack([picture(seed, i) for i in range(length(seed))])
        assert np.abs(found[CAMERA].astype(int) - due).mean() < 2.5


def files(folder) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def check_same(found: dict[str, bytes], due: dict[str, bytes]) -> None:
    """Same files, byte for byte; says which one differs from where on, not a megabyte of bytes."""
    assert sorted(found) == sorted(due)
    for name, data in due.items():
        other = found[name]
        at = next((i for i, pair in enumerate(zip(other, data, strict=False)) if pair[0] != pair[1]), len(data))
        around = slice(max(at - 40, 0), at + 80)
        same = other == data
        assert same, f"{name}, {len(other)} bytes of {len(data)}, from {at} on: {other[around]} is not {data[around]}"


def test_killed_while_recording(tmp_path):
    folder = tmp_path / "set"
    command = [sys.executable, "-m", "tests.dataset.recordings", str(folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout is not None
        last = [int(process.stdout.readline()) for _ in range(3)][-1]
        process.send_signal(signal.SIGKILL)
        last = max([last, *(int(line) for line in process.stdout if line.endswith("\n"))])
    finished = seeds(folder)
    assert finished in (list(range(last + 1)), list(range(last + 2)))  # the last may be saved but not told
    check(folder, finished)

    writer = Writer.resume(folder)
    assert writer.episodes == len(finished)
    add_frames(writer, 77)
    assert writer.save_episode(extra(77)) == len(finished)
    writer.close()
    check(folder, [*finished, 77])
    assert not (folder / "parts").exists()


def test_killed_before_anything_was_recorded(tmp_path):
    (tmp_path / "set" / "meta" / "episodes").mkdir(parents=True)
    check(record(tmp_path / "set", [3]), [3])


class Death(BaseException):
    """A process that stops between two writes."""


def test_killed_while_packing(tmp_path, monkeypatch):
    """Whichever write is the last, the dataset is readable as it is, and closing it again makes it whole."""
    for first in ([], [1, 2]):  # packed for the first time, and more appended
        waiting = record(tmp_path / f"waiting{len(first)}", first)
        with pytest.raises(Death), Writer.resume(waiting) as writer:
            add_frames(writer, 3)
            writer.save_episode(extra(3))
            raise Death
        expected = shutil.copytree(waiting, tmp_path / f"whole{len(first)}")
        Writer.resume(expected).close()
        check(expected, [*first, 3])
        died, last = 0, 0
        while died == last:
            last += 1
            folder = shutil.copytree(waiting, tmp_path / f"set{len(first)}-{last}")
            calls = []

            def dying(write, calls=calls, last=last):
                def call(*arguments):
                    calls.append(arguments)
                    if len(calls) == last:
                        raise Death
                    write(*arguments)

                return call

            with monkeypatch.context() as patch:
                for name in ("write_bytes", "write_json"):
                    patch.setattr(recording, name, dying(getattr(recording, name)))
                patch.setattr(recording.shutil, "rmtree", dying(recording.shutil.rmtree))
                try:
                    with Writer.resume(folder) as writer:
                        writer.close()
                except Death:
                    died += 1
            if died == last:
                check(folder, [*first, 3])
                Writer.resume(folder).close()
            check_same(files(folder), files(expected))
        assert died == 7  # numbers, pictures, episodes, tasks, statistics, info; then the parts are removed


def test_resume_a_closed_dataset(tmp_path):
    folder = record(tmp_path / "set", [0, 1])
    before = files(folder)
    with Writer.resume(folder) as writer:
        pass
    check_same(files(folder), before)
    with Writer.resume(folder) as writer:
        add_frames(writer, 5)
        assert writer.save_episode(extra(5)) == 2
    check(folder, [0, 1, 5])
    assert Dataset(folder).tasks == ("task 0", "task 1", "task 2")
    assert all(files(folder)[name] == data for name, data in before.items() if name.startswith(("data", "videos")))


def test_after_an_error_the_episodes_wait(tmp_path):
    with pytest.raises(ZeroDivisionError), Writer(tmp_path / "set", FEATURES) as writer:
        add_frames(writer, 0)
        writer.save_episode(extra(0))
        add_frames(writer, 1, 2)
        raise ZeroDivisionError
    assert (tmp_path / "set" / "parts").exists()
    check(tmp_path / "set", [0])
    Writer.resume(tmp_path / "set").close()
    check(tmp_path / "set", [0])


def test_one_process_a_folder(tmp_path):
    with Writer(tmp_path / "set", FEATURES), pytest.raises(RunError, match="another process records"):
        Writer.resume(tmp_path / "set")
    with pytest.raises(RunError, match=r"is not empty; go on with Writer\.resume"):
        Writer(tmp_path / "set", FEATURES)
    with pytest.raises(RunError, match="no dataset in"):
        Writer.resume(tmp_path / "other")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk(tmp_path, monkeypatch, number):
    def full(*_):
        raise OSError(number, os.strerror(number))

    folder = tmp_path / "set"
    writer = Writer(folder, FEATURES)
    add_frames(writer, 0)
    writer.save_episode(extra(0))
    add_frames(writer, 1)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(RoboError, match=r"no room left on the disk to write .*data\.parquet"):
            writer.save_episode(extra(1))
        with pytest.raises(RoboError, match="no room left"):
            writer.close()
    assert [path.name for path in (folder / "parts").iterdir()] == ["episode-000000"]
    check(folder, [0])
    add_frames(writer, 2)
    assert writer.save_episode(extra(2)) == 1
    writer.close()
    check(folder, [0, 2])


def test_the_encoder_reads_no_memory_that_nobody_wrote(tmp_path):
    """x264's macroblock tree does with pictures this small: now and then the same ones made another video."""
    (video,) = (data for name, data in files(record(tmp_path / "set", [0])).items() if name.endswith(".mp4"))
    assert b"mbtree=0" in video  # the settings that it was made with, as it says itself


def test_merge(tmp_path):
    one = record(tmp_path / "one", [4, 0, 2])
    two = record(tmp_path / "two", [3])
    three = Writer(tmp_path / "three", FEATURES)  # a worker that died
    add_frames(three, 1)
    three.save_episode(extra(1))
    shards = [one, two, tmp_path / "three"]
    check(merge(shards, tmp_path / "in order"), [4, 0, 2, 3, 1])
    check(merge(shards, tmp_path / "by seed", order_by="seed"), [0, 1, 2, 3, 4])
    assert Dataset(tmp_path / "in order").tasks == ("task 1", "task 0", "task 2")
    assert Dataset(tmp_path / "by seed").tasks == ("task 0", "task 1", "task 2")
    # However the episodes were spread over the workers, and as if one had recorded them all.
    alone = files(record(tmp_path / "alone", range(5)))
    again = merge(shards[::-1], tmp_path / "again", order_by="seed")
    check_same(files(again), alone)
    check_same(files(tmp_path / "by seed"), alone)
    check(merge([again, again], tmp_path / "twice"), [0, 1, 2, 3, 4] * 2)
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]
    nothing = record(tmp_path / "nothing", [])
    check(merge([nothing, one], tmp_path / "little"), [4, 0, 2])
    check(merge([nothing], tmp_path / "less"), [])


def test_merges_that_cannot_be(tmp_path, monkeypatch):
    one = record(tmp_path / "one", [0])
    other = record(tmp_path / "other", [1], replace(FEATURES, fps=10))
    with pytest.raises(RunError, match=r"the features of .*other differ from those of .*one: fps 10 is not 20"):
        merge([one, other], tmp_path / "both")
    with pytest.raises(RunError, match="exists"):
        merge([one], other)
    with pytest.raises(ConfigError, match="nothing to merge"):
        merge([], tmp_path / "both")
    with pytest.raises(UnknownNameError, match="did you mean 'seed'"):
        merge([one], tmp_path / "both", order_by="seeds")
    with pytest.raises(RunError, match="no dataset in"):
        merge([one, tmp_path / "none"], tmp_path / "both")

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(RoboError, match="no room left"):
        merge([one], tmp_path / "both")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "other"]
