"""The whole way through, in one go: train, evaluate, view, deploy. `make demo` runs it."""

from __future__ import annotations

import json
import shlex
import subprocess
import sys
import time
from pathlib import Path

RUN = Path("runs/reach_avoid/last")
VIDEO, RECORDING = "demo.mp4", "demo.rrd"
STEPS = (
    ("train a policy on the reach-avoid task", "robo-train configs/reach_avoid.yaml"),
    ("evaluate it in physics on unseen instances", f"robo-eval {RUN} --episodes 50"),
    ("record a rollout", f"robo-view {RUN} --mp4 {RUN}/{VIDEO} --save {RUN}/{RECORDING}"),
    ("deploy it to the simulated robot", f"robo-deploy {RUN} --robot sim"),
)


def main() -> int:
    """Run the steps; returns the exit code of the first that fails, else 0."""
    started = time.monotonic()
    for number, (text, command) in enumerate(STEPS, start=1):
        print(f"\n[{number}/{len(STEPS)}] {text}\n$ {command}", flush=True)
        program, *arguments = shlex.split(command)
        code = subprocess.run([Path(sys.executable).with_name(program), *arguments], check=False).returncode
        if code:
            print(f"error: step {number} of the demo ended with exit code {code}: {command}", file=sys.stderr)
            return code
    run = RUN.resolve().relative_to(Path.cwd())
    result = json.loads((run / "eval.json").read_text())
    low, high = result["satisfied_ci95"]
    print(
        f"\ndone in {(time.monotonic() - started) / 60:.1f} minutes\n"
        f"run folder:    {run}\n"
        f"satisfied:     {result['satisfied']:.0%} of {result['episodes']} executed episodes "
        f"(95 % interval {low:.0%} to {high:.0%}), {result['safety_violations']} safety violations\n"
        f"video:         {run / VIDEO}\n"
        f"report:        {run / 'report.html'}\n"
        f"open viewer:   {Path(sys.executable).parent.relative_to(Path.cwd())}/robo-view {run}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
