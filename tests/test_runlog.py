"""run.log and environment.json."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

from offbeat import provenance
from offbeat.runlog import RunLog, open_log


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
