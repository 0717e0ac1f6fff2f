"""The hooks wandb and mlflow, in their offline modes: numbers, options, name and tags; a resumed run goes on there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat.config.log import LogConfig
from offbeat.errors import UserError
from offbeat.run.sinks.common import Numbers, keep_id, kept_id, options_of


def run(folder: Path, hook: str, **log: Any) -> Path:
    """A short run that reports to ``hook``."""
    options = {"hooks": [hook], "project": "tests", "tags": ["quick", "catch"], "tensorboard": False} | log
    result = offbeat.train(
        "debug", total_frames=400, out=str(folder), evaluation={"every_frames": 0, "episodes": 2}, log=options
    )
    assert result.finished
    return result.run


def line(kind: str, role: str = "actor-0", frames: int = 8, **values: Any) -> dict[str, Any]:
    return {"run": "", "frames": frames, "kind": kind, "role": role, "values": values}


def test_lines_become_numbers_and_episodes_averages() -> None:
    numbers = Numbers()
    assert numbers.of(line("episode", **{"return": 1.0, "length": 3})) == {}
    assert numbers.of(line("episode", **{"return": 2.0})) == {}
    averages = {"episode/return": 1.5, "episode/length": 3.0}
    assert numbers.of(line("learner", "learner", loss=2.0, bad=None)) == {"learner/loss": 2.0} | averages
    evaluation = line("evaluation", "evaluator", mean=1.0, returns=[1.0], policy="greedy")
    assert numbers.of(evaluation) == {"evaluation/mean": 1.0}


def test_options_and_ids_are_in_the_runs_folder(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text('seed = 3\n[log]\nproject = "x"\ntags = ["a"]\n')
    assert options_of(tmp_path) == {"seed": 3, "log.project": "x", "log.tags": "['a']"}
    assert kept_id(tmp_path, "wandb") == ""
    keep_id(tmp_path, "wandb", "abc")
    assert kept_id(tmp_path, "wandb") == "abc" and kept_id(tmp_path, "mlflow") == ""


@pytest.mark.parametrize(
    ("module", "hook", "package"),
    [
        ("offbeat.run.sinks.wandb", "wandb", "wandb"),
        ("offbeat.run.sinks.mlflow", "mlflow", "mlflow-skinny"),
    ],
)
def test_a_package_that_is_missing_is_one_line(
    module: str, hook: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, hook, None)
    monkeypatch.delitem(sys.modules, module, raising=False)
    with pytest.raises(UserError, match=rf"hook '{hook}' needs the package {package} .*'offbeat\[{hook}\]'"):
        run(tmp_path / "run", hook)
    assert not (tmp_path / "run").exists()


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    made = run(tmp_path / "run", "wandb", run_name="a-name")
    known = kept_id(made, "wandb")
    (first,) = (made / "wandb").glob("offline-run-*")
    (file,) = first.glob("*.wandb")
    assert known and file.stem == f"run-{known}"
    written = file.read_bytes()
    for text in (b"learner/loss", b"evaluation/mean", b"episode/return", b"a-name", b"quick", b"learner.batch_size"):
        assert text in written, text
    assert offbeat.resume(made, total_frames=600).finished
    assert kept_id(made, "wandb") == known
    assert {one.stem for one in (made / "wandb").glob("offline-run-*/*.wandb")} == {f"run-{known}"}
    assert len(list((made / "wandb").glob("offline-run-*"))) == 2, "what `wandb sync` joins"


def test_mlflow_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    made = run(tmp_path / "run", "mlflow")
    known, client = kept_id(made, "mlflow"), mlflow.MlflowClient()
    there = client.get_run(known)
    assert there.info.run_name == "run" and there.info.status == "FINISHED"
    assert client.get_experiment(there.info.experiment_id).name == "tests"
    assert there.data.params["learner.batch_size"] == "4" and {"quick", "catch"} <= set(there.data.tags)
    assert {"learner/loss", "evaluation/mean", "episode/return"} <= set(there.data.metrics)
    before = client.get_metric_history(known, "learner/loss")
    assert offbeat.resume(made, total_frames=600).finished
    assert kept_id(made, "mlflow") == known
    after = client.get_metric_history(known, "learner/loss")
    assert len(after) > len(before) and max(one.step for one in after) >= 600
    assert client.get_run(known).info.status == "FINISHED"


def test_a_place_that_mlflow_has_no_use_for_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "ftp://nowhere")
    with pytest.raises(UserError, match=r"hook 'mlflow' cannot report anywhere: .*ftp"):
        run(tmp_path / "run", "mlflow")
    assert not (tmp_path / "run").exists()


def test_a_server_that_fails_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("mlflow")
    from offbeat.run.sinks.mlflow import Sink

    class Gone:
        def log_batch(self, run: str, **given: Any) -> None:
            raise ConnectionError("no route")

    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", tmp_path.as_uri())
    sink = Sink(LogConfig())
    monkeypatch.setattr(sink, "_client", Gone())
    monkeypatch.setattr(sink, "_id", "known")
    for frames in (1, 2):
        monkeypatch.setattr(sink, "_sent_at", 0.0)
        sink.on_metrics(line("learner", "learner", frames, loss=1.0))
    assert capsys.readouterr().err.count("mlflow does not take metrics: ConnectionError: no route") == 1
