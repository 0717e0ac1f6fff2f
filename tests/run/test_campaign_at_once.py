"""Campaigns whose runs go side by side: the same results, a line for each event, nobody left behind."""

from __future__ import annotations

import os
import re
import signal
from pathlib import Path

import pytest

from offbeat.config import auto
from offbeat.report.campaign import write_report
from offbeat.run.campaign import plan, run_campaign
from offbeat.run.campaign_file import read_campaign
from offbeat.run.verify import compare_checkpoints
from tests.faults.command import descendants, running
from tests.run.test_campaign_stopped import are_gone, linux

GRID = """
[[grid]]
name = "tiny"
preset = "debug"
options = {{ total_frames = {frames}, evaluation.every_frames = 0 }}
over = {{ "learner.learning_rate" = [0.001, 0.002] }}
"""


def campaign(folder: Path, text: str, frames: int = 400) -> Path:
    """A campaign in ``folder``/out."""
    path = folder / "campaign.toml"
    path.write_text(f'out = "{folder / "out"}"\n' + text.format(frames=frames))
    return path


def test_results_are_those_of_one_at_a_time_and_a_line_says_what_failed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    failing = '[[runs]]\nname = "wrong"\npreset = "debug"\noptions = {{ env.id = "toy/cash" }}\n'
    out = {1: tmp_path / "one", 2: tmp_path / "two"}
    for at_once, folder in out.items():
        folder.mkdir()
        path = campaign(folder, GRID if at_once == 1 else failing + GRID)
        assert run_campaign(path, write_report, at_once=at_once) == at_once - 1
    said = capfd.readouterr()
    for rate in ("0.001", "0.002"):
        one, two = (folder / "out" / f"tiny-learning_rate={rate}-seed0" for folder in out.values())
        compared = compare_checkpoints(one, two)
        assert compared.equal and compared.arrays > 10, compared.differing
        assert f"{one}: train debug --seed 0" in said.out
        log = two.parent / "logs" / f"{two.name}.log"
        assert f"{two}: begun, output in {log}\n" in said.out
        assert re.search(
            rf"^\[\d/3\] {two}: finished, score \S+ over 4 episodes at 4\d\d frames, after 0:", said.out, re.M
        )
        assert f"run {two}" in log.read_text()
    wrong = tmp_path / "two" / "out" / "wrong-seed0"
    (line,) = [line for line in said.out.splitlines() if "failed" in line]
    assert line.startswith(f"[1/3] {wrong}: failed, exit code 2: offbeat: error: no environment is called 'toy/cash'")
    assert line.endswith(" (" + str(wrong.parent / "logs" / "wrong-seed0.log") + ")") and "toy/cash" not in said.err
    assert "2 of 3 runs are finished" in said.out
    ranked = said.out.partition("Final scores of finished runs")[2].splitlines()
    assert ranked[2].endswith("learning_rate") and ranked[4].split()[:3] == ["1", "tiny", "#1"]
    assert (tmp_path / "two" / "out" / "tiny.png").stat().st_size > 1000


@linux
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_all_are_told_to_save_and_to_stop(number: signal.Signals, tmp_path: Path) -> None:
    path = campaign(tmp_path, GRID, frames=1_000_000_000)
    runs = read_campaign(path).runs
    logs = [tmp_path / "out" / "logs" / f"{run.folder.name}.log" for run in runs]
    with running("campaign", str(path), "--at-once", "2", folder=tmp_path) as command:
        command.until(lambda: all(log.exists() and "loss=" in log.read_text() for log in logs), "both learnt")
        both = descendants(command.process.pid)
        assert len(both) == 2
        if number == signal.SIGINT:
            command.press_ctrl_c()
        else:
            os.kill(command.process.pid, number)
        code = command.wait()
        are_gone(both)
        if number == signal.SIGINT:
            assert code == 0 and "stopped; start the campaign again to go on" in command.output
            assert all(f"{run.folder}: stopped ({log})" in command.output for run, log in zip(runs, logs, strict=True))
    for run, log in zip(runs, logs, strict=True):
        assert log.read_text().count("and saved at") == 1 and run.begun()
    assert [job.state.split(": ")[0] for job in plan(read_campaign(path), None)[0]] == ["begun", "begun"]


def test_a_run_begins_when_the_cores_that_it_wants_are_free(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """[[runs]] come before [[grid]]: one that counts its threads by the cores, one of two processes, two of one."""
    text = '[[runs]]\npreset = "apex-small"\n[[runs]]\npreset = "impala-catch"\n' + GRID
    for cores, most in ((1, 1), (2, 2), (8, 3)):
        monkeypatch.setattr(auto, "usable_cores", lambda cores=cores: cores)
        monkeypatch.setattr("offbeat.run.campaign.usable_cores", lambda cores=cores: cores)
        jobs, found = plan(read_campaign(campaign(tmp_path, text)), None)
        assert [job.cores for job in jobs] == [cores, min(cores, 2), 1, 1]
        assert found == most
        jobs, found = plan(read_campaign(campaign(tmp_path, "at_once = 2\n" + text)), None)
        assert [job.cores for job in jobs] == 4 * [max(1, cores // 2)] and found == 2
        assert plan(read_campaign(tmp_path / "campaign.toml"), 1)[1] == 1, "the command line overrules the file"
