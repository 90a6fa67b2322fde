"""The machine that something was measured on."""

from __future__ import annotations

import os
import platform
from pathlib import Path
from typing import Any


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


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
