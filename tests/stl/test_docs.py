"""Every example of the language reference."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from robo.core.errors import SpecError
from tasks.stl import parse

PAGE = (Path(__file__).parents[2] / "docs" / "stl.md").read_text(encoding="utf-8")
SIGNALS = ("a", "b", "c", "x", "y", "ee_height")
VECTORS = {"ee_pos": 3}


def blocks(language: str) -> list[list[str]]:
    found = re.findall(rf"^```{language}\n(.*?)^```", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert found
    return [block.strip("\n").split("\n") for block in found]


@pytest.mark.parametrize("text", [line for block in blocks("stl") for line in block])
def test_examples_are_canonical(text: str) -> None:
    formula = parse(text, SIGNALS, VECTORS)
    assert parse(str(formula), SIGNALS, VECTORS) == formula
    if "500ms" not in text:
        assert str(formula) == text


@pytest.mark.parametrize("lines", blocks("stl-same"), ids=lambda lines: lines[-1])
def test_spellings(lines: list[str]) -> None:
    assert str(parse(lines[0], SIGNALS, VECTORS)) == lines[0]
    for line in lines[1:]:
        assert parse(line, SIGNALS, VECTORS) == parse(lines[0], SIGNALS, VECTORS)


BAD = [pair for block in blocks("stl-bad") for pair in zip(block[::2], block[1::2], strict=True)]


@pytest.mark.parametrize(("text", "message"), BAD)
def test_errors(text: str, message: str) -> None:
    with pytest.raises(SpecError, match=re.escape(message.removeprefix("-> "))):
        parse(text, SIGNALS, VECTORS)


INLINE = re.findall(r"^\| `not` `G` `F` `H` `O` `X` `Y` \| `([^`]*)` is `([^`]*)` \|", PAGE, flags=re.MULTILINE)


def test_precedence_rows() -> None:
    assert INLINE
    for first, second in [*INLINE, ("-x^2 > 0", "-(x^2) > 0")]:
        assert parse(first) == parse(second)


@pytest.mark.parametrize("lines", blocks("python"), ids=lambda lines: lines[0])
def test_programs_run(lines: list[str], tmp_path: Path) -> None:
    script = tmp_path / "example.py"
    script.write_text("\n".join(lines), encoding="utf-8")
    root = Path(__file__).parents[2]
    code = f"import sys, runpy; sys.path.insert(0, {str(root)!r}); runpy.run_path({str(script)!r})"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120, cwd=tmp_path)
