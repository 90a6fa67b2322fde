"""robo-instruct: what an instruction means in a task's scene, as stages, mission and goal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from robo.cli.main import Parser, run_command
from robo.core.errors import ConfigError

if TYPE_CHECKING:
    from tasks.instruct.program import Program
    from tasks.tabletop.base import TabletopTask

_EPILOG = """\
TASK is a task on a tabletop (robo-info lists them); without an instruction it is the task's own. Writers:
  grammar       a grammar over the scene's things and deeds; needs nothing (default)
  llm           a language model behind an endpoint of the OpenAI protocol: ROBO_LLM_URL, ROBO_LLM_MODEL, ROBO_LLM_KEY
  local:PATH    a language model in a folder, run by transformers
  replay:PATH   the answers of a record, as --record wrote it
Whoever writes, the program is checked against the scene, and its reward against episodes of an expert and of those
who fail; a language model is told what is wrong and tries again. Exit code 0: it fits and is right, 2: bad input.

examples:
  robo-instruct put_item_in_drawer "open the top drawer"
  robo-instruct put_shoes_in_box "put one shoe into the box" --save one_shoe.yaml
  robo-instruct pick_and_place "the red cube belongs on the green disc" --writer llm --record exchanges
  robo-instruct pick_and_place "the red cube belongs on the green disc" --writer replay:exchanges --json"""


@run_command
def main(argv: Sequence[str] | None = None) -> int:
    """Write and show a program; returns 0."""
    parser = Parser("robo-instruct", "Write what an instruction means: stages, mission and goal.", _EPILOG)
    parser.add_argument("task", metavar="TASK", help="a task on a tabletop, such as pick_and_place")
    parser.add_argument("instruction", metavar="INSTRUCTION", nargs="?", help="what to do (default: the task's own)")
    parser.add_argument("--writer", default="grammar", metavar="WRITER", help="who writes it (default: grammar)")
    parser.add_argument("--save", metavar="X.yaml", help="keep the program")
    parser.add_argument("--record", metavar="FOLDER", help="keep every exchange with a language model")
    parser.add_argument("--unverified", action="store_true", help="do not check its reward against episodes")
    parser.add_argument("--json", action="store_true", help="print JSON")
    args = parser.parse_args(argv)
    if args.save is not None and Path(args.save).suffix != ".yaml":
        raise ConfigError(f"--save takes a name that ends in .yaml, not {args.save!r}; try {args.save}.yaml")

    from robo.core.files import make_parent
    from tasks.instruct.writers import open_writer
    from tasks.registry import load_task
    from tasks.tabletop.base import tabletop_task

    task = tabletop_task(load_task(args.task))
    if args.save is not None:
        make_parent(Path(args.save))
    verifier = None
    if not args.unverified:
        from robo.train.evidence import Verifier

        verifier = Verifier(task)
    writer = open_writer(args.writer, check=verifier, record=args.record)
    program = writer.write(task, task.instruction if args.instruction is None else args.instruction)
    program.apply(task)
    if args.save is not None:
        program.save(args.save)
    if args.json:
        print(json.dumps(program.model_dump(mode="json"), indent=2, ensure_ascii=False))
        return 0
    _show(task, program)
    if verifier is not None:
        print(f"verified by {len(verifier.evidence.episodes)} episodes of the expert and of those who fail")
    if args.save is not None:
        print(f"written: {args.save}")
    return 0


def _show(task: TabletopTask, program: Program) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(title=Text(f"{program.instruction} ({task.name})"), title_justify="left")
    for title in ("stage", "reached when", "distance, or what is paid, on the way"):
        table.add_column(title, overflow="fold")
    table.add_column("scale", justify="right")
    for stage in program.stages:
        way = stage.shaping or stage.distance or "-"
        table.add_row(Text(stage.name), Text(stage.condition), Text(way), "-" if stage.shaping else f"{stage.scale:g}")
    Console().print(table)
    print(f"mission: {program.mission}")
    print(f"goal:    {program.goal}")
    print(f"safety:  {' and '.join(filter(None, (task.safety, program.safety)))}")


if __name__ == "__main__":
    raise SystemExit(main())
