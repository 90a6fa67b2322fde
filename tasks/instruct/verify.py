"""The check that every reward passes before it trains anything: stages, mission and goal against what was seen.

A staged reward can be wrong in ways that training finds and its writer does not: it pays for moving away (as the
printed reward ``1 - exp(-d)`` of RoboHorizon, arXiv 2501.06605, does), for standing still, for a stage without its
work, or a failure more than a success. Here it is judged by episodes of an expert and of adversaries, whose success the
task's own file decides, and by values that none of them had. Of what no episode shows it knows nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from robo.core.errors import InstructionError, ProgramError
from tasks.instruct.grammar import GrammarWriter
from tasks.instruct.program import Program
from tasks.stl import Formula
from tasks.stl.exact import LIBRARY
from tasks.stl.syntax import Apply, Expr, evaluate, expression_text
from tasks.tabletop.base import TabletopTask

Kind = Literal["expert", "random", "zero", "adversarial"]
Signals = Mapping[str, np.ndarray]

GAIN = 0.04
"""Of a stage's share: so much more is paid in the last third of the expert's way to it than in the first, and than for
standing still where it begins."""
SLACK = 1e-3
"""Of a stage's share: what is less counts as nothing."""
MOST = 0.8
"""Of the expert's successes: so many have to reach what a program asks for."""
SHARE = 0.1
"""Of the mean weight of stages: so much every stage is worth at least."""
LEAD = 0.005
"""Of all an episode can pay: so far a success is ahead of every failure."""
GRACE_S = 0.25
"""The goal holds at most so long after the last stage was reached."""
QUICK_S = 0.5
"""A stage without shaping takes the expert no longer."""
ROWS, GRID, WIDER = 400, 9, 0.25
"""Of sweeps: moments they start from, values of every signal, and how far these go beyond those seen."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Episode:
    """What happened in an episode, judged by the task's own file.

    Attributes:
        kind: Who acted.
        seed: Which start; episodes of a seed start alike.
        name: What was done, in words.
        signals: Name → (T,).
        holds: The task's own goal, at every sample (T,) bool.
        done: The same, with all of its own stages reached (T,) bool.
        stood: The sample from which on the arm stood still where the expert had been; None: it never did so.
    """

    kind: Kind
    seed: int
    name: str = ""
    signals: Signals
    holds: np.ndarray
    done: np.ndarray
    stood: int | None = None

    @property
    def success(self) -> bool:
        """Whether it ends in success."""
        return bool(self.done[-1])

    def __str__(self) -> str:
        return f"{self.kind} of seed {self.seed}" + (f" ({self.name})" if self.name else "")


@dataclass(frozen=True, kw_only=True, eq=False)
class Evidence:
    """Episodes of an expert and of those who fail; `robo.train.evidence.gather` makes them.

    Attributes:
        task: Name of the task.
        dt_s: Distance of samples.
        episodes: All of them.
    """

    task: str
    dt_s: float
    episodes: tuple[Episode, ...]


@dataclass(frozen=True)
class Finding:
    """Something wrong with a reward.

    Attributes:
        check: Which check found it: text, values, sweep, progress, skip, reach, goal, mission, safety, share, return.
        where: Which part of the program.
        text: What, with the numbers.
    """

    check: str
    where: str
    text: str

    def __str__(self) -> str:
        return f"{self.where}: {self.text} [{self.check}]"


def verify(task: TabletopTask, evidence: Evidence) -> tuple[Finding, ...]:
    """What is wrong with the stages, the mission and the goal of a task; empty when nothing is.

    Args:
        task: As `Program.apply` made it, or as its own file has it.
        evidence: Of the same task; what of it is a success says, of the task's own instruction, its own file, of
            another one the grammar's program for it, and only where that understands nothing the task itself.

    Raises:
        ProgramError: The evidence is of another task, or holds no success of the expert.
    """
    if evidence.task != task.name or abs(evidence.dt_s - task.ctrl_dt_s) > 1e-9:
        raise ProgramError(
            f"evidence of task {evidence.task} every {evidence.dt_s:g} s says nothing about {task.name} every "
            f"{task.ctrl_dt_s:g} s; gather({task.name!r})"
        )
    evidence = _judged(evidence, _reference(task))
    if not any(episode.kind == "expert" and episode.success for episode in evidence.episodes):
        raise ProgramError(
            f"the evidence holds no success of the expert of {task.name} at {task.instruction!r}, so nothing says "
            "whether its reward is right; take the instruction of a task whose expert does it, or gather more seeds"
        )
    # Each group rests on what the one before has made sure of.
    for checks in ((_text,), (_values,), (_sweep, _progress, _skip, _reach, _goal, _mission, _safety, _share, _return)):
        case = _Case(task, evidence)
        if found := tuple(finding for check in checks for finding in check(case)):
            return found
    return ()


def require_verified(task: TabletopTask, evidence: Evidence) -> None:
    """Refuse a task whose reward is wrong.

    Raises:
        ProgramError: Names every finding.
    """
    if found := verify(task, evidence):
        raise ProgramError(f"the reward of {task.name} ({task.instruction!r}) failed verification", map(str, found))


# ---- whose success ----------------------------------------------------------------------------


def _reference(task: TabletopTask) -> TabletopTask:
    """Who decides what a success is: for a task's own instruction its own file, for another one the grammar's program.

    A program must not judge itself. Only where the instruction says nothing to the grammar there is nobody else, and
    what is found then is whether the program agrees with itself.
    """
    own = type(task)(task.robot_name)
    if task.instruction in (own.instruction, *own.phrases):
        return own
    try:
        return GrammarWriter().write(own, task.instruction).apply(own)
    except InstructionError:
        return task


def _judged(evidence: Evidence, by: TabletopTask) -> Evidence:
    """The same episodes as the goal and stages of another task see them.

    The expert has a task of its own: what it does before the other one begins, and after that one has succeeded, is cut
    off; of who followed it the beginning too.
    """
    own = type(by)(by.robot_name)
    begins: dict[int, tuple[int, int]] = {}  # seed → own stages reached before, and when the last of them was
    for episode in evidence.episodes:
        if episode.kind == "expert" and (theirs := by.stage_samples(episode.signals)):
            before = [at for at in own.stage_samples(episode.signals) if at < theirs[0]]
            if before:
                begins[episode.seed] = len(before), before[-1]
    found = []
    for episode in evidence.episodes:
        stages, start = begins.get(episode.seed, (0, 0))
        if own.stage_samples(episode.signals)[stages - 1 : stages] != [start]:
            start = 0
        signals = {name: values[start:] for name, values in episode.signals.items()}
        holds = np.asarray(by.verdict(by.goal, signals))
        reached, end = by.stage_samples(signals), len(holds)
        done = holds & (np.arange(end) >= (reached[-1] if len(reached) == len(by.stages) else end))
        if episode.kind == "expert" and done.any():
            first = int(np.argmax(done))
            end = end if done[first:].all() else first + int(np.argmin(done[first:]))
        signals = {name: values[:end] for name, values in signals.items()}
        stood = None if episode.stood is None else episode.stood - start
        found.append(replace(episode, signals=signals, holds=holds[:end], done=done[:end], stood=stood))
    return replace(evidence, episodes=tuple(found))


# ---- a reward and the evidence -----------------------------------------------------------


class _Track:
    """An episode as the reward under test sees it."""

    def __init__(self, task: TabletopTask, episode: Episode) -> None:
        self.task, self.episode, self.signals = task, episode, episode.signals
        self.length = len(episode.done)

    @cached_property
    def reached(self) -> list[int]:
        """The sample at which each stage was reached, of those that were."""
        return self.task.stage_samples(self.signals)

    @cached_property
    def stage(self) -> np.ndarray:
        """Stages reached, (T,)."""
        return np.searchsorted(self.reached, np.arange(self.length), side="right")

    def shaping(self, stage: int) -> np.ndarray:
        """What is paid on the way to a stage, as its text says it, (T,)."""
        return np.broadcast_to(self.task.shaping(self.signals, stage), (self.length,))

    @cached_property
    def pay(self) -> float:
        """Mean reward over an episode's length; one that ended before goes on as it ended."""
        weights = [stage.weight for stage in self.task.stages]
        paid = np.ones(self.length)
        for k, weight in enumerate(weights):
            on = self.stage == k
            paid[on] = ((sum(weights[:k]) + weight * self.shaping(k)) / sum(weights))[on]
        return float(self._whole(paid)[1:].mean())

    def satisfied(self) -> bool:
        """Whether the mission was."""
        whole = {name: self._whole(value) for name, value in self.signals.items()}
        return bool(self.task.mission_formula.verdict(whole, self.task.ctrl_dt_s)[0])

    def _whole(self, values: np.ndarray) -> np.ndarray:
        samples = self.task.steps + 1
        return np.concatenate([values[:samples], np.full(max(samples - len(values), 0), values[-1])])


