"""Print the lock: exact public versions of everything the project needs, as this environment has them.

`make lock` runs it in a fresh environment. Versions lose their local build tag
(``2.13.0+cpu`` → ``2.13.0``), for which build of torch is installed is chosen at set-up;
packages that only a CUDA build of torch pulls in are therefore not part of the lock.
"""

from __future__ import annotations

import importlib.metadata
import sys

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = "robo-stack"
EXTRAS = ("dev",)
HEADER = "# Exact versions of what the project and its `dev` extra need. Written by `make lock`; do not edit."


def closure(root: str, extras: tuple[str, ...]) -> dict[str, str]:
    """Names → public versions of all that a distribution with extras needs, itself left out.

    Raises:
        importlib.metadata.PackageNotFoundError: Something it needs is not installed.
    """
    found: dict[str, str] = {}
    seen: set[tuple[str, str]] = set()
    queue = [(root, extra) for extra in ("", *extras)]
    while queue:
        name, extra = queue.pop()
        if (name, extra) in seen:
            continue
        seen.add((name, extra))
        distribution = importlib.metadata.distribution(name)
        if name != root:
            found[name] = Version(distribution.version).public
        for line in distribution.requires or []:
            need = Requirement(line)
            if need.marker is None or need.marker.evaluate({"extra": extra}):
                queue += [(canonicalize_name(need.name), e) for e in ("", *need.extras)]
    return found


def main() -> int:
    """Print the lock to stdout."""
    versions = closure(ROOT, EXTRAS)
    print(HEADER)
    for name in sorted(versions):
        print(f"{name}=={versions[name]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
