"""The baseline without a network, and the benchmark that puts it beside ours."""

import numpy as np

import sim
from policies.stl.config import PlanConfig
from policies.stl.gradient import GradientPolicy
from robo.bench import Rate
from robo.bench.reach_avoid import GRADIENT, VARIANTS, reach_avoid_bench
from robo.train.config import resolve
from robo.train.loop import train
from tasks.reach_avoid import ReachAvoid


def test_it_solves_an_instance_from_scratch_and_executes_its_plan():
    task = ReachAvoid()
    env = sim.make(task)
    obs, _ = env.reset(seed=1)
    policy = GradientPolicy(task, PlanConfig())
    policy.reset(obs, 0)
    planned = None
    for _ in range(task.steps):
        chunk = policy.act(obs)
        planned = chunk.info["plan_rho"]
        assert np.all(chunk.joint_vel[-1] == 0)
        obs, rho, _, _, _ = env.step(np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0]]))
    env.close()
    assert planned >= PlanConfig().aim
    assert rho > 0


def test_the_benchmark_measures_what_its_rows_say(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = {"train.steps": "2", "train.batch": "8", "train.pool": "16", "train.width": "16", "train.depth": "1"}
    train(resolve("reach_avoid", options))
    report = reach_avoid_bench(episodes=2, workers=1, only="no refinement, no")
    assert [row["policy"] for row in report.rows] == ["random network, no refinement, no certificate"]
    assert report.rows[0]["refined [%]"] == 0.0
    assert report.rows[0]["satisfied"] == Rate.of(0, 2) and str(report.rows[0]["satisfied"]).startswith("0.0 %")
    assert report.seeds == [0, 1]
    names = [name for name, _, _ in VARIANTS]
    assert len(set(names)) == len(names) and GRADIENT not in names
