"""Datasets of robot episodes in the LeRobotDataset v3.0 layout, with nothing of tasks or policies in them."""
