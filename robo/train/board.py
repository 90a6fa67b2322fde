"""Metrics and films of a training in Weights & Biases, for who asks for it."""

from __future__ import annotations

import importlib.util
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from robo.core.errors import ConfigError, MissingDependencyError
from robo.core.files import read_json, write_json
from robo.train.run import Run

FILE = "wandb.json"
"""In a run folder: under which id it is known there."""
_START_S = 30.0


def require() -> None:
    """Look, before there is a run, whether there can be one there.

    Raises:
        MissingDependencyError: wandb is not installed.
        ConfigError: It is to be sent somewhere and nobody is logged in.
    """
    if importlib.util.find_spec("wandb") is None:
        raise MissingDependencyError(
            "--log_wandb needs wandb, which is not installed; try: pip install 'robo-stack[wandb]'"
        )
    import wandb

    if wandb.setup().settings.mode == "online" and not wandb.api.api_key:
        raise _refused("nobody is logged in")


def _refused(reason: str) -> ConfigError:
    return ConfigError(
        f"wandb refuses ({reason}); log in with: wandb login, or keep all here with: WANDB_MODE=offline, "
        "or leave out --log_wandb"
    )


class Board:
    """A run there, which is the same one after a resume.

    Args:
        run: Whose metrics.

    Raises:
        ConfigError: wandb refuses.
    """

    def __init__(self, run: Run) -> None:
        import wandb

        path = run.path / FILE
        if not path.is_file():
            write_json(path, {"id": uuid.uuid4().hex})
        told = read_json(path, {"id": str})
        try:
            self._run: Any = wandb.init(
                project=run.config.log_wandb,
                id=told["id"],
                resume="allow",
                name=f"{run.path.parent.name}/{run.path.name}",
                dir=run.path,
                config=run.config.keys(),
                settings=wandb.Settings(console="off", silent=True, init_timeout=_START_S),
            )
        except (wandb.Error, ValueError, OSError) as error:
            raise _refused(" ".join(str(error).split())[:300]) from error
        # A training that goes on from a checkpoint tells some steps again; with an axis of its own that may be.
        self._run.define_metric("step")
        self._run.define_metric("*", step_metric="step")

    def write(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step."""
        self._run.log({"step": step, **values})

    def film(self, step: int, name: str, path: Path) -> None:
        """A film, an MP4 file that stays where it is."""
        import wandb

        self._run.log({"step": step, f"films/{name}": wandb.Video(str(path), format="mp4")})

    def close(self) -> None:
        """Send what is left."""
        self._run.finish()
