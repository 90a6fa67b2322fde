"""Other projects to measure beside us, each in a virtual environment of its own, for their pins exclude each other."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import venv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robo.core.errors import MissingDependencyError

_LINES = 3
"""So many last lines of what failed are told."""


def environment(name: str, packages: Sequence[str]) -> Path:
    """The Python of a virtual environment with packages; made in the user's cache the first time (network).

    Raises:
        MissingDependencyError: The packages cannot be installed.
    """
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    folder = cache / "robo-bench" / name
    python = folder / "bin" / "python"
    wanted = "\n".join(packages)
    done = folder / "packages.txt"
    if done.is_file() and done.read_text() == wanted:
        return python
    print(f"installing {name} into {folder} ...", file=sys.stderr, flush=True)
    venv.EnvBuilder(clear=True, with_pip=True).create(folder)
    pip = subprocess.run([python, "-m", "pip", "install", "--quiet", *packages], capture_output=True, text=True)
    if pip.returncode:
        last = " / ".join(pip.stderr.strip().splitlines()[-_LINES:])
        raise MissingDependencyError(
            f"peer {name} cannot be installed ({last}); try again, or leave it out: --peers ''"
        )
    done.write_text(wanted)
    return python


def run_together(
    python: Path, script: str, arguments: Sequence[str], processes: int, timeout_s: float, renderer: str
) -> list[Any]:
    """The JSON that each of some processes of a script prints in its last line, run at the same time.

    `renderer` is MuJoCo's OpenGL library in them.

    Raises:
        MissingDependencyError: One fails or takes too long.
    """
    command = [str(python), "-c", script, *arguments]
    pipes: Any = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    started = [subprocess.Popen(command, env=os.environ | {"MUJOCO_GL": renderer}, **pipes) for _ in range(processes)]
    found = []
    for process in started:
        try:
            out, err = process.communicate(timeout=timeout_s)
        except subprocess.TimeoutExpired as error:
            for other in started:
                other.kill()
            raise MissingDependencyError(f"a peer did not answer within {timeout_s:g} s") from error
        if process.returncode:
            last = " / ".join(err.strip().splitlines()[-_LINES:])
            raise MissingDependencyError(f"a peer ended with code {process.returncode}: {last}")
        found.append(json.loads(out.strip().splitlines()[-1]))
    return found
