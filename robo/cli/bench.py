"""robo-bench: measure what docs/benchmarks.md states."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, get_args, get_origin

from robo.bench import BENCHES, Report, find, options
from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError, UnknownNameError

if TYPE_CHECKING:
    from rich.console import Console

_EPILOG = f"""\
benchmarks: {", ".join(BENCHES)}

examples:
  robo-bench render                      a table
  robo-bench render --help               its own options
  robo-bench reach_avoid --json out.json also writes the figures for machines
  robo-bench all                         every benchmark with its defaults; trainings of hours are not begun

Every table names the machine and the seeds it was taken with."""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Run benchmarks; returns 0."""
    parser = Parser("robo-bench", "Measure what docs/benchmarks.md states.", _EPILOG, add_help=False)
    parser.add_argument("name", nargs="?", metavar="NAME", help=f"{', '.join(BENCHES)} or all")
    parser.add_argument("--json", nargs="?", const="-", metavar="FILE", help="write JSON to a file, or print it")
    parser.add_argument("--markdown", action="store_true", help="print tables as Markdown, for docs/benchmarks.md")
    parser.add_argument("-h", "--help", action="store_true", help="show this, or the options of NAME")
    args, rest = parser.parse_known_args(argv)
    if args.help and args.name is None:
        parser.print_help()
        return 0
    if args.name is None:
        parser.error(f"give a benchmark: {', '.join(BENCHES)} or all")
    if args.name != "all" and args.name not in BENCHES:
        raise UnknownNameError("benchmark", args.name, [*BENCHES, "all"], "robo-bench --help")
    if args.help:
        _help([args.name] if args.name != "all" else list(BENCHES))
        return 0
    if args.name == "all" and rest:
        parser.error(f"'all' takes no options of single benchmarks, such as {rest[0]}")
    names = list(BENCHES) if args.name == "all" else [args.name]
    if args.name == "all":
        given = {name: {"missing": False} if "missing" in options(find(name)) else {} for name in names}
    else:
        given = {args.name: _options(args.name, rest)}

    from robo.core.machine import hardware_line

    hardware = hardware_line()
    reports = {}
    for name in names:
        report = find(name)(**given[name])
        reports[name] = {"hardware": hardware, **dataclasses.asdict(report)}
        if args.json != "-":
            _show(report, hardware, args.markdown)
    if args.json is not None:
        _write(reports if args.name == "all" else reports[args.name], args.json)
    return 0


def _options(name: str, words: Sequence[str]) -> dict[str, Any]:
    """Keyword arguments of a benchmark from ``--key value`` words."""
    from pydantic import TypeAdapter, ValidationError

    known = options(find(name)) if words else {}
    given: dict[str, Any] = {}
    rest = list(words)
    while rest:
        key, equals, text = rest.pop(0).partition("=")
        plain = key.removeprefix("--").replace("-", "_")
        if not key.startswith("--") or plain not in known:
            raise UnknownNameError("option", key, [f"--{option}" for option in known], f"robo-bench {name} --help")
        if not equals:
            if not rest:
                raise ConfigError(f"option {key} needs a value: {key} VALUE; see robo-bench {name} --help")
            text = rest.pop(0)
        kind = known[plain].annotation
        origin = get_origin(kind)
        several = isinstance(origin, type) and issubclass(origin, Sequence)
        value: Any = text.split(",") if several else text
        try:
            given[plain] = TypeAdapter(kind).validate_python(value)
        except ValidationError as error:
            if several:
                wanted = f"{get_args(kind)[0].__name__}, more of them after commas"
            else:
                wanted = f"one of {', '.join(get_args(kind))}" if origin is Literal else kind.__name__
            raise ConfigError(f"option {key} must be {wanted}, not {text!r}") from error
    return given


def _help(names: Sequence[str]) -> None:
    for name in names:
        bench = find(name)
        print(f"robo-bench {name}\n    {(bench.__doc__ or '').strip()}")
        for key, parameter in options(bench).items():
            print(f"    --{key} (default: {parameter.default})")


def _show(report: Report, hardware: str, markdown: bool) -> None:
    from rich.console import Console
    from rich.table import Table

    lines = [f"machine: {hardware}", f"seeds: {_seeds(report.seeds)}", *report.notes]
    if markdown:
        rows = [[_cell(row.get(column, "")) for column in report.columns] for row in report.rows]
        print(f"### {report.title}\n")
        for row in ([*report.columns], ["---"] * len(report.columns), *rows):
            print("| " + " | ".join(row) + " |")
        print("\n" + "\n".join(f"- {line}" for line in lines) + "\n")
        return
    console: Console = Console()
    table = Table(title=report.title, title_justify="left")
    for column in report.columns:
        table.add_column(column, justify="left" if column == report.columns[0] else "right")
    for row in report.rows:
        table.add_row(*(_cell(row.get(column, "")) for column in report.columns))
    wanted = console.measure(table, options=console.options.update(width=10_000)).maximum
    if wanted <= console.width:
        console.print(table)
    else:  # too wide: one row after the other
        print(report.title)
        for row in report.rows:
            print()
            for column in report.columns:
                if column in row:
                    print(f"  {column + ':':<28} {_cell(row[column])}")
        print()
    for line in lines:
        console.print(line, markup=False)


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _seeds(seeds: Sequence[int]) -> str:
    """``0..199`` for a gapless range, else the list."""
    if len(seeds) > 2 and list(seeds) == list(range(seeds[0], seeds[-1] + 1)):
        return f"{seeds[0]}..{seeds[-1]}"
    return ", ".join(map(str, seeds)) or "none"


def _write(value: Mapping[str, Any], target: str) -> None:
    if target == "-":
        print(json.dumps(value, indent=2))
        return
    from pathlib import Path

    from robo.core.files import write_json

    write_json(Path(target), value)
    print(f"written: {target}")
