"""Campaigns that are stopped and started again: in the middle of training, in the final evaluation, twice at once."""

from __future__ import annotations

import csv
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.report.campaign import write_report
from offbeat.run.campaign import run_campaign
from offbeat.run.campaign_file import read_campaign
from tests.faults.command import PATIENCE_S, alive, descendants, running

LONG_EVALUATION = '"evaluation.every_frames" = 0, "evaluation.episodes" = 2000'
"""Seconds long."""


linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc, and the kernel takes part")


def campaign(folder: Path, options: str) -> Path:
    """A campaign of one tiny run."""
    path = folder / "campaign.toml"
    path.write_text(f'out = "{folder / "out"}"\n[[runs]]\nname = "tiny"\npreset = "debug"\noptions = {{ {options} }}\n')
    return path


def checkpoints(folder: Path) -> list[str]:
    """Names of the run's checkpoints."""
    return sorted(path.name for path in (folder / "out" / "tiny-seed0" / "checkpoints").glob("[0-9]*"))


def is_stopped(folder: Path, path: Path, frames: int, number: int) -> None:
    """Start the campaign, stop it with a signal once the run has saved ``frames``; it leaves no process behind."""
    with running("campaign", str(path), folder=folder) as command:
        command.until(lambda: any(int(name) >= frames for name in checkpoints(folder)), "the last checkpoint")
        children = descendants(command.process.pid)
        os.kill(command.process.pid, number)
        assert command.wait() == 0, command.output
        assert "stopped; start the campaign again to go on" in command.output
        are_gone(children)


def are_gone(pids: list[int]) -> None:
    """These processes end."""
    deadline = time.monotonic() + PATIENCE_S
    while any(map(alive, pids)):
        assert time.monotonic() < deadline, "the run goes on without its campaign"
        time.sleep(0.05)


def state(pid: int) -> str:
    """``T`` where a process stands still."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "number"), [("local", signal.SIGINT), ("inline", signal.SIGTERM)])
def test_a_run_stopped_in_its_final_evaluation_is_finished_later(
    engine: str, number: signal.Signals, tmp_path: Path
) -> None:
    path = campaign(tmp_path, f'total_frames = 400, engine = "{engine}", {LONG_EVALUATION}')
    run = tmp_path / "out" / "tiny-seed0"
    is_stopped(tmp_path, path, 400, number)
    runs = read_campaign(path).runs
    assert runs[0].score() is None
    steps = checkpoints(tmp_path)
    with running("campaign", str(path), folder=tmp_path) as command:
        assert command.wait() == 0, command.output
        assert f"resume {run}" in command.output
        assert command.output.count("stopped; start the campaign again") == 1, "only the first time"
    score = runs[0].score()
    assert score is not None
    assert (score["frames"] >= 400, score["episodes"], score["updates"] > 0) == (True, 2000, True)
    assert checkpoints(tmp_path)[-1] == steps[-1], "nothing more was trained"
    with (tmp_path / "out" / "campaign.csv").open() as file:
        assert [int(row["frames"]) for row in csv.DictReader(file)] == [score["frames"]]
    with running("campaign", str(path), folder=tmp_path) as command:
        assert command.wait() == 0, command.output
        assert f"{run}: finished already" in command.output


def test_ctrl_c_lets_the_run_save_and_the_campaign_goes_on_later(tmp_path: Path) -> None:
    """A terminal sends it to the whole group. The run needs a second to end, in which nobody may kill it."""
    path = campaign(tmp_path, 'total_frames = 1_000_000_000, "evaluation.every_frames" = 0, engine = "local"')
    with running("campaign", str(path), folder=tmp_path) as command:
        command.until_said("loss")
        command.press_ctrl_c()
        assert command.wait() == 0, command.output
        assert "stopped (SIGINT) and saved" in command.output
        assert "stopped; start the campaign again to go on" in command.output
    assert checkpoints(tmp_path)


@linux
def test_a_killed_campaign_takes_its_run_along_which_saves(tmp_path: Path) -> None:
    path = campaign(tmp_path, 'total_frames = 1_000_000_000, "evaluation.every_frames" = 0, engine = "inline"')
    with running("campaign", str(path), folder=tmp_path) as command:
        command.until_said("loss")
        (run,) = descendants(command.process.pid)
        os.kill(command.process.pid, signal.SIGKILL)
        command.process.wait()
        are_gone([run])
        assert "stopped (SIGTERM) and saved" in command.output
    assert checkpoints(tmp_path)


@linux
@pytest.mark.slow
def test_ctrl_z_stops_the_run_and_fg_continues_it(tmp_path: Path) -> None:
    path = campaign(tmp_path, 'total_frames = 1_000_000_000, "evaluation.every_frames" = 0, engine = "inline"')
    with running("campaign", str(path), folder=tmp_path) as command:
        command.until_said("loss")
        both = [command.process.pid, *descendants(command.process.pid)]
        os.killpg(command.process.pid, signal.SIGTSTP)
        command.until(lambda: [state(pid) for pid in both] == ["T", "T"], "both stood still")
        os.killpg(command.process.pid, signal.SIGCONT)
        command.until(lambda: "T" not in [state(pid) for pid in both], "both went on")
        command.press_ctrl_c()
        assert command.wait() == 0, command.output
        assert "stopped (SIGINT) and saved" in command.output


def test_two_campaigns_do_not_work_in_one_folder(tmp_path: Path) -> None:
    path = campaign(tmp_path, 'total_frames = 1_000_000_000, "evaluation.every_frames" = 0')
    with running("campaign", str(path), folder=tmp_path) as command:
        command.until_said("weights on")
        with pytest.raises(UserError, match="another campaign is at work in"):
            run_campaign(path, write_report)
    command.process.wait()


def test_a_run_that_somebody_else_trains_is_left_alone(tmp_path: Path) -> None:
    """Its folder has no checkpoint yet: what is left of a dead run would be removed."""
    path = campaign(tmp_path, "total_frames = 400")
    run = tmp_path / "out" / "tiny-seed0"
    options = ("--out", str(run), "--total-frames", "1000000000", "--evaluation.every-frames", "0")
    with running("train", "debug", *options, folder=tmp_path) as command:
        command.until_said("weights on")
        with pytest.raises(UserError, match=r"another process is training in .*tiny-seed0"):
            run_campaign(path, write_report)
        assert (run / "config.toml").exists()
    assert command.process.wait() != 0


def test_a_campaign_whose_runs_would_never_be_scored_is_refused(tmp_path: Path) -> None:
    path = campaign(tmp_path, 'total_frames = 400, "evaluation.at_end" = false')
    with pytest.raises(UserError, match=r"tiny.*evaluation.at_end = false.*no final score"):
        read_campaign(path)
