"""Metrics and films go to Weights & Biases where that is asked for, and nowhere else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robo.core.errors import ConfigError, MissingDependencyError
from robo.train import board, loop
from robo.train.config import resolve
from tests.train import toy

toy.register()

HERE = Path(__file__).parent


@pytest.fixture(autouse=True)
def anew():
    """What wandb read of the environment is forgotten."""
    yield
    import wandb

    wandb.teardown()


def config(**options: str):
    words = {"policy": "toy", "train.steps": "6", "log_every": "1", "checkpoint_every": "3"}
    return resolve(HERE / "toy_task.py", words | options)


def told(run) -> list[dict]:
    """Every row that a run without network keeps to be sent later, as wandb's own reader reads it."""
    from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]
    from wandb.sdk.internal.datastore import DataStore

    rows = []
    for path in sorted((run.path / "wandb").glob("offline-run-*/*.wandb")):
        store = DataStore()
        store.open_for_scan(str(path))
        while (data := store.scan_data()) is not None:
            record = Record()
            record.ParseFromString(data)
            if items := record.history.item:
                rows.append({"/".join(i.nested_key) or i.key: json.loads(i.value_json) for i in items})
    return rows


def test_all_metrics_arrive_and_a_resume_goes_on_with_the_same_run(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = loop.train(config(log_wandb="arms"), tmp_path)
    kept = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["step"], row["loss"]) for row in told(run)] == [(row["step"], row["loss"]) for row in kept]
    known = (run.path / board.FILE).read_text()
    latest = run.path / "checkpoints" / "latest.json"
    latest.write_text(latest.read_text().replace("6", "3"))
    loop.resume(run.path)
    assert (run.path / board.FILE).read_text() == known
    assert [row["step"] for row in told(run)] == [1, 2, 3, 4, 5, 6, 4, 5, 6]


def test_nothing_of_it_is_there_unless_asked_for(tmp_path):
    run = loop.train(config(), tmp_path)
    assert not (run.path / "wandb").exists() and not (run.path / board.FILE).exists()


def test_what_hinders_is_told(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))  # nobody is logged in
    with pytest.raises(ConfigError, match="WANDB_MODE=offline"):
        loop.train(config(log_wandb="arms"), tmp_path / "other")
    monkeypatch.setattr(board.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingDependencyError, match=r"robo-stack\[wandb\]"):
        loop.train(config(log_wandb="arms"), tmp_path / "other")
    assert not (tmp_path / "other").exists()
