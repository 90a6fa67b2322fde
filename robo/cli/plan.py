"""robo-plan: plan for a specification typed now, with a network that has never seen it."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError

if TYPE_CHECKING:
    import numpy as np

    from tasks.specs.task import SpecTask

UNSATISFIED = 1
"""Exit code when the best plan found does not satisfy the specification."""

_EPILOG = """\
TARGET is a run of a `spec` policy, or spec/point or spec/panda, whose trained networks ship with the project.
The language is in docs/stl.md. Parts G(...) without an interval count as safety: they must hold at every moment
of the episode, together with what the system itself must keep.

The network's proposals are judged by exact robustness; the best one is refined if it does not satisfy.
"Certified": the plan is safe at every moment to the end of the episode, under the exact dynamics. Then it is
executed in simulation. Exit code 0: satisfied, 1: no satisfying plan was found, 2: bad input.

examples:
  robo-plan spec/point --spec "F[0,3](norm(x_m - 2, y_m - 1) < 0.5) and G(norm(x_m, y_m) > 0.8)" --start=-2,-1,0,0
  robo-plan spec/point --spec "norm(x_m - 3, y_m) > 1 U[0,4] norm(x_m, y_m - 2) < 0.5" --seed 3 --png plan.png
  robo-plan spec/panda --spec "F[0,1.5](G[0,0.5](norm(x_m - 0.4, y_m - 0.2, z_m - 0.5) < 0.15))" --json"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Plan; returns 0 when the plan satisfies the specification, else 1."""
    parser = Parser("robo-plan", "Plan for a specification typed now, without any training.", _EPILOG)
    parser.add_argument("target", metavar="TARGET", help="spec/point, spec/panda or a run folder of policy spec")
    parser.add_argument("--spec", required=True, metavar="STL", help="what is wanted, over the signals of the target")
    parser.add_argument("--safety", metavar="STL", help="what must hold at every moment besides")
    parser.add_argument("--start", metavar="X,Y,...", help="state to start from (--start=-1,0,...)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="else: start drawn by this seed (default: 0)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--save", metavar="X.npz", help="keep the executed rollout")
    parser.add_argument("--png", metavar="X.png", help="write a picture of it")
    args = parser.parse_args(argv)
    if args.seed < 0:
        raise ConfigError(f"--seed must be 0 or more, not {args.seed}")
    for name in ("save", "png"):
        value, ending = getattr(args, name), {"save": ".npz", "png": ".png"}[name]
        if value is not None and Path(value).suffix != ending:
            raise ConfigError(f"--{name} takes a name that ends in {ending}, not {value!r}; try {value}{ending}")

    from policies.spec import spec_task
    from policies.spec.planner import SpecPolicy
    from robo.core.files import make_parent
    from robo.data.rollout import CONTROLLERS, SystemRollout
    from robo.evaluate.evaluation import one_thread
    from robo.evaluate.rollout import FIRST_SEED
    from robo.evaluate.worlds import SystemWorld
    from robo.train.run import Run

    for value in (args.save, args.png):
        if value is not None:
            make_parent(Path(value))
    run = Run.open(args.target)
    plain = spec_task(run.task())
    with one_thread():
        loaded = run.policy()
        assert isinstance(loaded, SpecPolicy)
        began = time.perf_counter()
        task = plain.with_spec(args.spec, args.safety)
        policy = loaded.of(task)
        ready_ms = 1e3 * (time.perf_counter() - began)
        world = SystemWorld(task)
        start = _start(plain, args.start, FIRST_SEED + args.seed)
        rollout = world.roll_out(policy, args.seed, run.config.policy, instance=start)
    assert isinstance(rollout, SystemRollout)
    parts = {str(part): float(part.rho(rollout.signals, task.ctrl_dt_s)[0]) for part in policy.model.parts}
    maker = CONTROLLERS[int(rollout.controller[0])]
    found: dict[str, Any] = {
        "task": task.name,
        "spec": str(task.formula),
        "satisfied": bool(rollout.plan_rho[0] > 0),
        "rho": float(rollout.plan_rho[0]),
        "executed_rho": rollout.rho,
        "certified": bool(rollout.extra["certified"][0]),
        "by": {"policy": "network"}.get(maker, maker),
        "ready_ms": ready_ms,
        "plan_ms": float(rollout.plan_ms[0]),
        "parts": parts,
        "start": [float(x) for x in rollout.state[0]],
        "control": rollout.control.tolist(),
    }
    if args.save:
        rollout.save(Path(args.save))
    if args.png:
        from robo.view.movie import poster

        poster(task, rollout, Path(args.png))
    if args.json:
        print(json.dumps(found, indent=2))
    else:
        _show(found, [f for f in (args.save, args.png) if f])
    return 0 if found["satisfied"] else UNSATISFIED


def _start(task: SpecTask, text: str | None, seed: int) -> dict[str, np.ndarray]:
    """The start that was given, or one drawn by the seed."""
    import numpy as np

    if text is None:
        return task.sample(np.random.default_rng(seed))
    try:
        state = np.array([float(word) for word in text.split(",")])
    except ValueError:
        state = np.zeros(0)
    if len(state) != task.state_size or not np.isfinite(state).all():
        wanted = ", ".join(f"{name} [{unit}]" for name, unit in task.state.items())
        raise ConfigError(f"--start takes {task.state_size} finite numbers, {wanted}; not {text!r}")
    return {"state": state}


def _show(found: dict[str, Any], written: Sequence[str]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"plan for {found['task']}", title_justify="left")
    table.add_column("part", overflow="fold")
    table.add_column("robustness, executed", justify="right")
    for part, rho in found["parts"].items():
        table.add_row(part, f"{rho:+.4f}")
    console = Console()
    console.print(table)
    verdict = "satisfied" if found["satisfied"] else "NOT satisfied: no satisfying plan was found"
    print(f"robustness of the plan: {found['rho']:+.4f}, {verdict}; executed: {found['executed_rho']:+.4f}")
    print(f"certified safe to the end: {'yes' if found['certified'] else 'no'}; found by the {found['by']}")
    print(f"time: formula compiled in {found['ready_ms']:.1f} ms, planned in {found['plan_ms']:.1f} ms")
    if written:
        print(f"written: {', '.join(written)}")


if __name__ == "__main__":
    raise SystemExit(main())
