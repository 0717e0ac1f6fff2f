"""The checker names what is wrong with each environment of the zoo, and finds nothing wrong with the others."""

from __future__ import annotations

import os
import re
from pathlib import Path

import pytest

import offbeat
from tests.zoo.entries import ZOO
from tests.zoo.entry import Entry
from tests.zoo.manners import NeedsClose

pytestmark = pytest.mark.filterwarnings("ignore")


def switches(entry: Entry) -> dict[str, object]:
    """Options of ``env`` among those of its runs."""
    return {name.removeprefix("env."): value for name, value in entry.options.items() if name.startswith("env.")}


@pytest.mark.parametrize("entry", ZOO, ids=[entry.name for entry in ZOO])
def test_what_is_wrong_is_named_and_nothing_else(entry: Entry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = offbeat.check_env(entry.make, steps=60, **switches(entry))
    assert os.getcwd() == str(tmp_path)
    wanted = entry.error or ("" if entry.local_trains else entry.says)
    assert report.ok == (not wanted), report
    assert all(re.search(wanted, text) for text in report.errors), report
    assert len(report.warnings) == len(entry.warns), report
    assert all(any(re.search(pattern, text) for text in report.warnings) for pattern in entry.warns), report
    assert all(len(text.splitlines()) == 1 for text in (*report.errors, *report.warnings))
    shown = " ".join(str(report).split())
    assert all(text in shown for text in (*report.errors, *report.warnings))


def test_everything_is_closed() -> None:
    before = NeedsClose.opened
    assert offbeat.check_env(NeedsClose, steps=20).facts["closing"] == "3 closed"
    assert NeedsClose.opened == before
