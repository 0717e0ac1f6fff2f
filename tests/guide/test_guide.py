"""The guide in a shell and in a notebook: quick, parts of it; slow, all of it, in short and as long as it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.guide.guide import GUIDE, Step, missing, steps
from tests.house_rules.source import ROOT

LENGTH = pytest.mark.parametrize("short", [True, False], ids=["short", "whole"])


@pytest.fixture
def surroundings(tmp_path: Path) -> dict[str, str]:
    """The environment of the reader's shell: this Python and offbeat first; pip installs into a folder of its own."""
    site, tools = tmp_path / "site", tmp_path / "bin"
    tools.mkdir()
    for name, start in (("offbeat", "-m offbeat"), ("python", ""), ("pip", "-m pip")):
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {start} "$@"\n')
        (tools / name).chmod(0o755)
    paths = {"PATH": f"{tools}:{os.environ['PATH']}", "PYTHONPATH": f"{site}:{ROOT}"}
    pip = {"PIP_TARGET": str(site), "PIP_NO_BUILD_ISOLATION": "false", "PIP_NO_DEPS": "1"}
    return os.environ | paths | pip | {"COLUMNS": "200", "TERM": "dumb"}


def do(step: Step, folder: Path, surroundings: dict[str, str]) -> str:
    """One step; what it printed."""
    if step.kind == "file":
        (folder / step.name).write_text(step.text)
        return ""
    command = ["bash", "-e", "-c", step.text]
    if step.kind == "cell":
        command = [sys.executable, "-c", f"import sys; sys.path.insert(0, '')\n{step.text}"]
    done = subprocess.run(command, cwd=folder, env=surroundings, capture_output=True, text=True)
    assert done.returncode == 0, f"{step.text}\n{done.stdout}\n{done.stderr}"
    return done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(3600)
@LENGTH
def test_in_a_shell(short: bool, tmp_path: Path, surroundings: dict[str, str]) -> None:
    folder, printed, last = tmp_path / "courier", "", ""
    folder.mkdir()
    for step in steps(short):
        if step.kind == "shown":
            assert missing(step.text, last) == [], last
        else:
            last = do(step, folder, surroundings)
            printed += last
    delivered = re.findall(r"^(\d+) parcels delivered$", printed, re.M)
    assert len(delivered) == 1 and (short or int(delivered[0]) >= 4), "a random policy delivers 0 or 1"
    assert "first action: " in printed and "imports offbeat" not in printed
    for name in ("courier.mp4", "curves.png", "courier.pt2", "results/sweep/campaign.csv"):
        assert (folder / name).stat().st_size > 300, name
    assert "observation 'camera', uint8 [3, 20, 20], looks like a picture" in printed


def notebook(cells: list[str]) -> dict[str, Any]:
    """A notebook with these cells, as its file holds it."""
    code = {"cell_type": "code", "execution_count": None, "metadata": {}, "outputs": []}
    return {
        "cells": [{**code, "id": f"cell-{index}", "source": cell} for index, cell in enumerate(cells)],
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "nbformat": 4,
        "nbformat_minor": 5,
    }


def cell(step: Step) -> str:
    """A step as one types it into a notebook."""
    head = {"file": f"%%writefile {step.name}\n", "commands": "%%bash -e\n", "cell": ""}[step.kind]
    return head + step.text


def run_notebook(cells: list[str], folder: Path, surroundings: dict[str, str]) -> list[str]:
    """Execute them with nbconvert, in ``folder``; what each printed."""
    (folder / "guide.ipynb").write_text(json.dumps(notebook(cells)))
    convert = ["-m", "nbconvert", "--to", "notebook", "--execute", "--ExecutePreprocessor.timeout=3600"]
    started = [sys.executable, *convert, "--output", "done.ipynb", "guide.ipynb"]
    told = subprocess.run(started, cwd=folder, env=surroundings, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    done = json.loads((folder / "done.ipynb").read_text())["cells"]
    return ["".join("".join(output.get("text", "")) for output in made["outputs"]) for made in done]


@pytest.mark.slow
@pytest.mark.timeout(3600)
@LENGTH
def test_in_a_notebook(short: bool, tmp_path: Path, surroundings: dict[str, str]) -> None:
    folder = tmp_path / "courier"
    folder.mkdir()
    doable = [step for step in steps(short) if step.kind != "shown"]
    printed = run_notebook([cell(step) for step in doable], folder, surroundings)
    delivered = re.findall(r"^(\d+) parcels delivered$", "\n".join(printed), re.M)
    assert len(delivered) == 1 and (short or int(delivered[0]) >= 4)


def test_its_notebook_part_in_a_notebook(tmp_path: Path, surroundings: dict[str, str]) -> None:
    """An environment in a file, runs with processes and without, and an agent that acts, from a notebook's kernel."""
    file, part = (next(step for step in steps(True) if step.kind == kind) for kind in ("file", "cell"))
    inline = 'print(offbeat.train("own", env_factory=Courier, total_frames=2000, engine="inline", out="inline").frames)'
    last = "print(agent.act(Courier().reset(seed=1)[0]))"
    printed = run_notebook([cell(file), cell(part), inline, last], tmp_path, surroundings)
    assert "finished: " in printed[1] and "finished: " in printed[2]
    assert printed[3].strip() in ("0", "1", "2", "3")


def test_the_last_program_needs_no_offbeat() -> None:
    programs = {step.name: step.text for step in steps(False) if step.kind == "file"}
    assert "offbeat" not in programs["deploy.py"] and "offbeat" not in programs["courier.py"]


def test_lines_that_are_not_shown_are_found() -> None:
    assert missing("seen 3 to 5.5", "  seen  -1.5 to 7\n") == ["seen 3 to 5.5"]
    assert missing("seen 3 to 5.5\n", "of it seen  1.5 to 7, say\n") == []
    assert GUIDE.exists()


def test_its_environment_is_checked_trained_on_by_a_script_exported_and_deployed(
    tmp_path: Path, surroundings: dict[str, str]
) -> None:
    wanted = {"courier.py", "learn.py", "deploy.py", "python learn.py\n", "python deploy.py\n"}
    doable = [
        step for step in steps(True) if {step.name, step.text} & wanted or step.text.startswith("offbeat envs check")
    ]
    doable.insert(-2, Step("commands", "offbeat export results/script --env courier:Courier --out courier.pt2"))
    printed = "".join(do(step, tmp_path, surroundings) for step in doable)
    assert "no errors, no warnings" in printed and "first action: " in printed
    assert re.search(r"^\d+ parcels delivered$", printed, re.M)
