"""How fast the multi-view autoencoder trains, beside ViTMAE of `transformers`, and whether devices agree."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import numpy as np

from policies.perception.mae_config import MaeConfig, preset
from policies.precision import Precision, bits, mixed
from robo.bench import Median, Report
from robo.bench.mae import by_view
from robo.core.errors import ConfigError
from robo.core.machine import require_device

if TYPE_CHECKING:
    import torch
    from transformers import ViTMAEConfig

    from policies.perception.mae import MultiViewMae

WARM_STEPS = 3
"""Of training, before any is timed: the first ones compile, and find out what is fastest."""
PEER = "ViTMAE"


def mae_speed_bench(
    size: str = "small",
    views: Sequence[str] = ("front", "left", "right", "wrist"),
    batch: int = 32,
    device: str = "cpu",
    precision: Precision = "auto",
    compiled: bool = False,
    repeats: int = 20,
    threads: int = 1,
    seed: int = 0,
) -> Report:
    """Steps of training of the autoencoder and of ViTMAE with as many cells, layers and numbers per token.

    Beside them: how far loss and features are there from those of a processor in float32.

    Args:
        size: Preset: small, mwm, mv_mwm or paper.
        views: Cameras; cells of all, over all frames, have to make a square.
        batch: Samples per step.
        device: cpu, cuda or cuda:N.
        precision: auto, float32 or bfloat16; see `policies.precision`.
        compiled: Both as they are and compiled; else only as they are.
        repeats: Steps of each that are timed.
        threads: Of torch.
        seed: Of everything drawn.

    Raises:
        RoboError: A name is unknown, a number out of range, or the device is not there.
    """
    import torch
    from transformers import ViTMAEForPreTraining

    from policies.perception.mae import MultiViewMae

    if min(batch, repeats, threads) < 1:
        raise ConfigError("batch, repeats and threads must be at least 1")
    require_device(device)
    torch.set_num_threads(threads)
    torch.manual_seed(seed)
    config = preset(size, views=tuple(views))
    generator, across = torch.Generator().manual_seed(seed), _square(config)
    side = math.isqrt(_tokens(config)[0]) * config.patch
    shape = (batch, config.frames, len(config.views), config.size, config.size, 3)
    windows = torch.randint(256, shape, generator=generator).to(torch.uint8)
    rewards = torch.rand(batch, config.frames, generator=generator).to(device)
    pictures = by_view(config, windows.to(device))
    square = windows.reshape(batch, side, side, 3).permute(0, 3, 1, 2).to(device)
    make = partial(_Stepper, device=device, precision=precision)
    steppers = []
    for way in (False, True) if compiled else (False,):
        for asked in dict.fromkeys((1.0, config.asked)):
            ours = MultiViewMae(replace(config, asked=asked)).to(device)
            if way:
                ours.compile_parts()
            name = "this one" if asked == 1.0 else f"this one, asked for {100 * asked:.0f} % of cells"
            loss = partial(_loss, ours, pictures, rewards, generator)
            steppers.append(make(name=name, model=ours, loss=loss, compiled=way))
        with torch.device(device):
            theirs = ViTMAEForPreTraining(across)
        if way:
            theirs.compile()
        loss = partial(_their_loss, theirs, square)
        steppers.append(make(name=PEER, model=theirs, loss=loss, compiled=way))
    taken = np.array([[each.step_s() for each in steppers] for _ in range(WARM_STEPS + repeats)])[WARM_STEPS:]
    peers = {each.compiled: taken[:, i] for i, each in enumerate(steppers) if each.name == PEER}
    rows = [
        {
            "model": each.name,
            "compiled": "yes" if each.compiled else "no",
            "weights": sum(p.numel() for p in each.model.parameters()),
            "frames/s": Median.of(batch * config.frames / taken[:, i]),
            f"times {PEER}": Median.of(peers[each.compiled] / taken[:, i]),
        }
        for i, each in enumerate(steppers)
    ]
    total, shown = _tokens(config)
    return Report(
        title=f"Steps of training on {device}, forward, backward and optimiser",
        rows=rows,
        seeds=[seed],
        notes=[
            f"{batch} samples of {config.frames} frames and {len(config.views)} views; {shown} of {total} cells shown",
            f"{bits(device, precision)}, attention of both by scaled_dot_product_attention",
            f"compiled: {PEER} as a whole, this one in its parts",
            f"{repeats} steps of each, in turns, after {WARM_STEPS} that do not count; compared are steps next to each "
            "other",
            *_parity(config, device, seed),
            "figure to reach on a GPU: 1.5 times ViTMAE",
        ],
    )


def _tokens(config: MaeConfig) -> tuple[int, int]:
    """Cells of a sample, and how many of them are shown."""
    shown = config.frames * (len(config.views) - config.masked_views) * config.shown
    return config.frames * len(config.views) * config.cells, shown


def _square(config: MaeConfig) -> ViTMAEConfig:
    """ViTMAE of the same sizes, for one picture of as many cells: theirs have to be square."""
    from transformers import ViTMAEConfig

    total, shown = _tokens(config)
    side = math.isqrt(total)
    if side**2 != total:
        raise ConfigError(f"ViTMAE takes squares only, and {total} cells make none; take four views")
    found = ViTMAEConfig(
        hidden_size=config.width,
        num_hidden_layers=config.encoder_layers,
        num_attention_heads=config.heads,
        intermediate_size=4 * config.width,
        decoder_hidden_size=config.decoder_width,
        decoder_num_hidden_layers=config.decoder_layers,
        decoder_num_attention_heads=config.heads,
        decoder_intermediate_size=4 * config.decoder_width,
        image_size=side * config.patch,
        patch_size=config.patch,
        mask_ratio=1 - shown / total,
    )
    found._attn_implementation = "sdpa"
    return found


def _loss(
    model: MultiViewMae, pictures: dict[str, torch.Tensor], rewards: torch.Tensor, generator: torch.Generator
) -> torch.Tensor:
    return model.loss(pictures, rewards, generator)[0]


def _their_loss(model: torch.nn.Module, square: torch.Tensor) -> torch.Tensor:
    return model(pixel_values=square.float() / 255).loss


@dataclass(frozen=True, kw_only=True)
class _Stepper:
    """A model that takes steps of training."""

    name: str
    compiled: bool
    model: torch.nn.Module
    loss: Callable[[], torch.Tensor]
    device: str
    precision: Precision

    @cached_property
    def optimizer(self) -> torch.optim.Optimizer:
        import torch

        return torch.optim.AdamW(self.model.parameters())

    def step_s(self) -> float:
        """How long one took [s]."""
        began = self._now()
        self.optimizer.zero_grad()
        with mixed(self.device, self.precision):
            loss = self.loss()
        loss.backward()
        self.optimizer.step()
        return self._now() - began

    def _now(self) -> float:
        import torch

        if self.device != "cpu":
            torch.cuda.synchronize()  # a GPU is told what to do, and does it later
        return time.perf_counter()


def _parity(config: MaeConfig, device: str, seed: int) -> list[str]:
    """Lines about how far loss and features there are from those of a processor in float32."""
    import torch

    from policies.perception.mae import MultiViewMae

    torch.manual_seed(seed)
    model, shape = MultiViewMae(config).eval(), (8, config.frames, len(config.views), config.size, config.size, 3)
    windows = torch.randint(256, shape, generator=torch.Generator().manual_seed(seed)).to(torch.uint8)
    torch.nn.init.normal_(model.pixels.weight, std=0.1)  # it begins with nothing to say
    ways: list[tuple[str, Precision]] = [("cpu", "float32"), (device, "float32"), (device, "bfloat16")]
    found = []
    for where, each in ways:
        pictures, drawn = by_view(config, windows.to(where)), torch.Generator().manual_seed(seed)
        with torch.inference_mode(), mixed(where, each):
            loss, features = model.to(where).loss(pictures, None, drawn)[0], model.features(pictures)
        found.append((float(loss), features.float().cpu()))
    (loss, features), spread = found[0], float(found[0][1].std())
    return [
        f"{where}, {each}, against the processor in float32: loss {abs(other - loss) / loss:.1e} off, features at "
        f"most {float((seen - features).abs().max()) / spread:.1e} of their deviation"
        for (where, each), (other, seen) in list(zip(ways, found, strict=True))[1:]
    ]
