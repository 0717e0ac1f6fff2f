"""The time line of a realtime run: which part is shown, and what is in it."""

from __future__ import annotations

import numpy as np
import pytest

from offbeat.errors import UserError
from offbeat.report.realtime_picture import FRAMES, bars, draw, frame_kinds, window
from tests.report.recordings import recording_of

ROWS = [(2 * n, 2 * n + 3, 0, 2 * n) for n in range(60)]


def test_forty_frames_around_the_middle_or_what_is_asked_for() -> None:
    recording = recording_of(ROWS)
    begin, end = window(recording, None, None)
    assert end - begin == pytest.approx(FRAMES * 0.1)
    assert (begin + end) / 2 == pytest.approx((recording.frames[-1, 0] + 0.1) / 2)
    assert window(recording, 2.0, 1.5) == (2.0, 3.5)
    assert window(recording_of(ROWS[:3]), None, None)[0] == 0.0, "all of a short run"
    with pytest.raises(UserError, match=r"--from=99: nothing was kept of then; kept are 0.000 to 12.300 seconds"):
        window(recording, 99.0, None)
    for wrong in (0.0, -1.0, 1e6):
        with pytest.raises(UserError, match="--seconds"):
            window(recording, None, wrong)


def test_frames_are_told_apart_by_what_acted_in_them() -> None:
    recording = recording_of(ROWS)
    recording.frames[20:, :2] += 0.25, 0.05  # two frames were missed, and the next began late
    recording.frames[20, 2] = 2
    recording.decisions[recording.decisions[:, 4] >= 20, -3] += 0.25
    found = frame_kinds(recording, 1.0, 3.0)
    assert found["acted"] == pytest.approx([1.1, 1.3, 1.5, 1.7, 1.9, 2.35, 2.55, 2.75, 2.95])
    assert found["default"] == pytest.approx([1.0, 1.2, 1.4, 1.6, 1.8, 2.25, 2.45, 2.65, 2.85])
    assert found["missed"] == pytest.approx([2.0, 2.1])


def test_bars_are_cut_to_what_is_shown() -> None:
    recording = recording_of(ROWS)
    computing, waiting = bars(recording, 0, 0.85, 1.295)
    # Process 0 reads at 0.805 and 1.205; its actions are ready at 1.08 and 1.48, and published 12 ms later.
    assert computing == pytest.approx(np.array([[0.85, 0.23], [1.205, 0.09]]))
    assert waiting == pytest.approx(np.array([[1.08, 0.012]]))


def test_every_process_has_a_row_above_the_frames() -> None:
    figure = draw(recording_of(ROWS), 1.0, 2.0)
    axes = figure.axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["process 0", "process 1", "frames"]
    assert axes.get_xlim() == pytest.approx((0.0, 2000.0))
    assert len(axes.collections) == 2 * 2 + 3
