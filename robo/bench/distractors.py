"""World models under backgrounds and lights that change: what each objective still foretells."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import mujoco
import numpy as np
import torch

from policies.horizon.config import PRESETS, HorizonConfig
from policies.horizon.episodes import episode
from policies.observed import frame
from policies.perception.mae_config import preset
from policies.perception.marks_config import MarksConfig
from policies.perception.sight import Sight
from policies.world.config import WorldConfig
from policies.world.model import Batch, WorldModel
from policies.world.replay import Replay
from robo.bench import Report
from robo.bench.horizon import SWAY
from robo.bench.mae import HELD_OUT, in_windows, train
from robo.core.errors import ConfigError
from robo.data.collect import FIRST_SEED, actor
from robo.evaluate.evaluation import one_thread
from sim.randomise import Randomisation
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task

LOOKS = Randomisation(colour=0.3, texture=1.0, light=0.6)
JUDGED = 512
"""Sequences of held-out episodes."""


def distractors_bench(
    task: str = "pick_and_place",
    objectives: Sequence[str] = ("features", "target", "bottleneck"),
    views: Sequence[str] = ("front", "wrist"),
    episodes: int = 60,
    held_out: int = 20,
    change_s: float = 0.5,
    minutes: float = 5.0,
    steps: int = 1500,
    seen: int = 5,
    ahead: int = 10,
    seeds: Sequence[int] = (0, 1, 2),
) -> Report:
    """Foretell the task's signals from pictures, in one world as it is and where its looks change all the time.

    Both times an autoencoder learns from the pictures alone, and then stays as it is. World models that differ in
    nothing but their objective learn from its numbers and the arm's own. On episodes that were held out each sees some
    moments, then imagines what the recorded actions lead to. Colours, the table's texture and the light are others in
    every episode, and in held-out ones as well.

    Args:
        task: A tabletop task.
        objectives: Of `policies.world.config.ModelConfig.objective`.
        views: Cameras.
        episodes, held_out: Of the expert, whose ways differ, to learn from and to judge by.
        change_s: How long looks stay [s].
        minutes: Of the autoencoder's training, by the clock.
        steps: Of each world model's training.
        seen, ahead: Moments that are seen, and steps that are imagined.
        seeds: Of trainings.

    Raises:
        RoboError: A name is unknown or a number out of range.
    """
    if min(episodes, held_out, steps, seen, ahead) < 1 or min(change_s, minutes) <= 0 or not (seeds and views):
        raise ConfigError("episodes, steps, moments, change_s, minutes and the numbers of seeds and views are positive")
    loaded, base = tabletop_task(load_task(task)), PRESETS["small"]
    mae = preset("small", views=tuple(views), masked_views=len(views) - 1)
    config = replace(base, mae=mae, marks=MarksConfig(on=False), train=replace(base.train, truth=False))
    models = {name: replace(base.world.model, objective=name) for name in objectives}
    found: dict[str, dict[str, list[float]]] = {name: {} for name in objectives}
    standing = {}
    for world, looks in (("as it is", None), ("changing", LOOKS)):
        recorded = record(loaded, config, episodes, 0, looks, change_s)
        others = record(loaded, config, held_out, HELD_OUT, looks, change_s)
        with one_thread():
            sight = _sight(config, recorded, minutes)
            replay, judged = (_moments(loaded, config, sight, each) for each in (recorded, others))
            batch = Batch.of(judged.sample(JUDGED, seen + ahead))
            standing[world] = _error(batch, batch.signals[:, seen - 1 : seen].expand(-1, ahead, -1), seen)
            for name, model in models.items():
                made = replace(base.world, model=model)
                found[name][world] = [_foretold(made, replay, batch, steps, seen, seed) for seed in seeds]
    rows: list[dict[str, Any]] = [{"objective": name, **_columns(errors)} for name, errors in found.items()]
    rows.append({"objective": "(true signals stay as last seen)", **_columns({k: [v] for k, v in standing.items()})})
    return Report(
        title=f"Signals {ahead} steps ahead, {task}, mean absolute error in standard deviations",
        rows=rows,
        seeds=list(seeds),
        notes=[
            f"{episodes} episodes of the expert to learn from, {held_out} to judge by; views {', '.join(views)} of "
            f"{mae.size} pixels; autoencoder {minutes:g} min, world models {steps} steps, one thread",
            f"changing: colours by {LOOKS.colour:g}, light by {LOOKS.light:g}, a texture on the table, drawn anew "
            f"every {change_s:g} s",
        ],
    )


def record(
    task: TabletopTask, config: HorizonConfig, count: int, first: int, looks: Randomisation | None, change_s: float
) -> list[dict[str, np.ndarray]]:
    """Episodes of the expert as `Demonstrations` tells them; of what was seen only the looks differ."""
    env = TabletopEnv(task)
    shown = TabletopEnv(task, randomise=looks, cameras=config.mae.views, size=config.mae.size)
    acting, every, found = actor("expert", task, SWAY), max(round(change_s / task.ctrl_dt_s), 1), []
    for seed in range(first, first + count):
        obs, info = env.reset(seed=FIRST_SEED + seed)
        acting.reset(obs, seed)
        options, rows, ended = {"instance": info["instance"]}, [], False
        while not ended:
            if len(rows) % every == 0:
                # The same scene in other looks.
                shown.reset(seed=FIRST_SEED + seed * task.steps + len(rows), options=options)
            shown.data.qpos[:] = env.data.qpos
            mujoco.mj_kinematics(shown.model, shown.data)
            mujoco.mj_camlight(shown.model, shown.data)
            pictures = shown.pictures.take(shown.data)
            before = info["reference"]
            after, reward, terminated, truncated, info = env.step(env.action(acting.act(obs)))
            rows.append(frame(task, obs, before, info, reward) | pictures)
            obs, ended = after, terminated or truncated
        found.append({name: np.stack([row[name] for row in rows]) for name in rows[0]})
    env.close()
    shown.close()
    return found


def _sight(config: HorizonConfig, episodes: Sequence[dict[str, np.ndarray]], minutes: float) -> Sight:
    """What sees, after training on pictures alone."""
    mae, windows, rewards = config.mae, [], []
    for each in episodes:
        windows.append(in_windows(np.stack([each[f"rgb_{view}"] for view in mae.views], axis=1), mae.frames))
        rewards.append(in_windows(each["reward"][:, 0].astype(np.float32), mae.frames))
    pictures, told = (torch.from_numpy(np.concatenate(x)) for x in (windows, rewards))
    rate = config.sense.learning_rate
    sight = Sight(mae, config.marks, 0)
    sight.mae.load_state_dict(train(mae, pictures, told, minutes, config.sense.batch, rate, 0)[0].state_dict())
    return sight.eval()


def _moments(
    task: TabletopTask, config: HorizonConfig, sight: Sight, episodes: Sequence[dict[str, np.ndarray]]
) -> Replay:
    """Episodes as world models learn from them."""
    replay = Replay(sum(len(each["signals"]) for each in episodes), 0)
    for each in episodes:
        pictures = {view: torch.from_numpy(each[f"rgb_{view}"]) for view in config.mae.views}
        with torch.no_grad():
            features = sight.along(pictures, "cpu").numpy()
        replay.add(episode(task, config, {**each, "features": features}, demo=False))
    return replay


def _error(batch: Batch, told: torch.Tensor, seen: int) -> float:
    """Of signals told (B, H, S) beyond those seen, in standard deviations."""
    true = batch.signals[:, seen:]
    spread = batch.signals.flatten(0, 1).std(0).clamp_min(1e-6)
    counts = batch.mask[:, seen:, None].expand_as(true)
    return float(((told - true).abs() / spread)[counts].mean())


def _foretold(world: WorldConfig, replay: Replay, judged: Batch, steps: int, seen: int, seed: int) -> float:
    """Train a world model; its error on what was held out."""
    length = judged.actions.shape[1]
    torch.manual_seed(seed)
    replay.rng = np.random.default_rng(seed)
    drawn = Batch.of(replay.sample(8 * (world.batch + world.demos), world.length))
    sizes = (drawn.features.shape[-1], drawn.actions.shape[-1], drawn.proprio.shape[-1], drawn.signals.shape[-1])
    model, generator = WorldModel(world.model, *sizes, drawn.proprio.shape[-1]), torch.Generator().manual_seed(seed)
    model.fit_scales(drawn)
    optimiser = torch.optim.Adam(model.parameters(), world.rate.model, eps=1e-5)
    for _ in range(steps):
        fit = model.loss(Batch.of(replay.sample(world.batch + world.demos, world.length)), generator)
        optimiser.zero_grad()
        fit.loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), world.rate.clip)
        optimiser.step()
    with torch.no_grad():
        states = model.loss(judged, generator).states
        start = states.map(lambda part: part[:, seen - 1])
        horizons = torch.full((len(judged.actions),), length - seen)
        dream = model.dream(start, lambda _, k: judged.actions[:, seen + k], horizons, None)
        return _error(judged, model.told_signals(dream.latents[:, 1:]), seen)


def _columns(errors: dict[str, list[float]]) -> dict[str, Any]:
    columns: dict[str, Any] = {}
    for world, each in errors.items():
        columns[f"{world}, of each"] = ", ".join(f"{value:.3f}" for value in each)
        columns[f"{world}, mean"] = float(np.mean(each))
    return columns
