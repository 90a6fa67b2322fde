"""Scores of policies on executed episodes."""

from robo.evaluate.evaluation import FIRST_SEED, Episode, Evaluation, evaluate
from robo.evaluate.metrics import wilson
from robo.evaluate.rollout import roll_out

__all__ = ["FIRST_SEED", "Episode", "Evaluation", "evaluate", "roll_out", "wilson"]
