"""Things that act. Imports `tasks`, `hardware`, `robo.core`; never `sim` or `robo` above."""
