"""Tensors of a learner on their way to a checkpoint and back."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from policies.learner import Tensors
from robo.core.errors import RunError


def stored(tensors: Mapping[str, torch.Tensor]) -> Tensors:
    """Copies on the CPU, without gradients."""
    return {k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}


def under(tensors: Mapping[str, torch.Tensor], prefix: str) -> Tensors:
    """Tensors whose names begin with a prefix, without it."""
    return {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}


def slots_of(optimiser: torch.optim.Optimizer, prefix: str) -> Tensors:
    """What an optimiser remembers, as ``<prefix><parameter>.<name>``; its settings are not part of it."""
    found: Tensors = {}
    for i, slot in optimiser.state_dict()["state"].items():
        found |= {f"{prefix}{i}.{k}": torch.as_tensor(v) for k, v in slot.items()}
    return found


def load_slots(optimiser: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor], prefix: str) -> None:
    """Put back what `slots_of` gave.

    Raises:
        RuntimeError, ValueError: They do not fit.
    """
    slots: dict[int, Tensors] = {}
    for key, value in under(tensors, prefix).items():
        i, name = key.split(".", 1)
        slots.setdefault(int(i), {})[name] = value.clone()
    optimiser.load_state_dict({"state": slots, "param_groups": optimiser.state_dict()["param_groups"]})


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    """Put weights into a network.

    Raises:
        RunError: Names or shapes do not fit, or they are not finite.
    """
    try:
        network.load_state_dict(dict(weights))
    except RuntimeError as error:
        raise RunError(f"weights do not fit this task and configuration: {str(error).splitlines()[-1]}") from error
    for name, value in weights.items():
        if not torch.isfinite(value).all():
            raise RunError(f"weights {name} hold NaN or infinity; train again or choose an older checkpoint")
