"""The machine that something was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any

from robo.core.errors import ConfigError


def hardware_line() -> str:
    """The machine in one line, for reports: processor, cores, GPUs."""
    found = devices()
    gpus = ", ".join(found["cuda"]) or "no GPU"
    return f"{found['cpu']}, {found['cores']} cores, {gpus}"


def devices() -> dict[str, Any]:
    """Processor, cores that may be used, GPUs."""
    import torch

    cuda = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
    cores = len(os.sched_getaffinity(0))
    return {"cpu": _cpu(), "cores": cores, "cuda": cuda, "torch_cuda_build": torch.version.cuda}


def gpu_of(device: str) -> int | None:
    """Number of the GPU that ``cuda`` or ``cuda:N`` names; None for ``cpu``. No torch.

    Raises:
        ConfigError: It names nothing.
    """
    kind, colon, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (colon and not (kind == "cuda" and index.isdecimal())):
        raise ConfigError(f"'device' must be cpu, cuda or cuda:N, not {device!r}")
    return None if kind == "cpu" else int(index or 0)


def require_device(device: str) -> None:
    """Refuse to compute where there is nothing.

    Args:
        device: As for `gpu_of`.

    Raises:
        ConfigError: It names nothing, or this machine has no such GPU.
    """
    gpu = gpu_of(device)
    if gpu is None:
        return
    import torch

    if not torch.cuda.is_available():
        raise ConfigError(f"device {device!r} is not there: this torch sees no GPU; robo-info says more")
    if gpu >= torch.cuda.device_count():
        raise ConfigError(f"device {device!r} is not there: {torch.cuda.device_count()} GPU(s) are")


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
