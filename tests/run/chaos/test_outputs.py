"""The pipe that is full and the disk that is small are what they say."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from offbeat.run.chaos.outputs import _fill, full_pipe, small_disk
from offbeat.run.chaos.verdicts import Unfit

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes and disks of Linux")


def test_nothing_more_fits_into_a_full_pipe() -> None:
    with full_pipe() as writing:
        os.set_blocking(writing, False)
        with pytest.raises(BlockingIOError):
            os.write(writing, b"x" * 4096)


def test_a_small_disk_fills_up(tmp_path: Path) -> None:
    try:
        with small_disk(tmp_path / "disk", 1 << 20) as disk:
            _fill(disk / "filler")
            assert 0 < (disk / "filler").stat().st_size <= 1 << 20
            with pytest.raises(OSError, match="No space left"), (disk / "more").open("wb", buffering=0) as file:
                file.write(b"x" * 4096)
    except Unfit as why:
        pytest.skip(str(why))
    assert list((tmp_path / "disk").iterdir()) == []


def test_where_none_may_be_mounted_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(Unfit, match="none may be mounted here"), small_disk(tmp_path / "disk", 1 << 20):
        pass
