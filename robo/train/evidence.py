"""Evidence about a task: what an expert does and how things go wrong; `tasks.instruct.verify` judges rewards by it."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.policy import Policy
from policies.registry import POLICIES
from tasks.instruct.program import Program
from tasks.instruct.verify import Episode, Evidence, Kind, require_verified, verify
from tasks.registry import load_task
from tasks.tabletop.base import TabletopTask, tabletop_task
from tasks.task import Task

if TYPE_CHECKING:
    from sim.tabletop import TabletopEnv

LINGER_S = 1.5
"""An adversary stands still so long at the end: things come to rest, and so does what it is paid."""
SHAKE_S, SHAKE_RAD, SHAKE_HZ = 1.0, 0.05, 1.5
BACK_HASTE = 2
"""The way back is taken so much faster than the expert came."""
FIRST_SPARE, SPARE = 500, 8
"""Starts of which only the expert is watched, where it failed, or a stage that not all instances need took no work."""
RANDOM, BLIND_S = 2, 8.0
"""Random episodes of a seed; who does not look is watched no longer."""


def gather(task: Task | str, seeds: Sequence[int] = (0,)) -> Evidence:
    """Episodes of a tabletop task in simulation, for every seed: expert, random, zero, and adversaries.

    Adversaries follow the expert until a stage is reached, or until half-way or shortly before, and then stop, let go,
    shake, carry back what they have the way they came, or undo all. They, and success, are of the task's own file: of
    a task that `tasks.instruct.program.Program.apply` made it is the task before.

    Raises:
        RoboError: No such task, or none on a tabletop.
    """
    from sim.tabletop import TabletopEnv  # lazily: mujoco

    given = tabletop_task(task if isinstance(task, Task) else load_task(task))
    own = type(given)(given.robot_name)
    env = TabletopEnv(own)
    starts = [_Seed(env, own, seed) for seed in seeds]
    found = [episode for start in starts for episode in start.episodes()]
    experts = [start.expert for start in starts]
    for seed in range(FIRST_SPARE, FIRST_SPARE + SPARE):
        if _telling(experts, len(own.stages)):
            break
        experts.append(_Seed(env, own, seed).expert)
        found.append(experts[-1].episode("expert", seed))
    env.close()
    return Evidence(task=own.name, dt_s=own.ctrl_dt_s, episodes=tuple(found))


def require_right(task: TabletopTask) -> None:
    """Refuse to train on a reward that is wrong, or of which nobody can say.

    Raises:
        ProgramError: Names every finding.
    """
    require_verified(task, gather(task))


class Verifier:
    """What is wrong with programs, by evidence that is gathered once; a check for `tasks.instruct.writers`.

    Args:
        task: Which the programs are for.
    """

    def __init__(self, task: TabletopTask) -> None:
        self.task = task

    @cached_property
    def evidence(self) -> Evidence:
        """About the task."""
        return gather(self.task)

    def __call__(self, program: Program) -> list[str]:
        """One line each; none where nothing is wrong.

        Raises:
            ProgramError: The expert never does it, so nobody can say; or the program does not fit the task.
        """
        return [str(finding) for finding in verify(program.apply(self.task), self.evidence)]


def _telling(experts: Sequence[_Log], stages: int) -> bool:
    """Whether some expert succeeded, and every stage took work in some of their episodes."""
    worked = {k for log in experts for k, (a, b) in enumerate(itertools.pairwise([0, *log.reached])) if b > a}
    return any(log.done[-1] for log in experts) and len(worked) == stages


class _Seed:
    """Everything from one start."""

    def __init__(self, env: TabletopEnv, task: TabletopTask, seed: int) -> None:
        self.env, self.task, self.seed = env, task, seed

    def episodes(self) -> list[Episode]:
        """All of them, the expert's first."""
        expert = self.expert
        branches = list(self._branches(expert.reached))
        states = self._states(expert.actions, {left for _, left, _ in branches})
        found = [expert.episode("expert", self.seed)]
        found.append(self._policy("zero", self.seed).episode("zero", self.seed, stood=0))
        for i in range(RANDOM):
            found.append(self._policy("random", self.seed + 1000 * i).episode("random", self.seed, f"no. {i + 1}"))
        for deed, left, when in branches:
            log = expert.until(left)
            self.env.set_state(states[left])
            for action in self._deed(deed, expert.actions[:left]):
                log.step(action)
            found.append(log.episode("adversarial", self.seed, f"{deed} {when}", left if deed == "stops" else None))
        return found

    @cached_property
    def expert(self) -> _Log:
        """What the expert does."""
        return self._policy("expert", self.seed)

    def _branches(self, reached: list[int]) -> Iterator[tuple[str, int, str]]:
        """What adversaries do, after which sample of the expert's way, and where that is."""
        for stage, (before, at) in enumerate(itertools.pairwise([0, *reached])):
            name, last = self.task.stages[stage].name, stage == len(self.task.stages) - 1
            for way, when in ((0.5, "half-way to"), (0.9, "shortly before")):
                if (left := before + int(way * (at - before))) > 0:
                    yield "lets go", left, f"{when} {name!r}"
            for deed in ("undoes", "carries back") if last else ("stops", "lets go", "shakes", "carries back"):
                yield deed, at, f"after {name!r}"

    def _states(self, actions: list[np.ndarray], samples: set[int]) -> dict[int, Any]:
        """States of the environment after so many of the expert's actions."""
        self.env.reset(seed=self.seed)
        states: dict[int, Any] = {}
        for sample in range(max(samples, default=0) + 1):
            if sample in samples:
                states[sample] = self.env.state()
            if sample < len(actions):
                self.env.step(actions[sample])
        return states

    def _policy(self, name: str, seed: int) -> _Log:
        kind = POLICIES.make(name)
        policy = kind.load(self.task, kind.config(), {}, "cpu")
        assert isinstance(policy, Policy)
        obs, info = self.env.reset(seed=self.seed)
        policy.reset(obs, seed)
        log = _Log(self.env)
        log.see(info)
        most = self.task.steps if name == "expert" else min(self.task.steps, round(BLIND_S / self.task.ctrl_dt_s))
        for _ in range(most):
            obs = log.step(self.env.action(policy.act(obs)))
        return log

    def _deed(self, deed: str, past: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Actions (2 J + 1,) that follow those of the past; the arm stands still in the end."""
        dt, dof, gripper = self.task.ctrl_dt_s, self.task.robot.dof, self.task.robot.gripper
        assert gripper is not None
        here = _still(past[-1], dof)
        if deed == "lets go":
            here[-1] = gripper.open_m
        acts = [here]
        if deed == "shakes":
            for phase in 2 * np.pi * SHAKE_HZ * dt * np.arange(round(SHAKE_S / dt)):
                act = here.copy()
                act[:dof] += SHAKE_RAD * np.sin(phase)
                act[dof:-1] = SHAKE_RAD * 2 * np.pi * SHAKE_HZ * np.cos(phase)
                acts.append(act)
        elif deed in ("carries back", "undoes"):
            for act in past[::-BACK_HASTE]:
                back = act.copy()
                back[dof:-1] *= -BACK_HASTE
                if deed == "carries back":
                    back[-1] = here[-1]
                acts.append(back)
        end = _still(acts[-1], dof)
        if deed == "carries back":
            end[-1] = gripper.open_m
        made, width = [], past[-1][-1]
        for act in (*acts, *[end] * round(LINGER_S / dt)):
            width = float(np.clip(act[-1], width - gripper.speed_m_s * dt, width + gripper.speed_m_s * dt))
            made.append(np.append(act[:-1], width))
        return made


def _still(action: np.ndarray, dof: int) -> np.ndarray:
    """The same reference, at rest."""
    still = action.copy()
    still[dof:-1] = 0.0
    return still


class _Log:
    """Steps an environment and writes down what happens."""

    def __init__(self, env: TabletopEnv) -> None:
        self.env = env
        self.rows: list[dict[str, float]] = []
        self.stages: list[int] = []
        self.done: list[bool] = []
        self.actions: list[np.ndarray] = []

    def see(self, info: dict[str, Any]) -> None:
        """Write down a sample."""
        self.rows.append(info["signals"])
        self.stages.append(info["stage"])
        self.done.append(info["success"])

    def step(self, action: np.ndarray) -> Any:
        """Take a step; the observation after it."""
        obs, _, _, _, info = self.env.step(action)
        self.actions.append(action)
        self.see(info)
        return obs

    def until(self, sample: int) -> _Log:
        """A log that begins as this one, up to a sample."""
        log = _Log(self.env)
        log.rows, log.stages = self.rows[: sample + 1], self.stages[: sample + 1]
        log.done, log.actions = self.done[: sample + 1], self.actions[:sample]
        return log

    @property
    def reached(self) -> list[int]:
        """At which sample each stage was reached, of those that were."""
        stages = np.array(self.stages)
        return [int(np.argmax(stages > k)) for k in range(stages[-1])]

    def episode(self, kind: Kind, seed: int, name: str = "", stood: int | None = None) -> Episode:
        """The whole, see `tasks.instruct.verify.Episode`."""
        task = self.env.task
        signals = {key: np.array([row[key] for row in self.rows]) for key in self.rows[0]}
        return Episode(
            kind=kind,
            seed=seed,
            name=name,
            signals=signals,
            stood=stood,
            holds=task.verdict(task.goal, signals),
            done=np.array(self.done),
        )
