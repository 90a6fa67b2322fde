"""Files that are whole or not there: written beside their place, flushed to disk, renamed into it."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo.core.errors import RoboError

if TYPE_CHECKING:
    import torch

FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
"""Error numbers that mean: no room for what was to be written."""


def full_disk_error(path: str | os.PathLike[str]) -> RoboError:
    """The error for a file that found no room."""
    return RoboError(
        f"no room left on the disk to write {os.fspath(path)}; nothing saved before is lost: "
        "free some space (df -h shows it) and run the same command again"
    )


@contextmanager
def room_for(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn "no space left" inside the block into an error that says what to do.

    Raises:
        RoboError: The disk, the quota or the file size limit is full.
    """
    try:
        yield
    except OSError as error:
        if error.errno in FULL:
            raise full_disk_error(path) from error
        raise


def make_parent(path: Path) -> None:
    """Make the folder of a file that is to be written.

    Raises:
        RoboError: No room on the disk, or no right to make it; says so before any work is done for the file.
    """
    with room_for(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            if error.errno in FULL:
                raise
            raise RoboError(f"cannot write {path}: no folder {path.parent} ({error.strerror}); name another") from error
    if path.is_dir():
        raise RoboError(f"cannot write {path}: it is a folder; name a file")
    if not os.access(path.parent, os.W_OK):
        raise RoboError(f"cannot write {path}: no right to write in {path.parent}; name another folder")


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file atomically: readers see the old content or the new, never a part, also after a power cut.

    Raises:
        RoboError: No room on the disk; the old file is untouched.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with room_for(path):
        try:
            with temporary.open("wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text atomically; see `write_bytes`."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically; see `write_bytes`. NaN and infinity are refused: JSON has none.

    Raises:
        RoboError: The value holds NaN or infinity, or there is no room on the disk.
    """
    try:
        text = json.dumps(value, indent=2, allow_nan=False)
    except ValueError as error:
        raise RoboError(f"cannot write {path}: {error}") from error
    write_text(path, text + "\n")


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> str:
    """Write tensors as safetensors, atomically; returns the SHA-256 of the file.

    Raises:
        RoboError: No room on the disk.
    """
    from safetensors.torch import save

    # Cloned: safetensors refuses tensors that share memory, as tied weights and views do.
    data = save({name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()})
    write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_text(path: Path) -> str:
    """Read UTF-8 text.

    Raises:
        RoboError: The file is missing, unreadable or no UTF-8.
    """
    try:
        return path.read_bytes().decode()
    except OSError as error:
        raise RoboError(f"cannot read {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RoboError(f"{path} is no text file: {error.reason} at byte {error.start}") from error


def read_json(path: Path, keys: Mapping[str, type] | None = None) -> dict[str, Any]:
    """Read a JSON object that holds at least `keys`, each of its type.

    Raises:
        RoboError: The file is missing, no JSON object, or lacks a key.
    """
    try:
        value = json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise RoboError(f"{path} is no JSON: {error.msg} at line {error.lineno}") from error
    if not isinstance(value, dict):
        raise RoboError(f"{path} must hold a JSON object, not {type(value).__name__}")
    for key, kind in (keys or {}).items():
        if not isinstance(value.get(key), kind) or (kind is int and isinstance(value[key], bool)):
            raise RoboError(f"{path}: {key!r} must be {kind.__name__}, not {value.get(key)!r}")
    return value


def read_tensors(path: Path, sha256: str, device: str = "cpu") -> dict[str, torch.Tensor]:
    """Read safetensors whose checksum is known.

    Raises:
        RoboError: The file is missing or its checksum differs.
    """
    from safetensors.torch import load

    try:
        data = path.read_bytes()
    except OSError as error:
        raise RoboError(f"cannot read {path}: {error.strerror}") from error
    if hashlib.sha256(data).hexdigest() != sha256:
        raise RoboError(f"{path} is corrupt: its checksum is not the one it was written with")
    return {name: tensor.to(device) for name, tensor in load(data).items()}


def sync_folder(path: Path) -> None:
    """Flush a folder's entries to disk, so that a rename in it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
