"""Records that are made up."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.scoring.diagnose.record import Fresh, Record


def record(
    preset: str = "impala-catch",
    options: Mapping[str, Any] | None = None,
    *,
    learner: Mapping[str, Any] | None = None,
    returns: Any = (),
    lengths: Any = (),
    lines: int = 8,
    **others: Any,
) -> Record:
    """A record of ``preset`` with ``options``. ``learner``: name -> its values, or one that it has in all ``lines``."""
    config = apply_overrides(load_preset(preset), (options or {}).items())
    columns = {name: list(np.broadcast_to(values, lines)) for name, values in (learner or {}).items()}
    told = [{name: values[at] for name, values in columns.items()} for at in range(lines)] if columns else []
    plain = [{name: None if value is None else float(value) for name, value in line.items()} for line in told]
    return Record(config, plain, np.array(returns, np.float64), np.array(lengths, np.float64), **others)


def fresh(rewards: Any = (0.0, 1.0), raw: Any = None, **others: Any) -> Fresh:
    """Rows with these rewards; ``raw``: as the game gives them, where they differ."""
    trained = np.array(rewards, np.float64)
    return Fresh(trained if raw is None else np.array(raw, np.float64), trained, **others)


RISING = [0.0, 1.0] * 50 + [10.0, 11.0] * 50
"""Returns of a run that learns."""
