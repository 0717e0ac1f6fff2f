"""``offbeat eval RUN --sets``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from offbeat.commands.arguments import own_of
from offbeat.run.written import written


def evaluate_sets(options: argparse.Namespace, run: Path, laid_over: dict[str, Any], say: Callable[[str], None]) -> int:
    """Score a run on its sets of environments and print the table; 130 where Ctrl-C has ended it."""
    from offbeat.commands.watched import watched
    from offbeat.scoring.sets import evaluate_sets as play
    from offbeat.scoring.sets import planned

    if options.episodes is not None:
        laid_over = {**laid_over, "final.episodes": options.episodes}
    config, sets = planned(run, laid_over.items())
    with watched(len(sets) * config.final.episodes) as watch:
        given: dict[str, Any] = {"policy": options.policy, "seed": options.seed, "checkpoint": options.checkpoint}
        given |= {
            "trace": options.trace,
            "options": laid_over.items(),
            "stop": watch.stop,
            "on_progress": watch.see,
            "say": say,
        }
        result = play(run, **given, **own_of(options))
    if not result.complete:
        say(f"stopped after {len(result.played)} of {len(sets)} sets")
    if options.out:
        with written(options.out) as draft:
            draft.write_text(json.dumps(result.record() | {"options": laid_over}) + "\n")
    if result.complete:
        print(result.table())
        return 0
    for one, got in result.played:
        print(f"{one.name}: {got.summary()}")
    return 130
