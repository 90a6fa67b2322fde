"""Perturbations: what they do in numbers, that they repeat to the bit, and that the truth stays the truth."""

from __future__ import annotations

import copy
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from policies.expert import ExpertConfig, load
from robo.core.errors import ConfigError, NonFiniteError, RoboError, UnknownNameError
from robo.data.rollout import TabletopRollout
from robo.evaluate.rollout import roll_out
from sim.env import TaskEnv
from sim.open import make
from sim.perturb import (
    ActionNoise,
    DriftingDynamics,
    ObservationDropout,
    ObservationNoise,
    PartialObservability,
    Perturbation,
    RandomActions,
    StickyActions,
    perturbations,
    perturbed,
)
from sim.randomise import Randomisation
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import tabletop_task

STACK: dict[str, dict[str, Any]] = {
    "action_noise": {"share": 0.02},
    "sticky_actions": {"probability": 0.3},
    "random_actions": {"probability": 0.1},
    "observation_noise": {"std": {"*_pos": 0.005, "ee_quat_wxyz": 0.01}, "bias": {"cube_pos": 0.01}},
    "observation_dropout": {"probability": {"cube_*": 0.3}},
    "partial_observability": {"hidden": ["target_quat_wxyz"], "every": {"ee_pos": 3}},
    "drifting_dynamics": {"mass": 0.2, "friction": 0.3, "gain": 0.1, "speed": 0.2},
}


class Counter(gymnasium.Env):
    """Shows how many steps it did and what it was told last; quick, for statistics."""

    def __init__(self) -> None:
        shapes = {"joint_pos": (2,), "joint_vel": (2,), "time_s": (1,), "box_pos": (3,), "box_quat_wxyz": (4,)}
        boxes: dict[str, spaces.Space] = {n: spaces.Box(-np.inf, np.inf, s, np.float64) for n, s in shapes.items()}
        boxes["rgb_eye"] = spaces.Box(0, 255, (20, 30, 3), np.uint8)
        boxes["depth_eye"] = spaces.Box(0.0, np.inf, (20, 30), np.float32)
        boxes["seg_eye"] = spaces.Box(-1, 9, (20, 30), np.int32)
        self.observation_space = spaces.Dict(boxes)
        self.action_space = spaces.Box(np.array([-1.0, 0.0]), np.array([1.0, 4.0]), dtype=np.float64)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps, self.done = 0, np.zeros(2)
        return self._obs(), {"truth": self.np_random.random()}

    def step(self, action):
        self.steps, self.done = self.steps + 1, np.array(action)
        return self._obs(), 0.5, False, False, {"truth": self.steps}

    def _obs(self):
        return {
            "joint_pos": self.done.copy(),
            "joint_vel": np.zeros(2),
            "time_s": np.array([float(self.steps)]),
            "box_pos": np.zeros(3),
            "box_quat_wxyz": np.array([1.0, 0, 0, 0]),
            "rgb_eye": np.full((20, 30, 3), 100, np.uint8),
            "depth_eye": np.ones((20, 30), np.float32),
            "seg_eye": np.full((20, 30), 3, np.int32),
        }


def run(env: gymnasium.Env, steps: int, seed: int | None = 0, action: Any = (0.0, 2.0)) -> list[tuple]:
    found = [(*env.reset(seed=seed), 0.0)]
    for _ in range(steps):
        obs, reward, _, _, info = env.step(np.array(action))
        found.append((obs, info, reward))
    return found


def same(a: Any, b: Any) -> bool:
    """Equal to the bit, dicts and arrays throughout."""
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(value, b[name]) for name, value in a.items())
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return np.array_equal(a, b)


# ---- what is done ----------------------------------------------------------------


