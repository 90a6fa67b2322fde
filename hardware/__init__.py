"""Robots, drivers, emulators. Imports only `robo.core`."""
