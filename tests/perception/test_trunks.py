import json
import shutil
import subprocess
import sys

import pytest
import torch
import transformers

from policies.perception.mae import MultiViewMae
from policies.perception.mae_config import preset
from policies.perception.trunks import Conv, Pretrained, where
from robo.core.errors import ConfigError, RoboError, UnknownNameError

VIEWS = ("front", "wrist")
SIZES = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
MODELS = {
    "dinov2": (transformers.Dinov2Model, transformers.Dinov2Config(**SIZES), 4),
    "dinov3_vit": (
        transformers.DINOv3ViTModel,
        transformers.DINOv3ViTConfig(**SIZES, intermediate_size=48, num_register_tokens=3),
        4,
    ),
    "siglip_vision_model": (
        transformers.SiglipVisionModel,
        transformers.SiglipVisionConfig(**SIZES, intermediate_size=48),
        4,
    ),
    "vjepa2": (
        transformers.VJEPA2Model,
        transformers.VJEPA2Config(
            hidden_size=24, num_hidden_layers=1, num_attention_heads=2, crop_size=28, patch_size=14, frames_per_clip=2,
            pred_hidden_size=24, pred_num_hidden_layers=1, pred_num_attention_heads=2, pred_num_mask_tokens=1,
        ),
        4,
    ),
}  # fmt: skip
SAID = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], "size": {"height": 28, "width": 28}}


@pytest.fixture(autouse=True)
def one_seed():
    torch.set_num_threads(1)
    torch.manual_seed(0)


def pictures(batch: int = 2, size: int = 28) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {v: torch.randint(256, (batch, size, size, 3), generator=generator).to(torch.uint8) for v in VIEWS}


def saved(folder, kind: str):
    cls, config, cells = MODELS[kind]
    model = cls(config).eval()
    model.save_pretrained(folder)
    name = "video_preprocessor_config.json" if kind == "vjepa2" else "preprocessor_config.json"
    (folder / name).write_text(json.dumps(SAID))
    return model, cells


@pytest.mark.parametrize("kind", MODELS)
def test_a_pretrained_folder_sees_as_its_model_does(kind, tmp_path):
    model, cells = saved(tmp_path, kind)
    trunk, seen = Pretrained.from_pretrained(tmp_path, VIEWS), pictures()
    tokens, features = trunk.tokens(seen), trunk.features(seen)
    assert tokens.shape == (2, 2 * cells, 24) and features.shape == (2, trunk.feature_size) == (2, 48)
    # The wrist's, by hand: pictures that are of the right size already, normalised as the folder says.
    x = (seen["wrist"].permute(0, 3, 1, 2) / 255 - torch.tensor(SAID["image_mean"])[:, None, None]) / torch.tensor(
        SAID["image_std"]
    )[:, None, None]
    with torch.no_grad():
        out = model.get_vision_features(x[:, None].repeat(1, 2, 1, 1, 1)) if kind == "vjepa2" else model(x)[0]
    assert torch.allclose(tokens[:, cells:], out[:, -cells:], atol=1e-4)
    assert not tokens.requires_grad and trunk.tokens(pictures(size=50)).shape == tokens.shape


@pytest.mark.parametrize("kind", MODELS)
def test_a_model_is_made_again_of_its_description_and_weights_alone(kind, tmp_path):
    saved(tmp_path, kind)
    trunk, seen = Pretrained.from_pretrained(tmp_path, VIEWS), pictures()
    shutil.rmtree(tmp_path)
    again = Pretrained.blank(json.loads(json.dumps(trunk.described())), VIEWS)
    assert not torch.equal(again.features(seen), trunk.features(seen))
    again.load_state_dict(trunk.state_dict())
    assert torch.equal(again.features(seen), trunk.features(seen)) and again.feature_size == trunk.feature_size


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({}, "'model_type' is missing"),
        ({"model_type": "dinov4"}, "dinov2"),
        ({"sees": {"size": "big"}}, "Preprocessing"),
        ({"model": {"hidden_size": "many"}}, "no dinov2"),
    ],
)
def test_descriptions_that_will_not_do_are_named(said, told, tmp_path):
    saved(tmp_path, "dinov2")
    whole = Pretrained.from_pretrained(tmp_path, VIEWS).described()
    with pytest.raises(RoboError, match=told):
        Pretrained.blank(whole | said if said else {}, VIEWS)


