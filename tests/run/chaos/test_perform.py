"""``offbeat chaos`` of real presets; and that a promise which is not kept is found, whatever breaks it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.config.run_config import RunConfig, load_preset
from offbeat.run.chaos import perform, table
from offbeat.run.chaos.ground import Fault, Ground, ended, goes_on
from offbeat.run.chaos.table import FAULTS
from offbeat.run.chaos.verdicts import Broken, Unfit

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


def verdicts(said: str) -> dict[str, str]:
    """Title of a fault -> what its line begins with."""
    titles = {fault.title for fault in FAULTS}
    found = {}
    for line in said.splitlines():
        verdict, _, rest = line.partition(" ")
        for title in titles:
            if rest.strip().startswith(f"{title}: "):
                found[title] = verdict
    return found


def test_an_inline_run_keeps_its_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = ["actor-killed", "config-edited"]
    assert main(["chaos", "debug", "--only", *names, "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert verdicts(said) == {
        "an actor is killed": "-",
        "config.toml was edited and the checkpoint does not fit": "ok",
    }
    assert "needs processes (engine = inline)" in said
    assert "1 promises kept, 0 broken, 1 not made to happen here" in said


@pytest.mark.slow
def test_a_run_of_processes_keeps_its_promises(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "impala-catch", "--only", "actor-killed", "--out", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    assert verdicts(said) == {"an actor is killed": "ok"}
    assert "ledger closes" in said


@pytest.mark.slow
@pytest.mark.parametrize("preset", ["debug", "impala-catch", "apex-catch", "r2d2-tmaze"])
def test_every_promise_is_kept(preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["chaos", preset, "--out", str(tmp_path)])
    said = capsys.readouterr().out
    assert code == 0, said
    found = verdicts(said)
    assert len(found) == len(FAULTS)
    assert "BROKEN" not in found.values()
    assert list(found.values()).count("ok") >= len(FAULTS) - (12 if preset == "debug" else 3), said


def test_a_promise_that_is_not_kept_is_broken_and_the_code_is_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(table, "FAULTS", (Fault("stops", "a run that goes on", "stops", (), runs_on),))
    assert main(["chaos", "debug", "--out", str(tmp_path)]) == 1
    said = capsys.readouterr().out
    assert "BROKEN a run that goes on: expected an end within 1 s, got it runs on" in said
    assert "(promised: stops)" in said
    assert "0 promises kept, 1 broken, 0 not made to happen here" in said
    assert f"the runs are kept in {tmp_path}" in said
    assert not marked(tmp_path)


@pytest.mark.slow
def test_a_run_that_does_not_replace_its_actors_breaks_that_promise(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--actor.max-restarts", "0", "--out", str(tmp_path))
    assert main(["chaos", "impala-catch", "--only", "actor-killed", *options]) == 1
    assert "BROKEN an actor is killed: expected the line 'actor-0 was killed by SIGKILL; replaced'" in (
        capsys.readouterr().out
    )


def runs_on(ground: Ground) -> str:
    """Nobody tells it to end."""
    ground.live().wait(patience_s=1)
    return "it has ended"


@pytest.mark.slow
def test_a_run_that_does_not_end_as_it_should_is_found(tmp_path: Path) -> None:
    """The same end beside other expectations: exit code, lines, what is left behind, the checkpoint."""
    ground = Ground(load_preset("debug"), ["debug"], tmp_path)
    child = ground.live()
    child.process.terminate()
    ended(child, ground.run, 0, "stopped (SIGTERM) and saved")
    for code, said in ((1, ""), (0, "stopped (SIGINT) and saved")):
        with pytest.raises(Broken, match="expected"):
            ended(child, ground.run, code, said)
    with pytest.raises(Broken, match="training that goes on"):
        goes_on(child, ground.run)
    left = tmp_path / "shared-1" / "tmp" / "left"
    left.touch()
    with pytest.raises(Broken, match=r"nothing left behind, got .*/left"):
        ended(child, ground.run, 0)
    left.unlink()
    for checkpoint in (ground.run / "checkpoints").iterdir():
        os.truncate(checkpoint / "learner.safetensors", 100)
    with pytest.raises(Broken, match="a newest checkpoint that is complete"):
        ended(child, ground.run, 0)


@pytest.mark.parametrize(
    ("raised", "verdict"),
    [
        (Unfit("no disk"), ("-", "no disk")),
        (Broken("this", "that"), ("BROKEN", "expected this, got that (promised: p)")),
        (KeyError("x"), ("BROKEN", "expected evidence, got KeyError: 'x' (promised: p)")),
    ],
)
def test_verdicts(raised: Exception, verdict: tuple[str, str], tmp_path: Path) -> None:
    def make(ground: Ground) -> str:
        raise raised

    ground = Ground(load_preset("debug"), ["debug"], tmp_path)
    assert perform.judged(Fault("n", "t", "p", (), make), ground) == verdict


@pytest.mark.parametrize(
    ("config", "needs", "said"),
    [
        ({}, ("processes", "freedom", "actors"), ""),
        ({"engine": "inline"}, (), ""),
        ({"engine": "inline"}, ("freedom",), "needs processes"),
        ({"deterministic": True}, ("processes",), ""),
        ({"deterministic": True}, ("freedom",), "needs roles that run freely"),
    ],
)
def test_what_a_run_lacks(config: dict[str, object], needs: tuple[str, ...], said: str, tmp_path: Path) -> None:
    made: RunConfig = replace(load_preset("impala-catch"), **config)  # type: ignore[arg-type]
    lack = Ground(made, ["impala-catch"], tmp_path).lacks(needs)
    assert lack.startswith(said) and bool(lack) == bool(said)


def marked(folder: Path) -> list[str]:
    """Command lines of processes that live and belong to the runs in a folder."""
    listed = subprocess.run(["ps", "-eo", "args"], capture_output=True, text=True, check=True).stdout
    return [line for line in listed.splitlines() if str(folder) in line]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_command_that_is_ended_takes_its_runs_with_it(number: signal.Signals, tmp_path: Path) -> None:
    out = tmp_path / "out"
    command = [sys.executable, "-m", "offbeat", "chaos", "impala-catch", "--out", str(out)]
    with (tmp_path / "said").open("w") as file:
        process = subprocess.Popen(command, stdout=file, stderr=file)
        deadline = time.monotonic() + 100
        while not list(out.glob("shared-1/run/checkpoints/0*")):
            assert time.monotonic() < deadline and process.poll() is None
            time.sleep(0.1)
        process.send_signal(number)
        assert process.wait(60) == (-9 if number == signal.SIGKILL else 130)
    deadline = time.monotonic() + 30
    while marked(out):
        assert time.monotonic() < deadline, marked(out)
        time.sleep(0.1)
