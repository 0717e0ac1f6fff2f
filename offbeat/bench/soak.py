"""``offbeat bench soak``: a long run whose memory is watched; it must stop growing once everything is warm."""

from __future__ import annotations

import json
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from offbeat.bench.live import LiveRun
from offbeat.config import RunConfig, validate

SAMPLE_S = 5.0
"""Memory is looked at so often. Unit: seconds."""
WARM_S = 120.0
"""What happens before is start-up: caches fill, allocators settle. Unit: seconds."""
ENDS = 12
"""Samples at each end whose median is compared, so that one odd moment decides nothing."""


def bench_soak(config: RunConfig, *, minutes: float = 15.0, file: Path | None = None) -> float:
    """Train for ``minutes`` and print the memory of all processes together; its growth after start-up in percent."""
    validate(config)
    console = Console(highlight=False)
    samples: list[tuple[float, int]] = []
    with LiveRun(config) as run:
        run.wait_for_first_update()
        began = time.monotonic()
        while (now := time.monotonic() - began) < 60 * minutes:
            samples.append((now, run.memory_bytes()))
            point = run.point()
            if len(samples) % 12 == 1:
                updates = point.updates if point else 0
                console.print(f"{now / 60:5.1f} min  {samples[-1][1] / 2**20:8.1f} MiB  {updates:,} updates")
            time.sleep(SAMPLE_S)
    grown = growth([memory for second, memory in samples if second >= WARM_S] or [memory for _, memory in samples])
    peak = max(memory for _, memory in samples)
    console.print(
        f"growth after the first {WARM_S / 60:g} minutes: {grown:+.2f} %; most memory: {peak / 2**20:.1f} MiB"
    )
    if file is not None:
        data: dict[str, Any] = {
            "preset": config.preset,
            "minutes": minutes,
            "growth_percent": grown,
            "samples": samples,
        }
        file.write_text(json.dumps(data) + "\n")
    return grown


def growth(memory: list[int]) -> float:
    """Percent by which the last samples' median is above that of the first ones."""
    count = max(1, min(ENDS, len(memory) // 2))
    if not memory:
        return 0.0
    before, after = median(memory[:count]), median(memory[-count:])
    return 100.0 * (after - before) / before if before else 0.0
