"""Manipulation on a tabletop, one file per task."""
