"""Policies that imitate: bc, act and diffusion, from demonstrations to motion."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

from policies.imitation.config import DoConfig
from policies.imitation.eyes import shifted
from policies.imitation.policy import DECAY, ImitationPolicy
from policies.perception.mae_config import MaeConfig
from policies.perception.marks_config import MarksConfig
from policies.perception.sight import Sight
from policies.registry import POLICIES
from robo.cli import train
from robo.core.errors import ConfigError, NonFiniteError, RoboError, RunError, UnknownNameError
from robo.data.collect import Order, collect
from robo.dataset.lerobot import Dataset
from robo.evaluate.evaluation import evaluate
from robo.evaluate.worlds import open_world
from robo.train.config import build
from robo.view.live import Session
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task
from tests.policies.learners import assert_resumes_exactly

TASK, SIZE, FRONT = "reach", 32, "observation.images.front"
SMALL = {
    "patch": 8,
    "frames": 1,
    "width": 16,
    "decoder_width": 16,
    "heads": 2,
    "encoder_layers": 1,
    "decoder_layers": 1,
}
KINDS = ("bc", "act", "diffusion")
TINY = {
    "see": {"views": ["front"], "size": SIZE, "channels": [8, 8, 8]},
    "train": {"steps": 6, "batch": 4, "warm_up": 2},
}
MORE = {
    "bc": {"width": 32, "do": {"chunk": 8, "execute": 4}},
    "act": {"net": {"width": 32, "heads": 2, "encoder": 1, "decoder": 1}, "do": {"chunk": 8, "execute": 0}},
    "diffusion": {"do": {"chunk": 8, "execute": 4}, "noise": {"channels": [16, 16], "steps": 10, "samples": 3}},
}


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> str:
    order = Order(task=TASK, episodes=3, views=("front",), size=SIZE)
    return str(collect(tmp_path_factory.mktemp("demos") / "reach", order).folder)


def config(kind: str, demos: str, **more):
    return build({"task": TASK, "policy": kind, "demos": demos, **TINY, **MORE[kind], **more})


def learner(kind: str, demos: str, **more):
    made = config(kind, demos, **more)
    return made.kind.learner(load_task(TASK), made.settings, 0, "cpu")


@pytest.mark.parametrize("kind", KINDS)
def test_training_goes_on_as_if_never_interrupted(kind: str, demos: str) -> None:
    assert_resumes_exactly(partial(learner, kind, demos))


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_about_the_same_with_half_the_bits(kind: str, demos: str) -> None:
    whole, half = (learner(kind, demos, train=TINY["train"] | {"precision": bits}) for bits in ("float32", "bfloat16"))
    losses = np.array([[one.step()["loss"] for one in (whole, half)] for _ in range(6)])
    np.testing.assert_allclose(losses[:, 1], losses[:, 0], rtol=0.05)
    assert (losses[:, 0] != losses[:, 1]).any() and {x.dtype for x in half.network.parameters()} == {torch.float32}
    with pytest.raises(ConfigError, match=r"train\.precision' must be one of auto, float32, bfloat16, not 'half'"):
        config(kind, demos, train={"precision": "half"})


@pytest.mark.parametrize("kind", KINDS)
def test_weights_act_in_physics_the_same_every_time(kind: str, demos: str) -> None:
    task, made = tabletop_task(load_task(TASK)), config(kind, demos)
    trained = learner(kind, demos)
    for _ in range(3):
        trained.step()
    world = open_world(task)
    rollouts = [
        world.roll_out(made.kind.load(task, made.settings, trained.weights(), "cpu"), seed) for seed in (3, 3, 4)
    ]
    world.close()
    assert np.array_equal(rollouts[0].joint_pos, rollouts[1].joint_pos)
    assert not np.array_equal(rollouts[0].joint_pos, rollouts[2].joint_pos)
    assert "rgb_front" not in rollouts[0].observation  # they can be drawn again
    # The reference keeps to what the joints can do, whatever a network says that has hardly learned.
    fastest = np.abs(np.diff(rollouts[0].command_pos, axis=0)).max(0) / task.ctrl_dt_s
    assert (fastest <= task.robot.limits.velocity_rad_s).all() and np.ptp(rollouts[0].command_pos, axis=0).max() > 0.01


@pytest.mark.parametrize("kind", KINDS)
def test_what_lies_beyond_an_episode_does_not_teach(kind: str, demos: str) -> None:
    network, data = (made := learner(kind, demos)).network, made.demos
    batch = data.window(np.array([0, 55, 59]), "cpu")
    assert batch.valid.sum(1).tolist() == [8, 5, 1]

    def loss(actions: torch.Tensor) -> float:
        return network.loss(replace(batch, actions=actions), torch.Generator().manual_seed(0))[0].item()

    changed = batch.actions.clone()
    changed[~batch.valid] += 0.5
    within = batch.actions.clone()
    within[batch.valid] += 0.05
    if kind != "diffusion":  # its network over time sees the whole chunk, noise and all
        assert loss(changed) == pytest.approx(loss(batch.actions), rel=1e-5)
    assert loss(within) != pytest.approx(loss(batch.actions), rel=1e-5)


def test_cloning_of_poses_solves_what_standing_still_does_not(tmp_path: Path) -> None:
    task = tabletop_task(load_task(TASK))
    folder = collect(tmp_path / "demos", Order(task=TASK, episodes=40, views=(), size=SIZE)).folder
    made = build(
        {
            "task": TASK,
            "policy": "bc",
            "demos": str(folder),
            "see": {"views": [], "around": True},
            "do": {"chunk": 16, "execute": 0},
            "width": 256,
            "train": {"steps": 800, "batch": 64},
        }
    )
    trained = made.kind.learner(task, made.settings, 0, "cpu")
    losses = [trained.step()["loss"] for _ in range(800)]
    assert np.mean(losses[-50:]) < 0.2 * np.mean(losses[:20])
    policy = made.kind.load(task, made.settings, trained.weights(), "cpu")
    found = evaluate(lambda: (task, policy), episodes=20)
    assert sum(e.success for e in found.episodes) >= 6
    still = POLICIES.make("zero")
    nothing = evaluate(lambda: (task, still.load(task, still.config(), {}, "cpu")), episodes=20)
    assert sum(e.success for e in nothing.episodes) <= 1


def test_predictions_for_a_moment_are_averaged_older_ones_weighing_more(demos: str) -> None:
    task, made = tabletop_task(load_task(TASK)), config("bc", demos)

    class Counting(ImitationPolicy):
        made = 0

        def _predict(self, obs):
            self.made += 1
            return 100.0 * self.made + np.arange(3.0)[:, None] * np.ones(task.robot.dof + 1)

    network = learner("bc", demos).network
    policy = Counting(task, network, made.settings.see, DoConfig(chunk=3, execute=0), "cpu")
    policy._begin({}, 0)
    found = [policy._action({})[0] for _ in range(4)]
    w = np.exp(-DECAY * np.arange(3))
    assert found[0] == 100
    assert found[1] == pytest.approx(np.average([101, 200], weights=w[:2]))
    assert found[3] == pytest.approx(np.average([202, 301, 400], weights=w))  # the first prediction is used up
    queue = Counting(task, network, made.settings.see, DoConfig(chunk=3, execute=2), "cpu")
    queue._begin({}, 0)
    assert [queue._action({})[0] for _ in range(4)] == [100, 101, 200, 201]


def test_a_pretrained_trunk_sees_and_stays_as_it_is(demos: str, tmp_path: Path) -> None:
    from transformers import BitImageProcessorPil, Dinov2Config, Dinov2Model

    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    Dinov2Model(Dinov2Config(**sizes, image_size=28, patch_size=14)).save_pretrained(tmp_path / "dino")
    BitImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(
        tmp_path / "dino"
    )
    see = {"views": ["front"], "size": SIZE, "trunk": str(tmp_path / "dino")}
    made, trained = config("act", demos, see=see), learner("act", demos, see=see)
    before = trained.weights()
    for _ in range(3):
        trained.step()
    after = trained.weights()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and not any(name.startswith("eyes.trunk.model") for name in changed)
    shutil.rmtree(tmp_path / "dino")  # the weights say what it was
    policy = made.kind.load(load_task(TASK), made.settings, after, "cpu")
    seen = {"front": torch.from_numpy(Dataset(Path(demos)).batch(np.arange(2), names=[FRONT])[FRONT])}
    assert torch.equal(policy.network.eyes.trunk.tokens(seen), trained.network.eyes.trunk.tokens(seen))
    world = open_world(load_task(TASK))
    assert len(world.roll_out(policy, 0).joint_pos) == 61
    world.close()
    for described, told in [(None, "train again"), (b"[1]", "JSON object"), (b"{", "no JSON"), (b"{}", "model_type")]:
        weights = {name: value for name, value in after.items() if name != "eyes.described"}
        if described is not None:
            weights["eyes.described"] = torch.tensor(list(described), dtype=torch.uint8)
        with pytest.raises(RoboError, match=told):
            made.kind.load(load_task(TASK), made.settings, weights, "cpu")
    with pytest.raises(ConfigError, match=r"config\.json"):
        learner("bc", demos, see=see | {"trunk": str(tmp_path)})


@pytest.mark.parametrize("kind", ["bc", "diffusion"])
def test_what_a_trunk_that_stays_says_is_asked_once_and_taken_in_its_own_units(
    kind: str, demos: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)  # a feature of rare values would be clipped
    Sight(MaeConfig(views=("front",), size=SIZE, masked_views=0, **SMALL), MarksConfig(), 3).save(tmp_path / "sight")
    see = {"views": ["front"], "size": SIZE, "trunk": str(tmp_path / "sight"), "shift_px": 0}
    made, trained = config(kind, demos, see=see), learner(kind, demos, see=see)
    eyes, data = trained.network.eyes, trained.demos
    assert data.pictures == {} and data.seen.shape == (len(data), eyes.trunk.feature_size)
    torch.testing.assert_close(data.seen.mean(0), torch.zeros(eyes.trunk.feature_size), atol=0.05, rtol=0)
    least = eyes.standard.std.min()  # those that hardly change share it
    changing = data.seen.std(0)[eyes.standard.std > least]
    assert len(changing) > eyes.trunk.feature_size // 2 and (changing > 0.8).all() and (changing < 1.01).all()
    frames = np.array([0, 30, 170])
    window = data.window(frames, "cpu")
    assert window.pictures == {} and torch.equal(window.named()["seen"], data.seen[frames])
    # As it is at run time, when there is a picture.
    picture = {"front": torch.from_numpy(Dataset(Path(demos)).batch(frames, names=[FRONT])[FRONT])}
    torch.testing.assert_close(eyes(window.numbers, picture)[:, len(eyes.mean) :], window.seen, atol=1e-4, rtol=1e-4)
    assert_resumes_exactly(partial(learner, kind, demos, see=see))
    shifting = learner(kind, demos, see=see | {"shift_px": 2})  # then it looks again every time
    assert set(shifting.demos.pictures) == {"front"} and torch.equal(
        shifting.network.eyes.standard.std, eyes.standard.std
    )
    said = json.loads((tmp_path / "sight" / "config.json").read_text())
    for less, told in [("mae", "'mae' is missing"), ("known", "'known' is missing")]:
        (tmp_path / "sight" / "config.json").write_text(json.dumps({k: v for k, v in said.items() if k != less}))
        with pytest.raises(ConfigError, match=told):
            learner(kind, demos, see=see)
    other = replace(made.settings, see=replace(made.settings.see, views=("wrist",)))
    with pytest.raises(ConfigError, match="trunk of these weights sees front, not wrist"):
        made.kind.load(load_task(TASK), other, trained.weights(), "cpu")
    shutil.rmtree(tmp_path / "sight")  # the weights say what it was
    policy = made.kind.load(load_task(TASK), made.settings, trained.weights(), "cpu")
    world = open_world(load_task(TASK))
    assert len(world.roll_out(policy, 0).joint_pos) == 61
    world.close()


def test_pictures_are_shifted_as_a_whole() -> None:
    picture = torch.arange(64).view(1, 8, 8, 1)
    many = shifted(picture.expand(200, 8, 8, 1), 2, torch.Generator().manual_seed(0))[..., 0]
    seen = {divmod(int(one[4, 4]), 8) for one in many}
    assert seen == {(r, c) for r in range(2, 7) for c in range(2, 7)}
    row, column = divmod(int(many[7, 4, 4]), 8)
    inner = picture[0, row - 2 : row + 2, column - 2 : column + 2, 0]
    assert torch.equal(many[7, 2:6, 2:6], inner)
    assert torch.equal(shifted(picture, 0, torch.Generator()), picture)


def test_demonstrations_of_something_else_are_refused(demos: str, tmp_path: Path) -> None:
    def refused(*says: str, task: str = TASK, **more) -> None:
        made = config("bc", **({"demos": demos} | more))
        with pytest.raises(ConfigError) as error:
            made.kind.learner(load_task(task), made.settings, 0, "cpu")
        assert all(word in str(error.value) for word in says) and "\n" not in str(error.value)

    refused("--demos", "robo-collect reach", demos="")
    refused("no such folder", "robo-collect reach", demos=str(tmp_path / "none"))
    refused("no dataset of task push", task="push")
    refused("reach@so101", task="reach@so101")
    refused("no camera wrist", "front", see={"views": ["wrist"], "size": SIZE})
    refused("32 x 32", "--see.size 32", see={"views": ["front"], "size": 64})
    refused("holds 3 episodes", train={"episodes": 4})
    with pytest.raises(ConfigError, match=r"see\.views"):
        config("bc", demos, see={"views": []})
    with pytest.raises(ConfigError, match="multiple of 2"):
        config("diffusion", demos, do={"chunk": 7, "execute": 1})


def test_checkpoints_of_other_sizes_and_nan_are_refused(demos: str) -> None:
    trained, other = learner("bc", demos), config("bc", demos, width=16)
    with pytest.raises(RunError, match="do not fit"):
        other.kind.load(load_task(TASK), other.settings, trained.weights(), "cpu")
    broken = trained.weights()
    next(iter(broken.values())).view(-1)[0] = float("nan")
    made = config("bc", demos)
    with pytest.raises(RunError, match="NaN"):
        made.kind.load(load_task(TASK), made.settings, broken, "cpu")
    with torch.no_grad():
        next(trained.network.layers.parameters()).fill_(float("inf"))
    before = trained.rng.bit_generator.state, trained.generator.get_state()
    with pytest.raises(NonFiniteError, match="learning_rate"):
        trained.step()
    assert trained.rng.bit_generator.state == before[0] and torch.equal(trained.generator.get_state(), before[1])
    assert trained.batch()["actions"].shape[0] == made.settings.train.batch  # what it failed on


def test_a_policy_that_sees_is_shown_live_and_recorded(demos: str, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    options = ["--demos", demos, "--see.views", "[front]", "--see.size", str(SIZE), "--see.channels", "[8, 8, 8]"]
    assert train.main([TASK, "--policy", "diffusion", *options, "--train.steps", "2", "--train.batch", "4"]) == 0
    run = f"runs/{TASK}/last"
    session = Session(load_task(TASK), run, seed=1)
    session.step()
    session.choose("zero")
    session.step()
    session.choose(run)
    session.step()
    session.close()
    order = Order(task=TASK, policy=run, episodes=1, views=("front", "wrist"), size=SIZE)
    assert len(collect(tmp_path / "own", order).episodes) == 1
    with pytest.raises(ConfigError, match="--views front --size 32"):
        collect(tmp_path / "other", replace(order, views=("wrist",)))
    policy = actor_with_view(run, "nowhere")
    world = open_world(load_task(TASK))
    with pytest.raises(UnknownNameError, match="camera"):
        world.roll_out(policy, 0)
    world.close()


def actor_with_view(run: str, view: str):
    from robo.data.collect import actor

    policy = actor(run, tabletop_task(load_task(TASK)))
    policy.info = replace(policy.info, views=(view,))
    return policy
