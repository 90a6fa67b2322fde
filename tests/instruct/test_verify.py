"""The verifier: right rewards pass, wrong ones are named; and one text is what everything goes by."""

from __future__ import annotations

import functools

import numpy as np
import pytest

import sim
from policies.stl.config import StlConfig, TrainConfig
from policies.stl.learner import StlLearner
from policies.stl.planner import load
from robo.core.errors import ProgramError
from robo.train.evidence import Verifier, gather
from sim.tabletop import TabletopEnv
from tasks.instruct.grammar import GrammarWriter
from tasks.instruct.program import Program, StageText
from tasks.instruct.verify import Evidence, require_verified, verify
from tasks.reach_avoid import ReachAvoid
from tasks.registry import TASKS, load_task
from tasks.tabletop.base import TabletopTask, tabletop_task
from tests.instruct.mutants import MUTANTS
from tests.instruct.parts import PARTS

pytestmark = pytest.mark.xdist_group("evidence")  # which is gathered once in a process
TABLETOP = [name for name in TASKS if isinstance(TASKS.make(name), TabletopTask)]
SHORT = ("pick_and_place", "push", "open_drawer")


@functools.cache
def _evidence(name: str) -> Evidence:
    return gather(name)


def _task(name: str) -> TabletopTask:
    return tabletop_task(load_task(name))


# ---- what happened -----------------------------------------------------------------------


def test_evidence_is_what_the_environment_does():
    task, evidence = _task("pick_and_place"), _evidence("pick_and_place")
    kinds = [episode.kind for episode in evidence.episodes]
    assert {"expert", "zero", "random", "adversarial"} == set(kinds)
    assert evidence.episodes[0].success and not any(
        e.done.any() for e in evidence.episodes if e.kind in ("zero", "random")
    )
    for episode in evidence.episodes:
        assert set(episode.signals) == set(task.signals)
        assert {len(values) for values in episode.signals.values()} == {len(episode.done)}
        assert episode.kind == "adversarial" or episode.success == task.success(episode.signals)
    undone = [e for e in evidence.episodes if e.done.any() and not e.success]
    assert undone, "somebody takes the cube away again"
    dropped = [e for e in evidence.episodes if e.name.startswith("lets go") and e.signals["lift_m"].max() > 0.02]
    assert all(e.signals["held_n"][-1] < 0.1 for e in dropped) and dropped
    again = gather("pick_and_place").episodes
    for one, two in zip(evidence.episodes, again, strict=True):
        assert all(np.array_equal(values, two.signals[name]) for name, values in one.signals.items())


# ---- right rewards -------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*TABLETOP, *(f"{name}@ur5e" for name in ("reach", "push", "pick_and_place"))])
def test_rewards_of_the_tasks_pass(name):
    assert [str(finding) for finding in verify(_task(name), _evidence(name))] == []


@pytest.mark.parametrize(("name", "instruction"), [part[:2] for part in PARTS])
def test_rewards_of_parts_of_tasks_pass(name, instruction):
    part = GrammarWriter().write(_task(name), instruction).apply(_task(name))
    assert [str(finding) for finding in verify(part, _evidence(name))] == []


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize(
    "shaping",
    [
        "exp(-({d}) / {s})",
        "1 / (1 + 2 * ({d}) / {s})",
        "max(1 - ({d}) / 3 / {s}, 0)",
        "(1 - tanh(2 * ({d}) / {s} - 1)) / 2",
    ],
)
@pytest.mark.parametrize("declared", [True, False])
def test_other_right_rewards_pass_as_well(name, shaping, declared):
    task = _task(name)
    program = Program.of(task)
    stages = tuple(
        stage.model_copy(
            update={
                "shaping": shaping.format(d=stage.distance, s=stage.scale),
                "distance": stage.distance if declared else "",
                "weight": (1.0, 2.0, 0.5, 1.5)[at],
            }
        )
        for at, stage in enumerate(program.stages)
    )
    made = program.model_copy(update={"stages": stages}).apply(task)
    assert [str(finding) for finding in verify(made, _evidence(name))] == []


# ---- wrong ones --------------------------------------------------------------------------------


@pytest.mark.parametrize("mutant", MUTANTS)
def test_wrong_rewards_are_caught(mutant):
    caught = 0
    for name in SHORT:
        task = _task(name)
        program = MUTANTS[mutant](Program.of(task))
        if program == Program.of(task):  # no metres in it, for example
            continue
        with pytest.raises(ProgramError) as error:
            require_verified(program.apply(task), _evidence(name))
        assert error.value.complaints and all(str(line) in str(error.value) for line in error.value.complaints)
        caught += 1
    assert caught >= 1


def test_the_printed_error_is_named_with_its_numbers():
    task = _task("pick_and_place")
    made = MUTANTS["printed error"](Program.of(task)).apply(task)
    found = verify(made, _evidence("pick_and_place"))
    assert {"sweep", "progress"} <= {finding.check for finding in found}
    assert all(finding.where == "stage 'lift'" for finding in found)
    assert all("moving away" in finding.text for finding in found if finding.check in ("sweep", "progress"))
    with pytest.raises(ProgramError, match=r"pays 0\.\d+ in the first third .* and 0\.\d+ in the last"):
        require_verified(made, _evidence("pick_and_place"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"goal": "opened_m > 0.01"}, "where the task's own goal does not"),
        ({"mission": "F[0,5.5](opened_m > 0.01)"}, "that never come to the task's goal"),
        ({"stages": [{"name": "grip", "condition": "handle_m < 0.02", "distance": "handle_m"}]}, "without success"),
    ],
)
def test_a_part_is_judged_by_its_instruction_not_by_itself(changes, message):
    task = _task("put_item_in_drawer")
    right = GrammarWriter().write(task, "open the top drawer")
    check = Verifier(task)
    assert check(right) == []
    wrong = Program.model_validate(right.model_dump() | changes)
    assert any(message in line for line in check(wrong))