class _Case:
    """A task whose reward is under test, and the evidence."""

    def __init__(self, task: TabletopTask, evidence: Evidence) -> None:
        self.task, self.dt = task, evidence.dt_s
        self.tracks = [_Track(task, episode) for episode in evidence.episodes]
        self.experts = [t for t in self.tracks if t.episode.kind == "expert" and t.episode.success]
        self.random = np.random.default_rng(0)

    def of(self, kind: Kind) -> list[_Track]:
        return [track for track in self.tracks if track.episode.kind == kind]

    @cached_property
    def seen(self) -> Signals:
        """All samples of all episodes."""
        return {name: np.concatenate([t.signals[name] for t in self.tracks]) for name in self.task.signals}

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """Of every signal from where to where it goes, and a bit beyond; what was never negative stays so."""
        found = {}
        for name, values in self.seen.items():
            low, high = float(values.min()), float(values.max())
            beyond = WIDER * max(high - low, 1e-3)
            found[name] = (max(low - beyond, 0.0) if low >= 0 else low - beyond, high + beyond)
        return found

    @cached_property
    def swept(self) -> Signals:
        """Samples seen, such with one signal anywhere in its range or at an end, and such with all of them anywhere."""
        count = len(next(iter(self.seen.values())))
        parts = [self.seen, {name: self.random.uniform(*ends, ROWS) for name, ends in self.ranges.items()}]
        for name, ends in self.ranges.items():
            rows = self.random.integers(count, size=ROWS)
            part = {other: values[rows].copy() for other, values in self.seen.items()}
            part[name] = self.random.uniform(*ends, ROWS)
            part[name][:3] = (*ends, np.clip(0.0, *ends))
            parts.append(part)
        return {name: np.concatenate([part[name] for part in parts]) for name in self.seen}

    def stages(self) -> Iterator[tuple[int, str]]:
        for k, stage in enumerate(self.task.stages):
            yield k, f"stage {stage.name!r}"


