"""robo-eval with a run's config changed: how it acts, not what it learned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from robo.cli import train
from robo.cli.eval import main


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(tmp_path)
    assert train.main(["bench/car", "--policy", "cem", "--plan.samples", "32", "--plan.iterations", "2"]) == 0
    return "runs/bench/car/last"


def test_it_acts_otherwise_and_says_so(run: str, capsys: pytest.CaptureFixture[str]) -> None:
    results = {}
    for samples in ("32", "16", ""):
        options = ["--plan.samples", samples] if samples else []
        assert main([run, *options, "--episodes", "2", "--json", "out.json"]) == 0
        results[samples] = json.loads(Path("out.json").read_text())
        assert (f"plan.samples {samples}" in capsys.readouterr().out) == bool(samples)
    rho = {samples: [row["rho"] for row in record["by_seed"]] for samples, record in results.items()}
    assert rho["32"] == rho[""] != rho["16"]
    assert results["16"]["options"] == {"plan.samples": "16"} and "options" not in results[""]
    assert "samples: 32" in (Path(run) / "config.yaml").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--plan.sample", "3"], "did you mean 'plan.samples'"),
        (["--task", "bench/maze"], "unknown config key 'task'"),
        (["--plan.samples", "many"], "'plan.samples' must be a whole number, not 'many'"),
        (["--plan.samples"], "option --plan.samples needs a value"),
        (["--epsiodes", "3"], "did you mean '--episodes'"),
    ],
)
def test_wrong_keys_are_one_line(run: str, words: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main([run, *words]) == 2
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert not (Path(run) / "eval.json").exists()
