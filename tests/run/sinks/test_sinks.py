"""The hooks wandb and mlflow, in their offline modes: numbers, options, name and tags; a resumed run goes on there."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

import offbeat
from offbeat.config.log import LogConfig
from offbeat.errors import UserError
from offbeat.run.sinks.common import Numbers, keep_id, kept_id, options_of
from offbeat.storage.checkpoint import newest
from tests.faults.command import intact, training


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
    assert numbers.of(line("validation", "validator", mean=2.0)) == {"validation/mean": 2.0}
    sets = [line("final", "evaluator", mean=3.0, set=name) for name in ("train", "length=8")]
    assert [numbers.of(one) for one in sets] == [{"final/train/mean": 3.0}, {"final/length-8/mean": 3.0}]


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


def exit_codes(run: Path) -> list[int]:
    """How each part of the run ended, of the files that ``wandb sync`` reads: records in LevelDB's log format."""
    from wandb.proto.wandb_internal_pb2 import Record

    codes = []
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb"), key=lambda file: file.stat().st_mtime_ns):
        data, place, held = file.read_bytes(), 7, b""
        while place + 7 <= len(data):
            if 32_768 - place % 32_768 < 7:  # the rest of a block that no header fits into
                place += 32_768 - place % 32_768
                continue
            size, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
            held, place = held + data[place + 7 : place + 7 + size], place + 7 + size
            if kind in (1, 4):  # whole, or the last piece
                record, held = Record.FromString(held), b""
                codes += [record.exit.exit_code] if record.WhichOneof("record_type") == "exit" else []
    return codes


def broken_off(folder: Path, hook: str, how: str) -> Path:
    """A run of a process of its own that Ctrl-C ends, or the kernel, or an environment that raises."""
    env = "toy/raise@3000" if how == "failed" else "toy/counting"
    options = ("--engine", "inline", "--checkpoint.every_updates", "50", "--log.hooks", hook, "--env", env)
    with training(folder, *options) as command:
        if how != "failed":
            command.until(lambda: kept_id(folder / "run", hook) and intact(folder), "it was begun there, and saved")
        if how == "stopped":
            command.press_ctrl_c()
        if how == "killed":
            os.killpg(command.process.pid, signal.SIGKILL)
        assert (command.wait() == 0) is (how == "stopped"), command.output
    return folder / "run"


def a_little_longer(run: Path) -> int:
    """Frames."""
    found = newest(run)
    assert found is not None
    return int(found.meta["frames"]) + 200


@pytest.mark.parametrize(("how", "codes"), [("stopped", [255]), ("killed", []), ("failed", [1])])
def test_wandb_is_told_how_the_run_ended(
    how: str, codes: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_SERVICE", raising=False)  # of a run of this process before
    made = broken_off(tmp_path, "wandb", how)
    known = kept_id(made, "wandb")
    assert exit_codes(made) == codes
    if how != "failed":
        assert offbeat.resume(made, total_frames=a_little_longer(made)).finished
        assert exit_codes(made) == [*codes, 0] and kept_id(made, "wandb") == known


@pytest.mark.parametrize(("how", "status"), [("stopped", "KILLED"), ("killed", "RUNNING"), ("failed", "FAILED")])
def test_mlflow_is_told_how_the_run_ended(
    how: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    made = broken_off(tmp_path, "mlflow", how)
    known, client = kept_id(made, "mlflow"), mlflow.MlflowClient()
    assert client.get_run(known).info.status == status
    if how != "failed":
        assert offbeat.resume(made, total_frames=a_little_longer(made)).finished
        assert kept_id(made, "mlflow") == known and client.get_run(known).info.status == "FINISHED"


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
