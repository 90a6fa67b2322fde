"""Files that are whole or not there."""

from __future__ import annotations

import errno
import os

import pytest
import torch

from robo.core.errors import RoboError
from robo.core.files import read_json, read_tensors, read_text, write_bytes, write_json, write_tensors, write_text


def test_round_trips(tmp_path):
    write_text(tmp_path / "a", "ä")
    assert read_text(tmp_path / "a") == "ä"
    write_json(tmp_path / "b", {"x": [1, None]})
    assert read_json(tmp_path / "b", {"x": list}) == {"x": [1, None]}
    base = torch.arange(12.0).reshape(3, 4)
    tensors = {"view": base.T, "same": base, "byte": torch.arange(3, dtype=torch.uint8)}
    checksum = write_tensors(tmp_path / "c", tensors)
    back = read_tensors(tmp_path / "c", checksum)
    assert all(torch.equal(back[k], tensors[k]) and back[k].dtype == tensors[k].dtype for k in tensors)
    assert sorted(os.listdir(tmp_path)) == ["a", "b", "c"]  # no temporary file is left


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_leaves_the_old_file(tmp_path, monkeypatch, call, number):
    path = tmp_path / "a"
    write_text(path, "old")

    def full(*args, **kwargs):
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, call, full)
    with pytest.raises(RoboError, match="no room left"):
        write_text(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["a"]


def test_other_trouble_is_not_called_a_full_disk(tmp_path):
    with pytest.raises(FileNotFoundError):
        write_bytes(tmp_path / "none" / "a", b"")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "is no JSON"),
        (b"[1]", "must hold a JSON object"),
        (b"{}", "'x' must be int, not None"),
        (b'{"x": true}', "'x' must be int, not True"),
        (b'{"x": "1"}', "'x' must be int, not '1'"),
        (b"\xff", "no text file"),
    ],
)
def test_bad_json(tmp_path, content, message):
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(RoboError, match=message):
        read_json(tmp_path / "a", {"x": int})


def test_not_a_number_is_no_json(tmp_path):
    with pytest.raises(RoboError, match="cannot write"):
        write_json(tmp_path / "a", {"x": float("nan")})
    assert not (tmp_path / "a").exists()


def test_every_flipped_bit_is_noticed(tmp_path):
    path = tmp_path / "a"
    checksum = write_tensors(path, {"x": torch.zeros(2)})
    data = path.read_bytes()
    for i in range(0, len(data), 7):
        path.write_bytes(data[:i] + bytes([data[i] ^ 1]) + data[i + 1 :])
        with pytest.raises(RoboError, match="corrupt"):
            read_tensors(path, checksum)
    path.unlink()
    with pytest.raises(RoboError, match="cannot read"):
        read_tensors(path, checksum)
