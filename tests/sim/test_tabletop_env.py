"""What the tabletop environment alone can do: things fastened to the tool, instances of one's own."""

from __future__ import annotations

import numpy as np
import pytest

from policies.expert import MoveConfig
from policies.expert.policy import Expert
from robo.core.errors import RoboError, TaskError
from sim.open import make, make_vector
from sim.randomise import Randomisation
from sim.tabletop import TabletopEnv
from tasks.tabletop.pick_and_place import PickAndPlace

HEAVY = Randomisation(mass_scale=(150.0, 150.0))
"""Too heavy for friction to hold."""


def lifted(env: TabletopEnv, seed: int) -> tuple[float, bool]:
    """How high the expert lifts the cube [m], and whether it solves the task."""
    expert = Expert(env.task, MoveConfig())
    obs, info = env.reset(seed=seed)
    expert.reset(obs, seed)
    top, done = 0.0, False
    while not done:
        obs, _, _, done, info = env.step(env.action(expert.act(obs)))
        top = max(top, info["signals"]["lift_m"])
    return top, info["success"]


def test_what_friction_cannot_hold_is_held_when_it_is_attached_and_let_go() -> None:
    assert lifted(TabletopEnv("pick_and_place", randomise=HEAVY), 1)[0] < 0.02
    attached = TabletopEnv("pick_and_place", randomise=HEAVY, attach=True)
    top, solved = lifted(attached, 1)
    assert top > 0.08 and solved  # solved: it was put down and let go


def test_a_state_in_which_something_is_attached_goes_on_the_same_elsewhere() -> None:
    env, other = (TabletopEnv("pick_and_place", randomise=HEAVY, attach=True) for _ in range(2))
    expert = Expert(env.task, MoveConfig())
    obs, info = env.reset(seed=1)
    expert.reset(obs, 1)
    while info["signals"]["lift_m"] < 0.05:
        obs, _, _, _, info = env.step(env.action(expert.act(obs)))
    other.reset(seed=5)
    other.set_state(env.state())
    for _ in range(30):
        action = env.action(expert.act(obs))
        obs, *_ = env.step(action)
        same, *_ = other.step(action)
        assert all(np.array_equal(value, same[name]) for name, value in obs.items())
    other.reset(seed=1)
    assert not other.data.eq_active[other.model.equality("attach|cube").id]


def test_vectors_attach_too() -> None:
    vector = make_vector("pick_and_place", 2, processes=0, attach=True)
    obs, _ = vector.reset(seed=3)
    with make("pick_and_place", attach=True) as env:
        assert np.array_equal(obs["cube_pos"][1], env.reset(seed=4)[0]["cube_pos"])
    vector.close()


def test_an_instance_of_ones_own() -> None:
    with make("pick_and_place") as env:
        _, info = env.reset(seed=0)
        mine = info["instance"] | {"cube_pos": np.array([0.5, 0.1, 0.02])}
        obs, info = env.reset(seed=9, options={"instance": mine})
        np.testing.assert_allclose(obs["cube_pos"][:2], [0.5, 0.1], atol=1e-3)
        for change, match in (
            ({"cube_poz": mine["cube_pos"]}, "unknown key 'cube_poz': did you mean 'cube_pos'"),
            ({"cube_pos": [0.5, 0.1]}, r"cube_pos must be \(3,\) finite numbers"),
            ({"cube_pos": [0.5, 0.1, np.nan]}, r"cube_pos must be \(3,\) finite numbers"),
            ({"cube_pos": "there"}, "no numbers"),
        ):
            with pytest.raises(RoboError, match=match):
                env.reset(options={"instance": mine | change})
        with pytest.raises(RoboError, match="lacks 'joint_pos'; it needs joint_pos, "):
            env.reset(options={"instance": {"cube_pos": mine["cube_pos"]}})


@pytest.mark.parametrize("physics", ["mujoco", "bullet"])
def test_a_drawer_that_begins_open(physics: str) -> None:
    with make("open_drawer", physics=physics) as env:
        obs, info = env.reset(seed=0)
        assert abs(obs["drawer"][0]) < 1e-3 and "drawer" not in info["instance"]
        ajar = info["instance"] | {"drawer": [0.1]}
        obs, _ = env.reset(seed=9, options={"instance": ajar})
        assert abs(obs["drawer"][0] - 0.1) < 5e-3
        obs, _ = env.reset(seed=9, options={"instance": info["instance"]})
        assert abs(obs["drawer"][0]) < 1e-3
        for wrong in (0.17, -0.01):
            with pytest.raises(RoboError, match=r"drawer must lie in \[0, 0.16\]"):
                env.reset(options={"instance": ajar | {"drawer": [wrong]}})


def test_a_thing_that_was_not_built() -> None:
    class Forgetful(PickAndPlace):
        name = "forgetful"
        things = ("cube", "cubes")

    with pytest.raises(TaskError, match="task forgetful: unknown body 'cubes': did you mean 'cube'"):
        TabletopEnv(Forgetful())
