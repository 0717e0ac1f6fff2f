"""The bench of the samplers runs, and its numbers hang together."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from offbeat.bench.samplers import SAMPLERS, bench_samplers

NAMES = ("uniform", "circular", "elite, cached 50, 2 rows", "elite_insertion, cached 50, 2 rows")


def test_times_are_compared_with_those_of_uniform_replay(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("STREAMS", "BATCH"):
        monkeypatch.setattr(f"offbeat.bench.streams.{name}", 4)
        monkeypatch.setattr(f"offbeat.bench.samplers.{name}", 4)
    monkeypatch.setattr("offbeat.bench.samplers.ROWS", 640)
    monkeypatch.setitem(SAMPLERS, NAMES[3], SAMPLERS[NAMES[3]] | {"size": 400})
    found = bench_samplers(0.05, NAMES, warm_ups=4, file=tmp_path / "found.json")
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert found["uniform"]["of_uniform"] == 1.0
    for one in found.values():
        assert one["of_uniform"] == pytest.approx(one["ms"] / found["uniform"]["ms"])
        assert one["rows_per_s"] == pytest.approx(4 * 20 * 1000 / one["ms"])
    assert 0 <= found[NAMES[2]]["score_hits"] <= 1
    assert all(name in capsys.readouterr().out for name in NAMES[:1])