# ---- the text and its values -------------------------------------------------------------


def _text(case: _Case) -> Iterator[Finding]:
    for line in Program.of(case.task).complaints(case.task):
        yield Finding("text", "program", line)


def _values(case: _Case) -> Iterator[Finding]:
    task, signals = case.task, case.swept
    said: list[tuple[str, Formula]] = [("mission", task.mission_formula), ("safety", task.safety_formula)]
    said += [("goal", task.goal_formula)]
    for k, where in case.stages():
        stage = task.stages[k]
        said.append((f"{where}: condition", task.parsed(stage.condition)))
        said += [
            (f"{where}: {part}", task.expression(getattr(stage, part)))
            for part in ("distance", "shaping")
            if getattr(stage, part)
        ]
    with np.errstate(all="ignore"):
        for where, formula in said:
            lines = dict.fromkeys(
                line for p in formula.predicates for side in (p.left, p.right) for line in _broken(side, signals)
            )
            yield from (Finding("values", where, line) for line in lines)
        for k, where in case.stages():
            if not task.stages[k].shaping:
                continue
            value = np.broadcast_to(task.shaping(signals, k), (len(next(iter(signals.values()))),))
            for at in (int(np.nanargmin(value)), int(np.nanargmax(value))) if not np.isnan(value).all() else ():
                if not -SLACK <= value[at] <= 1 + SLACK:
                    yield Finding(
                        "values",
                        f"{where}: shaping",
                        f"is {value[at]:.3g} at {_moment(task.expression(task.stages[k].shaping), signals, at)}, "
                        "and must stay in [0, 1]; write min(max(..., 0), 1)",
                    )


