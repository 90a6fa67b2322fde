"""The multi-view autoencoder: what it makes of views that it does not see."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from policies.horizon.wander import start
from policies.perception.mae_config import MaeConfig, preset
from robo.bench import Report
from robo.core.errors import ConfigError
from robo.data.collect import FIRST_SEED, actor
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task

if TYPE_CHECKING:
    import torch

    from policies.perception.mae import MultiViewMae

HELD_OUT, GLANCES = 1_000, 1_000_000
"""Seeds of held-out episodes and of glances come so much later."""
EVERY = 4
"""Every so many-th of held-out windows is looked at."""
WARM_UP, CLIP = 50, 1.0
"""Steps until the learning rate is full; largest norm of a gradient."""


def mae_bench(
    task: str = "pick_and_place",
    size: str = "small",
    views: Sequence[str] = ("front", "left", "right", "wrist"),
    expert: int = 50,
    random: int = 200,
    random_steps: int = 40,
    glances: int = 0,
    held_out: int = 8,
    minutes: float = 5.0,
    batch: int = 32,
    learning_rate: float = 1e-3,
    threads: int = 1,
    seed: int = 0,
) -> Report:
    """Train the autoencoder for some minutes; then the error on views of held-out episodes that are hidden whole.

    One view is shown, as in training (some of its cells) or whole; the others are imagined. Beside them stands a
    predictor that always answers with the mean picture of that view in training. Frames of random motion are among the
    held-out ones, too.

    Args:
        task: A tabletop task.
        size: Preset: small, mwm, mv_mwm or paper.
        views: Cameras.
        expert, random: Training episodes of the expert, and of random motion: what is where differs between episodes,
            not within.
        random_steps: Control steps of one of random motion; 0: until it is over.
        glances: Windows of scenes of their own, the arm anywhere, as `policies.horizon` learns from as well.
        held_out: Episodes of the expert that are kept for judging, and four times as many of random motion.
        minutes: Of training, by the clock.
        batch: Samples per step.
        learning_rate: Largest; it rises, then falls as a cosine.
        threads: Of torch.
        seed: Of everything drawn.

    Raises:
        RoboError: A name is unknown or a number out of range.
    """
    import torch

    if min(expert, held_out, batch, threads) < 1 or min(random, random_steps, glances) < 0:
        raise ConfigError(
            "expert, held_out, batch and threads must be at least 1; random, random_steps and glances not negative"
        )
    if min(minutes, learning_rate) <= 0:
        raise ConfigError("minutes and learning_rate must be positive")
    config = preset(size, views=tuple(views))
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    some = [Some("expert", expert), Some("random", random, random_steps), Some("zero", glances, config.frames, True)]
    pictures, rewards = record(task, config, some, seed)
    others = [Some("expert", held_out), Some("random", 4 * held_out, random_steps)]
    judged, _ = record(task, config, others, seed + HELD_OUT)
    judged = judged[::EVERY]
    model, steps, metrics = train(config, pictures, rewards, minutes, batch, learning_rate, seed)
    return Report(
        title=f"Views that are hidden, {task}, {config.size} x {config.size}, {minutes:g} min of training",
        rows=_judge(model, judged, pictures.float().mean(dim=(0, 1)) / 255, seed),
        seeds=[seed],
        notes=[
            f"{expert} episodes of the expert, {random} of {random_steps} steps of random motion, {glances} glances: "
            f"{len(pictures)} windows",
            f"judged: {held_out} and {4 * held_out} other episodes, every {EVERY}-th window, {len(judged)} of them",
            f"{steps} steps of {batch} samples, {threads} thread(s); last: "
            + ", ".join(f"{name} {value:.4g}" for name, value in metrics.items()),
            f"hidden in training: {config.masked_views} of {len(config.views)} views and "
            f"{100 * (1 - config.shown / config.cells):.0f} % of the rest",
            "figure to reach: 30 % less error than the mean picture",
        ],
    )


class Some(NamedTuple):
    """Episodes.

    Attributes:
        policy: Who acts.
        count: How many.
        most: Control steps after which one ends; 0: when it is over.
        anywhere: Whether the arm begins anywhere, often above a thing.
    """

    policy: str
    count: int
    most: int = 0
    anywhere: bool = False


def record(task: str, config: MaeConfig, episodes: Sequence[Some], seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures (N, T, V, H, W, 3) uint8 of windows of frames, and rewards (N, T).

    Args:
        task: A tabletop task.
        config: Views, size and T.
        episodes: What is recorded.
        seed: Of the first episode.
    """
    import torch

    loaded = tabletop_task(load_task(task))
    env = TabletopEnv(loaded, cameras=config.views, size=config.size)
    windows, rewards = [], []
    for some in episodes:
        acting = actor(some.policy, loaded)
        for _ in range(some.count):
            first = FIRST_SEED + seed + (GLANCES if some.anywhere else 0)
            obs, _ = env.reset(seed=first, options={"instance": start(loaded, first)} if some.anywhere else {})
            acting.reset(obs, seed)
            seed, seen, reward, ended = seed + 1, [], [], False
            while not ended:
                obs, r, terminated, truncated, _ = env.step(env.action(acting.act(obs)))
                seen.append(np.stack([obs[f"rgb_{view}"] for view in config.views]))
                reward.append(r)
                ended = terminated or truncated or len(seen) == some.most
            windows.append(in_windows(np.stack(seen), config.frames))
            rewards.append(in_windows(np.array(reward, np.float32), config.frames))
    env.close()
    return torch.from_numpy(np.concatenate(windows)), torch.from_numpy(np.concatenate(rewards))


