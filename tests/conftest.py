"""One torch thread per process, commands started by tests included: two test processes share two cores."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
