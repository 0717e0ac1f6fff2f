"""``offbeat realtime report`` as it is typed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.commands import realtime_report
from tests.report.recordings import recording_of, write_files

ROWS = [(n, n + 3, 0, n) for n in range(80)]


@pytest.fixture(scope="module")
def delayed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run with a simulated delay."""
    folder = tmp_path_factory.mktemp("runs") / "delayed"
    options = ["--total-frames", "200", "--evaluation.every-frames=0", "--evaluation.at-end", "false"]
    delay = ["--delay.mode", "background", "--delay.inference-frames", "2"]
    assert main(["train", "debug", "--out", str(folder), *options, *delay]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line on stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    assert main(["realtime", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("offbeat: error: ")
    return err


def test_it_prints_and_writes_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = tmp_path / "run"
    write_files(recording_of(ROWS), run)
    assert main(["realtime", "report", str(run), "--from", "2", "--seconds", "1.5"]) == 0
    out = capsys.readouterr().out
    assert "observation to published action" in out
    written = [run / "report" / name for name in ("realtime.json", "realtime.png", "realtime.svg")]
    assert out.splitlines()[-3:] == [str(path) for path in written]
    assert all(path.stat().st_size for path in written)
    assert "kept are 0.000 to" in refused(capsys, "report", str(run), "--from", "100")
    assert "--episodes goes with --regret only" in refused(capsys, "report", str(run), "--episodes", "3")
    assert "--from and --seconds choose" in refused(capsys, "report", str(run), "--regret", "--from", "1")


def test_it_plays_a_regret_report(delayed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [str(delayed), "--regret", "--episodes", "4", "--reference", str(delayed)]
    assert main(["realtime", "report", *arguments]) == 0
    out = capsys.readouterr().out
    found = json.loads((delayed / "report" / "regret.json").read_text())
    assert out.endswith(f"\n{delayed / 'report' / 'regret.json'}\n")
    assert found["parts"]["learning"]["per_episode"]["value"] == 0.0, "its own reference"
    assert found["delays"]["as_run"]["mode"] == "background"
    assert found["delays"]["every_frame"]["mode"] == "async"
    assert found["evaluations"]["as_run"]["episodes"] == 4


def test_what_ctrl_c_ended_says_nothing(
    delayed: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("offbeat.scoring.regret.regret_of", lambda *arguments, **options: None)
    capsys.readouterr()
    assert main(["realtime", "report", str(delayed), "--regret"]) == realtime_report.STOPPED
    out, err = capsys.readouterr()
    assert out == ""
    assert "stopped: a part of the evaluations" in err


def test_what_is_wrong_is_said_in_one_line(delayed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is no realtime run: its realtime.fps is 0" in refused(capsys, "report", str(delayed))
    assert "--episodes=0 is out of range" in refused(capsys, "report", str(delayed), "--regret", "--episodes", "0")
    assert "needs one of: probe, scaling, report" in refused(capsys)
    assert "got 'reprot'; did you mean 'report'?" in refused(capsys, "reprot")


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["realtime", "--help"]) == main(["realtime", "report", "--help"]) == 0
    assert "--reference" in capsys.readouterr().out
