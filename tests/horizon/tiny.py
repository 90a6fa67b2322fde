"""Settings of trainings that take seconds."""

from __future__ import annotations

from typing import Any

TASK, SIZE, VIEWS = "reach", 32, ("front", "wrist")
TINY: dict[str, Any] = {
    "mae": {
        "views": list(VIEWS),
        "size": SIZE,
        "patch": 8,
        "width": 16,
        "decoder_width": 16,
        "heads": 2,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "numbers": 2,
        "masked_views": 1,
        "reward_bins": 21,
    },
    "marks": {"channels": [8, 8], "points": 4, "units": 16},
    "sense": {"steps": 4, "batch": 4, "warm_up": 2, "refresh": 2, "keep": 5, "of_episode": 2},
    "world": {
        "model": {
            "dynamics": {"deter": 16, "hidden": 16, "groups": 2, "classes": 4, "heads": 2, "memory": 4},
            "units": 16,
            "layers": 1,
            "bins": 21,
            "ensemble": 2,
            "ensemble_units": 8,
        },
        "actor": {"units": 16, "layers": 1, "horizon": 3, "starts": 8},
        "plan": {"horizon": 2, "samples": 8, "from_actor": 2, "elites": 4, "iterations": 2},
        "batch": 3,
        "demos": 2,
        "length": 5,
    },
    "explore": {"babble": 3, "babble_steps": 6, "glances": 0, "episodes": 2, "every": 4, "rest": 0},
    "train": {"steps": 10},
}
