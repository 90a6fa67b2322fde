"""One torch thread per process, commands started by tests included: two test processes share two cores."""

import os
import sys
import typing

os.environ["OMP_NUM_THREADS"] = "1"

# rtamt imports TextIO from here; Python 3.13 has taken the name away.
sys.modules.setdefault("typing.io", typing)
