"""run.log and environment.json."""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
from pathlib import Path

import pytest

from offbeat.run import provenance
from offbeat.run.log import RunLog, open_log


def shout(folder: str, role: str) -> None:
    log = open_log(folder, role)
    for i in range(200):
        log.write(f"line {i} " + role * 40)


def test_lines_of_several_processes_never_mix(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=shout, args=(str(tmp_path), f"actor-{i}")) for i in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    lines = (tmp_path / "run.log").read_text().splitlines()
    assert len(lines) == 600
    for role in ("actor-0", "actor-1", "actor-2"):
        own = [line.split(" ", 2)[2] for line in lines if line.split(" ")[2] == role]
        assert own == [f"{role} line {i} " + role * 40 for i in range(200)]


def test_every_line_of_a_traceback_carries_time_and_role(tmp_path: Path) -> None:
    log = RunLog(tmp_path, "learner", clock=lambda: 1.25)
    log.write("Traceback\n  boom")
    text = (tmp_path / "run.log").read_text()  # before it is closed
    assert [line.split(" ", 2)[2] for line in text.splitlines()] == ["learner Traceback", "learner   boom"]
    assert text.splitlines()[0].split()[1].endswith(".250")
    log.close()
    log.close()


def test_lines_that_the_disk_does_not_take_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    log, room, write = RunLog(tmp_path, "main", echo=True, clock=lambda: 0.0), [30], os.write

    def full(file: int, data: bytes) -> int:
        taken = data[: room[0]]
        if not taken:
            raise OSError(errno.ENOSPC, "No space left on device")
        room[0] -= len(taken)
        return write(file, taken)

    monkeypatch.setattr("offbeat.run.log.os.write", full)
    monkeypatch.setattr("offbeat.run.log.MOST_KEPT_BYTES", 200)
    for number in range(20):
        log.write(f"line {number}")
    room[0] = 10**6
    log.write("the end")
    log.close()
    log.write("after the end")
    kept = [line.split(" ", 3)[3] for line in (tmp_path / "run.log").read_text().splitlines() if "main" in line]
    assert kept[-3:] == ["line 18", "line 19", "the end"]
    assert 3 < len(kept) < 20
    shown = capsys.readouterr().out.splitlines()
    assert [line for line in shown if line.startswith("line")] == [f"line {number}" for number in range(20)]
    assert len([line for line in shown if "run.log cannot be written (No space left on device)" in line]) == 1
    assert len([line for line in shown if "run.log is written again" in line]) == 1


def test_a_log_that_is_no_file_ends_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    os.mkfifo(tmp_path / "run.log")
    log = RunLog(tmp_path, "main", echo=True)
    log.write("hello")
    log.close()
    assert "hello" in capsys.readouterr().out


def test_a_signal_handler_may_write_in_the_middle_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, write = RunLog(tmp_path, "main", clock=lambda: 0.0), os.write

    def interrupted(file: int, data: bytes) -> int:
        monkeypatch.undo()
        log.write("from the handler")
        return write(file, data)

    monkeypatch.setattr("offbeat.run.log.os.write", interrupted)
    log.write("from the run")
    texts = [line.split(" ", 3)[3] for line in (tmp_path / "run.log").read_text().splitlines()]
    assert texts == ["from the run", "from the handler"]
    log.close()


def test_environment_names_versions_machine_seed_and_command(tmp_path: Path) -> None:
    provenance.write_environment(tmp_path, seed=7, command=["offbeat", "train", "x"])
    written = json.loads((tmp_path / "environment.json").read_text())
    assert written["seed"] == 7
    assert written["command"] == ["offbeat", "train", "x"]
    assert written["versions"]["torch"].startswith("2.")
    assert written["machine"]["cores"] >= 1
    provenance.write_environment(tmp_path, seed=7, command=["offbeat", "resume"])
    again = json.loads((tmp_path / "environment.json").read_text())
    assert again["command"] == ["offbeat", "train", "x"]
    assert [one["command"] for one in again["resumed"]] == [["offbeat", "resume"]]


def test_an_installed_package_names_no_commit_of_the_folder_around_it(tmp_path: Path) -> None:
    (tmp_path / "lib" / "offbeat").mkdir(parents=True)
    assert provenance.source_commit(tmp_path / "lib" / "offbeat") is None


@pytest.mark.parametrize(
    "content", [b"", b'{"seed": 1, "ver', b"[1]", b"\0" * 50, b"\xff", b"[" * 100_000, b'{"resumed": 3}']
)
def test_an_environment_that_cannot_be_read_is_moved_aside(content: bytes, tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "environment.json").write_bytes(content)
    provenance.write_environment(tmp_path, seed=7, command=["offbeat"], say=said.append)
    assert json.loads((tmp_path / "environment.json").read_text())["seed"] == 7
    assert (tmp_path / "environment.json.broken").read_bytes() == content
    assert len(said) == 1
    (tmp_path / "environment.json").unlink()
    (tmp_path / "environment.json").mkdir()
    provenance.write_environment(tmp_path, seed=8, command=["offbeat"], say=said.append)
    assert json.loads((tmp_path / "environment.json").read_text())["seed"] == 8
    assert (tmp_path / "environment.json.broken-2").is_dir()


def test_an_environment_that_cannot_be_written_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    (tmp_path / "environment.json.tmp").mkdir()
    provenance.write_environment(tmp_path, seed=7, command=["offbeat"], say=said.append)
    assert len(said) == 1
    assert "environment.json cannot be written (Is a directory); the run goes on without it" in said[0]
