"""The rerun web viewer of a recording, for this machine alone.

The viewer is served by rerun's own command: its SDK calls (`serve_grpc`, `serve_web_viewer`) listen on
all interfaces and cannot be told otherwise, the command can (``--bind``).
"""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO
from urllib.parse import quote

import psutil

from robo.core.errors import ConfigError, MissingDependencyError, RoboError, RunError

HOST = "127.0.0.1"
WEB_PORT, DATA_PORT = 9090, 9876
"""Where page and data are served by default, if free."""
START_S = 30.0
"""How long the server may take to listen [s]."""
SECOND_PORT_S = 3.0
"""How long after its first port the second may take."""


@contextmanager
def viewer(recording: Path, *, web_port: int | None = None, data_port: int | None = None) -> Iterator[str]:
    """Serve a recording within the block; gives the address of the page.

    Args:
        recording: A ``.rrd`` file.
        web_port, data_port: Ports of the page and of its data; by default 9090 and 9876, or free ones if taken.

    Raises:
        RunError: There is no such recording.
        ConfigError: A port that was asked for is taken.
        RoboError: The server does not start.
    """
    if not recording.is_file():
        raise RunError(f"no recording at {recording}; make one with: robo-view RUN --save {recording}")
    usual = (WEB_PORT, DATA_PORT)
    while True:
        web = choose_port(web_port, usual[0], "--port")
        data = choose_port(data_port, usual[1], "--data-port")
        try:
            process = _start(recording, web, data)
            break
        except _TakenError:
            # Somebody else was quicker since we looked. Ports that were asked for are refused the next time round.
            usual = (0, 0)
    try:
        yield f"http://{HOST}:{web}/?url={quote(f'rerun+http://{HOST}:{data}/proxy', safe='')}"
    finally:
        _end(process)


def _command() -> Path:
    import rerun_cli

    path = Path(rerun_cli.__file__).with_name("rerun")
    if not path.is_file():
        raise MissingDependencyError(f"rerun's viewer is not at {path}; install it again: pip install -U rerun-sdk")
    return path


def choose_port(asked: int | None, usual: int, option: str) -> int:
    """The port that was asked for, else the usual one, or a free one if that is taken.

    Raises:
        ConfigError: It is none, or it was asked for and is taken.
    """
    if asked is not None and not 1 <= asked <= 65535:
        raise ConfigError(f"{option} must be 1 .. 65535, not {asked}")
    for port in (usual, 0) if asked is None else (asked,):
        if found := _free(port):
            return found
    raise ConfigError(f"port {asked} is taken; choose another {option}, or leave it out for a free one")


def _free(port: int) -> int:
    """A port if it is free (for 0: some free one), else 0."""
    with closing(socket.socket()) as probe:
        # As the server does: a port in TIME_WAIT is free.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return 0
        return probe.getsockname()[1]


class _TakenError(Exception):
    """A port is another process's."""


def _start(recording: Path, web: int, data: int) -> subprocess.Popen[bytes]:
    options = ["--serve-web", "--bind", HOST, "--web-viewer-port", str(web), "--port", str(data)]
    with tempfile.TemporaryFile("w+") as log:
        process = subprocess.Popen(
            [_command(), *options, str(recording)], stdin=subprocess.DEVNULL, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            _wait(process, {web, data}, log)
        except BaseException:
            _end(process)
            raise
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(5)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _wait(process: subprocess.Popen[bytes], ports: set[int], log: IO[str]) -> None:
    """Wait until the server itself listens.

    An answer at the port may be somebody else's, and rerun says nothing when it lost its page's port.
    """
    end = time.monotonic() + START_S
    while True:
        ended = process.poll() is not None
        mine = set() if ended else _listening(process.pid)
        if ports <= mine:
            return
        if mine:  # it opens both at once
            end = min(end, time.monotonic() + SECOND_PORT_S)
        if ended or time.monotonic() > end:
            if any(not _free(port) for port in ports):
                raise _TakenError
            log.seek(0)
            said = log.read().strip().splitlines() or ["it said nothing"]
            raise RoboError(f"rerun's web viewer does not start: {said[-1]}")
        time.sleep(0.05)


def _listening(pid: int) -> set[int]:
    """Ports at which a process listens."""
    try:
        found = psutil.Process(pid).net_connections("tcp")
    except psutil.NoSuchProcess:
        return set()
    return {connection.laddr.port for connection in found if connection.status == psutil.CONN_LISTEN}