def test_noise_on_actions_is_a_share_of_their_range() -> None:
    found = run(ActionNoise(Counter(), share=0.05), 3000)[1:]
    done = np.stack([info["perturbed"]["action_noise"]["action"] for _, info, _ in found])
    assert all(np.array_equal(obs["joint_pos"], a) for (obs, *_), a in zip(found, done, strict=True))
    np.testing.assert_allclose(done.std(0), [0.1, 0.2], rtol=0.06)
    np.testing.assert_allclose(done.mean(0), [0.0, 2.0], atol=0.02)
    loud = ActionNoise(Counter(), share=1.0)
    at_edge = np.stack([obs["joint_pos"] for obs, *_ in run(loud, 300, action=(1.0, 0.0))[1:]])
    assert (at_edge >= [-1, 0]).all() and (at_edge <= [1, 4]).all()
    beyond = np.stack([obs["joint_pos"] for obs, *_ in run(loud, 300, action=(1.5, 2.0))[1:]])
    assert beyond[:, 0].max() == 1.5, "what was asked for beyond the range is not taken back"


def test_sticky_actions_repeat_what_was_executed() -> None:
    env = StickyActions(Counter(), probability=0.25)
    env.reset(seed=0)
    stuck, last = [], None
    for k in range(2000):
        obs, *_, info = env.step(np.array([0.0, float(k)]))
        told = info["perturbed"]["sticky_actions"]
        assert obs["joint_pos"][1] == (last if told["stuck"] else k) == told["action"][1]
        stuck.append(told["stuck"])
        last = obs["joint_pos"][1]
    assert not stuck[0] and np.mean(stuck) == pytest.approx(0.25, abs=0.03)


def test_random_actions_are_uniform() -> None:
    found = run(RandomActions(Counter(), probability=0.4), 3000)[1:]
    random = np.array([info["perturbed"]["random_actions"]["random"] for _, info, _ in found])
    done = np.stack([obs["joint_pos"] for obs, *_ in found])
    assert random.mean() == pytest.approx(0.4, abs=0.03) and (done[~random] == [0.0, 2.0]).all()
    np.testing.assert_allclose(done[random].std(0), np.array([2, 4]) / np.sqrt(12), rtol=0.06)


# ---- what is seen ----------------------------------------------------------------


def test_noise_on_observations_and_an_offset_for_an_episode() -> None:
    options = dict(std={"*_pos": 1.0, "joint_pos": 0.1}, bias={"box_pos": 5.0})
    env = ObservationNoise(Counter(), **options)
    biases = []
    for seed in range(200):
        found = run(env, 10, seed)
        noise = np.stack([info["perturbed"]["observation_noise"]["noise"]["box_pos"] for _, info, _ in found])
        assert all(np.array_equal(obs["box_pos"], n) for (obs, *_), n in zip(found, noise, strict=True))
        biases.append(noise.mean(0))
        joint = np.stack([obs["joint_pos"] for obs, *_ in found[1:]]) - [0.0, 2.0]
        assert joint.std() < 0.2, "the later pattern wins"
    assert np.std(biases) == pytest.approx(np.sqrt(25 + 1 / 11), rel=0.08)
    long = run(env, 3000)
    assert np.std([obs["box_pos"] for obs, *_ in long], axis=0) == pytest.approx(np.ones(3), rel=0.06)
    assert not long[0][0]["joint_vel"].any()


def test_noise_keeps_lengths_and_kinds() -> None:
    env = ObservationNoise(Counter(), std={"box_quat_wxyz": 0.1, "rgb_eye": 20.0, "depth_eye": 2.0}, bias={"time_s": 1})
    for obs, info, _ in run(env, 5):
        assert env.observation_space.contains(obs)
        assert np.linalg.norm(obs["box_quat_wxyz"]) == pytest.approx(1.0) and obs["box_quat_wxyz"][0] < 1.0
        assert obs["rgb_eye"].std() == pytest.approx(20.0, rel=0.1) and obs["depth_eye"].min() == 0.0
        assert set(info["perturbed"]["observation_noise"]["noise"]) == {"box_quat_wxyz", "time_s"}


def test_dropped_observations_are_old_or_black() -> None:
    env = ObservationDropout(Counter(), probability={"time_s": 0.3, "*_eye": 0.2}, black=True)
    last, dropped = 0.0, []
    for k, (obs, info, _) in enumerate(run(env, 2000)):
        told = info["perturbed"]["observation_dropout"]["dropped"]
        assert obs["time_s"][0] == (last if "time_s" in told else k)
        last = obs["time_s"][0]
        dropped.append("time_s" in told)
        for name, nothing, something in (("rgb_eye", 0, 100), ("depth_eye", 0, 1), ("seg_eye", -1, 3)):
            assert (obs[name] == (nothing if name in told else something)).all()
    assert not dropped[0] and np.mean(dropped) == pytest.approx(0.3, abs=0.03)
    old = ObservationDropout(Counter(), probability={"*": 1.0})
    first, *others = [obs for obs, *_ in run(old, 3)]
    assert all(same(first, obs) for obs in others) and not np.shares_memory(first["time_s"], others[0]["time_s"])


