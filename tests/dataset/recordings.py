"""A small robot that is recorded in the tests; `main` records it as a process that can be killed."""

from __future__ import annotations

import sys
from itertools import count
from pathlib import Path

import numpy as np

from robo.dataset.lerobot import Feature, Features, Writer

CAMERA = "observation.images.front"
SIZE = (48, 64)
FEATURES = Features(
    values={
        "observation.state": Feature("float32", (3,), ("a_rad", "b_rad", "c_rad")),
        "action": Feature("float32", (2,)),
        "rho": Feature("float64"),
        "pose": Feature("float32", (2, 3)),
        "grasped": Feature("bool"),
        "contacts": Feature("int32"),
    },
    cameras={CAMERA: SIZE},
    extra={"seed": "int64", "success": "bool", "note": "string", "score": "float64"},
    fps=20,
    robot_type="panda",
)


def length(seed: int) -> int:
    return 11 + seed % 4


def task(seed: int) -> str:
    return f"task {seed % 3}"


def values(seed: int, i: int) -> dict:
    rng = np.random.default_rng([seed, i])
    return {
        "observation.state": rng.normal(size=3).astype(np.float32),
        "action": rng.normal(size=2).astype(np.float32),
        "rho": rng.normal(),
        "pose": rng.normal(size=(2, 3)).astype(np.float32),
        "grasped": bool(i % 2),
        "contacts": i,
    }


def picture(seed: int, i: int) -> np.ndarray:
    """(H, W, 3) smooth, so that the video is close to it, and another for each frame."""
    y, x = np.mgrid[: SIZE[0], : SIZE[1]]
    return np.stack([60 + 2 * y + 3 * i, 40 + x + 11 * (seed % 10), 120 + x - y], axis=-1).clip(0, 255).astype(np.uint8)


def extra(seed: int) -> dict:
    return {"seed": seed, "success": seed % 2 == 0, "note": f"n{seed}", "score": seed / 2}


def add_frames(writer: Writer, seed: int, frames: int | None = None) -> None:
    for i in range(frames or length(seed)):
        writer.add_frame(values(seed, i), {CAMERA: picture(seed, i)}, task(seed))


def record(folder: Path, seeds, features: Features = FEATURES) -> Path:
    with Writer(folder, features) as writer:
        for seed in seeds:
            add_frames(writer, seed)
            writer.save_episode(extra(seed))
    return folder


def main(folder: str) -> None:
    writer = Writer(Path(folder), FEATURES)
    for seed in count():
        add_frames(writer, seed)
        writer.save_episode(extra(seed))
        print(seed, flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
