"""The resolved config: what goes in, what comes out, and every way to get it wrong."""

from __future__ import annotations

import pytest
import yaml

from robo.core.errors import RoboError
from robo.train.config import build, read_config, resolve
from tests.train import toy

toy.register()

TASK = {"task": "reach_avoid", "policy": "toy"}


def test_defaults_file_and_options_in_rising_order(tmp_path):
    file = tmp_path / "c.yaml"
    file.write_text("task: reach_avoid\npolicy: toy\nseed: 5\ntrain: {steps: 7, rate: 1e-3}\n")
    config = resolve(file, {"train.steps": "9", "name": "007"})
    assert (config.seed, config.settings.train.steps, config.settings.train.rate) == (5, 9, 1e-3)
    assert config.settings.train.widths == (8, 8)
    assert config.name == "007"
    assert config.device == "cpu"


def test_yaml_round_trip():
    config = build(TASK | {"seed": 4, "train": {"widths": [3, 2], "centred": False}})
    assert build(yaml.safe_load(config.to_yaml())) == config


def test_what_was_given_is_never_changed():
    values = TASK | {"train": {"steps": 3}}
    build(values)
    assert values == TASK | {"train": {"steps": 3}}
    assert build(TASK) == build(TASK)
    assert build(TASK).settings.train.steps == toy.TrainConfig().steps


def test_a_task_file_is_relative_to_the_config_file(tmp_path):
    (tmp_path / "c.yaml").write_text("task: mine.py\n")
    assert read_config(tmp_path / "c.yaml")["task"] == str(tmp_path / "mine.py")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sed": "3"}, "unknown config key 'sed': did you mean 'seed'?"),
        ({"train.stepz": "3"}, "did you mean 'train.steps'?"),
        ({"plan.margin": "3"}, "unknown config key 'plan'"),
        ({"train": "3"}, "'train' is a group (train.steps,"),
        ({"seed.x": "3"}, "config key 'seed' must be a whole number"),
        ({"seed": "many"}, "'seed' must be a whole number, not 'many'"),
        ({"seed": "true"}, "'seed' must be a whole number, not True"),
        ({"policy": "bc", "see.views": "front"}, "'see.views' must be a list [a, b, ...], each a text, not 'front'"),
        ({"policy": "bc", "do.action": "turn"}, "'do.action' must be one of joint_pos, ee_delta, not 'turn'"),
        ({"seed": "-1"}, "'seed' must be 0 or more"),
        ({"seed": "1.5"}, "'seed' must be a whole number, not 1.5"),
        ({"train.rate": ".nan"}, "'train.rate' must be a finite number"),
        ({"train.rate": "inf"}, "'train.rate' must be a finite number"),
        ({"train.rate": "0"}, "'train.rate' must be positive"),
        ({"train.centred": "maybe"}, "'train.centred' must be true or false, not 'maybe'"),
        ({"train.widths": "[1, x]"}, "'train.widths' must be"),
        ({"train.widths": "[1, "}, "no value that YAML knows"),
        ({"device": "gpu"}, "'device' must be cpu, cuda or cuda:N, not 'gpu'"),
        ({"device": "cpu:1"}, "'device' must be"),
        ({"threads": "0"}, "'threads' must be at least 1"),
        ({"checkpoint_every": "0"}, "'checkpoint_every' must be at least 1"),
        ({"name": "../x"}, "'name' must be one folder name"),
        ({"settings": "3"}, "unknown config key 'settings'"),
        ({"out": "x"}, "task, threads, train.*; robo-train TARGET --dry-run prints all keys"),
        ({"policy": "tox"}, "unknown policy 'tox': did you mean 'toy'?"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(RoboError) as caught:
        resolve("reach_avoid", {"policy": "toy"} | options)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("task: [", "is no YAML at line 1"),
        ("- 1", "must hold a mapping"),
        ("3: 4", "must hold a mapping"),
        ("seed: 3", "must name its task"),
        ("task: 3", "must name its task"),
        ("task: reach_avoid\npolicy: toy\ntrain:\n  5: 3", "unknown config key 'train.5'"),
        ("task: reach_avoid\npolicy: [toy]", "'policy' must be a name"),
        ("task: reach_avoid\npolicy: toy\nseed:", "'seed' must be a whole number, not None"),
        ("task: !!python/object/apply:os.getcwd []", "is no YAML"),
    ],
)
def test_bad_files(tmp_path, text, message):
    (tmp_path / "c.yaml").write_text(text)
    with pytest.raises(RoboError) as caught:
        resolve(tmp_path / "c.yaml")
    assert message in str(caught.value)


def test_missing_or_binary_file(tmp_path):
    with pytest.raises(RoboError, match="no such config file"):
        resolve(tmp_path / "c.yaml")
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RoboError, match="no text file"):
        resolve(tmp_path / "c.yaml")