def test_weights_are_learned_only_when_asked(tmp_path):
    saved(tmp_path, "dinov2")
    trunk = Pretrained.from_pretrained(tmp_path, VIEWS, learn=True)
    trunk.features(pictures()).sum().backward()
    assert any(p.grad is not None and p.grad.abs().max() > 0 for p in trunk.parameters())
    assert not any(p.requires_grad for p in Pretrained.from_pretrained(tmp_path, VIEWS).parameters())


def test_folders_that_will_not_do_are_named(tmp_path):
    with pytest.raises(ConfigError, match=r"no config\.json"):
        Pretrained.from_pretrained("nobody/dino", VIEWS)
    saved(tmp_path, "dinov2")
    (tmp_path / "preprocessor_config.json").rename(tmp_path / "elsewhere.json")
    with pytest.raises(ConfigError, match="preprocessor_config"):
        Pretrained.from_pretrained(tmp_path, VIEWS)
    (tmp_path / "elsewhere.json").rename(tmp_path / "preprocessor_config.json")
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 5}))
    with pytest.raises(ConfigError, match="lack"):
        Pretrained.from_pretrained(tmp_path, VIEWS)
    (tmp_path / "config.json").write_text(json.dumps(config | {"hidden_size": "many"}))
    with pytest.raises(ConfigError, match="hidden_size"):
        Pretrained.from_pretrained(tmp_path, VIEWS)
    (tmp_path / "config.json").write_text(json.dumps(config | {"model_type": "dinov4"}))
    with pytest.raises(UnknownNameError, match="did you mean"):
        Pretrained.from_pretrained(tmp_path, VIEWS)
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(RoboError, match="model_type"):
        Pretrained.from_pretrained(tmp_path, VIEWS)


def test_convolutions_find_where_a_spot_is():
    trunk = Conv(("front",), channels=(8, 16), keypoints=4)
    generator = torch.Generator().manual_seed(0)
    place = torch.randint(4, 28, (256, 2), generator=generator)
    seen = torch.zeros(256, 32, 32, 3, dtype=torch.uint8)
    for picture, (row, column) in zip(seen, place.tolist(), strict=True):
        picture[row - 2 : row + 3, column - 2 : column + 3] = 255
    read = torch.nn.Linear(trunk.feature_size, 2)
    optimizer = torch.optim.Adam([*trunk.parameters(), *read.parameters()], 1e-2)
    for step in range(120):
        rows = slice(64 * (step % 3), 64 * (step % 3) + 64)
        loss = (read(trunk.features({"front": seen[rows]})) - place[rows] / 16 + 1).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        error = (read(trunk.features({"front": seen[192:]})) - place[192:] / 16 + 1).abs().mean()
    assert error < 0.1  # 1.6 pixels, on places not trained on


def test_a_peak_is_where_it_is():
    maps = torch.zeros(1, 1, 5, 9)
    maps[0, 0, 4, 2] = 100.0
    assert where(maps).tolist() == [[1.0, -0.5]]


@pytest.mark.parametrize(
    "make", [lambda: Conv(VIEWS), lambda: MultiViewMae(preset("small", views=VIEWS, masked_views=1))]
)
def test_all_trunks_have_one_interface(make):
    trunk, seen = make(), pictures(size=64)
    tokens, features = trunk.tokens(seen), trunk.features(seen)
    assert tokens.ndim == 3 and features.shape == (2, trunk.feature_size)
    with pytest.raises(UnknownNameError, match="wrist"):
        trunk.features({"wirst": seen["wrist"]})


def test_convolutions_need_all_their_views():
    seen = pictures(size=64)
    with pytest.raises(ConfigError, match="no picture of view 'wrist'"):
        Conv(VIEWS).features({"front": seen["front"]})


def test_few_channels_train_without_harm_to_memory():
    """In a process of its own: what oneDNN did here ended in a crash, sooner or later."""
    code = (
        "import torch; from policies.perception.trunks import Conv; torch.set_num_threads(1); "
        "net = Conv(('front',), (16, 32, 64)); "
        "seen = {'front': torch.randint(256, (32, 64, 64, 3), dtype=torch.uint8)}; "
        "[net.features(seen).square().mean().backward() for _ in range(12)]"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