def test_parts_that_are_missing() -> None:
    env = PartialObservability(Counter(), hidden=["box_*", "rgb_eye"], every={"time_s": 4}, occluded={"eye": 0.25})
    assert set(env.observation_space.spaces) == {"joint_pos", "joint_vel", "time_s", "depth_eye", "seg_eye"}
    patches = []
    for seed in range(50):
        for k, (obs, info, _) in enumerate(run(env, 9, seed)):
            told = info["perturbed"]["partial_observability"]
            assert env.observation_space.contains(obs) and obs["time_s"][0] == 4 * (k // 4) == k - told["old"]["time_s"]
            top, left, tall, wide = told["occluded"]["eye"]
            mask = np.zeros((20, 30), bool)
            mask[top : top + tall, left : left + wide] = True
            assert np.array_equal(obs["depth_eye"] == 0, mask) and np.array_equal(obs["seg_eye"] == -1, mask)
            assert mask.mean() == pytest.approx(0.25, abs=0.05)
        patches.append((top, left, tall, wide))
    assert all(len(set(column)) > 5 for column in zip(*patches, strict=True))
    for share in (0.0, 1.0):
        obs, *_ = run(PartialObservability(Counter(), occluded={"eye": share}), 0)[0]
        assert (obs["rgb_eye"] == 0).mean() == share


# ---- streams ---------------------------------------------------------------------


def test_the_same_seed_gives_the_same_whatever_else_is_in_the_stack() -> None:
    alone = run(StickyActions(Counter(), probability=0.5), 50)
    env = ActionNoise(StickyActions(ActionNoise(Counter(), share=0.1), probability=0.5), share=0.1)
    assert env.name == "action_noise_2"
    found, again, other = run(env, 50), run(env, 50), run(env, 50, seed=1)
    assert same(found, again) and not same(found, other)
    told = [[info["perturbed"].get("sticky_actions", {}).get("stuck") for _, info, _ in f] for f in (alone, found)]
    assert told[0] == told[1]
    noise = [[info["perturbed"][n].get("action") for _, info, _ in found[1:]] for n in ("action_noise", env.name)]
    assert not np.allclose(*noise)
    # Episodes that follow repeat as well, however long the one before was.
    env.reset(seed=0), env.reset()
    later = run(env, 5, seed=None)
    run(env, 20, seed=0), env.reset()
    assert same(later, run(env, 5, seed=None))
    assert not same(later, found[:6])


@pytest.fixture(scope="module")
def pick() -> TabletopEnv:
    return TabletopEnv("pick_and_place", control="joint_delta", randomise=Randomisation.mismatch(0.1, 0.01))


def actions(env: gymnasium.Env, steps: int) -> np.ndarray:
    box = env.action_space
    assert isinstance(box, spaces.Box)
    return np.random.default_rng(0).uniform(box.low, box.high, (steps, *box.shape))


@pytest.mark.parametrize("kind", [k for k in STACK if not k.endswith("actions") and k != "action_noise"])
def test_the_truth_stays_the_truth(pick: TabletopEnv, kind: str) -> None:
    """What is only seen otherwise changes nothing; what the environment draws stays in any case."""
    env = perturbed(pick, {kind: STACK[kind]})
    for e in (env, pick):
        e.reset(seed=3)
    found = []
    for e in (pick, env):
        obs, info = e.reset(seed=3)
        found.append([(obs, info, 0.0)])
        for action in actions(pick, 8):
            obs, reward, _, _, info = e.step(action)
            found[-1].append((obs, info, reward))
    differs = False
    for (a, true, reward), (b, told, again) in zip(*found, strict=True):
        done = told.pop("perturbed")
        assert set(done) == {kind} and set(true) == set(told)
        assert same(true["instance"], told["instance"]) if "instance" in true else True
        assert same(true.get("drawn", {}), told.get("drawn", {}))
        if kind != "drifting_dynamics":
            assert same(true, told) and reward == again
        differs |= not same(a, b)
    assert differs


def test_a_whole_stack_goes_on_from_a_saved_state_to_the_bit(pick: TabletopEnv) -> None:
    env = perturbed(pick, STACK)
    way = actions(env, 24)
    env.reset(seed=5)
    for action in way[:8]:
        env.step(action)
    held = env.state()
    kept = copy.deepcopy(held)
    first = [env.step(action) for action in way[8:]]
    assert same(held, kept), "a state is a copy"
    other = perturbed(
        TabletopEnv("pick_and_place", control="joint_delta", randomise=Randomisation.mismatch(0.1, 0.01)), STACK
    )
    for e in (env, other):
        e.reset(seed=9)
        e.step(way[0])
        e.set_state(held)
        assert same([e.step(action) for action in way[8:]], first)
    # Also the episodes that follow.
    after = [e.reset() for e in (env, other)]
    assert same(*after)
    assert set(first[0][-1]["perturbed"]) == set(STACK)
    plain = perturbed(pick, {"sticky_actions": {"probability": 0.1}})
    with pytest.raises(RoboError, match="sticky_actions has no episode yet"):
        plain.state()
    plain.reset(seed=0)
    with pytest.raises(RoboError, match="not a state with sticky_actions"):
        plain.set_state(pick.state())


def test_what_drifted_is_undone_by_a_reset(pick: TabletopEnv) -> None:
    env = DriftingDynamics(pick, mass=0.3, friction=0.5, gain=0.2, speed=0.5)
    model = pick.model
    fields = ("body_mass", "body_inertia", "body_gravcomp", "geom_friction", "actuator_gainprm", "actuator_biasprm")
    _, info = env.reset(seed=2)
    drawn = {name: getattr(model, name).copy() for name in fields}
    walked = {name: [] for name in ("mass", "friction", "gain")}
    for action in actions(env, 60):
        *_, info = env.step(action)
        for name, factors in info["perturbed"]["drifting_dynamics"].items():
            walked[name].append(factors)
    arm, thing = model.body("link4").id, model.body("cube").id
    told = info["perturbed"]["drifting_dynamics"]
    for body in (arm, thing):
        assert model.body_mass[body] == pytest.approx(drawn["body_mass"][body] * told["mass"][body])
    assert model.body_gravcomp[arm] * model.body_mass[arm] == pytest.approx(
        drawn["body_gravcomp"][arm] * drawn["body_mass"][arm]
    )
    servo = pick.scene.pos_ctrl[3]
    assert model.actuator_gainprm[servo, 0] == pytest.approx(drawn["actuator_gainprm"][servo, 0] * told["gain"][servo])
    for name, bound in (("mass", 0.3), ("friction", 0.5), ("gain", 0.2)):
        path = np.stack(walked[name])
        assert 0.9 * bound < np.abs(path - 1).max() <= bound and (np.ptp(path, axis=0) > 0).all()
        assert np.abs(np.diff(path, axis=0)).std() < bound, "it drifts, it does not jump"
    env.reset(seed=2)
    for name, value in drawn.items():
        assert np.array_equal(getattr(model, name), value), name
    with pytest.raises(ConfigError, match="lies below already"):
        DriftingDynamics(StickyActions(env, probability=0.1), mass=0.1)


# ---- in the project ----------------------------------------------------------------


def test_they_work_over_an_arm_that_only_reaches() -> None:
    spec = {k: v for k, v in STACK.items() if k.startswith(("action", "sticky"))}
    spec |= {"observation_noise": {"std": {"joint_*": 0.01}}}
    env = perturbed(make("reach_avoid"), spec)
    assert isinstance(env.unwrapped, TaskEnv)
    hold = np.concatenate([env.unwrapped.task.robot.home_rad, np.zeros(7)])
    env.reset(seed=0)
    env.step(hold)
    held = env.state()
    first = [env.step(hold) for _ in range(3)]
    env.reset(seed=1)
    env.set_state(held)
    assert same([env.step(hold) for _ in range(3)], first)
    with pytest.raises(ConfigError, match="needs a tabletop task in MuJoCo, not TaskEnv"):
        DriftingDynamics(env, mass=0.1)


def test_an_expert_is_evaluated_under_perturbations_as_without() -> None:
    task = tabletop_task(load_task("pick_and_place"))
    spec = {
        "sticky_actions": {"probability": 0.05},
        "observation_noise": {"std": {"cube_pos": 0.001}},
        "drifting_dynamics": {"mass": 0.1, "friction": 0.1, "gain": 0.05},
    }
    env: Any = perturbed(TabletopEnv(task), spec)
    assert env.task is task and env.scene is env.unwrapped.scene and not hasattr(env, "no_such_thing")

    def keep(infos):
        return {
            "qpos": np.stack([i["qpos"] for i in infos]),
            "command_width_m": np.array([i["reference"][-1] for i in infos]),
        }

    rollout = roll_out(env, load(task, ExpertConfig(), {}, "cpu"), 0, kind=TabletopRollout, keep=keep)
    assert rollout.success


def test_bad_actions_are_refused_by_the_environment_and_nothing_is_drawn(pick: TabletopEnv) -> None:
    env = perturbed(pick, STACK)
    with pytest.raises(RoboError, match="has no episode yet"):
        env.step(np.zeros(8))
    env.reset(seed=0)
    held = env.state()
    with pytest.raises(NonFiniteError, match="nothing of it is executed"):
        env.step(np.full(8, np.nan))
    with pytest.raises(RoboError, match="has shape"):
        env.step(np.zeros(3))
    with pytest.raises(RoboError, match="numbers"):
        env.step("up")  # type: ignore[arg-type]
    assert same(held, env.state())
    with pytest.raises(UnknownNameError, match="reset option"):
        env.reset(options={"instanse": {}})


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"stiky_actions": {}}, "did you mean 'sticky_actions'"),
        ({"sticky_actions": {"probabilty": 0.1}}, "did you mean 'probability'"),
        ({"sticky_actions": None}, "needs the setting 'probability'"),
        ({"sticky_actions": 0.1}, "settings of sticky_actions are a mapping, not 0.1"),
        ({"sticky_actions": {"probability": 1.1}}, r"probability must be in \[0, 1\], not 1.1"),
        ({"random_actions": {"probability": "often"}}, "probability must be in"),
        ({"action_noise": {"share": -0.1}}, "share must be 0 or more"),
        ({"action_noise": {"share": float("nan")}}, "share must be 0 or more"),
        ({"observation_noise": {"std": {"box_pso": 0.1}}}, "did you mean 'box_pos'"),
        ({"observation_noise": {"std": 0.1}}, "give settings by key"),
        ({"observation_noise": {"std": {"seg_eye": 0.1}}}, "seg_eye names things"),
        ({"observation_dropout": {"probability": {"*": 2}}}, "probability of box_pos must be in"),
        ({"partial_observability": {"hidden": ["time_s"]}}, "time_s cannot be hidden"),
        ({"partial_observability": {"hidden": "box_pos"}}, "hidden is a list"),
        ({"partial_observability": {"every": {"box_pos": 0}}}, "whole number of steps"),
        ({"partial_observability": {"occluded": {"ear": 0.1}}}, "unknown camera 'ear': available: eye"),
        ({"drifting_dynamics": {"mass": 0.1}}, "needs a tabletop task in MuJoCo, not Counter"),
    ],
)
def test_settings_are_checked(spec: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        perturbed(Counter(), spec)


def test_every_kind_is_known_and_unbounded_actions_are_refused() -> None:
    kinds = perturbations()
    assert set(kinds) == {*STACK, "noisy_pictures"}
    assert all(issubclass(kind, Perturbation) and kind.kind == name for name, kind in kinds.items())
    env = Counter()
    env.action_space = spaces.Box(-np.inf, np.inf, (2,), np.float64)
    with pytest.raises(ConfigError, match="not bounded"):
        ActionNoise(env, share=0.1)
    assert perturbed(env, {}) is env
