"""robo-info: versions, devices, which renderer works, and how to mend what does not."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import re
import shutil
from collections.abc import Sequence
from typing import Any

from robo.cli.main import Parser, run_command
from robo.core.machine import devices

DISTRIBUTION = "robo-stack"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RENDER_PACKAGES = {"egl": ("libegl1", "libgl1-mesa-dri"), "osmesa": ("libosmesa6",)}
"""Debian packages that a renderer needs."""

_EPILOG = """\
examples:
  robo-info            a page for people
  robo-info --json     the same for machines"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Print what is installed and what works; returns 0 also when something does not."""
    parser = Parser("robo-info", "Versions, devices, which renderer works and how to mend what doesn't.", _EPILOG)
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    found = collect()
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found)
    return 0


def collect() -> dict[str, Any]:
    """Everything robo-info prints: packages, extras, devices, renderers, browser, names that can be used, mends."""
    found: dict[str, Any] = {
        "version": importlib.metadata.version(DISTRIBUTION),
        "python": platform.python_version(),
        "system": platform.platform(),
        **_packages(),
        "devices": devices(),
        "renderers": _renderers(),
        "browser": browser(),
        **_names(),
    }
    found["mend"] = _mends(found)
    return found


SAME = {"open3d": "open3d-cpu"}
"""Packages under another name."""


def browser() -> str | None:
    """Path of an installed Chromium or Chrome, or None."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def _packages() -> dict[str, Any]:
    """Versions of what the distribution needs, and which extras are complete."""
    core: dict[str, str | None] = {}
    extras: dict[str, list[str]] = {}
    for line in importlib.metadata.requires(DISTRIBUTION) or []:
        name = re.split(r"[^\w.-]", line, maxsplit=1)[0]
        extra = re.search(r"extra\s*==\s*['\"]([\w-]+)['\"]", line)
        version = _version(name) or _version(SAME.get(name, name))
        if extra is None:
            core[name] = version
        else:
            missing = extras.setdefault(extra[1], [])
            if version is None:
                missing.append(name)
    return {"packages": core, "extras": {extra: {"missing": missing} for extra, missing in extras.items()}}


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _renderers() -> dict[str, Any]:
    from robo.core.errors import RenderError
    from sim.render import backend, probe

    try:
        used, why = backend(), ""
    except RenderError as error:
        used, why = None, str(error)
    names = dict.fromkeys(["egl", "osmesa", *([used] if used else [])])
    works = {name: probe(name) or "works" for name in names}
    return {"used": used, "why_none": why, "MUJOCO_GL": os.environ.get("MUJOCO_GL"), "probed": works}


def _names() -> dict[str, list[str]]:
    from hardware.robots import ROBOTS
    from policies.registry import POLICIES
    from tasks.registry import TASKS

    return {"tasks": list(TASKS), "policies": list(POLICIES), "robots": list(ROBOTS)}


def _mends(found: dict[str, Any]) -> list[str]:
    mends = []
    renderers = found["renderers"]
    if renderers["used"] is None:
        mends.append(renderers["why_none"])
    elif (broken := renderers["probed"].get(renderers["used"], "works")) != "works":
        mends.append(f"MUJOCO_GL={renderers['used']} does not draw ({broken}): unset MUJOCO_GL to have one chosen")
    if found["browser"] is None:
        mends.append("no Chromium (the viewer's tests open one): apt-get install chromium")
    if missing := [name for name, version in found["packages"].items() if version is None]:
        mends.append(f"missing packages {', '.join(missing)}: make setup")
    if not found["devices"]["cuda"]:
        build = found["devices"]["torch_cuda_build"]
        if build and shutil.which("nvidia-smi"):
            mends.append(f"torch is built for CUDA {build} but sees no GPU: check nvidia-smi and the driver")
        elif shutil.which("nvidia-smi"):
            mends.append("there is a GPU but torch is a CPU build: rm -r .venv && make setup TORCH_INDEX=... (README)")
    return mends


def _show(found: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    devices, renderers = found["devices"], found["renderers"]
    rows = [
        ("robo-stack", f"{found['version']}, Python {found['python']}, {found['system']}"),
        ("packages", ", ".join(f"{name} {version or 'MISSING'}" for name, version in found["packages"].items())),
        *(
            (f"extra {name}", "installed" if not extra["missing"] else f"pip install -e '.[{name}]'")
            for name, extra in found["extras"].items()
        ),
        ("processor", f"{devices['cpu']}, {devices['cores']} cores"),
        ("GPU", ", ".join(devices["cuda"]) or f"none (torch built for {devices['torch_cuda_build'] or 'the CPU'})"),
        *((f"renderer {name}", state) for name, state in renderers["probed"].items()),
        ("renderer used", renderers["used"] or "none"),
        ("browser", found["browser"] or "none"),
        *((kind, ", ".join(found[kind]) or "none") for kind in ("tasks", "policies", "robots")),
    ]
    for name, text in rows:
        table.add_row(f"[bold]{name}[/bold]", escape(text))
    console = Console()
    console.print(table)
    for mend in found["mend"]:
        console.print(f"[yellow]to mend:[/yellow] {escape(mend)}", soft_wrap=True)
    if not found["mend"]:
        console.print("[green]all works[/green]")
