import copy

import pytest
import torch

from policies.perception.attention import Block, places
from policies.perception.mae import DRAWS, MultiViewMae
from policies.perception.mae_config import PRESETS, MaeConfig, preset
from robo.core.errors import ConfigError, UnknownNameError

TINY = dict(size=16, patch=4, frames=2, width=32, decoder_width=16, heads=2, encoder_layers=2, decoder_layers=1)


@pytest.fixture(autouse=True)
def one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def tiny(**changes) -> MultiViewMae:
    return MultiViewMae(MaeConfig(**(TINY | dict(reward_bins=21) | changes)))


def pictures(config: MaeConfig, batch: int = 2, frames: int | None = None, seed: int = 0) -> dict[str, torch.Tensor]:
    shape = (batch, frames or config.frames, config.size, config.size, 3)
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randint(256, shape, generator=generator).to(torch.uint8) for name in config.views}


def sees(model: MultiViewMae) -> MultiViewMae:
    """Heads that begin at zero say something, so that tests can see through them."""
    for head in (model.pixels, model.rewards):
        torch.nn.init.normal_(head.weight)
    return model


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_trains_encodes_and_imagines(name):
    model = MultiViewMae(preset(name, encoder_layers=1, decoder_layers=1))
    config, seen = model.config, pictures(model.config, batch=1)
    loss, _ = model.loss(seen, torch.rand(1, config.frames), torch.Generator().manual_seed(0))
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.tokens(seen).shape == (1, config.frames * len(config.views) * config.cells, config.numbers)
    assert model.features(seen).shape == (1, model.feature_size)
    guess, reward = model.imagine(seen)
    assert list(guess) == list(config.views) and reward.shape == (1, config.frames)
    assert all(guess[view].shape == seen[view].shape for view in seen)


@pytest.mark.parametrize("views", [("front",), ("wrist", "left"), ("right", "front", "left", "wrist")])
@pytest.mark.parametrize("frames", [1, 2])
def test_any_views_and_fewer_frames_will_do(views, frames):
    model = sees(tiny())
    everything = pictures(model.config, frames=frames)
    given = {name: everything[name] for name in views}
    tokens = model.tokens(given)
    assert tokens.shape == (2, frames * len(views) * 16, 16)
    swapped = model.tokens({name: given[name] for name in reversed(views)})
    assert torch.equal(tokens, swapped)  # the order in which they are given means nothing
    guess, _ = model.imagine(given)
    assert guess["left"].shape == (2, frames, 16, 16, 3)
    loss, _ = model.loss(given, None, torch.Generator().manual_seed(0))
    assert loss.isfinite()
    if frames == 1:
        single = {name: x[:, 0] for name, x in given.items()}
        assert torch.equal(model.features(single), model.features(given))


@pytest.mark.parametrize("name", PRESETS)
def test_what_only_sees_sees_the_same_with_fewer_weights(name):
    whole = MultiViewMae(preset(name, encoder_layers=1, decoder_layers=1))
    seen = pictures(whole.config, batch=1)
    whole.loss(seen, None, torch.Generator().manual_seed(0))  # the usual pictures are part of what sees
    whole.eval()
    sees, weights = copy.deepcopy(whole), whole.state_dict()
    sees.only_see()
    assert torch.equal(sees.features(seen), whole.features(seen))
    less = sees.state_dict()
    assert set(less) < set(weights) and not any(k.split(".")[0] in DRAWS for k in less)
    assert {k.split(".")[0] for k in set(weights) - set(less)} == set(DRAWS)


