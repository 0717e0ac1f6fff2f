"""The options of the realtime runtime: one frame, and how many inference processes there are."""

from __future__ import annotations

import pytest

from offbeat.runtime.realtime_config import RealtimeConfig


def test_a_frame_takes_its_share_of_a_second() -> None:
    assert RealtimeConfig(fps=50.0).period_s == 0.02
    assert RealtimeConfig().fps == 0, "off unless it is asked for"


@pytest.mark.parametrize(("mode", "workers"), [("async", 3), ("sequential", 1), ("learn_first", 1), ("background", 1)])
def test_only_async_has_several_inference_processes(mode: str, workers: int) -> None:
    assert RealtimeConfig(fps=50.0, inference=3, mode=mode).workers == workers  # type: ignore[arg-type]
