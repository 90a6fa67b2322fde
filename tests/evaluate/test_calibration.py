"""The conformal margin: the quantile, what subtracts it, and the command."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.npc.config import PlanConfig
from policies.npc.planner import NpcPolicy
from policies.prediction import Course, Prediction
from policies.stl.config import PlanConfig as ArmPlan
from policies.stl.config import StlConfig
from policies.stl.model import PlanModel
from policies.stl.planner import load as load_arm
from policies.system_model import SystemModel
from robo.cli import calibrate as robo_calibrate
from robo.cli import eval as robo_eval
from robo.core.errors import ConfigError, RunError
from robo.evaluate.calibration import calibrate, quantile
from robo.train.run import Run
from tasks.arm import arm_task
from tasks.registry import load_task
from tasks.system import system_task

torch.set_num_threads(1)


def test_the_quantile_is_the_order_statistic_of_wilks() -> None:
    gaps = list(np.linspace(0.01, 1.0, 100))
    # Tables of one-sided distribution-free tolerance limits: 95 % of a population with confidence 95 % needs 59
    # samples for the largest and 93 for the second largest.
    assert quantile(gaps[:59], 0.95, 0.95) == pytest.approx(0.59)
    assert quantile(gaps[:92], 0.95, 0.95) == pytest.approx(0.92)
    assert quantile(gaps[:93], 0.95, 0.95) == pytest.approx(0.92)
    assert quantile([-1.0] * 50, 0.9, 0.9) == 0.0, "a world that is kinder than the model asks for no margin"
    with pytest.raises(ConfigError, match=r"58 episodes are too few .* give at least 59"):
        quantile(gaps[:58], 0.95, 0.95)
    with pytest.raises(ConfigError, match=r"0\.95 means 95 %"):
        quantile(gaps, 95, 0.9)


@given(st.integers(0, 2**31), st.sampled_from([0.8, 0.9]), st.sampled_from([0.5, 0.9]))
@settings(max_examples=20, deadline=None)
def test_the_quantile_covers_any_distribution_as_often_as_it_says(seed: int, level: float, confidence: float) -> None:
    rng = np.random.default_rng(seed)
    exact = [lambda x: -math.log(1 - x), lambda x: math.tan(math.pi * (x - 0.5)), lambda x: x][seed % 3](level)
    draw = [rng.exponential, rng.standard_cauchy, rng.random][seed % 3]
    covers = np.mean([quantile((draw(size=40)).tolist(), level, confidence) >= exact for _ in range(500)])
    assert covers >= confidence - 0.08, "four standard deviations"
    everywhere = np.mean([quantile((draw(size=40)).tolist(), level, 0.01) >= exact for _ in range(100)])
    assert everywhere < 0.2, "it is not simply large"


def test_planner_and_certificate_of_a_system_subtract_it() -> None:
    task = system_task(load_task("bench/ship_safe"))
    start = task.sample(np.random.default_rng(1))["state"]
    raw = np.random.default_rng(0).normal(size=(4, task.steps, 2))
    plain, less = (Prediction(task, SystemModel(task, conformal=c), Course(task, 0), 50.0) for c in (0.0, 0.3))
    np.testing.assert_allclose(less.rhos(start, raw), plain.rhos(start, raw) - 0.3, atol=1e-12)
    np.testing.assert_array_equal(less.slopes(start, raw, 0.2)[1], plain.slopes(start, raw, 0.5)[1])
    obs = {"state": start, "time_s": np.zeros(1)}
    promised = []
    for conformal in (0.0, 5.0):
        policy = NpcPolicy(task, PlanConfig(search=False, conformal=conformal), lambda ahead, shared: raw[:1])
        policy.reset(obs)
        promised.append(policy.act(obs).info)
    assert promised[0]["plan_rho"] - promised[1]["plan_rho"] == pytest.approx(5.0)
    assert promised[1]["certified"] == 0.0, "with such a margin nothing is safe"


def test_planner_and_certificate_of_an_arm_subtract_it() -> None:
    task = arm_task(load_task("reach_avoid"))
    config = StlConfig(plan=ArmPlan(network=False, conformal=0.01))
    policy = load_arm(task, config, {}, "cpu")
    assert policy.certificate.config.margin == pytest.approx(config.certificate.margin + 0.01)
    trace = {name: torch.rand(3, task.steps + 1) for name in task.signals}
    plain, less = (PlanModel(task, 0.0, conformal=c) for c in (0.0, 0.01))
    torch.testing.assert_close(less.part_rhos(trace), plain.part_rhos(trace) - 0.01)
    assert torch.equal(policy.model.part_rhos(trace), PlanModel(task, 0.02, conformal=0.01).part_rhos(trace))
    for make in (ArmPlan, PlanConfig):
        with pytest.raises(ConfigError, match=r"plan\.conformal must not be negative"):
            make(conformal=-0.1)


def test_the_command_measures_keeps_and_checks(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    words = [
        "bench/maze",
        "--mismatch",
        "0.1",
        "--delay",
        "0.02",
        "--episodes",
        "30",
        "--check",
        "20",
        "--level",
        "0.9",
    ]
    assert robo_calibrate.main([*words, "--json"]) == 0
    out = capsys.readouterr().out
    found = json.loads(out)
    run = Run.open("bench/maze")
    kept = json.loads((run.path / "calibration.json").read_text())
    assert kept["margin"] == found["margin"] > 0 and found["coverage"] >= 0.7 and len(kept["gaps"]) == 30
    assert kept["gaps"] == sorted(kept["gaps"]) and kept["margin"] == kept["gaps"][29]
    policy = run.policy()
    assert isinstance(policy, NpcPolicy) and policy.config.conformal == kept["margin"], "from now on it plans with it"
    assert robo_eval.main(["bench/maze", "--episodes", "1"]) == 0
    assert f"margin of {kept['margin']:.4f}" in capsys.readouterr().out.replace("\n", "").replace("  ", " ")
    for options, margin in (({"plan.samples": "128"}, kept["margin"]), ({"plan.conformal": "0.5"}, 0.5)):
        changed = run.policy(options=options)
        assert isinstance(changed, NpcPolicy) and changed.config.conformal == margin, "what is asked for wins"
    assert robo_eval.main(["bench/maze", "--episodes", "1", "--plan.conformal", "0.5"]) == 0
    out = capsys.readouterr().out
    assert "plan.conformal 0.5" in out and "margin of" not in out
    again = calibrate(run.path, mismatch=0.1, delay_s=0.02, level=0.9, episodes=30, check=0)
    assert again["margin"] == kept["margin"], "measured without the margin that is there already"
    (run.path / "calibration.json").write_text(json.dumps(kept | {"weights": "0" * 64}))
    with pytest.raises(RunError, match="is of other weights: robo-calibrate"):
        run.policy()
    (run.path / "calibration.json").write_text("{")
    with pytest.raises(RunError, match="measures it again"):
        run.policy()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--episodes", "44"], "44 episodes are too few for level 0.95 with confidence 0.9; give at least 45"),
        (["--level", "95"], "level must lie between 0 and 1"),
        (["--confidence", "1"], "confidence must lie between 0 and 1"),
        (["--mismatch", "2"], "mismatch must lie in [0, 1)"),
        (["--delay", "1"], "delay must lie between 0 and a control step"),
        (["--workers", "0"], "--workers must be 1 or more"),
    ],
)
def test_what_cannot_be_calibrated_is_refused(words: list[str], message: str, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert robo_calibrate.main(["bench/maze", *words]) == 2
    told = capsys.readouterr().err
    assert message in told and told.count("error:") == 1