def test_what_the_grammar_does_not_understand_is_judged_by_itself():
    task = _task("pick_and_place")
    said = {"instruction": "cube up, please, as high as a mug", "mission": "F[0,7](lift_m > 0.06)"}
    stages = [{"name": "grasp", "condition": "held_n > 0.5", "distance": "reach_m"}]
    stages += [{"name": "up", "condition": "lift_m > 0.06", "distance": "0.06 - lift_m"}]
    program = Program.model_validate(said | {"stages": stages, "goal": "lift_m > 0.06"})
    check = Verifier(task)
    assert check(program) == []
    stages[1]["distance"] = "lift_m"
    assert any(
        "moving away" in line
        for line in check(program.model_copy(update={"stages": tuple(StageText(**stage) for stage in stages)}))
    )
    never = Program.model_validate(said | {"stages": stages, "goal": "lift_m > 0.5", "mission": "F[0,7](lift_m > 0.5)"})
    with pytest.raises(ProgramError, match="no success of the expert of pick_and_place at 'cube up"):
        check(never)


def test_evidence_of_something_else_is_refused():
    with pytest.raises(ProgramError, match="gather"):
        verify(_task("push"), _evidence("pick_and_place"))
    own = _evidence("push")
    blind = Evidence(task="push", dt_s=own.dt_s, episodes=tuple(e for e in own.episodes if e.kind != "expert"))
    with pytest.raises(ProgramError, match="no success of the expert"):
        verify(_task("push"), blind)


# ---- one text, everywhere ------------------------------------------------------------------------


def test_one_number_of_a_program_changes_reward_stages_monitor_and_score():
    task = _task("pick_and_place")
    text = Program.of(task).text()
    assert text.count("lift_m > 0.03") == 1
    made = Program.parse(text.replace("lift_m > 0.03", "lift_m > 0.09").replace("0.03 - lift_m", "0.09 - lift_m"))
    tighter = Program.parse(text.replace("away_m < 0.05", "away_m < 0.01"))
    signals = _evidence("pick_and_place").episodes[0].signals
    seen = []
    for program in (Program.of(task), made, tighter):
        now = program.apply(task)
        env = TabletopEnv(now)  # the environment goes by the same text
        env.reset(seed=0)
        assert [str(stage) for stage in env.stages] == [stage.condition for stage in now.stages]
        monitor = now.formula.monitor(now.ctrl_dt_s)
        for at in range(now.steps + 1):
            bounds = monitor.update({name: float(values[at]) for name, values in signals.items()})
        paid = np.asarray(now.staged_reward(signals, 1))
        score = float(now.formula.rho(signals, now.ctrl_dt_s)[0])
        assert bounds[0] == pytest.approx(score)
        seen.append((paid.mean(), score, now.stages_reached(signals), now.success(signals)))
    own, higher, nearer = seen
    assert higher[0] < own[0] and higher[1] == own[1], "a stage is no part of the mission"
    assert nearer[1] < own[1] and own[3]


class Wary(ReachAvoid):
    """Keeps off by more: one number of the specification is another."""

    safety = ReachAvoid.safety.replace("clearance_m > 0 and self", "clearance_m > 0.05 and self", 1)


def test_one_number_of_a_specification_changes_reward_plan_backup_monitor_and_score():
    small = TrainConfig(steps=1, batch=8, pool=8, width=16, depth=1)
    weights = StlLearner(ReachAvoid(), StlConfig(train=small), 0, "cpu").weights()
    plans, switches, rewards, scores, lows = [], [], [], [], []
    for task in (ReachAvoid(), Wary()):
        policy = load(task, StlConfig(train=small), weights, "cpu")
        env, monitor = sim.make(task), task.formula.monitor(task.ctrl_dt_s)
        obs, info = env.reset(seed=1)
        policy.reset(obs, 1)
        chunk = policy.act(obs)
        plans.append(chunk.info["plan_joint_pos"])
        switches.append(chunk.info["switch"])
        witness = info["instance"]["witness"]
        moving = np.gradient(witness, task.ctrl_dt_s, axis=0)
        trace = [info["signals"]]
        for pos, vel in zip(witness[1:], moving[1:], strict=True):
            _, reward, _, _, info = env.step(np.concatenate([pos, vel]))
            trace.append(info["signals"])
        for row in trace:
            bounds = monitor.update(row)
        env.close()
        signals = {name: np.array([row[name] for row in trace]) for name in trace[0]}
        rewards.append(reward)
        scores.append(float(task.formula.rho(signals, task.ctrl_dt_s)[0]))
        lows.append(bounds[0])
    assert not np.array_equal(*plans)
    assert switches[1] < switches[0], "braking to rest begins earlier where more is kept off"
    assert rewards == pytest.approx(scores) and lows == pytest.approx(scores)
    assert scores[1] < scores[0] - 0.01
