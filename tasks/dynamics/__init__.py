"""Dynamics that planners predict with, for numpy arrays and torch tensors alike."""
