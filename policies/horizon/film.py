"""Episodes to look at: as they were, and what a world model makes of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from policies.horizon.network import HorizonNetwork
from policies.world.replay import Columns
from policies.world.rssm import State

FIRST, STEPS = 5, 45
"""Imagination begins after so many moments, and lasts so many."""
ENLARGED = 2


@torch.no_grad()
def imagination(network: HorizonNetwork, columns: Columns, pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """An episode as it was, as it is reconstructed while watched, and as it is imagined once the eyes are closed.

    Args:
        network: What was learned; its world model must tell features.
        columns: The episode, see `policies.horizon.episodes.episode`.
        pictures: View → (T, H, W, 3) uint8 of it.

    Returns:
        (F, 3 H, views · W, 3) uint8, enlarged: three rows; of the first moments the last row is the second.
    """
    model, sight = network.agent.model, network.sight
    assert model.decoder is not None
    count = min(FIRST + STEPS, len(columns["actions"]))

    def put(name: str) -> torch.Tensor:
        values = torch.from_numpy(np.asarray(columns[name][:count], np.float32))
        return values[None].to(model.seen_scale.mean.device)

    first = torch.from_numpy(columns["is_first"][:count])[None].to(put("actions").device)
    embed = model.encode(put("features"), put("proprio"))
    states = model.dynamics.observe(embed, put("actions"), first, None).states
    start = State(*(part[:, FIRST - 1] for part in states))
    ahead = put("actions")[:, FIRST:]
    steps = torch.full((1,), ahead.shape[1], device=ahead.device)
    dream = model.dream(start, lambda _, k: ahead[:, k], steps, None)
    imagined = torch.cat([states.latent[:, :FIRST], dream.latents[:, 1:]], 1)
    rows = [_beside(pictures)[:count]]
    for latents in (states.latent, imagined):
        features = model.decoder(latents)[0, :, : sight.mae.feature_size]
        drawn = torch.cat([picture for picture in sight.drawn(features).values()], dim=2)
        rows.append((255 * drawn).round().to(torch.uint8).cpu().numpy())
    return _enlarged(np.concatenate(rows, axis=1))


def played(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    """An episode as all cameras saw it, view → (T, H, W, 3) uint8, (T, H, views · W, 3), enlarged."""
    return _enlarged(_beside(pictures))


def _beside(pictures: Mapping[str, np.ndarray]) -> np.ndarray:
    return np.concatenate(list(pictures.values()), axis=2)


def _enlarged(film: np.ndarray) -> np.ndarray:
    return film.repeat(ENLARGED, axis=1).repeat(ENLARGED, axis=2)