def in_windows(rows: np.ndarray, frames: int) -> np.ndarray:
    """Rows (n, ...) of an episode, so many at once, (n // frames, frames, ...); what is left over is left out."""
    return rows[: len(rows) // frames * frames].reshape(-1, frames, *rows.shape[1:])


def train(
    config: MaeConfig,
    pictures: torch.Tensor,
    rewards: torch.Tensor,
    minutes: float,
    batch: int,
    learning_rate: float,
    seed: int,
) -> tuple[MultiViewMae, int, dict[str, float]]:
    """The model trained on windows until time is up, how many steps that were, and the metrics of the last."""
    import torch

    from policies.perception.mae import MultiViewMae

    model, generator = MultiViewMae(config), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.AdamW(model.parameters(), learning_rate, betas=(0.9, 0.95), weight_decay=0.01)
    steps, metrics, began = 0, {}, time.perf_counter()
    while (share := (time.perf_counter() - began) / (60 * minutes)) < 1.0:
        rate = learning_rate * min(1.0, (steps + 1) / WARM_UP) * 0.5 * (1 + math.cos(math.pi * share))
        for group in optimizer.param_groups:
            group["lr"] = rate
        rows = torch.randint(len(pictures), (batch,), generator=generator)
        loss, metrics = model.loss(by_view(config, pictures[rows]), rewards[rows], generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        steps += 1
    return model.eval(), steps, {name: float(value) for name, value in metrics.items()}


def by_view(config: MaeConfig, windows: torch.Tensor) -> dict[str, torch.Tensor]:
    """Windows (B, T, V, H, W, 3) by view."""
    return {name: windows[:, :, i] for i, name in enumerate(config.views)}


def _judge(model: MultiViewMae, judged: torch.Tensor, mean: torch.Tensor, seed: int) -> list[dict[str, object]]:
    """A row for every hidden view, and one for all."""
    import torch

    config, truth = model.config, judged.float() / 255
    usual = (truth - mean).square().mean(dim=(0, 1, 3, 4, 5))  # of each view
    whole = torch.full((len(config.views), len(config.views)), float("nan"))
    some = whole.clone()
    generator = torch.Generator().manual_seed(seed)
    with torch.inference_mode():
        for i, shown in enumerate(config.views):
            pictures = {shown: judged[:, :, i]}
            for table, masks in ((whole, None), (some, generator)):
                guess, _ = model.imagine(pictures, masks)
                for j, hidden in enumerate(config.views):
                    if i != j:
                        table[i, j] = (guess[hidden] - truth[:, :, j]).square().mean()
    found = {"some cells of one view shown": some.nanmean(0), "one view shown": whole.nanmean(0)}
    rows = []
    for name, at in [*((n, slice(i, i + 1)) for i, n in enumerate(config.views)), ("all", slice(None))]:
        base = float(usual[at].mean())
        row: dict[str, object] = {"hidden view": name, "mean picture, MSE": base}
        for column, error in found.items():
            row |= {
                f"{column}, MSE": float(error[at].mean()),
                f"{column}, less": f"{100 * (1 - float(error[at].mean()) / base):.1f} %",
            }
        rows.append(row)
    return rows
