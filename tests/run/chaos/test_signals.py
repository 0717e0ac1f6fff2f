"""Commands that do not keep to what is promised of signals are found; those that do are in ``test_perform.py``."""

from __future__ import annotations

import sys
from functools import partialmethod
from pathlib import Path
from typing import Any

import pytest

from offbeat.run.chaos.child import Child
from offbeat.run.chaos.signals import killed, sighup
from offbeat.run.chaos.verdicts import Broken

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at processes in /proc")


class Shared:
    """A shared run that is a command of a shell."""

    def __init__(self, folder: Path, shell: str) -> None:
        self.run = folder / "run"
        self._child = Child([], folder, shell=f"{shell}")
        self._child.until_said("here")

    def live(self) -> Child:
        """It."""
        return self._child


@pytest.mark.parametrize(
    ("shell", "broken"),
    [
        ('trap "" HUP; echo here; sleep 1', r"expected the line 'stopped \(SIGHUP\) and saved', got here"),
        ("echo here; exec sleep 300", "expected exit code 0, got -1: here"),
        ('trap "exit 2" HUP; echo here; while :; do sleep 0.1; done', "expected exit code 0, got 2: "),
    ],
)
def test_a_command_that_does_not_save_when_its_terminal_is_closed(shell: str, broken: str, tmp_path: Path) -> None:
    ground: Any = Shared(tmp_path, shell)
    with pytest.raises(Broken, match=broken):
        sighup(ground)
    ground.live().kill()


def test_a_role_that_outlives_its_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "left_behind", partialmethod(Child.left_behind, 0.3))
    ground: Any = Shared(tmp_path, "sleep 300 & echo here; wait")
    with pytest.raises(Broken, match=r"expected no role that outlives it, got process \d+"):
        killed(ground)
    ground.live().kill()
    assert ground.live().marked() == []
