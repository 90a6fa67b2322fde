"""A short task with something that moves: turn the first joint, keep away from a ball that comes near."""

import numpy as np

from tasks.arm import ArmTask
from tasks.task import Signal, Source, Stage

START = np.array([0.0, -np.pi / 4, 0.0, -3 * np.pi / 4, 0.0, np.pi / 2, np.pi / 4])


class WaveTask(ArmTask):
    name = "wave"
    instruction = "turn the first joint"
    robot_name = "panda"
    ctrl_dt_s = 0.2  # patient: on a busy test machine a chunk may take its time
    horizon_s = 2.0
    signals = {
        "turned_rad": Signal(unit="rad", source=Source.PROPRIOCEPTION),
        "ball_gap_m": Signal(unit="m", source=Source.TRACKER, error_bound=0.01),
    }
    mission = "F[0,2](turned_rad > 0.05)"
    safety = "ball_gap_m > 0"
    stages = (Stage(name="turned", condition="turned_rad > 0.05"),)
    cameras = ()
    observation = {"ball": (3,)}

    def build(self, scene):
        scene.worldbody.add_body(name="ball", mocap=True).add_geom(name="ball", size=[0.05, 0, 0])

    def poses(self, instance, world):
        return {"ball": world["ball"]}

    def sample(self, rng: np.random.Generator):
        return {"joint_pos": START + rng.uniform(-0.05, 0.05, 7), "speed_m_s": rng.uniform(0.1, 0.2)}

    def start_world(self, instance, rng):
        return {"ball": np.array([0.8, -0.5, 0.5])}

    def advance(self, instance, world, dt_s, rng):
        return {"ball": world["ball"] + np.array([0, instance["speed_m_s"] * dt_s, 0])}

    def observe(self, instance, world, rng):
        return {"ball": world["ball"] + rng.uniform(-0.005, 0.005, 3)}

    def occupied(self, instance, world):
        return {"ball": world["ball"]}

    def forecast(self, obs, tau_s):
        return {"ball": obs["ball"][..., None, :] + 0 * tau_s[:, None]}

    def measure(self, state, instance):
        gap = ((state["points"][..., -1, :] - state["ball"]) ** 2).sum(-1) ** 0.5 - 0.1
        return {"turned_rad": state["joint_pos"][..., 0], "ball_gap_m": gap}

    def success(self, trace):
        return bool((trace["turned_rad"] > 0.05).any())
