"""Running a policy on an arm: control process, inference process, supervisor, log."""
