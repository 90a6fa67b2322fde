"""The house itself: the lock, the commands, what imports what, what must not stand in any file."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tools import lock, system

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SCRIPTS = PROJECT["project"]["scripts"]
HEAVY = ("torch", "mujoco", "rerun", "gymnasium", "av", "matplotlib", "open3d", "viser", "trimesh")


def _tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    return [ROOT / name for name in listed.split("\0") if name and (ROOT / name).is_file()]


def test_the_lock_holds_public_versions_and_nothing_else():
    lines = [line for line in (ROOT / "requirements.lock").read_text().splitlines() if not line.startswith("#")]
    assert lines == sorted(lines, key=lambda line: line.partition("==")[0])
    for line in lines:
        assert re.fullmatch(r"[a-z0-9-]+==\d+(\.\d+)*((a|b|rc|\.post|\.dev)\d+)?", line), line


def test_the_lock_covers_what_the_project_needs():
    locked = {line.partition("==")[0] for line in (ROOT / "requirements.lock").read_text().splitlines()}
    needed = PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["dev"]
    names = {re.split(r"[^\w.-]", need, maxsplit=1)[0].lower().replace("_", "-") for need in needed}
    assert names <= locked


def test_extras():
    extras = {"planners", "rl", "pybullet", "pointcloud", "video", "rlbench", "hardware", "cluster", "dev"}
    extras |= {"imitation", "language", "wandb"}
    assert set(PROJECT["project"]["optional-dependencies"]) == extras


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_is_worth_reading_and_imports_nothing_heavy(script):
    module, _, function = SCRIPTS[script].partition(":")
    code = (
        f"import sys\nfrom {module} import {function} as main\n"
        "try:\n    main(['--help'])\nexcept SystemExit as end:\n    assert not end.code\n"
        f"heavy = [name for name in {HEAVY!r} if name in sys.modules]\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: {script}" in done.stdout
    assert "example" in done.stdout
    assert (Path(sys.executable).parent / script).exists()


def test_python_must_be_new_enough(tmp_path):
    old = tmp_path / "python-old"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.2" && exit 0\nexit 1\n')
    old.chmod(0o755)
    for name in ("Makefile", "pyproject.toml", "requirements.lock"):
        (tmp_path / name).write_text((ROOT / name).read_text())
    done = subprocess.run(["make", "setup", f"PYTHON={old}"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode != 0
    assert "is Python 3.9.2, Python 3.11 or newer is needed; try: make setup PYTHON=python3.11" in done.stderr
    assert not (tmp_path / ".venv").exists()


def test_what_the_system_lacks_is_installed_or_said(capsys, monkeypatch):
    there, ran = [False], []
    need = system.Need("a thing", lambda: there[0], ("libthing1",))
    monkeypatch.setitem(system.NEEDS, "thing", need)

    monkeypatch.setattr(system, "_permitted", lambda: False)
    assert system.main(["thing"]) == 1
    said = capsys.readouterr().err
    assert "error: the system lacks a thing" in said
    assert "    sudo apt-get install -y --no-install-recommends libthing1" in said

    def install(command, **kwargs):
        ran.append(" ".join(command).removeprefix("sudo -n "))
        there[0] = "install" in command

    monkeypatch.setattr(system, "_permitted", lambda: True)
    monkeypatch.setattr(system.subprocess, "run", install)
    assert system.main(["thing"]) == 0
    assert ran == ["apt-get update", "apt-get install -y --no-install-recommends libthing1"]
    assert system.main(["thing"]) == 0
    assert len(ran) == 2
    assert system.main(["thign"]) == 2


def test_the_lock_is_written_from_what_is_installed():
    found = lock.closure(lock.ROOT, ())
    assert {"torch", "mujoco", "numpy"} <= set(found)
    assert "+" not in "".join(found.values())
    assert set(found) < set(lock.closure(lock.ROOT, lock.EXTRAS))


def test_ci_runs_the_test_command():
    words = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if not line.startswith("#")]
    assert words[-1] == "exec make test"
    assert "make test" in (ROOT / "README.md").read_text()


def test_no_file_names_this_machine():
    here = [re.escape(str(place)) for place in (ROOT, Path.home()) if place != Path("/")]
    pattern = re.compile(rf"(?<![\w.-])({'|'.join([*here, '/home/[a-z]+', '/Users/[a-z]+'])})/")
    for path in _tracked():
        found = pattern.search(path.read_text(errors="ignore"))
        assert not found, f"{path.relative_to(ROOT)} names {found and found[0]}"


def test_no_pickle_eval_exec_or_skips():
    banned = re.compile(
        r"^\s*(import|from) (pickle|dill|shelve)\b|(?<![\w.])(eval|exec)\("
        r"|pytest\.(skip|importorskip)|mark\.(skip|xfail)"
    )
    for path in _tracked():
        if path.suffix == ".py" and path != Path(__file__):
            for number, line in enumerate(path.read_text().splitlines(), start=1):
                assert not banned.search(line), f"{path.relative_to(ROOT)}:{number}: {line.strip()}"


def test_links_between_documents_lead_somewhere():
    for path in _tracked():
        if path.suffix == ".md":
            # A formula in code is no link.
            prose = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.DOTALL)
            for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
                if "://" not in link:
                    assert (path.parent / link).exists(), f"{path.relative_to(ROOT)} links to {link}"


def test_the_licence():
    assert (ROOT / "LICENSE").read_text().strip().startswith("Apache License")
    assert PROJECT["project"]["license"] == "Apache-2.0"