def _broken(expr: Expr, signals: Signals) -> Iterator[str]:
    """Where an expression is no finite number."""
    for node in expr.walk():
        if not isinstance(node, Apply):
            continue
        match node.op:
            case "/":
                risky, bad, what = node.args[1], _changes_sign, "divides by zero"
            case "^" if (power := node.args[1].value) < 0:  # type: ignore[union-attr]
                risky, bad, what = node.args[0], _changes_sign, "divides by zero"
            case "^" if power != int(power):
                risky, bad, what = node.args[0], _negative, "is a broken power of a negative number"
            case "sqrt":
                risky, bad, what = node.args[0], _negative, "is the root of a negative number"
            case _:
                continue
        values = np.atleast_1d(evaluate(risky, signals, LIBRARY))
        if bad(values):
            yield (
                f"{expression_text(node)} {what}: {expression_text(risky)} goes from {values.min():.3g} to "
                f"{values.max():.3g}"
            )
    value = np.atleast_1d(evaluate(expr, signals, LIBRARY))
    if not np.isfinite(value).all():
        yield f"{expression_text(expr)} is no finite number in {1 - np.isfinite(value).mean():.0%} of all moments tried"


def _changes_sign(values: np.ndarray) -> bool:
    return bool(values.min() <= 0 <= values.max())


def _negative(values: np.ndarray) -> bool:
    return bool(values.min() < 0)


def _moment(formula: Formula, signals: Signals, at: int) -> str:
    return ", ".join(f"{name} = {signals[name][at]:.3g}" for name in formula.signals)


# ---- does it pay for getting there -----------------------------------------------------------


def _sweep(case: _Case) -> Iterator[Finding]:
    """One signal changes, the rest stays: what brings a stage nearer never pays less."""
    task = case.task
    for k, where in case.stages():
        stage = task.stages[k]
        if not (stage.shaping or stage.distance):
            continue
        condition = task.parsed(stage.condition)
        distance = task.expression(stage.distance) if stage.distance else None
        paid_by = task.expression(stage.shaping or stage.distance)
        before = np.concatenate([track.stage == k for track in case.tracks])
        rows = np.flatnonzero(before)
        if not len(rows):
            continue
        rows = rows[np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).round().astype(int)]
        for name in dict.fromkeys((*condition.signals, *(distance.signals if distance else ()), *paid_by.signals)):
            # As they were seen on the way to the stage, and the ends: what is rare may be far out.
            tried = np.unique([*np.quantile(case.seen[name][rows], np.linspace(0, 1, GRID)), *case.ranges[name]])
            shape = (len(rows), len(tried))
            moments = {other: np.broadcast_to(values[rows, None], shape) for other, values in case.seen.items()}
            moments[name] = np.broadcast_to(tried, shape)
            near = condition.rho(moments, case.dt)
            far = distance.value(moments) if distance else -near
            paid = np.broadcast_to(task.shaping(moments, k), near.shape)
            nearer, less = _gains(near), _gains(-far)
            fall = -_gains(paid)
            wrong = ((nearer > 1e-9) | ((less > 1e-9) & (nearer >= -1e-9))) & (fall > SLACK)
            if wrong.any():
                row, a, b = np.unravel_index(np.argmax(np.where(wrong, fall, 0)), wrong.shape)
                yield Finding(
                    "sweep",
                    where,
                    f"pays {paid[row, a]:.3f} at {name} = {tried[a]:.3g} and {paid[row, b]:.3f} at {tried[b]:.3g}, "
                    f"which is nearer {_nearer(near[row], far[row], a, b)}: it pays for moving away",
                )
                break


def _nearer(near: np.ndarray, far: np.ndarray, a: np.intp, b: np.intp) -> str:
    if near[b] > near[a]:
        return f"to its condition ({near[a]:.3g} -> {near[b]:.3g}, it holds above 0)"
    return f"by its distance ({far[a]:.3g} -> {far[b]:.3g})"


def _gains(values: np.ndarray) -> np.ndarray:
    """(rows, n) → (rows, n, n): how much more the second is than the first."""
    return values[:, None, :] - values[:, :, None]


