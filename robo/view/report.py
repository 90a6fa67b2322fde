"""report.html: one static page about a run, for people who only look. Everything is inside the file."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from robo.core.errors import RoboError, RunError
from robo.core.files import read_json, read_text, write_text
from robo.data.rollout import CONTROLLERS, Rollout
from robo.evaluate.evaluation import rows
from robo.train.run import Run
from robo.view import charts
from robo.view.style import CONTROLLER_RGB


def write_report(run: Run, rollout: Rollout, video: Path) -> Path:
    """Write ``report.html`` into a run folder: evaluation, video, robustness, who was in control, training curves.

    Args:
        run: The run; its ``metrics.jsonl`` and ``eval.json`` are shown where they exist.
        rollout: The rollout that is shown.
        video: Its video (``.mp4``), put into the page.

    Raises:
        RoboError: A file cannot be read, or there is no room on the disk.
    """
    import jinja2

    task = run.task()
    panels = len(charts.predicates_by_unit(task, rollout))
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("robo.view"), autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True
    )
    evaluation = read_evaluation(run.path / "eval.json")
    metrics = read_metrics(run.path / "metrics.jsonl")
    text = environment.get_template("report.html.j2").render(
        run=run.path.name,
        task=task,
        config=run.config,
        parts=rollout.parts,
        rollout=rollout,
        evaluation=evaluation,
        evaluation_rows=rows(evaluation) if evaluation else (),
        unsatisfied=[row["seed"] for row in evaluation.get("by_seed", ()) if not row["satisfied"]],
        training=charts.svg(charts.training(metrics, (900, 380))) if metrics else "",
        steps=metrics[-1]["step"] if metrics else 0,
        predicates=charts.svg(charts.timeline(task, rollout, (900, 190 * panels + 50))),
        robustness=charts.svg(charts.robustness(rollout, (900, 220))),
        shares=[(who, 100 * rollout.share(who), CONTROLLER_RGB[who]) for who in CONTROLLERS],
        video=base64.b64encode(video.read_bytes()).decode(),
    )
    path = run.path / "report.html"
    write_text(path, text)
    return path


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Rows of ``metrics.jsonl``; none without the file. A last line that was cut off by a kill is left out.

    Raises:
        RunError: Another line is no JSON object.
    """
    if not path.is_file():
        return []
    values: list[dict[str, Any]] = []
    lines = read_text(path).splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            if number == len(lines):
                break
            raise RunError(f"{path}, line {number} is no JSON: {error.msg}; remove it") from error
        values.append(row)
    return values


def read_evaluation(path: Path) -> dict[str, Any]:
    """``eval.json``; empty without the file.

    Raises:
        RunError: It is corrupt or not of this version.
    """
    if not path.is_file():
        return {}
    try:
        record = read_json(path, {"episodes": int, "seed": int, "by_seed": list})
        rows(record)
    except (RoboError, KeyError, TypeError, ValueError) as error:
        raise RunError(f"{path} is no evaluation ({error}); make it again with: robo-eval {path.parent}") from error
    return record
