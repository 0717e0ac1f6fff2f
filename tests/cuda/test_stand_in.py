"""The tests of a GPU run where there is none, with the processor in its place; this test is an ordinary one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from tests.cuda.conftest import VARIABLE

FOLDER = Path(__file__).parent


def run(*arguments: str, stand_in: bool) -> str:
    """What pytest says of the tests of this folder that are marked ``cuda``."""
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    environment |= {VARIABLE: "cpu"} if stand_in else {"CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", str(FOLDER), *arguments]
    done = subprocess.run(command, env=environment, cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_some_of_them_pass_on_the_processor_and_all_of_them_can_be_imported() -> None:
    said = run("-k", "test_updates or test_staging or (test_acting and r2d2)", stand_in=True)
    assert (passed := re.search(r"(\d+) passed", said)) and int(passed[1]) > 30, said
    assert "skipped" not in said


def test_without_a_gpu_all_of_them_say_so() -> None:
    said = run(stand_in=False)
    assert "passed" not in said
    files = {path.name for path in FOLDER.glob("test_*.py")} - {Path(__file__).name, "test_compile.py"}
    for name in files:  # test_compile.py may have another reason
        assert re.search(rf"SKIPPED .*{name}.* finds no GPU", said), f"{name} is not marked, or runs without a GPU"
    assert Path(__file__).name not in said
