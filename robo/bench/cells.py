"""Long experiments in cells: what is done already is read from JSON, what is missing is measured and kept."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from robo.core.errors import RoboError
from robo.core.files import make_parent, read_json, write_json

_PARTS: dict[str, type] = {"inputs": dict, "result": dict}
"""Of a file."""


class Cells:
    """Measured cells in a folder, ``FOLDER/<name>.json`` each; without a folder nothing is kept.

    Args:
        folder: Where they are.
        hardware: The machine, written into every cell.
    """

    def __init__(self, folder: str | Path | None, hardware: str) -> None:
        self.folder, self.hardware = Path(folder) if folder else None, hardware

    def has(self, name: str, inputs: Mapping[str, Any]) -> bool:
        """Whether `get` would find it."""
        path = self._path(name)
        return path is not None and path.is_file() and read_json(path, _PARTS)["inputs"] == inputs

    def get(self, name: str, inputs: Mapping[str, Any], measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """The result of a cell; measured if it is missing or was measured from other inputs.

        Args:
            name: Of the cell; may hold slashes.
            inputs: JSON-able: all that the result depends on.
            measure: Takes its time; returns something JSON-able.

        Raises:
            RoboError: The file cannot be read or written.
        """
        path = self._path(name)
        if path is not None and self.has(name, inputs):
            cell = read_json(path, _PARTS)
            return cell["result"] | {"machine": cell.get("machine", "")}
        if path is not None:
            make_parent(path)  # before the work, not after it
        print(f"measuring {name} ...", file=sys.stderr, flush=True)
        result = measure()
        if not isinstance(result, dict):
            raise RoboError(f"cell {name} measured {type(result).__name__}, not a mapping")
        if path is not None:
            write_json(path, {"inputs": dict(inputs), "machine": self.hardware, "result": result})
        return result | {"machine": self.hardware}

    def _path(self, name: str) -> Path | None:
        return self.folder / f"{name}.json" if self.folder else None
