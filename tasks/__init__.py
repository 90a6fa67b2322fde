"""What is wanted: one file per task, and the STL engine. Imports `hardware`, `robo.core`."""