def test_hidden_pixels_reach_neither_latents_nor_what_is_imagined_of_others():
    model = sees(tiny())
    model.loss(pictures(model.config, seed=9), None, torch.Generator().manual_seed(0))
    seen = pictures(model.config)
    cells, *_ = model._cut(seen)
    shown = model.draw(2, 4, torch.Generator().manual_seed(3))
    other = {name: x.clone() for name, x in seen.items()}
    hidden = torch.ones(2, 4 * 16, dtype=torch.bool).scatter(1, shown, False)
    side = 16 // 4
    for b, cell in hidden.nonzero().tolist():
        row, column = divmod(cell % 16, side)
        other[model.config.views[cell // 16]][b, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] ^= 255
    changed, _, _ = model._cut(other)
    assert (changed != cells).any(dim=(1, 3)).eq(hidden).all()

    def latents(pictures):
        kept, fresh = [], copy.deepcopy(model)
        hook = fresh.encoder.register_forward_hook(lambda *a: kept.append(a[-1]))
        loss, _ = fresh.loss(pictures, None, torch.Generator().manual_seed(3))
        hook.remove()
        return kept[0], loss

    (before, loss), (after, other_loss) = latents(seen), latents(other)
    assert before.shape == (2, 2 * model.config.shown, 32)  # what is hidden is not even encoded
    assert torch.equal(before, after) and not torch.equal(loss, other_loss)


def test_what_is_shown_does_reach_the_latents():
    model = tiny(masked_views=0, mask=0.0).eval()
    seen = pictures(model.config)
    before = model.features(seen)
    seen["right"][:, 0, 3, 9] ^= 255
    assert not torch.equal(before, model.features(seen))


def test_views_are_hidden_uniformly_and_cells_as_tubes():
    model, generator = tiny(), torch.Generator().manual_seed(0)
    shown = model.draw(8000, 4, generator)
    assert shown.shape == (8000, 1) == (8000, model.config.shown)
    by_view = torch.bincount(shown[:, 0] // 16, minlength=4).double()
    by_cell = torch.bincount(shown[:, 0] % 16, minlength=16).double()
    for counts, most in ((by_view, 16.3), (by_cell, 37.7)):  # chi-square, 3 and 15 degrees of freedom, p = 0.001
        expected = counts.sum() / len(counts)
        assert ((counts - expected) ** 2 / expected).sum() < most
    two = tiny(masked_views=2, mask=0.5).draw(500, 4, generator)
    assert two.shape == (500, 2 * 8)
    assert all(len(row.unique()) == 16 and len((row // 16).unique()) == 2 for row in two)

    seen, given = pictures(model.config), []
    hook = model.stem.register_forward_hook(lambda module, inputs, out: given.append(inputs[0]))
    model.eval().loss(seen, None, torch.Generator().manual_seed(1))
    hook.remove()
    cells, *_ = model._cut(seen)
    index = model.draw(2, 4, torch.Generator().manual_seed(1))
    for b in range(2):
        for t in range(2):  # the same cells in both frames
            assert torch.equal(given[0][b, t], model._colour(cells[b, t, index[b, 0]]))


def test_a_block_is_what_torch_calls_a_pre_norm_layer():
    block = Block(32, 4).eval()
    reference = torch.nn.TransformerEncoderLayer(
        32, 4, 128, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    ).eval()
    with torch.no_grad():
        pairs = {
            reference.self_attn.in_proj_weight: block.qkv.weight,
            reference.self_attn.in_proj_bias: block.qkv.bias,
            reference.self_attn.out_proj.weight: block.out.weight,
            reference.self_attn.out_proj.bias: block.out.bias,
            reference.linear1.weight: block.mlp[0].weight,
            reference.linear1.bias: block.mlp[0].bias,
            reference.linear2.weight: block.mlp[2].weight,
            reference.linear2.bias: block.mlp[2].bias,
        }
        for theirs, ours in pairs.items():
            theirs.copy_(ours)
    x = torch.randn(3, 10, 32)
    assert torch.allclose(block(x), reference(x), atol=1e-5)
    mask = torch.zeros(10, 10).masked_fill(torch.arange(10) >= 4, float("-inf"))
    assert torch.allclose(block(x, 4), reference(x, src_mask=mask), atol=1e-5)


def test_places_are_told_apart():
    code = places(8, 32)
    assert code.shape == (64, 32) and torch.cdist(code, code).add(torch.eye(64)).min() > 0.1


def test_it_learns_a_few_pictures_by_heart_and_tells_one_view_from_the_other():
    model = tiny(views=("front", "left"), frames=1, width=64, decoder_width=64, masked_views=1, mask=0.0)
    y, x = torch.meshgrid(torch.arange(16), torch.arange(16), indexing="ij")
    middle = torch.tensor([[3, 3], [3, 12], [12, 3], [12, 12], [8, 8], [3, 8]])
    spots = torch.stack([torch.exp(-((x - i) ** 2 + (y - j) ** 2) / 18.0) for i, j in middle])
    views = {"front": spots, "left": spots.transpose(1, 2)}
    seen = {v: (255 * z)[:, None, ..., None].expand(-1, -1, -1, -1, 3).to(torch.uint8) for v, z in views.items()}
    rewards, generator = torch.linspace(-1, 2, 6)[:, None], torch.Generator().manual_seed(0)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(300):
        loss, metrics = model.loss(seen, rewards, generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert metrics["pixels"] < 0.3 and metrics["views"] < 0.3  # 1 is the mean picture
    guess, reward = model.eval().imagine({"front": seen["front"]})
    truth = seen["left"].float() / 255
    usual = truth.mean(dim=0, keepdim=True)
    assert (guess["left"] - truth).square().mean() < 0.3 * (usual - truth).square().mean()
    assert (reward - rewards).abs().max() < 0.5


def test_the_same_seeds_give_the_same_training():
    def trained() -> dict[str, torch.Tensor]:
        torch.manual_seed(1)
        model, generator = tiny(asked=0.5), torch.Generator().manual_seed(2)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
        for step in range(3):
            loss, _ = model.loss(pictures(model.config, seed=step), torch.ones(2, 2), generator)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        return model.state_dict()

    one, two = trained(), trained()
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_judging_changes_nothing():
    model = tiny().eval()
    before = {name: x.clone() for name, x in model.state_dict().items()}
    model.loss(pictures(model.config), None, torch.Generator().manual_seed(0))
    assert all(torch.equal(x, before[name]) for name, x in model.state_dict().items())


def test_the_usual_picture_is_the_mean_of_all_trained_on():
    model, batches = tiny(), [pictures(tiny().config, seed=s) for s in range(4)]
    for seen in batches:
        model.loss(seen, None, torch.Generator().manual_seed(0))
    guess, _ = model.eval().imagine({"front": batches[0]["front"]})  # the head still says zero
    for view in model.config.views:
        mean = torch.stack([seen[view] for seen in batches]).float().mean(dim=(0, 1, 2)) / 255
        assert torch.allclose(guess[view][0, 0], mean, atol=1e-5)


def test_half_precision_follows():
    model = sees(tiny()).eval()
    seen = pictures(model.config)
    whole = model.features(seen)
    with torch.autocast("cpu", torch.bfloat16):
        half = model.features(seen)
        loss, _ = model.loss(seen, torch.ones(2, 2), torch.Generator().manual_seed(0))
    assert torch.allclose(whole, half.float(), atol=0.1) and loss.dtype == torch.float32


def test_bad_input_is_named():
    model = tiny()
    seen = pictures(model.config)
    with pytest.raises(UnknownNameError, match="did you mean 'front'"):
        model.tokens({"fornt": seen["front"]})
    with pytest.raises(ConfigError, match="uint8"):
        model.tokens({"front": seen["front"].float()})
    with pytest.raises(ConfigError, match="no picture"):
        model.tokens({})
    with pytest.raises(ConfigError, match="as many"):
        model.tokens({"front": seen["front"], "left": seen["left"][:1]})
    with pytest.raises(ConfigError, match="patch"):
        preset("small", patch=6)
    with pytest.raises(UnknownNameError, match="small"):
        preset("smal")
