"""What every command shares."""

from __future__ import annotations

import ctypes.util
import errno
import subprocess
import sys

import pytest

from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError, RoboError


def _command(error: BaseException | None, code: int | None = None):
    @run_command
    def main(argv=None) -> int | None:
        if error is not None:
            raise error
        return code

    return main


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (None, 0, ""),
        (RoboError("two\nlines"), 2, "error: two lines\n"),
        (OSError(errno.ENOSPC, "full", "x/y"), 2, "error: no room left on the disk to write x/y;"),
        (KeyboardInterrupt(), 130, "error: interrupted\n"),
    ],
)
def test_exit_codes(capsys, error, code, text):
    assert _command(error)() == code
    assert capsys.readouterr().err.startswith(text)


def test_a_code_of_its_own():
    assert _command(None, 3)([]) == 3


def test_a_renderer_whose_library_is_missing(capsys, monkeypatch):
    monkeypatch.setenv("MUJOCO_GL", "osmesa")
    monkeypatch.setattr(ctypes.util, "find_library", lambda name: None)
    assert _command(None)() == 2
    assert "needs libOSMesa, which is not installed; unset it" in capsys.readouterr().err


def test_bugs_keep_their_traceback():
    with pytest.raises(ZeroDivisionError):
        _command(ZeroDivisionError())()
    with pytest.raises(PermissionError):
        _command(PermissionError(errno.EACCES, "no"))()


def test_parser_raises_and_takes_no_abbreviations():
    parser = Parser("robo-x", "Does x.")
    parser.add_argument("--episodes", type=int)
    with pytest.raises(ConfigError, match="unrecognized arguments: --epi 3; see robo-x --help"):
        parser.parse_args(["--epi", "3"])
    with pytest.raises(ConfigError, match="invalid int value: 'x'"):
        parser.parse_args(["--episodes", "x"])


def test_a_reader_that_goes_away_is_no_error():
    script = (
        "from robo.cli.main import run_command\n"
        "@run_command\ndef main(argv=None):\n    print('x\\n' * 100000)\n"
        "raise SystemExit(main())"
    )
    writer = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    assert writer.wait() == 0
    writer.stderr.close()
