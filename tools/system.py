"""Check what pip cannot install (an OpenGL library, a browser, libusb); install it where that is permitted.

    python tools/system.py render                       for pictures
    python tools/system.py pointcloud                   for point clouds
    python tools/system.py render browser pointcloud    for all of the tests

Where it may not install, it stops with exit code 1 and prints the exact command.
"""

from __future__ import annotations

import ctypes.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

from robo.cli.info import RENDER_PACKAGES, browser
from sim.render import probe


@dataclass(frozen=True)
class Need:
    """Something of the system: what it is for, whether it is there, Debian's packages for it."""

    text: str
    present: Callable[[], bool]
    packages: tuple[str, ...]


def _renders() -> bool:
    probe.cache_clear()
    return any(not probe(name) for name in RENDER_PACKAGES)


USB_PACKAGES = ("libusb-1.0-0",)

NEEDS = {
    "render": Need("an OpenGL library that draws without a screen (EGL or OSMesa)", _renders, RENDER_PACKAGES["egl"]),
    "browser": Need("Chromium, which the viewer's tests open", lambda: browser() is not None, ("chromium",)),
    "pointcloud": Need("libusb, which open3d loads", lambda: bool(ctypes.util.find_library("usb-1.0")), USB_PACKAGES),
}


def main(names: list[str]) -> int:
    """Check the needs; returns 0 when all are met in the end."""
    if unknown := [name for name in names if name not in NEEDS]:
        print(f"error: unknown need {unknown[0]!r} (available: {', '.join(NEEDS)})", file=sys.stderr)
        return 2
    missing = [NEEDS[name] for name in names if not NEEDS[name].present()]
    if not missing:
        return 0
    packages = [package for need in missing for package in need.packages]
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    if _permitted():
        print("installing", *packages, flush=True)
        prefix = [] if os.geteuid() == 0 else ["sudo", "-n"]
        for step in (["apt-get", "update"], command):
            # What counts is whether the need is met afterwards; a failed update may not matter.
            subprocess.run([*prefix, *step], check=False, env=os.environ | {"DEBIAN_FRONTEND": "noninteractive"})
        missing = [need for need in missing if not need.present()]
    for need in missing:
        print(f"error: the system lacks {need.text}", file=sys.stderr)
    if missing:
        by_hand = " ".join(["sudo", *command])
        print(
            f"install it and run the same command again:\n    {by_hand}"
            + ("" if shutil.which("apt-get") else "\n(this system has no apt-get: take its own packages of that name)"),
            file=sys.stderr,
        )
    return 1 if missing else 0


def _permitted() -> bool:
    if shutil.which("apt-get") is None:
        return False
    if os.geteuid() == 0:
        return True
    sudo = shutil.which("sudo")
    return sudo is not None and subprocess.run([sudo, "-n", "true"], capture_output=True, check=False).returncode == 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or list(NEEDS)))