def _progress(case: _Case) -> Iterator[Finding]:
    """On the expert's way to a stage more and more is paid; standing still where it begins pays less."""
    task = case.task
    for k, where in case.stages():
        ways = []
        for track in case.experts:
            if len(track.reached) > k and (end := track.reached[k]) > (start := track.reached[k - 1] if k else 0):
                ways.append((track, start, end))
        if not ways:
            continue
        took = float(np.median([end - start for _, start, end in ways])) * case.dt
        if not (task.stages[k].shaping or task.stages[k].distance):
            if took > QUICK_S:
                yield Finding(
                    "progress",
                    where,
                    f"pays nothing on the way, which takes the expert {took:.2f} s; give it a distance or a shaping",
                )
            continue
        early, late = [], []
        for track, start, end in ways:
            paid, third = track.shaping(k)[start : end + 1], max((end - start + 1) // 3, 1)
            early.append(paid[:third].mean())
            late.append(paid[-third:].mean())
        first, last = float(np.median(early)), float(np.median(late))
        if last - first < GAIN:
            what = "less: it pays for moving away" if last - first < -SLACK else "no more: it does not lead there"
            yield Finding(
                "progress",
                where,
                f"pays {first:.3f} in the first third of the expert's way ({took:.2f} s) and {last:.3f} in the last, "
                f"{what}",
            )
            continue
        still = _standing(case, k, ways)
        if still and (most := max(still.values())) > last - GAIN:
            which = next(name for name, value in still.items() if value == most)
            yield Finding(
                "progress",
                where,
                f"pays {most:.3f} for standing still where it begins ({which}), and {last:.3f} close to it: nothing is "
                "gained by going there",
            )


def _standing(case: _Case, k: int, ways: Sequence[tuple[_Track, int, int]]) -> dict[str, float]:
    """What episodes are paid in the end that stood still at the beginning of a stage."""
    spans = {track.episode.seed: (start, end) for track, start, end in ways}
    found = {}
    for track in case.tracks:
        stood, (start, end) = track.episode.stood, spans.get(track.episode.seed, (0, -1))
        if stood is not None and start <= stood <= start + (end - start) // 4 and track.stage[-1] == k:
            found[str(track.episode)] = float(track.shaping(k)[-1])
    return found


# ---- stages, one after the other ---------------------------------------------------------------


def _skip(case: _Case) -> Iterator[Finding]:
    """No stage is there without its work."""
    n = len(case.task.stages)
    condition = case.task.stages[0].condition
    if begun := [t for t in case.tracks if t.reached and t.reached[0] == 0]:
        yield Finding(
            "skip",
            f"stage {case.task.stages[0].name!r}",
            f"is reached at the start, before anything was done, in {len(begun)} of {len(case.tracks)} episodes: "
            f"{condition}",
        )
        return
    for k, where in case.stages():
        if k and all(len(t.reached) > k and t.reached[k] == t.reached[k - 1] for t in case.experts):
            yield Finding(
                "skip",
                where,
                f"is reached at the very moment of {case.task.stages[k - 1].name!r}, without work of its own, in all "
                f"{len(case.experts)} episodes of the expert",
            )
    for track in case.of("zero"):
        if track.reached:
            names = ", ".join(repr(stage.name) for stage in case.task.stages[: len(track.reached)])
            yield Finding(
                "skip", f"stage {case.task.stages[0].name!r}", f"{track.episode} reaches {names} doing nothing"
            )
    blind = case.of("random")
    lucky = min((len(t.reached) for t in blind), default=0)
    if len(blind) > 1 and lucky:
        yield Finding(
            "skip",
            f"stage {case.task.stages[lucky - 1].name!r}",
            f"random motion reaches {lucky} of {n} stages in each of {len(blind)} episodes",
        )


def _reach(case: _Case) -> Iterator[Finding]:
    """The expert reaches every stage."""
    for k, where in case.stages():
        came = [t for t in case.experts if len(t.reached) >= k]
        there = [t for t in came if len(t.reached) > k]
        if len(there) < MOST * len(case.experts):
            condition = case.task.parsed(case.task.stages[k].condition)
            best = max(float(condition.rho(t.signals, case.dt)[(t.reached[k - 1] if k else 0) :].max()) for t in came)
            yield Finding(
                "reach",
                where,
                f"is reached in {len(there)} of {len(case.experts)} successes of the expert, who came within "
                f"{-best:.3g} of {case.task.stages[k].condition}",
            )
            return


def _share(case: _Case) -> Iterator[Finding]:
    weights = [stage.weight for stage in case.task.stages]
    for k, where in case.stages():
        if weights[k] < SHARE * float(np.mean(weights)):
            yield Finding(
                "share",
                where,
                f"is worth {weights[k] / sum(weights):.2%} of the reward ({weights[k]:g} of {sum(weights):g}), "
                f"at least {SHARE / len(weights):.2%} is needed for it to be noticed",
            )


# ---- what all of it is for ---------------------------------------------------------------------


def _goal(case: _Case) -> Iterator[Finding]:
    """The last stage and the goal mean success, and the other way round."""
    task, grace = case.task, round(GRACE_S / case.dt)
    n, last = len(task.stages), f"stage {task.stages[-1].name!r}"
    early = [
        t
        for t in case.tracks
        if len(t.reached) == n and not t.episode.done[t.reached[-1] : t.reached[-1] + grace + 1].any()
    ]
    if early:
        track = early[0]
        yield Finding(
            "goal",
            last,
            f"is reached without success in {len(early)} of {len(case.tracks)} episodes, such as {track.episode} at "
            f"{track.reached[-1] * case.dt:.2f} s: {_moment(task.goal_formula, track.signals, track.reached[-1])}",
        )
    said = {t: bool(task.verdict(task.goal, t.signals)[-1]) for t in case.tracks}
    if false := [t for t, holds in said.items() if holds and not t.episode.holds[-1]]:
        yield Finding(
            "goal",
            "goal",
            f"holds at the end of {len(false)} of {len(case.tracks)} episodes where the task's own goal does not, "
            f"such as {false[0].episode}: {_moment(task.goal_formula, false[0].signals, -1)}",
        )
    kept = [t for t in case.experts if said[t]]
    if len(kept) < MOST * len(case.experts):
        missed = next(t for t in case.experts if not said[t])
        yield Finding(
            "goal",
            "goal",
            f"holds at the end of {len(kept)} of {len(case.experts)} successes of the expert; not of {missed.episode}: "
            f"{_moment(task.goal_formula, missed.signals, -1)}",
        )


def _mission(case: _Case) -> Iterator[Finding]:
    kept = [t for t in case.experts if t.satisfied()]
    if len(kept) < MOST * len(case.experts):
        yield Finding(
            "mission", "mission", f"is satisfied by {len(kept)} of {len(case.experts)} successes of the expert"
        )
    if false := [t for t in case.tracks if not t.episode.holds.any() and t.satisfied()]:
        yield Finding(
            "mission",
            "mission",
            f"is satisfied by {len(false)} of {len(case.tracks)} episodes that never come to the task's goal, such as "
            f"{false[0].episode}",
        )


def _safety(case: _Case) -> Iterator[Finding]:
    safety = case.task.safety_formula
    broken = [t for t in case.experts if not safety.verdict(t.signals, case.dt).all()]
    if len(broken) > (1 - MOST) * len(case.experts):
        rho = safety.rho(broken[0].signals, case.dt)
        at = int(np.argmin(rho))
        yield Finding(
            "safety",
            "safety",
            f"is broken in {len(broken)} of {len(case.experts)} successes of the expert: by {-rho[at]:.3g} at "
            f"{at * case.dt:.2f} s, {_moment(safety, broken[0].signals, at)}; nobody may keep it",
        )


def _return(case: _Case) -> Iterator[Finding]:
    """Over an episode a success pays more than every failure from the same start."""
    for expert in case.experts:
        failures = [t for t in case.tracks if t.episode.seed == expert.episode.seed and not t.episode.done.any()]
        if not failures:
            continue
        best = max(failures, key=lambda t: t.pay)
        if expert.pay < best.pay + LEAD:
            yield Finding(
                "return",
                "reward",
                f"a failure pays as much as success: {best.episode} {best.pay:.3f} a step, "
                f"{expert.episode} {expert.pay:.3f}",
            )
            return
