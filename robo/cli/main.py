"""What every command shares: one-line errors, exit codes, a parser. Imports nothing heavy, so `--help` is quick."""

from __future__ import annotations

import argparse
import ctypes.util
import difflib
import functools
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, Protocol

from robo.core.errors import ConfigError, RenderError, RoboError, nearest
from robo.core.files import FULL, full_disk_error

INTERRUPTED = 130
"""Exit code after Ctrl-C, as shells use it."""
RUN_HELP = "a run folder, such as runs/reach_avoid/last, or a task whose network ships, such as bench/car"

_RENDERERS = {
    "egl": ("EGL", "libegl1"),
    "osmesa": ("OSMesa", "libosmesa6"),
    **dict.fromkeys(("glfw", "glx", "disable", "disabled", "off", "false", "0"), ("", "")),
}
"""Values of ``MUJOCO_GL`` → the library they need and Debian's package of it."""


class Command(Protocol):
    """A console script: takes arguments (None: those of the process), returns its exit code."""

    def __call__(self, argv: Sequence[str] | None = None) -> int:
        """Run it."""
        ...


class Parser(argparse.ArgumentParser):
    """An argument parser that takes no abbreviations, keeps the layout of its texts and raises instead of exiting.

    Args:
        prog: Name of the command.
        description: What it does, in a sentence or two.
        epilog: Examples and notes, printed as they are.
        add_help: False for a command that explains itself.
    """

    def __init__(self, prog: str, description: str, epilog: str = "", add_help: bool = True) -> None:
        super().__init__(
            prog=prog,
            description=description,
            epilog=epilog,
            add_help=add_help,
            allow_abbrev=False,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    def parse_keys(self, argv: Sequence[str] | None = None) -> tuple[argparse.Namespace, dict[str, str]]:
        """What this parser knows, and config keys → values: all other ``--KEY VALUE``.

        Raises:
            ConfigError: A key has no value, or is one of this parser's but for a slip; or the others are wrong.
        """
        own, options, words = list[str](), dict[str, str](), iter(sys.argv[1:] if argv is None else argv)
        for word in words:
            key, equals, value = word.removeprefix("--").partition("=")
            if not word.startswith("--") or f"--{key}" in self._option_string_actions:
                own.append(word)
                continue
            if meant := difflib.get_close_matches(f"--{key}", self._option_string_actions, n=1, cutoff=0.85):
                self.error(f"unknown option --{key}: did you mean {meant[0]!r}?")
            if not equals:
                value = next(words, "--")
                if value.startswith("--"):
                    self.error(f"option --{key} needs a value: --{key} VALUE")
            options[key] = value
        return self.parse_args(own), options

    def error(self, message: str) -> NoReturn:
        """Raise what is wrong with the arguments.

        Raises:
            ConfigError: Always.
        """
        raise ConfigError(f"{message}; see {self.prog} --help")


def run_command(main: Callable[[Sequence[str] | None], int | None]) -> Command:
    """Make a console script of a function that takes the arguments (None: those of the process).

    A `RoboError` and a full disk become one line on stderr and exit code 2, Ctrl-C exit code
    130; any other exception is a bug of ours and keeps its traceback.

        @run_command
        def main(argv: Sequence[str] | None = None) -> int | None: ...
    """

    @functools.wraps(main)
    def command(argv: Sequence[str] | None = None) -> int:
        try:
            _check_renderer()
            code = main(argv) or 0
            sys.stdout.flush()
            return code
        except RoboError as error:
            return _fail(str(error), error.exit_code)
        except BrokenPipeError:
            # Whoever read our output (``| head``) has gone: not an error, and nothing is left to say.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 0
        except OSError as error:
            if error.errno not in FULL:
                raise
            return _fail(str(full_disk_error(error.filename or "a file")), RoboError.exit_code)
        except KeyboardInterrupt:
            return _fail("interrupted", INTERRUPTED)

    return command


def _check_renderer() -> None:
    """MuJoCo looks at ``MUJOCO_GL`` while it is imported, by whichever module that may be: say here what is wrong."""
    name = os.environ.get("MUJOCO_GL", "").lower().strip()
    if name and name not in _RENDERERS:
        raise RenderError(f"MUJOCO_GL={name} is no renderer: {nearest(name, _RENDERERS)}; unset it to have one chosen")
    library, package = _RENDERERS.get(name, ("", ""))
    if library and ctypes.util.find_library(library) is None:
        raise RenderError(
            f"MUJOCO_GL={name} needs lib{library}, which is not installed; "
            f"unset it to have a renderer chosen, or: apt-get install {package}"
        )


def _fail(message: str, code: int) -> int:
    print(f"error: {' '.join(message.split())}", file=sys.stderr)
    return code
