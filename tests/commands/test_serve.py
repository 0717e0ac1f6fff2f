"""``offbeat serve`` as it is typed: from a run to actions in another process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import offbeat
from offbeat.cli import main
from offbeat.serving.client import TOKEN, Client


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of a few seconds."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    options = ["--total-frames", "400", "--evaluation.every-frames=0", "--evaluation.at-end", "false"]
    assert main(["train", "debug", "--out", str(folder), *options]) == 0
    return folder


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The line on stderr of a command that ends with exit code 2."""
    capsys.readouterr()
    assert main(["serve", *arguments]) == 2
    out, err = capsys.readouterr()
    assert out == "" and err.startswith("offbeat: error: ") and err.count("\n") == 1
    return err


def test_another_process_asks_and_ctrl_c_ends_it(run: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "offbeat", "serve", str(run), "--greedy", "--tcp", "127.0.0.1:0", "--verbose"]
    command += ["--socket", str(tmp_path / "s")]
    env = os.environ | {TOKEN: "0123456789abcdef"}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env) as process:
        assert process.stdout is not None and process.stderr is not None
        line = process.stdout.readline()
        assert line.startswith(f"impala of {run}, greedy, weights ") and line.endswith(f" and {tmp_path / 's'}\n")
        port = int(line.split(":")[-1].split()[0])
        twin = offbeat.load(run)
        generator = np.random.default_rng(0)
        with Client(tmp_path / "s") as one, Client(("127.0.0.1", port), "0123456789abcdef") as two:
            assert one.about == two.about | {"number": "1"}
            assert one.about["run"] == "run" and one.about["agent"] == "impala" and one.about["env"] == "toy/catch"
            assert int(one.about["agent_steps"]) >= 400 and one.about["version"] == one.last.get("version", "23")
            for _ in range(20):
                seen = generator.random((10, 5)).astype(np.float32)
                assert one.act(seen) == two.act(seen) == twin.act(seen)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert process.returncode == 0 and out == "40 actions, 0 errors\n"
    assert "a client came, 2 of 16" in err and "Traceback" not in err
    assert not (tmp_path / "s").exists()


def test_what_the_user_can_mend_is_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(TOKEN, raising=False)
    assert "needs a run" in refused(capsys)
    assert "is no run folder" in refused(capsys, str(tmp_path))
    assert "needs a token, from --token-file" in refused(capsys, str(run), "--tcp", "127.0.0.1:0")
    assert "go with --tcp HOST:PORT only" in refused(capsys, str(run), "--remote")
    assert "--clients=0 is out of range" in refused(capsys, str(run), "--clients", "0")
    assert "--threads=0 is out of range" in refused(capsys, str(run), "--threads", "0")
    assert "at most" in refused(capsys, str(run), "--socket", "/" + "x" * 120)
    assert "checkpoint" in refused(capsys, str(run), "--checkpoint", "7")
    assert not (run / "serve.sock").exists(), "nothing is left of what was refused"
    monkeypatch.setenv(TOKEN, "0123456789abcdef")
    assert "other machines" in refused(capsys, str(run), "--tcp", "0.0.0.0:0")
    assert "unknown option '--token'" in refused(capsys, str(run), "--token", "x"), "a token is never an argument"


def test_the_client_is_written_to_a_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy_client.py"
    assert main(["serve", "--write-client", str(file)]) == 0
    assert capsys.readouterr().out == f"{file}\n" and "class Client" in file.read_text()
    assert "File exists" in refused(capsys, "--write-client", str(file))
