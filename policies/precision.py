"""Where networks compute with half the bits, and where they are compiled: what a GPU gains by. No torch at import."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

Precision = Literal["auto", "float32", "bfloat16"]
"""``bfloat16``: products of matrices and convolutions; weights, sums and losses stay float32. ``auto``: on a GPU that
has it."""
Compiled = Literal["auto", "always", "never"]
"""``auto``: on a GPU. It takes minutes before the first step, and a C++ compiler."""


def bits(device: str, precision: Precision) -> Precision:
    """What a precision is on a device (``cpu``, ``cuda``, ``cuda:N``): ``float32`` or ``bfloat16``."""
    import torch  # lazily: settings name what is above

    if precision != "auto":
        return precision
    has = device != "cpu" and torch.cuda.is_bf16_supported(including_emulation=False)
    return "bfloat16" if has else "float32"


def mixed(device: str, precision: Precision) -> torch.autocast:
    """A context in which losses are computed; gradients are taken outside (Micikevicius et al., arXiv 1710.03740).

    bfloat16 has the range of float32, so losses need no scale.

    Args:
        device: Where the network is.
        precision: As of the settings.
    """
    import torch

    return torch.autocast(device.partition(":")[0], torch.bfloat16, enabled=bits(device, precision) == "bfloat16")


def compiles(device: str, when: Compiled) -> bool:
    """Whether a network there is to be compiled."""
    return when == "always" or (when == "auto" and device != "cpu")
