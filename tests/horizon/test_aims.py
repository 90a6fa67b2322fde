"""Aims: how they are followed, what demonstrations say of them, and that this alone carries a cube."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.transform import Rotation

from hardware.robots.commands import REACH_M_S, TURN_RAD_S
from policies.commanded import Commanded
from policies.expert import MoveConfig
from policies.expert.policy import Expert
from policies.horizon import tool
from policies.horizon.aims import Follower, Shown, ToolGuide, aims, settled
from policies.horizon.config import PRESETS, AimConfig, HorizonConfig, KeysConfig
from policies.horizon.episodes import keyframes_of, proprio, truth, until_done
from policies.learner import Episode
from policies.observed import proprioception, surroundings
from policies.world.aims import AimActor, Mixture
from robo.core.errors import ConfigError
from robo.core.protocols import Obs
from robo.train.explore import play
from sim.tabletop import TabletopEnv
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task
from tasks.tabletop.turns import turned

DT, SMALL = 0.05, PRESETS["small"]
EXACT = replace(SMALL, aims=replace(SMALL.aims, arrives=0.0, aside=0.0, error_m=0.0, error_rad=0.0, error_width_m=0.0))


class Brief(TabletopEnv):
    """Ends a second after success, for `until_done` cuts off what comes then, which is most of an episode."""

    done_s = 0.0

    def reset(self, **options: Any) -> tuple[Obs, dict[str, Any]]:  # type: ignore[override]
        self.done_s = 0.0
        return super().reset(**options)

    def step(self, action: np.ndarray) -> tuple[Obs, float, bool, bool, dict[str, Any]]:
        obs, reward, terminated, truncated, info = super().step(action)
        self.done_s = self.done_s + DT if info["success"] else 0.0
        return obs, reward, terminated, truncated or self.done_s > 1.0, info


def shown_by(name: str, episodes: int) -> tuple[TabletopTask, list[Episode]]:
    task = tabletop_task(load_task(name))
    env, expert = Brief(task), Expert(task, MoveConfig(sway=0.2))
    found = [until_done(task, 0.75, play(env, expert, seed)) for seed in range(episodes)]
    env.close()
    return task, found


@pytest.fixture(scope="module")
def grasps() -> tuple[TabletopTask, list[Episode]]:
    return shown_by("pick_and_place", 3)


@given(st.lists(st.floats(-1, 1), min_size=7, max_size=7))
@settings(deadline=None, max_examples=50)
def test_an_aim_is_seen_from_where_one_is_all_the_way_to_it(numbers: list[float]) -> None:
    guide = ToolGuide(KeysConfig(), DT)
    aim = torch.tensor([numbers], dtype=torch.float64) * torch.tensor([0.4] * 3 + [1.5] * 3 + [1.0])
    place, turns = np.zeros(3), Rotation.identity()
    goal, facing = aim[0, :3].numpy().copy(), Rotation.from_rotvec(aim[0, 3:6].numpy())
    for _ in range(100):
        action = guide.action(aim)
        assert action.abs().max() <= 1 and action[0, :6].abs().max() <= KeysConfig().speed + 1e-6
        assert action[0, 6].item() == pytest.approx(numbers[6])
        aim = guide.after(aim, action)
        moved, spun = action[0, :3].numpy() * REACH_M_S * DT, action[0, 3:6].numpy() * TURN_RAD_S * DT
        place, turns = place + turns.apply(moved), turns * Rotation.from_rotvec(spun)
        np.testing.assert_allclose(aim[0, :3].numpy(), turns.inv().apply(goal - place), atol=1e-5)
        left = (turns.inv() * facing * Rotation.from_rotvec(aim[0, 3:6].numpy()).inv()).magnitude()
        assert left < 1e-5
    assert aim[0, :6].abs().max() < 1e-3


@given(st.lists(st.floats(-3, 3), min_size=7, max_size=7))
@settings(deadline=None)
def test_a_body_turns_about_its_own_axes(numbers: list[float]) -> None:
    quat = np.add(numbers[:4], (4.0, 0, 0, 0))
    quat /= np.linalg.norm(quat)
    vector = np.array(numbers[4:])
    expected = Rotation.from_quat(quat, scalar_first=True) * Rotation.from_rotvec(vector)
    found = turned(quat[None], vector[None])[0]
    assert abs(found @ expected.as_quat(scalar_first=True)) == pytest.approx(1.0, abs=1e-9)


def test_gradients_pass_where_there_is_nothing_to_turn() -> None:
    guide = ToolGuide(KeysConfig(), DT)
    aim = torch.zeros(1, 7, requires_grad=True)
    guide.after(aim, guide.action(aim)).sum().backward()
    assert aim.grad is not None and torch.isfinite(aim.grad).all()


def seen_in(task: TabletopTask, values: Episode) -> np.ndarray:
    """What an actor sees in each frame, (T, P)."""
    told = tool.around_it(task, np.asarray(values["observation.state"], float), truth(task, values).astype(float))
    return np.concatenate([told, proprio(task, values)], axis=1)


def test_an_aim_is_the_next_keyframe_as_the_tool_sees_it(grasps) -> None:
    task, (values, *_) = grasps
    shown = Shown(task, EXACT, 0)
    shown.add(values)
    state = np.asarray(values["observation.state"], float)
    keys, turns = keyframes_of(task, EXACT.keys, state), tool.turned(state)
    plain, found = shown.draw(2000)
    far = np.abs(seen_in(task, values)[None] - plain.numpy()[:, None]).max(-1)
    frames = far.argmin(1).tolist()
    jaws = np.clip(np.asarray(values["action.ee_delta"], float)[:, 6], -1, 1)
    assert far.min(1).max() < 1e-5
    for frame, aim in zip(frames, found.numpy(), strict=True):
        there = keys[keys > frame][0]
        np.testing.assert_allclose(turns[frame] @ aim[:3] + state[frame, -7:-4], state[there, -7:-4], atol=1e-5)
        spun = Rotation.from_matrix(turns[frame].T @ turns[there]).as_rotvec()
        np.testing.assert_allclose(aim[3:6], spun, atol=1e-5)
        before = keys[keys <= frame]
        done = np.clip(values["action.ee_delta"][before[-1] if len(before) else 0 : there, 6], -1, 1)
        if np.ptp(done) < 1e-6:
            assert aim[6] == pytest.approx(done[0], abs=1e-6)
        elif np.abs(np.diff(done)).min() > 0.05:  # nothing but opening or closing, which is then done to its end
            assert aim[6] == pytest.approx(jaws.min() if done[-1] < done[0] else jaws.max(), abs=1e-6)
        assert min(abs(aim[6] - jaws.min()), abs(aim[6] - jaws.max())) < 1e-6
    # Ends of ways teach nothing, unless there is no way: there the gripper closes; or nothing comes behind: there one
    # is content.
    last = np.array(frames) >= keys[-2]
    assert set(range(keys[-2], keys[-1])) == set(np.array(frames)[last].tolist())
    frames, found = np.array(frames)[~last].tolist(), found[~last]
    far = np.linalg.norm(found[:, :3].numpy(), axis=1)
    assert len(set(frames)) > 50 and (np.sort(far)[[0, -1]] < (0.01, 1.0)).all()
    closing = {frame for frame, aim in zip(frames, found.numpy(), strict=True) if np.linalg.norm(aim[:3]) < 0.01}
    assert all(
        values["observation.state"][f, -8] > values["observation.state"][keys[keys > f][0], -8] - 0.1 for f in closing
    )
    assert not ((far > 0.012) & (far < 0.028) & (np.linalg.norm(found[:, 3:6].numpy(), axis=1) < 0.1)).any()


def test_beside_a_demonstration_the_same_is_aimed_at(grasps) -> None:
    task, episodes = grasps
    config = replace(EXACT, aims=replace(EXACT.aims, aside=0.3, aside_m=0.1, aside_rad=0.3))
    exact, aside = Shown(task, EXACT, 0), Shown(task, config, 0)
    for values in episodes:
        exact.add(values)
        aside.add(values)

    def told(shown: Shown) -> np.ndarray:
        """Distances of cube and target from where one aims at, and of the cube from the tool."""
        plain, found = (x.numpy() for x in shown.draw(4000))
        cube, target = plain[:, :3], plain[:, 9:12]
        return np.stack(
            [np.linalg.norm(x - found[:, :3], axis=1) for x in (cube, target)] + [np.linalg.norm(cube, axis=1)], 1
        )

    plainly, beside = told(exact), told(aside)
    # Of free motions: how far the cube lies from the aim. Of held ones: the target; and the cube stays in the jaws.
    for row in beside[::10]:
        same = np.abs(plainly - row)
        assert same[:, :2].max(1).min() < 2e-3 or same[:, 1:].max(1).min() < 2e-3
    assert np.std(beside[:, 2]) > 1e-3 and np.abs(plainly[:, None, 2] - beside[None, :50, 2]).min(0).max() > 1e-3


@pytest.mark.parametrize(
    ("jaws", "found"),
    [
        ([1.0, 1.0, 0.6, 0.2, -0.2, -0.2, -0.2], [1.0, -0.2, -0.2, -0.2, -0.2, -0.2, -0.2]),
        ([-0.2, 0.3, 0.8, 1.0, 1.0, 0.99], [1.0, 1.0, 1.0, 1.0, 1.0, 0.99]),
        ([0.5], [0.5]),
    ],
)
def test_a_gripper_means_where_its_way_ends(jaws: list[float], found: list[float]) -> None:
    np.testing.assert_allclose(settled(np.array(jaws)), found)


def test_what_the_gripper_does_is_one_of_what_was_shown(grasps) -> None:
    task, episodes = grasps
    shown, wanted = Shown(task, SMALL, 0), aims(task, SMALL)
    with pytest.raises(ConfigError, match="nothing to aim at; record longer ones"):
        shown.levels()
    for values in episodes:
        shown.add(values)
    jaws = np.concatenate([np.clip(values["action.ee_delta"][:, 6], -1, 1) for values in episodes])
    levels = shown.levels()
    np.testing.assert_allclose(levels.unique(), [jaws.min(), jaws.max()], atol=1e-6)
    assert wanted is not None
    actor = AimActor(SMALL.world.actor, wanted)
    actor.levels.copy_(levels)
    plain = shown.draw(40)[0].requires_grad_()
    last = actor.at(plain).places[..., 6]
    assert set(last.detach().unique().tolist()) <= set(levels.tolist())
    last.sum().backward()  # and yet it is learned through
    assert plain.grad is not None and plain.grad.abs().sum() > 0


def test_what_is_held_may_be_wider_than_shown(grasps) -> None:
    task, (values, *_) = grasps
    exact, wider = Shown(task, EXACT, 0), Shown(task, replace(EXACT, aims=replace(EXACT.aims, error_width_m=0.01)), 0)
    at = tool.count(task)
    for shown in (exact, wider):
        shown.add(values)
    (plainly, meant), (errs, _) = exact.draw(2000), wider.draw(2000)
    assert errs[meant[:, 6] > 0.99, at].max() <= plainly[:, at].max() + 1e-6
    held = errs[meant[:, 6] < 0.99, at]
    assert held.max() > plainly[meant[:, 6] < 0.99, at].quantile(0.95) + 0.005
    assert held.min() > plainly[meant[:, 6] < 0.99, at].min() - 1e-6


def test_what_is_shown_is_kept_exactly(grasps) -> None:
    task, episodes = grasps
    whole, again = Shown(task, SMALL, 0), Shown(task, SMALL, 7)
    for values in episodes[:2]:
        whole.add(values)
    whole.draw(5)
    tensors, meta = whole.state()
    again.load_state(tensors, meta)
    for shown in (whole, again):
        shown.add(episodes[2])
    for one, two in zip(whole.draw(50), again.draw(50), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(whole.draw(50)[0], whole.draw(50)[0])


def test_half_of_what_is_shown_follows_a_keyframe_and_lies_about_it(grasps) -> None:
    task, (values, *_) = grasps
    state = np.asarray(values["observation.state"], float)
    starts = np.concatenate([[0], keyframes_of(task, SMALL.keys, state)])
    seen = seen_in(task, values)

    def frames_of(config: HorizonConfig) -> tuple[np.ndarray, np.ndarray]:
        """Frames that are shown, and how far beside them."""
        shown = Shown(task, config, 0)
        shown.add(values)
        plain = shown.draw(2000)[0].numpy()
        # The cube's place as the tool sees it tells how far aside the tool is, for nothing else is.
        off = np.linalg.norm((seen[None] - plain[:, None])[:, :, :3], axis=2)
        found = np.abs((seen[None] - plain[:, None])[:, :, tool.count(task) + 1 :]).max(2).argmin(1)
        return found, off.min(1)

    every, exactly = frames_of(replace(EXACT, aims=replace(EXACT.aims, begins=0.0)))
    only, _ = frames_of(replace(EXACT, aims=replace(EXACT.aims, begins=1.0)))
    far, _ = frames_of(EXACT)
    assert exactly.max() < 1e-6

    def follow(frames: np.ndarray) -> float:
        return float(np.mean([np.any((frame - starts >= 0) & (frame - starts < 2)) for frame in frames]))

    assert follow(only) == 1.0 and follow(every) < 0.4
    assert follow(far) == pytest.approx(0.5 + 0.5 * follow(every), abs=0.06)
    spread = replace(EXACT, aims=replace(EXACT.aims, begins=1.0, arrives=0.5))
    shown, at = Shown(task, spread, 0), Shown(task, replace(EXACT, aims=replace(EXACT.aims, begins=1.0)), 0)
    shown.add(values)
    at.add(values)
    moved = np.linalg.norm(shown.draw(2000)[1].numpy()[:, :3], axis=1)
    assert 0.001 < np.median(moved[moved < 0.03]) < 0.02  # where nothing but the gripper moves one goes back there
    assert np.linalg.norm(at.draw(2000)[1].numpy()[:, :3], axis=1).min() < 1e-3


def test_demonstrations_with_nothing_to_aim_at_are_one_clear_error(grasps) -> None:
    task, (values, *_) = grasps
    shown = Shown(task, SMALL, 0)
    shown.add({name: column[:1] if np.ndim(column) else column for name, column in values.items()})
    with pytest.raises(ConfigError, match="nothing to aim at; record longer ones"):
        shown.draw(4)


class Wired:
    """A tool that does what it is told, and a mixture of aims that are places."""

    def __init__(self, config: AimConfig | None = None) -> None:
        self.follower = Follower(ToolGuide(KeysConfig(), DT), config or AimConfig(), DT)
        self.place, self.width = np.zeros(3), 0.08

    def step(self, chances: list[float], goals: list[list[float]], generator: torch.Generator | None = None) -> None:
        state = np.concatenate([np.zeros(7), [self.width], self.place, [1.0, 0, 0, 0]])[None]
        places = [[*(np.array(g[:3]) - self.place), 0, 0, 0, g[3]] for g in goals]
        says = Mixture(torch.tensor([chances]).log(), torch.tensor(np.array([places]), dtype=torch.float32))
        motion = self.follower.motion(state, says, generator)[0].numpy()
        self.place = self.place + motion[:3] * REACH_M_S * DT
        self.width += float(np.clip(0.04 * (motion[6] + 1) - self.width, -0.005, 0.005))


def test_who_follows_is_not_of_two_minds() -> None:
    wired, goals = Wired(), [[0.2, 0.0, 0.0, 1.0], [0.0, 0.2, 0.0, 1.0]]
    for k in range(30):
        wired.step([0.6, 0.4] if k == 0 or k % 3 else [0.2, 0.8], goals)  # thinks better of it now and then
        if np.linalg.norm(wired.place - goals[0][:3]) < 0.008:
            break
    assert abs(wired.place[1]) < 1e-9 and wired.place[0] > 0.19
    for _ in range(30):
        wired.step([0.6, 0.4], goals)  # is there: does the other
        if np.linalg.norm(wired.place - goals[1][:3]) < 0.008:
            break
    np.testing.assert_allclose(wired.place, goals[1][:3], atol=0.01)


def test_jaws_close_before_the_arm_leaves() -> None:
    wired = Wired()
    here, there = [0.0, 0.0, 0.0, -1.0], [0.0, 0.0, 0.2, -1.0]
    widths = []
    for _ in range(60):
        closed = wired.width < 0.01
        wired.step([0.02, 0.98] if closed else [0.9, 0.1], [here, there])
        widths.append(wired.width if wired.place[2] < 1e-6 else None)
    assert [w for w in widths if w is not None][-1] < 0.01 and wired.place[2] == pytest.approx(0.2, abs=0.01)


def test_what_is_better_known_from_nearer_moves_the_aim_and_another_thing_does_not() -> None:
    wired = Wired()
    for k in range(12):
        wired.step([1.0], [[0.2, 0.02 * min(k / 4, 1.0), 0.0, 1.0]])
    for _ in range(12):
        wired.step([1.0], [[0.2, 0.3, 0.0, 1.0]])
        if wired.place[0] > 0.185:
            break
    assert 0.01 < wired.place[1] < 0.025


def test_what_cannot_be_reached_is_given_up_and_nothing_unlikely_is_taken_up() -> None:
    wired = Wired(AimConfig(patience_s=0.5))
    for k in range(14):
        wired.place = np.zeros(3)  # is stuck
        wired.step([0.9, 0.1] if k < 8 else [0.1, 0.9], [[0.0, 0.0, -0.1, 1.0], [0.0, 0.0, 0.1, 1.0]])
    assert wired.place[2] > 0
    wired = Wired()
    for _ in range(20):
        wired.step([0.999, 0.001], [[0.0, 0.0, 0.0, 1.0], [0.3, 0.0, 0.0, 1.0]])
    assert np.abs(wired.place).max() < 1e-6


def test_aims_are_drawn_as_likely_as_they_are() -> None:
    generator, ways = torch.Generator().manual_seed(0), []
    for _ in range(300):
        wired = Wired()
        wired.step([0.7, 0.28, 0.02], [[0.1, 0, 0, 1.0], [0, 0.1, 0, 1.0], [0, 0, 0.1, 1.0]], generator)
        ways.append(int(np.argmax(wired.place)))
    shares = np.bincount(ways, minlength=3) / 300
    assert shares[2] == 0 and shares[1] == pytest.approx(0.28 / 0.98, abs=0.08)


class Aiming(Commanded):
    """An actor by itself, that is told where things are up to some millimetres."""

    def __init__(self, task: TabletopTask, actor: AimActor, config: HorizonConfig) -> None:
        super().__init__(task, "ee_delta")
        self.actor, self.config = actor, config

    def _begin(self, obs: Obs, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        dt = self.task.ctrl_dt_s
        self.follower = Follower(ToolGuide(self.config.keys, dt), self.config.aims, dt)

    @torch.no_grad()
    def _action(self, obs: Obs) -> np.ndarray:
        state, around = proprioception(obs)[None], surroundings(self.task, obs)[None]
        for i in tool.places(self.task):
            around[:, i : i + 3] += 0.004 * self.rng.normal(size=3)
        scene = tool.scene(self.task, state, around)
        own = proprio(self.task, {"observation.state": state, "observation.environment_state": around})
        plain = np.concatenate([tool.around_it(self.task, state, scene), own], axis=1)
        says = self.actor.at(torch.from_numpy(plain).float())
        return tool.seen_by_base(state, self.follower.motion(state, says, None).double().numpy())[0]


def test_demonstrations_suffice_to_carry_a_cube(grasps) -> None:
    task, _ = grasps
    _, episodes = shown_by("pick_and_place", 20)
    shown, wanted = Shown(task, SMALL, 0), aims(task, SMALL)
    for values in episodes:
        shown.add(values)
    assert wanted is not None
    torch.manual_seed(0)
    actor = AimActor(replace(SMALL.world.actor, units=128, layers=2), wanted)
    actor.standard.fit(shown.draw(3000)[0])
    optimiser = torch.optim.Adam(actor.parameters(), 2e-3)
    for step in range(1200):
        optimiser.param_groups[0]["lr"] = 2e-3 * (1 - step / 1200)
        optimiser.zero_grad()
        actor.cloning(*shown.draw(256)).backward()
        optimiser.step()
    env, policy = TabletopEnv(task), Aiming(task, actor, SMALL)
    won = sum(bool(play(env, policy, 70_000 + seed)["success"]) for seed in range(10))
    env.close()
    assert won >= 7


def test_settings_out_of_range_are_one_clear_error() -> None:
    with pytest.raises(ConfigError, match=r"aims.follow must lie in \[0, 1\], not 2.0"):
        AimConfig(follow=2.0)
    with pytest.raises(ConfigError, match=r"aims.error_m must not be negative"):
        AimConfig(error_m=-1.0)


def test_who_knows_no_keyframes_or_no_things_decides_at_every_step() -> None:
    assert SMALL.aiming and not replace(SMALL, keys=KeysConfig(on=False)).aiming
    assert not replace(SMALL, marks=replace(SMALL.marks, on=False)).aiming
    assert [name for name, preset in PRESETS.items() if preset.aiming] == ["small"]
