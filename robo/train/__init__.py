"""Training: the resolved config, the run folder, the loop that drives a learner."""
