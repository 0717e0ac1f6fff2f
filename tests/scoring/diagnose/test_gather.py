"""Records as they are read from run folders, torn ones too."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offbeat.config.run_config import load_preset, to_toml
from offbeat.errors import UserError
from offbeat.scoring.diagnose.gather import read_record


def folder(at: Path, preset: str = "impala-catch", lines=(), progress: str = "", environment: object = None) -> Path:
    """A run folder with these files."""
    at.mkdir()
    (at / "config.toml").write_text(to_toml(load_preset(preset)))
    (at / "metrics.jsonl").write_text("\n".join(line if isinstance(line, str) else json.dumps(line) for line in lines))
    (at / "progress.csv").write_text(progress)
    if environment is not None:
        (at / "environment.json").write_text(json.dumps(environment))
    return at


LINES = (
    {"role": "learner", "kind": "learner", "entropy": 0.5, "updates": 3},
    {"role": "learner-1", "kind": "learner", "entropy": 9.0, "updates": 3},
    {"role": "actor-0", "kind": "episode", "return": 2.0, "length": 7},
    {"role": "actor-0", "kind": "episode", "return": None, "length": 7},
    {"role": "actor-0", "kind": "episode", "return": 3.0},
    {"role": "evaluator", "kind": "evaluation", "mean": 4.0},
    {"role": "learner", "kind": "learner", "entropy": None, "updates": 6},
    '{"role": "learner", "kind": "lea',
)


def test_each_file_is_read(tmp_path):
    machine = {"machine": {"cores": 8}, "resumed": [{"machine": {"cores": 4}}]}
    run = folder(tmp_path / "run", lines=LINES, progress="seconds,entropy\n1.5,\n3.0,0.5\n4.0", environment=machine)
    record = read_record(run)
    assert [line["updates"] for line in record.learner] == [3, 6]
    assert record.series("entropy").tolist() == [0.5]
    assert record.returns.tolist() == [2.0, 3.0]
    assert record.lengths[0] == 7.0 and record.lengths[1] != record.lengths[1]
    assert [line["mean"] for line in record.evaluations] == [4.0]
    assert record.progress == [{"seconds": 1.5}, {"seconds": 3.0, "entropy": 0.5}, {"seconds": 4.0}]
    assert record.cores == 4, "of the machine that it was last resumed on"
    assert record.config.env.id == "toy/catch"
    assert record.fresh is None


@pytest.mark.parametrize("environment", [None, [], {}, {"machine": {"cores": "many"}}, {"machine": {}}])
def test_a_machine_that_is_not_known_has_no_cores(tmp_path, environment):
    run = folder(tmp_path / "run", lines=LINES, environment=environment)
    assert read_record(run).cores == 0


def test_what_has_recorded_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="holds no records yet"):
        read_record(folder(tmp_path / "run"))
    with pytest.raises(UserError, match="agent 'random' learns nothing on purpose"):
        read_record(folder(tmp_path / "random", "random", LINES))
    with pytest.raises(UserError, match="is no run folder"):
        read_record(tmp_path)
