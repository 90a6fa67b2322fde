"""The example of docs/tasks.md is trained on, planned with and scored as it stands there."""

from pathlib import Path

import numpy as np

import sim
from policies.stl.config import StlConfig, TrainConfig
from policies.stl.learner import StlLearner
from policies.stl.planner import load
from tasks.registry import load_task

DOCS = Path(__file__).parents[2] / "docs"


def test_the_variation_goes_through_training_planning_and_physics(tmp_path):
    (tmp_path / "my_task.py").write_text((DOCS / "tasks.md").read_text().split("```python\n")[1].split("```")[0])
    task = load_task(tmp_path / "my_task.py")
    assert task.name == "quick_and_shy"
    config = StlConfig(train=TrainConfig(steps=2, batch=8, pool=16, width=16, depth=1))
    learner = StlLearner(task, config, 0, "cpu")
    assert np.isfinite(learner.step()["loss"])
    policy = load(task, config, learner.weights(), "cpu")
    env = sim.make(task)
    obs, info = env.reset(seed=0)
    policy.reset(obs)
    for _ in range(task.steps):
        chunk = policy.act(obs)
        obs, rho, _, truncated, info = env.step(np.concatenate([chunk.joint_pos[0], chunk.joint_vel[0]]))
        assert info["signals"]["mover_clearance_m"] > 0.04, "the certificate keeps what the text asks for"
    env.close()
    assert truncated and rho != 0.0
