"""The smallest task: hold a joint above zero. A file of a user's own, as robo-train takes it."""

import numpy as np

from tasks.arm import ArmTask
from tasks.task import Signal, Source, Stage


class Toy(ArmTask):
    name = "toy"
    instruction = "hold the first joint above zero"
    robot_name = "panda"
    ctrl_dt_s = 0.1
    horizon_s = 1.0
    signals = {"joint": Signal(unit="rad", source=Source.PROPRIOCEPTION)}
    mission = "F[0,1] (joint > 0)"
    safety = "joint > -1"
    stages = (Stage(name="above", condition="joint > 0"),)
    cameras = ()
    observation = {}

    def build(self, scene):
        del scene

    def poses(self, instance, world):
        return {}

    def sample(self, rng: np.random.Generator):
        return {"joint_pos": rng.uniform(-0.1, 0.1, 7)}

    def start_world(self, instance, rng):
        return {}

    def advance(self, instance, world, dt_s, rng):
        return {}

    def observe(self, instance, world, rng):
        return {}

    def occupied(self, instance, world):
        return {}

    def forecast(self, obs, tau_s):
        return {}

    def measure(self, state, instance):
        return {"joint": state["joint_pos"][..., 0]}

    def success(self, trace):
        return bool(trace["joint"][-1] > 0)
