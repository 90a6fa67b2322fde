"""The tasks' own code, run on symbols: what solvers and the compiled prediction are told of a task."""
