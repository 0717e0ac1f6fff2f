"""A file that only one process at a time may hold."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.run.locked import locked

HOLDS = "import sys; from pathlib import Path; from offbeat.run.locked import locked\n"
HOLDS += "with locked(Path(sys.argv[1]), 'taken'): print('held', flush=True); sys.stdin.read()"


def test_another_process_holds_it_until_it_ends_however_that_is(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(UserError, match="somebody is here"), locked(path, "somebody is here"):
            pass
        other.kill()
    with locked(path, "somebody is here"):
        assert path.exists()


def test_a_folder_that_takes_no_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nothing can be written in .*nowhere"), locked(tmp_path / "nowhere" / "x", ""):
        pass
