"""Horizon: autoencoder, world model and actor learn together, from demonstrations and from what is played meanwhile."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import av
import numpy as np
import pytest
import torch
import yaml
from safetensors.torch import load_file
from scipy.spatial.transform import Rotation
from scipy.stats import chisquare

from policies.expert import MoveConfig
from policies.expert.policy import Expert
from policies.horizon import tool
from policies.horizon.config import KeysConfig
from policies.horizon.episodes import BOUNDLESS, cloned, episode, horizons, keyframes_of, rewards, until_done
from policies.horizon.learner import HorizonLearner
from policies.horizon.policy import HorizonPolicy
from policies.horizon.score import score_of
from policies.horizon.seeing import Frames, Pool, drawn_frames
from policies.horizon.wander import Wanderer, start
from policies.observed import around
from policies.registry import POLICIES
from robo.cli import train
from robo.core.errors import ConfigError, NonFiniteError, RoboError, RunError, UnknownNameError
from robo.data.collect import Order, collect
from robo.dataset.lerobot import Dataset
from robo.train.config import Config, build, resolve
from robo.train.explore import play
from robo.train.loop import resume
from robo.train.loop import train as train_config
from sim.tabletop import TabletopEnv
from tasks.instruct.program import Program
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task
from tasks.tabletop.turns import turned
from tests.horizon.tiny import SIZE, TASK, TINY, VIEWS, Here


@pytest.fixture(scope="module")
def demos(tmp_path_factory) -> str:
    order = Order(task=TASK, episodes=3, views=VIEWS, size=SIZE)
    return str(collect(tmp_path_factory.mktemp("demos") / "reach", order).folder)


def merged(base: dict, more: dict) -> dict:
    return base | {k: merged(base.get(k, {}), v) if isinstance(v, dict) else v for k, v in more.items()}


def config(demos: str, **more) -> Config:
    return build({"task": TASK, "policy": "horizon", "demos": demos, **merged(TINY, more)})


def learner(made: Config) -> HorizonLearner:
    found = made.kind.learner(made.open_task(), made.settings, made.seed, "cpu")
    assert isinstance(found, HorizonLearner)
    return found


def run(found: HorizonLearner, made: Config, steps: int) -> list[dict[str, float]]:
    found.enter(lambda _: Here(made))
    try:
        return [found.step() for _ in range(steps)]
    finally:
        found.leave()


def assert_going_on_is_exact(made: Config, whole: HorizonLearner, stops: tuple[int, ...]) -> None:
    """Whether one that is left at every stop, and others that go on from there, end as the one that never was."""
    (tensors, meta), first = whole.state(), learner(made)
    for stop in (*stops, whole.total_steps):
        run(first, made, stop - first.steps_done)
        second = learner(made)
        second.load_state(*copy.deepcopy(first.state()))
        run(second, made, whole.total_steps - stop)
        again, meta_again = second.state()
        assert meta == meta_again and set(tensors) == set(again)
        assert [name for name, value in tensors.items() if not torch.equal(value, again[name])] == []


def test_the_phases_follow_each_other_and_a_training_goes_on_as_if_never_interrupted(
    demos: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("policies.horizon.learner.BABBLE", 1)  # three rounds of random motion
    made = config(demos)
    whole = learner(made)
    told = run(whole, made, whole.total_steps)
    assert all("pixels" in m and "marks" in m for m in told[:4]) and all("cloning" in m for m in told[4:])
    assert ["marks" in m for m in told[4:]] == 5 * [False, True]  # marks learn on
    assert "success" not in told[10] and "success" in told[11]  # a round is over when the next one begins
    assert told[-1]["episodes"] == 2
    # Among pictures, between the phases, in the middle of rounds.
    assert_going_on_is_exact(made, whole, stops=(1, 2, 4, 9, 12))


def test_an_actor_that_aims_goes_on_as_if_never_interrupted(demos: str) -> None:
    made = config(demos, aims={"on": True, "batch": 8})
    whole = learner(made)
    told = run(whole, made, whole.total_steps)
    assert all("cloning" in m for m in told[4:])
    assert_going_on_is_exact(made, whole, stops=(3, 6, 12))


def test_the_autoencoder_learns_with_half_the_bits_and_marks_with_all(demos: str) -> None:
    told = []
    for precision in ("float32", "bfloat16"):
        made = config(demos, sense={"precision": precision})
        told.append(run(learner(made), made, 4)[-1])
    whole, half = told
    assert half["reward"] != whole["reward"] and half["reward"] == pytest.approx(whole["reward"], rel=0.02)
    assert (half["marks"], half["pointing"]) == (whole["marks"], whole["pointing"])


def test_marks_learn_from_what_is_lived_and_the_autoencoder_does_not(demos: str) -> None:
    made = config(demos, sense={"refresh": 1})
    found = learner(made)
    run(found, made, 4)
    before = {name: value.clone() for name, value in found.sight.state_dict().items()}
    run(found, made, 9)
    pools = found.seeing.pools
    assert len(pools["random"]) == 5 and pools["random"].came == 6 and len(pools["lived"]) == pools["lived"].came == 4
    moved = {name for name, value in found.sight.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.startswith("marks.") for name in moved)
    films = found.films()  # of which the one that was played shows what all cameras saw, one beside the other
    assert films["played"].shape[1:] == (2 * SIZE, 4 * SIZE, 3) and films["imagination"].shape[1] == 6 * SIZE
    assert len(films["played"]) > 1 and films["played"].std() > 10
    still = learner(config(demos, sense={"refresh": 0}))
    run(still, made, 12)
    assert all(torch.equal(value, before[name]) for name, value in still.sight.state_dict().items())
    assert "played" not in still.films()


def test_glances_are_seen_and_never_lived(demos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("policies.horizon.learner.BABBLE", 2)
    made = config(demos, explore={"glances": 5}, sense={"keep": 50})
    whole, first, second = (learner(made) for _ in range(3))
    run(whole, made, 9)
    assert whole.seeing.pools["random"].came == 3 * 2 + 5
    assert whole.replay.steps() == 3 * 6 and whole.seeing.others == []
    run(first, made, 3)
    assert sorted(len(each) for each in first.seeing.others) == [1] * 5 + [6] * 3
    second.load_state(*first.state())
    run(second, made, 6)
    one, two = whole.state()[0], second.state()[0]
    assert [name for name, value in one.items() if not torch.equal(value, two[name])] == []


@pytest.mark.parametrize("name", ["reach", "pick_and_place", "open_drawer"])
def test_random_motion_begins_anywhere_and_often_above_things(name: str) -> None:
    task = tabletop_task(load_task(name))
    env, found, above, there, ajar = TabletopEnv(task), [], 0, 0, []
    for seed in range(40):
        instance = start(task, seed)
        np.testing.assert_equal(instance, start(task, seed))
        expected = task.sample(np.random.default_rng(seed))
        other = {"joint_pos", *task.joints}
        assert all(np.array_equal(value, expected[key]) for key, value in instance.items() if key not in other)
        limits = task.robot.limits
        assert (instance["joint_pos"] > limits.lower_rad).all() and (instance["joint_pos"] < limits.upper_rad).all()
        obs, _ = env.reset(seed=seed, options={"instance": instance})
        there += np.allclose(obs["joint_pos"], instance["joint_pos"], atol=0.02)
        found.append(obs["ee_pos"])
        for joint in set(task.joints) & set(instance):
            ajar.append((float(instance[joint][0]), float(obs[joint][0])))
        bodies = [obs[f"{body}_pos"] for body in (*task.things, *task.fixtures)]
        above += any(
            np.linalg.norm((obs["ee_pos"] - body)[:2]) < 0.15 and obs["ee_pos"][2] > body[2] for body in bodies
        )
    env.close()
    assert (np.ptp(found, axis=0) > (0.2, 0.3, 0.15)).all() and above > 20
    assert there > 24, "something is in the way too often"
    if task.joints:
        given, seen = np.array(ajar).T
        assert 10 < len(ajar) < 30 and np.ptp(given) > 0.08
        assert (np.abs(given - seen) < 0.01).mean() > 0.8  # the arm may be in the way


def test_a_step_that_fails_leaves_marks_as_they_were(demos: str, monkeypatch: pytest.MonkeyPatch) -> None:
    made = config(demos, sense={"refresh": 1})
    found = learner(made)
    run(found, made, 6)
    before = {name: value.clone() for name, value in found.state()[0].items()}

    def fails(*_: object) -> dict[str, float]:
        raise NonFiniteError("loss is nan")

    with monkeypatch.context() as patch:
        patch.setattr(found.agent, "update", fails)
        with pytest.raises(NonFiniteError):
            run(found, made, 1)
    after = found.state()[0]
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def test_what_led_to_a_number_that_is_none_is_kept(demos: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    update = HorizonLearner.step

    def poisoned(self: HorizonLearner) -> dict[str, float]:
        if self.steps_done == 6:
            next(self.agent.model.parameters()).data.fill_(np.nan)
        return update(self)

    monkeypatch.setattr(HorizonLearner, "step", poisoned)
    with pytest.raises(NonFiniteError, match="nonfinite-00000007"):
        train_config(config(demos), tmp_path)
    (folder,) = tmp_path.glob("reach/001/nonfinite-*")
    batch = load_file(folder / "batch.safetensors")
    assert batch["actions"].shape == (5, 5, 7) and batch["demo"].tolist() == 3 * [False] + 2 * [True]
    assert batch["front"].shape[1:] == (SIZE, SIZE, 3)  # what marks learn from


@pytest.mark.parametrize("name", ["pick_and_place", "open_drawer"])
def test_random_motion_stays_within_limits_is_the_same_every_time_and_meets_things(name: str) -> None:
    task = tabletop_task(load_task(name))
    env = TabletopEnv(task, control="ee_delta")
    held, places, motions = 0.0, [], []
    for seed in (*range(12), 0):
        obs, info = env.reset(seed=seed)
        wanderer, done = Wanderer(task, seed), []
        for _ in range(60):
            done.append(wanderer.motion(obs))
            assert done[-1].shape == (7,) and np.abs(done[-1]).max() <= 1.0
            obs, *_, info = env.step(done[-1])
            held = max(held, float(info["signals"]["held_n"]))
            places.append(obs["ee_pos"])
        motions.append(np.array(done))
    np.testing.assert_array_equal(motions[0], motions[-1])
    assert not np.array_equal(motions[0], motions[1])
    assert (np.ptp(places, axis=0) > (0.2, 0.2, 0.15)).all(), "it stays where it is"
    assert held > 1.0 or name != "pick_and_place", "nothing was ever taken"


def test_a_pool_keeps_all_that_came_equally_likely() -> None:
    counts = np.zeros(12)
    for seed in range(300):
        pool = Pool(4, [seed])
        for i in range(6):
            values = {"rgb_front": np.full((3, 2, 2, 3), i, np.uint8)}
            truth, nowhere = np.array([[2 * i], [2 * i + 1], [2 * i + 1]]), np.zeros((3, 1, 0, 2))
            pool.add(Frames.of(["front"], values, np.zeros(3), truth, nowhere), 2)
        kept = pool.state()[0]
        assert len(pool) == 4 and pool.came == 12
        assert torch.equal(kept["front"][:, 0, 0, 0].float(), kept["truth"][:, 0].div(2).floor())
        counts += np.bincount(kept["truth"][:, 0].int().numpy() // 2, minlength=12)
    assert counts[6:].sum() == 0 and chisquare(counts[:6]).pvalue > 1e-3


def test_a_kill_loses_nothing(demos: str, tmp_path: Path) -> None:
    made = config(demos, train={"steps": 3})
    made = replace(made, checkpoint_every=5)
    whole = train_config(made, tmp_path / "a")
    part = train_config(made, tmp_path / "b")
    latest = part.path / "checkpoints" / "latest.json"
    latest.write_text(latest.read_text().replace("7", "5"))
    again = resume(part.path)
    weights, found = whole.latest().weights(), again.latest().weights()  # type: ignore[union-attr]
    assert all(torch.equal(weights[name], found[name]) for name in weights)


@pytest.mark.parametrize("aims", [False, True])
@pytest.mark.parametrize("act", ["actor", "drawn", "mpc"])
def test_it_acts_in_physics_the_same_every_time_within_limits(act: str, aims: bool, demos: str) -> None:
    made = config(demos, act=act, aims={"on": aims}, world={"plan": {"robustness": 0.1}})
    trained = learner(made)
    run(trained, made, 5)
    task = tabletop_task(made.open_task())
    env = TabletopEnv(task, cameras=VIEWS, size=SIZE)
    found = []
    for seed in (1, 1, 2):
        policy = made.kind.load(task, made.settings, trained.weights(), "cpu")
        assert isinstance(policy, HorizonPolicy)
        obs, info = env.reset(seed=seed)
        policy.reset(obs, seed)
        way = [info["reference"]]
        for _ in range(12):
            obs, _, _, _, info = env.step(env.action(policy.act(obs)))
            way.append(info["reference"])
        found.append(np.stack(way))
    env.close()
    assert np.array_equal(found[0], found[1]) and not np.array_equal(found[0], found[2])
    fastest = np.abs(np.diff(found[0][:, : task.robot.dof], axis=0)).max(0) / task.ctrl_dt_s
    assert (fastest <= task.robot.limits.velocity_rad_s).all() and np.ptp(found[0], axis=0).max() > 0.005


def test_before_anything_is_learned_it_moves_at_random_and_keeps_pictures(demos: str) -> None:
    made = config(demos)
    task = tabletop_task(made.open_task())
    found = learner(made)
    weights, whole = found.weights(), found.network.state_dict()  # type: ignore[attr-defined]
    assert set(weights) < set(whole) and not any(k.startswith("sight.mae.decoder") for k in weights)
    policy = made.kind.load(task, made.settings, weights, "cpu")
    assert isinstance(policy, HorizonPolicy)
    assert set(policy.network.state_dict()) == set(weights)
    made.kind.load(task, made.settings, whole, "cpu")  # as runs of before have them
    env = TabletopEnv(task, cameras=VIEWS, size=SIZE)
    obs, _ = env.reset(seed=0)
    policy.reset(obs, 0)
    moved = [policy.act(obs).joint_pos[0] for _ in range(5)]
    env.close()
    assert set(policy.keeps(obs)) == {f"rgb_{view}" for view in VIEWS} and np.ptp(moved, axis=0).max() > 1e-3


def test_moments_come_after_their_actions(demos: str) -> None:
    made, dataset = config(demos), Dataset(Path(demos))
    task, settings = tabletop_task(made.open_task()), made.settings
    values = dict(dataset.episode(0, dataset.features.columns))
    frames = len(values["signals"])
    found = episode(task, settings, values | {"features": np.arange(frames)[:, None]}, demo=True)
    assert len(found["actions"]) == frames and found["is_first"].sum() == 1
    count = len(task.signals)
    for k in (1, 7, frames - 1):  # what was seen at k follows the action before
        assert found["features"][k, 0] == k
        before = np.asarray(values["observation.state"], float)[k - 1]
        turned = Rotation.from_quat(before[-4:], scalar_first=True)
        moved, spun = turned.apply(found["actions"][k, :3]), turned.apply(found["actions"][k, 3:6])
        done = np.clip(values["action.ee_delta"][k - 1], -1, 1)
        np.testing.assert_allclose(np.concatenate([moved, spun, found["actions"][k, 6:]]), done, atol=1e-5)
        np.testing.assert_allclose(found["signals"][k, :count], values["signals"][k - 1])
        things = len(found["signals"][k, count:])
        assert things == tool.count(task)
        place = (
            np.asarray(values["observation.environment_state"], float)[k, :3] - values["observation.state"][k, -7:-4]
        )
        turned = Rotation.from_quat(values["observation.state"][k, -4:], scalar_first=True)
        np.testing.assert_allclose(found["signals"][k, count : count + 3], turned.inv().apply(place), atol=1e-5)
        assert abs(found["rewards"][k] - values["reward"][k - 1]) < 1e-5  # of the task's own stages
    assert found["horizons"][-1] == 0 and (found["horizons"][:-1] > 0).all()


def test_rewards_follow_the_text_of_the_task(demos: str) -> None:
    made, dataset = config(demos), Dataset(Path(demos))
    task = tabletop_task(made.open_task())
    signals = np.asarray(dataset.episode(0)["signals"], np.float32)
    staged = rewards(task, made.settings, signals)
    sparse = rewards(task, config(demos, train={"reward": "success"}).settings, signals)
    assert set(np.unique(sparse)) == {0.0, 1.0} and (staged[sparse == 1] == 1).all()
    assert 0 < staged[0] < 1 and len(np.unique(staged)) > 10


def test_without_keyframes_imagination_has_no_bound_of_its_own(demos: str) -> None:
    dataset = Dataset(Path(demos))
    state, task = np.asarray(dataset.episode(0)["observation.state"], float), tabletop_task(load_task(TASK))
    settings = [config(demos, keys={"on": flag}).settings.keys for flag in (True, False)]
    keys = keyframes_of(task, settings[0], state)
    on, off = (horizons(found, keys, len(state)) for found in settings)
    assert (off[:-1] == BOUNDLESS).all() and off[-1] == 0 and (on < len(state)).all() and (np.diff(on) >= -1).all()


def test_what_is_cloned_is_the_way_to_the_next_keyframe() -> None:
    task = tabletop_task(load_task("pick_and_place"))
    env = TabletopEnv(task)
    values = play(env, Expert(task, MoveConfig(sway=0.2)), 3)
    env.close()
    state = np.asarray(values["observation.state"], float)
    actions = tool.seen_from(state, np.asarray(values["action.ee_delta"], float))
    settings = KeysConfig()
    keys = keyframes_of(task, settings, state)
    found = cloned(task, settings, state, actions, keys)
    np.testing.assert_array_equal(cloned(task, KeysConfig(on=False), state, actions, keys), actions)
    assert np.abs(found).max() <= 1 + 1e-9 and np.abs(found[:, :6]).max() <= settings.speed + 1e-9
    grasp = int(np.argmax(np.diff(state[:, -8]) < -1e-4))  # when the jaws begin to close
    here = next(k for k in keys if abs(k - grasp) <= 3)
    for k in (here - 12, here - 8, here - 4):  # straight to where it will be, however the demonstrator went
        way = tool.turned(state)[k].T @ (state[here, -7:-4] - state[k, -7:-4])
        np.testing.assert_allclose(found[k, :3] @ way, np.linalg.norm(found[k, :3]) * np.linalg.norm(way), rtol=1e-6)
    assert found[here - 8, -1] > 0.9 and found[here, -1] < 0.0  # open on the way, then closed
    moved = np.linalg.norm(found[: here - 5, :3], axis=1)
    assert moved.min() > 0.2, "nobody waits above the cube"


def test_demonstrations_end_soon_after_all_is_done(demos: str) -> None:
    task = tabletop_task(load_task(TASK))
    names = ["signals", "stage", "observation.state", "action.ee_delta"]
    values = Dataset(Path(demos)).episode(0, names)
    done = int(np.argmax(values["stage"] == len(task.stages)))
    short = until_done(task, 0.5, values)
    assert {len(column) for column in short.values()} == {done + 1 + 10} and done + 11 < len(values["stage"])
    np.testing.assert_array_equal(short["signals"], values["signals"][: done + 11])
    undone = {name: column[:done] for name, column in values.items()}
    assert len(until_done(task, 0.5, undone)["signals"]) == done


def poses(rng: np.random.Generator, count: int, bodies: int) -> np.ndarray:
    """Places and orientations wxyz, (count, 7 bodies)."""
    found = rng.normal(size=(count, bodies, 7))
    found[..., 3:] /= np.linalg.norm(found[..., 3:], axis=-1, keepdims=True)
    return found.reshape(count, -1)


def test_what_is_told_of_a_scene_does_not_jump() -> None:
    task = tabletop_task(load_task("phone_on_base"))
    rng = np.random.default_rng(0)
    state, things = np.concatenate([np.zeros((6, 8)), poses(rng, 6, 1)], axis=1), poses(rng, 6, 2)
    found, flipped = tool.scene(task, state, things), things.copy()
    flipped[:, 3:7] *= -1  # the same orientation
    np.testing.assert_allclose(tool.scene(task, state, flipped), found, atol=1e-12)
    assert found.shape == (6, tool.known(task)) and tool.known(task) == 2 * (3 + 6)
    np.testing.assert_array_equal(found[:, :3], things[:, :3])
    turn = Rotation.from_quat(things[:, 3:7], scalar_first=True).as_matrix()
    np.testing.assert_allclose(found[:, 3:9], np.concatenate([turn[:, :, 0], turn[:, :, 1]], axis=1), atol=1e-12)
    least = tool.least(task)
    assert least.shape == (18,) and set(least[:3]) == {tool.LEAST["_pos"]} and set(least[3:9]) == {0.3}


def test_what_looks_alike_is_told_alike_and_what_does_not_is_not() -> None:
    task = tabletop_task(load_task("pick_and_place"))  # a cube, and a round target
    rng = np.random.default_rng(0)
    state, things = np.concatenate([np.zeros((6, 8)), poses(rng, 6, 1)], axis=1), poses(rng, 6, 2)
    found = tool.scene(task, state, things)
    assert found.shape == (6, tool.known(task)) and tool.known(task) == (3 + 5) + (3 + 3)

    def after(angle: float, first: int) -> np.ndarray:
        other, axis = things.copy(), np.array([0.0, 0.0, angle])
        other[:, first : first + 4] = turned(things[:, first : first + 4], np.tile(axis, (6, 1)))
        return tool.scene(task, state, other)

    np.testing.assert_allclose(after(np.pi / 2, 3), found, atol=1e-9)
    np.testing.assert_allclose(after(1.234, 10), found, atol=1e-9)
    assert np.abs(after(0.3, 3) - found)[:, 6:8].max(1).min() > 0.05
    assert np.abs(after(np.pi / 4, 3)[:, 6:8] + found[:, 6:8]).max() < 1e-9  # half-way is the opposite
    # A cube that lies flat under a tool that points down: four times the angle between them.
    down = Rotation.from_euler("xz", [np.pi, 0.4]).as_quat(scalar_first=True)
    flat = Rotation.from_euler("z", 0.1).as_quat(scalar_first=True)
    state[:, -4:], things[:, 3:7] = down, flat
    seen = Rotation.from_quat(down, scalar_first=True).inv() * Rotation.from_quat(flat, scalar_first=True)
    x = seen.apply([1.0, 0.0, 0.0])
    told = tool.scene(task, state, things)[0, 6:8]
    np.testing.assert_allclose(np.linalg.norm(told), 1.0, atol=1e-9)
    np.testing.assert_allclose(np.cos(4 * np.arctan2(x[1], x[0])), told[0], atol=1e-9)


def test_what_only_words_tell_is_asked_of_no_picture() -> None:
    task = tabletop_task(load_task("put_item_in_drawer"))
    assert list(around(task))[-1] == "drawer" and sum(around(task).values()) == 20
    rng = np.random.default_rng(0)
    state, values = np.concatenate([rng.normal(size=(5, 8)), poses(rng, 5, 1)], axis=1), rng.normal(size=(5, 20))
    seen = tool.scene(task, state, values)
    assert seen.shape == (5, tool.known(task)) == (5, 3 + 5 + 3 + 6 + 3)
    other = values.copy()
    other[:, -3:] = rng.normal(size=(5, 3))
    assert np.array_equal(tool.scene(task, state, other), seen)
    for begins, there in zip(tool.places(task), tool.placed(task), strict=True):
        assert np.array_equal(seen[:, there : there + 3], values[:, begins : begins + 3])
    assert tool.joints(task) == [14, 15, 16] and np.array_equal(seen[:, -3:], values[:, 14:17])


def test_of_random_motion_scenes_are_drawn_and_not_frames() -> None:
    episodes = [[0] * 60] * 10 + [[0]] * 90  # an episode has a length, no more is asked
    rng = np.random.default_rng(0)
    for most, share in ((None, 600 / 690), (20, 200 / 290), (1, 0.1)):
        drawn = drawn_frames(episodes, 4000, rng, most)
        assert all(0 <= row < len(episodes[i]) for i, row in drawn)
        assert np.mean([i < 10 for i, _ in drawn]) == pytest.approx(share, abs=0.03)
        rows = np.bincount([row for i, row in drawn if i < 10], minlength=60)
        assert chisquare(rows).pvalue > 1e-3


@pytest.mark.parametrize("name", ["phone_on_base", "pick_and_place"])
def test_the_tool_sees_the_same_wherever_the_table_stands(name: str) -> None:
    task = tabletop_task(load_task(name))
    rng = np.random.default_rng(0)
    state, things = np.concatenate([rng.normal(size=(6, 8)), poses(rng, 6, 1)], axis=1), poses(rng, 6, 2)
    motions = rng.uniform(-1, 1, size=(6, 7))
    seen = tool.around_it(task, state, tool.scene(task, state, things))
    assert seen.shape == (6, tool.count(task)) and tool.own(state).shape == (6, tool.OWN)
    assert len(tool.lengths(task, 0.5)) == tool.count(task) and sum(tool.lengths(task, 0.5)) == 2 * 4 * 0.5
    np.testing.assert_allclose(tool.seen_by_base(state, tool.seen_from(state, motions)), motions, atol=1e-12)
    around = Rotation.from_euler("z", 0.7)
    aside = np.array([0.3, -0.2, 0.0])

    def moved(rows: np.ndarray, place: int, quat: int) -> np.ndarray:
        rows = rows.copy()
        rows[:, place : place + 3] = around.apply(rows[:, place : place + 3]) + aside
        turn = around * Rotation.from_quat(rows[:, quat : quat + 4], scalar_first=True)
        rows[:, quat : quat + 4] = turn.as_quat(scalar_first=True)
        return rows

    other, elsewhere = moved(state, 8, 11), moved(moved(things, 0, 3), 7, 10)
    np.testing.assert_allclose(tool.around_it(task, other, tool.scene(task, other, elsewhere)), seen, atol=1e-9)
    np.testing.assert_allclose(tool.own(other)[:, :5], tool.own(state)[:, :5], atol=1e-9)
    ahead = Rotation.from_quat(state[:, 11:], scalar_first=True).inv().apply([1.0, 0.0, 0.0])
    np.testing.assert_allclose(tool.own(state)[:, 5:], ahead, atol=1e-9)
    spun = np.concatenate([around.apply(motions[:, :3]), around.apply(motions[:, 3:6]), motions[:, 6:]], axis=1)
    np.testing.assert_allclose(tool.seen_from(other, spun), tool.seen_from(state, motions), atol=1e-9)


def test_the_specification_is_read_from_imagined_signals(demos: str) -> None:
    task = tabletop_task(load_task(TASK))
    assert score_of(task, config(demos).settings) is None
    settings = config(demos, world={"actor": {"robustness": 0.1}}).settings
    score = score_of(task, settings)
    assert score is not None
    env = TabletopEnv(task)
    _, info = env.reset(seed=0)
    env.close()
    now = torch.tensor([*info["signals"].values(), *[0.0] * tool.count(task)], dtype=torch.float32)
    there = now.clone()
    safe = now.repeat(2, 4, 1).requires_grad_()
    rho = score(safe)
    assert rho.shape == (2,) and torch.isfinite(rho).all()
    rho.sum().backward()
    assert safe.grad is not None and safe.grad[..., : len(task.signals)].abs().sum() > 0
    there[list(task.signals).index("link_contacts")] = 5.0
    assert score(torch.stack([now, there, now, now])[None])[0] < -4.0


@pytest.mark.parametrize("name", POLICIES.make("horizon").presets)
def test_presets_resolve_and_are_kept_in_the_run(name: str) -> None:
    made = build({"task": "pick_and_place", "policy": "horizon", "preset": name, "mae": {"mask": 0.5}})
    assert made.settings == replace(made.kind.presets[name], mae=replace(made.kind.presets[name].mae, mask=0.5))
    assert build(yaml.safe_load(made.to_yaml())) == made
    typed = resolve("pick_and_place", {"policy": "horizon", "preset": name, "mae.mask": "0.5"})
    assert typed == made and build(yaml.safe_load(typed.to_yaml())) == made


def test_bad_input_is_one_clear_error(demos: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'small'"):
        build({"task": TASK, "policy": "horizon", "preset": "smal"})
    with pytest.raises(ConfigError, match="bc has none"):
        build({"task": TASK, "policy": "bc", "preset": "small"})
    with pytest.raises(ConfigError, match="has no camera left"):
        learner(config(demos, mae={"views": ["left", "wrist"]}))
    with pytest.raises(ConfigError, match="pick_and_place"):
        made = build({"task": "pick_and_place", "policy": "horizon", "demos": demos, **TINY})
        learner(made)
    with pytest.raises(RoboError, match="before enter"):
        learner(config(demos)).step()
    with pytest.raises(RunError, match="does not fit"):
        learner(config(demos)).load_state({}, {})
    assert train.main(["reach", "--policy", "horizon", "--act", "nobody", "--runs", str(tmp_path)]) == 2
    assert train.main(["reach", "--policy", "horizon", "--runs", str(tmp_path)]) == 2
    told = capsys.readouterr().err
    assert "mpc" in told and "--demos PATH" in told and "Traceback" not in told
    assert not list(tmp_path.glob("*"))


BACKWARDS = """
from tasks.tabletop.reach import Reach
from tasks.task import Stage


