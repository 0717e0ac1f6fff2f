"""``offbeat bench soak``: a long run whose memory is watched; it must stop growing once everything is warm.

Replay memory is taken when rows are first written, so a run is warm when replay has been filled once.
"""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console

from offbeat.bench.live import LiveRun
from offbeat.config.run_config import RunConfig
from offbeat.config.validation import validate

SAMPLE_S = 5.0
"""Memory is looked at so often. Unit: seconds."""
WARM_S = 120.0
"""What happens before is start-up at any rate: caches fill, allocators settle. Unit: seconds."""
ENDS = 12
"""Samples at each end whose median is compared, so that one odd moment decides nothing."""


def bench_soak(config: RunConfig, *, minutes: float = 15.0, file: Path | None = None) -> float:
    """Train for ``minutes`` and print the memory of all processes together; its growth once warm, in percent."""
    validate(config)
    console = Console(highlight=False)
    samples: list[tuple[float, int]] = []
    stored, room, full_s = 0, ring_rows(config), math.inf
    with LiveRun(config) as run:
        run.wait_for_first_update()
        began = time.monotonic()
        while (now := time.monotonic() - began) < 60 * minutes:
            samples.append((now, run.memory_bytes()))
            point = run.point()
            stored = point.agent_steps if point else 0
            if stored >= room:
                full_s = min(full_s, now)
            if len(samples) % 12 == 1:
                updates = point.updates if point else 0
                console.print(f"{now / 60:5.1f} min  {samples[-1][1] / 2**20:8.1f} MiB  {updates:,} updates")
            time.sleep(SAMPLE_S)
    warm_s = warm_from(samples[-1][0], full_s)
    grown = growth([memory for second, memory in samples if second >= warm_s])
    peak = max(memory for _, memory in samples)
    console.print(
        f"growth after the first {warm_s / 60:.1f} minutes: {grown:+.2f} %; most memory: {peak / 2**20:.1f} MiB"
    )
    if stored < room:
        console.print(f"replay was not full at the end ({stored:,} of {room:,} rows), so its memory was still growing")
    if file is not None:
        data: dict[str, Any] = {
            "preset": config.preset,
            "minutes": minutes,
            "growth_percent": grown,
            "warm_s": warm_s,
            "replay_full": stored >= room,
            "samples": samples,
        }
        file.write_text(json.dumps(data) + "\n")
    return grown


def ring_rows(config: RunConfig) -> int:
    """Rows after which all memory of replay has been written to; 0 where only a fifo's few rows are kept."""
    streams = config.actor.workers * config.actor.envs_per_worker
    block = config.actor.append_rows or config.learner.unroll_length
    return config.replay.capacity + 2 * streams * (block + 1) if config.replay.capacity else 0


def warm_from(last_s: float, full_s: float) -> float:
    """When a run of ``last_s`` seconds was warm whose replay was full at ``full_s``; 0 if it ended sooner."""
    warm = max(WARM_S, full_s) if full_s <= last_s else WARM_S
    return warm if warm <= last_s else 0.0


def growth(memory: list[int]) -> float:
    """Percent by which the last samples' median is above that of the first ones."""
    count = max(1, min(ENDS, len(memory) // 2))
    if not memory:
        return 0.0
    before, after = median(memory[:count]), median(memory[-count:])
    return 100.0 * (after - before) / before if before else 0.0
