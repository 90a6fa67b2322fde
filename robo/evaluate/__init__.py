"""Scores of policies on executed episodes."""