class Backwards(Reach):
    name = "backwards"
    stages = (Stage(name="reach", condition="away_m < 0.02", shaping="1 - exp(-away_m / 0.1)"),)
"""


def test_training_does_not_start_on_a_reward_that_is_wrong(tmp_path: Path, capsys) -> None:
    (tmp_path / "task.py").write_text(BACKWARDS)
    task = str(tmp_path / "task.py")
    words = ["--policy", "horizon", "--demos", "none", "--runs", str(tmp_path / "runs")]
    assert train.main([task, *words]) == 2
    assert "failed verification" in (told := capsys.readouterr().err) and "moving away" in told
    assert train.main([task, *words, "--dry-run"]) == 2
    assert "moving away" in capsys.readouterr().err
    program = Program.of(tabletop_task(load_task("reach")))
    away = program.stages[0].model_copy(update={"distance": "0.5 - away_m"})
    program.model_copy(update={"stages": (away, *program.stages[1:])}).save(tmp_path / "away.yaml")
    words = ["--policy", "zero", "--program", str(tmp_path / "away.yaml"), "--runs", str(tmp_path / "runs")]
    assert train.main(["reach", *words]) == 2
    assert "moving away" in (told := capsys.readouterr().err) and "Traceback" not in told
    assert not (tmp_path / "runs").exists()


def test_what_sees_serves_other_policies_and_other_trainings(demos: str, tmp_path: Path) -> None:
    whole = train_config(config(demos, sense={"refresh": 0}, train={"steps": 2}), tmp_path)
    (film,) = (whole.path / "films").glob("*.mp4")
    with av.open(film) as opened:
        pictures = [frame.to_ndarray(format="rgb24") for frame in opened.decode(video=0)]
    assert np.shape(pictures) == (50, 3 * 2 * SIZE, len(VIEWS) * 2 * SIZE, 3)
    demo = Dataset(Path(demos)).episode(0, ["observation.images.front"])["observation.images.front"]
    real = pictures[9][: 2 * SIZE : 2, : 2 * SIZE : 2].astype(float)
    assert np.abs(real - demo[9]).mean() < 12  # above as it was, below what a few steps of training make of it
    assert np.abs(pictures[9][2 * SIZE : 4 * SIZE : 2, : 2 * SIZE : 2].astype(float) - demo[9]).mean() > 2
    sight = str(whole.path / "sight")
    again = config(demos, sense={"ready": sight, "refresh": 0}, train={"steps": 2})
    found = learner(again)
    assert found.total_steps == 2
    first = run(found, again, 2)
    assert "cloning" in first[0]
    weights = whole.latest().weights()  # type: ignore[union-attr]
    kept = {k: v for k, v in found.weights().items() if k.startswith("sight.")}
    assert kept and all(torch.equal(value, weights[name]) for name, value in kept.items())
    see = {"views": list(VIEWS), "size": SIZE, "trunk": sight, "shift_px": 0}
    bc = build(
        {"task": TASK, "policy": "bc", "demos": demos, "see": see, "train": {"steps": 3, "batch": 4, "warm_up": 1}}
    )
    cloner = bc.kind.learner(bc.open_task(), bc.settings, 0, "cpu")
    for _ in range(3):
        cloner.step()
    eyes = {k: v for k, v in cloner.weights().items() if "trunk.marks.trunk" in k}
    assert eyes and all(torch.equal(v, weights[k.replace("eyes.trunk.", "sight.")]) for k, v in eyes.items())
    with pytest.raises(ConfigError, match="settings of marks"):
        learner(config(demos, sense={"ready": sight}, marks={"points": 3}))
    with pytest.raises(ConfigError, match="sees front, wrist"):
        other = build({"task": TASK, "policy": "bc", "demos": demos, "see": see | {"views": ["wrist", "front"]}})
        other.kind.learner(other.open_task(), other.settings, 0, "cpu")
    with pytest.raises(RoboError, match=r"config\.json"):
        learner(config(demos, sense={"ready": str(tmp_path / "nothing")}))
