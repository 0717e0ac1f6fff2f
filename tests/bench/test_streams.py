"""The bench of the streams runs and its numbers hang together."""

from __future__ import annotations

import pytest

from offbeat.bench.streams import bench_streams


def test_rates_hang_together() -> None:
    rates = bench_streams(seconds=0.05)
    for name in ("append", "assemble"):
        per_row = rates[f"{name}_bytes_per_s"] / rates[f"{name}_rows_per_s"]
        assert per_row > {"append": 84 * 84, "assemble": 4 * 84 * 84}[name]
        share = rates[f"{name}_bytes_per_s"] / rates[f"{name}_memcpy_bytes_per_s"]
        assert rates[f"{name}_of_memcpy"] == pytest.approx(share)
        assert share > 0
