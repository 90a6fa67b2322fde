"""Half the bits, and compiled: what is learned stays about the same."""

from __future__ import annotations

import copy

import pytest
import torch

from policies.perception.mae import MultiViewMae
from policies.perception.mae_config import preset
from policies.precision import compiles, mixed
from robo.bench.mae_speed import mae_speed_bench
from robo.core.errors import ConfigError
from robo.core.machine import require_device


@pytest.mark.parametrize(("precision", "dtype"), [("auto", torch.float32), ("bfloat16", torch.bfloat16)])
def test_products_have_the_bits_that_are_asked_for_and_weights_stay_whole(precision, dtype) -> None:
    layer = torch.nn.Linear(3, 2)
    with mixed("cpu", precision):
        found = layer(torch.ones(1, 3))
    assert found.dtype == dtype
    found.float().sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.dtype == torch.float32


def test_on_a_processor_nothing_is_compiled_unless_told() -> None:
    assert [compiles("cpu", when) for when in ("auto", "always", "never")] == [False, True, False]
    assert [compiles("cuda:1", when) for when in ("auto", "always", "never")] == [True, True, False]


def test_compiled_parts_compute_the_same_and_are_saved_alike() -> None:
    torch.manual_seed(0)
    plain = MultiViewMae(preset("small", size=32, width=16, decoder_width=16, heads=2)).train()
    compiled = copy.deepcopy(plain)
    traced = 0

    def backend(graph: torch.fx.GraphModule, _: object):
        nonlocal traced
        traced += 1
        return graph.forward  # no compiler is needed

    compiled.compile_parts(backend=backend)
    pictures = {view: torch.randint(256, (3, 32, 32, 3)).to(torch.uint8) for view in plain.config.views}
    losses = []
    for model in (plain, compiled):
        loss, _ = model.loss(pictures, torch.ones(3, 1), torch.Generator().manual_seed(0))
        loss.backward()
        losses.append(loss)
    torch.testing.assert_close(*losses)
    for (name, one), (other_name, two) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        assert name == other_name
        torch.testing.assert_close(one.grad, two.grad, msg=name)
    assert traced >= 4 and plain.state_dict().keys() == compiled.state_dict().keys()
    copy.deepcopy(compiled)


def test_steps_are_timed_beside_those_of_transformers() -> None:
    found = mae_speed_bench(batch=2, repeats=2, precision="bfloat16")
    names = [row["model"] for row in found.rows]
    assert names == ["this one", "this one, asked for 50 % of cells", "ViTMAE"]
    assert found.rows[2]["times ViTMAE"].value == 1.0 and all(row["frames/s"].value > 0 for row in found.rows)
    assert any(line.startswith("bfloat16, attention") for line in found.notes)
    whole, half = (line for line in found.notes if "against the processor" in line)
    assert "loss 0.0e+00 off, features at most 0.0e+00" in whole and "0.0e+00" not in half
    with pytest.raises(ConfigError, match="at least 1"):
        mae_speed_bench(repeats=0)
    with pytest.raises(ConfigError, match="squares only"):
        mae_speed_bench(views=("front", "left", "right", "wrist", "overhead"))


def test_where_there_is_nothing_nothing_is_computed() -> None:
    require_device("cpu")
    for device in ("cdua", "cuda:x", "cuda:", "cpu:0"):
        with pytest.raises(ConfigError, match="must be cpu, cuda or cuda:N"):
            require_device(device)
    with pytest.raises(ConfigError, match="'cuda:99' is not there"):
        require_device("cuda:99")
