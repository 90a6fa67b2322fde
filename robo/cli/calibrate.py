"""robo-calibrate: measure how much less robust than planned a run's executed traces are, and plan with that margin."""

from __future__ import annotations

import json
from collections.abc import Sequence

from robo.cli.main import RUN_HELP, Parser, run_command
from robo.core.errors import ConfigError

_EPILOG = """\
Plans are made with a model; the world is another. Episodes are run in worlds drawn at random within --mismatch and
--delay; the gap of an episode is the most robustness that any of its plans promised, less what was executed. The
margin is the conformal quantile of the gaps: with --confidence it covers a share --level of all episodes. It is kept
in RUN/calibration.json; from then on planner and certificate of the run subtract it. Fresh episodes then show how
often what is executed reaches what was promised.

examples:
  robo-calibrate runs/reach_avoid/last --mismatch 0.1 --delay 0.02
  robo-calibrate bench/ship_safe --mismatch 0.05 --episodes 500 --check 500 --json"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Calibrate; prints margin and coverage."""
    parser = Parser("robo-calibrate", "Measure a conformal margin for a run, and plan with it from now on.", _EPILOG)
    parser.add_argument("run", metavar="RUN", help=RUN_HELP)
    parser.add_argument("--mismatch", type=float, default=0.1, metavar="X", help="the world is off by up to X (0.1)")
    parser.add_argument("--delay", type=float, default=0.0, metavar="S", help="commands act up to S seconds late (0)")
    parser.add_argument("--level", type=float, default=0.95, metavar="P", help="share of episodes to cover (0.95)")
    parser.add_argument("--confidence", type=float, default=0.9, metavar="P", help="that it covers them (0.9)")
    parser.add_argument("--episodes", type=int, default=200, metavar="N", help="for the margin (200)")
    parser.add_argument("--check", type=int, default=200, metavar="N", help="fresh ones, to check it; 0: none (200)")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="processes (1)")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    for name, least in (("episodes", 1), ("check", 0), ("workers", 1)):
        if getattr(args, name) < least:
            raise ConfigError(f"--{name} must be {least} or more, not {getattr(args, name)}")

    from robo.core.progress import progress
    from robo.evaluate.calibration import calibrate
    from robo.train.run import CALIBRATION

    with progress("episodes", args.episodes + args.check) as advance:
        found = calibrate(
            args.run,
            mismatch=args.mismatch,
            delay_s=args.delay,
            level=args.level,
            confidence=args.confidence,
            episodes=args.episodes,
            check=args.check,
            workers=args.workers,
            on_rollout=lambda rollout: advance(""),
        )
    if args.json:
        print(json.dumps({k: v for k, v in found.items() if k != "gaps"}, indent=2))
        return 0
    print(
        f"margin: {found['margin']:.4f} covers {100 * args.level:g} % of episodes with confidence "
        f"{100 * args.confidence:g} %, from {args.episodes} episodes with mismatch "
        f"±{100 * args.mismatch:g} % and delays up to {1e3 * args.delay:g} ms"
    )
    if args.check:
        low, high = found["coverage_ci95"]
        print(
            f"coverage: {100 * found['coverage']:.1f} % of {args.check} fresh episodes reached what their plans "
            f"promised (95 % interval {100 * low:.1f} .. {100 * high:.1f} %)"
        )
    print(f"kept in {CALIBRATION} of the run: planner and certificate subtract it from now on")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
