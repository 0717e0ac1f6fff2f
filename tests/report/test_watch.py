"""Watching a run play in a window."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from offbeat.errors import UserError
from offbeat.report.watch import play_run
from tests.scoring.test_evaluate import make_run


@pytest.fixture
def catch_run(tmp_path: Path) -> Path:
    """A run folder with the weights of an agent that was never trained."""
    return make_run(tmp_path / "run", "impala-catch")


@pytest.fixture
def window(monkeypatch: pytest.MonkeyPatch) -> None:
    """A display whose windows are drawn in memory."""
    from matplotlib.backends import backend_registry

    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(backend_registry, "list_builtin", lambda *_: ["agg"])


@pytest.mark.usefixtures("window")
def test_a_run_is_played_in_a_window(catch_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    waits: list[float] = []
    monkeypatch.setattr(pyplot, "pause", waits.append)
    before = pyplot.get_fignums()  # of other tests of this process
    result = play_run(catch_run, 2, "greedy")
    assert len(result.returns) == 2
    assert len(waits) == result.lengths.sum() + 2
    assert np.median(np.diff(waits)) == pytest.approx(0.1, abs=0.05)  # 10 pictures a second; this pause takes no time
    assert pyplot.get_fignums() == before


@pytest.mark.usefixtures("window")
def test_closing_the_window_ends_the_games(catch_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from matplotlib import pyplot

    monkeypatch.setattr(pyplot, "pause", lambda seconds: pyplot.close("all"))
    result = play_run(catch_run, 100)
    assert not result.complete


def test_where_no_window_can_be_opened_a_film_is_offered(catch_run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    with pytest.raises(UserError, match="needs a display and there is none; film it with: offbeat record"):
        play_run(catch_run)
    monkeypatch.setenv("DISPLAY", ":0")
    with pytest.raises(UserError, match="needs a toolkit of matplotlib's"):
        play_run(catch_run)
