"""What a realtime run refuses, each with what is allowed instead."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.config.realtime_checks import check_realtime
from offbeat.errors import UserError
from tests.conformance.realtime_runs import realtime_config

REFUSED: list[tuple[str, dict[str, Any], str]] = [
    (
        "wall",
        {"realtime__mode": "sequential", "realtime__inference": 3},
        r"realtime\.inference=3 .*mode=sequential.*leave it at 1, or .*async",
    ),
    (
        "virtual",
        {"realtime__mode": "background", "realtime__inference": 3},
        r"realtime\.inference=3 .*mode=background.*leave it at 1",
    ),
    ("wall", {"replay__samplers": [{"kind": "fifo"}]}, r"samplers\.0\.kind='fifo'.*use uniform or prioritised"),
    ("wall", {"deterministic": True}, r"deterministic.*engine inline"),
    ("wall", {"delay__history": 2, "delay__history_until": "publish"}, r"history_until='publish'.*allowed is 'start'"),
    ("wall", {"delay__semantics": "published"}, r"semantics='published'.*in realtime it is 'exact'"),
    ("wall", {"realtime__replay": "run/realtime"}, r"realtime\.replay.*--engine inline"),
    ("virtual", {"realtime__record": True}, r"realtime\.record.*virtual clock has none"),
    ("virtual", {"realtime__inference_s": 0.0, "realtime__pad": False}, r"inference_s above 0, or .*realtime\.pad on"),
    ("virtual", {"realtime__replay": "nowhere"}, r"replay='nowhere' holds no recorded latencies; run with --realtime"),
    (
        "virtual",
        {"realtime__learn_s": 0.0, "replay__samples_per_insert": 0.0},
        r"learn_s or .*samples_per_insert above",
    ),
]


@pytest.mark.parametrize(("clock", "options", "message"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_work_is_refused_with_what_is_allowed(
    clock: str, options: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = realtime_config(tmp_path, clock, **options)
    with pytest.raises(UserError, match=message):
        check_realtime(config)
    check_realtime(realtime_config(tmp_path, clock, **options, realtime__fps=0.0))


@pytest.mark.parametrize(
    ("clock", "options"),
    [
        ("wall", {}),
        ("virtual", {}),
        ("virtual", {"deterministic": True}),
        ("virtual", {"realtime__inference_s": 0.0}),
        ("virtual", {"realtime__inference_s": 0.0, "realtime__pad": False, "realtime__replay": "run/realtime"}),
        ("virtual", {"realtime__learn_s": 0.0}),
        ("virtual", {"replay__samples_per_insert": 0.0}),
        ("wall", {"realtime__learn_s": 0.0, "replay__samples_per_insert": 0.0, "realtime__record": True}),
        ("wall", {"realtime__mode": "sequential", "realtime__inference": 1}),
        ("wall", {"delay__history": 2}),
    ],
    ids=str,
)
def test_what_works_is_let_through(
    clock: str, options: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run" / "realtime").mkdir(parents=True)
    (tmp_path / "run" / "realtime" / "realtime_env.durations.npy").touch()
    check_realtime(realtime_config(tmp_path, clock, **options))
