"""The demonstration of a run, before anything is spawned: whether it fits, how large it is, what is said of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.agents.base import Agent
from offbeat.config.run_config import RunConfig
from offbeat.errors import UserError
from offbeat.replay.demonstrated import Demonstrated, check_items, items_shown
from offbeat.replay.layout import StreamLayout
from offbeat.runtime.demonstrated import demonstrated
from offbeat.storage.checkpoint import find, load
from offbeat.types import ArrayDict, EnvSpec


@dataclass(frozen=True)
class Shown:
    """What a run has of a demonstration."""

    nbytes: int = 0
    """Memory of its rows."""
    line: str = ""
    """What is said of it; empty: there is none."""


def shown_to(
    config: RunConfig, spec: EnvSpec, agent: Agent, layout: StreamLayout, env_factory: Any, checkpoint: Path | None
) -> Shown:
    """What the run has of a demonstration, read once for that.

    UserError where it does not fit the run, or is not the one that ``checkpoint``, from which the run goes on, was
    saved with.
    """
    options = config.demonstrations
    if not options.path:
        return Shown()
    try:
        check_items(layout.items)
        rows = demonstrated(config, spec, lambda: agent.discount, env_factory)
        assert rows is not None, "there is a path"
        sampler = Demonstrated(rows, layout, agent.wants_last, np.random.default_rng(0), len(config.replay.samplers))
    except ValueError as error:
        raise UserError(str(error)) from error
    if checkpoint is not None:
        _check_same(checkpoint, sampler, config)
    count = items_shown(options, config.learner.batch_size)
    first = f"{options.pretrain_steps:,} updates on it come before the first frame" if options.pretrain_steps else ""
    then = f"{count} of {config.learner.batch_size} items of each batch are of it" if count else ""
    line = (
        f"demonstration {options.path}: {int(rows.columns['valid'].sum()):,} actions in "
        f"{int(rows.columns['first'].sum()):,} episodes, {sampler.size:,} of them to learn from; "
        f"{'; then '.join(filter(None, (first, then)))}"
    )
    return Shown(sum(values.nbytes for values in rows.columns.values()), line)


def without_shown(state: ArrayDict, config: RunConfig) -> ArrayDict:
    """The saved books of a mixture without those of the demonstration, which are compared by ``shown_to``."""
    if not config.demonstrations.path:
        return state
    prefix = f"{len(config.replay.samplers)}/"
    return {name: value for name, value in state.items() if not name.startswith(prefix)}


def _check_same(checkpoint: Path, sampler: Demonstrated, config: RunConfig) -> None:
    """UserError where the checkpoint is of another demonstration."""
    streams: Mapping[str, Any] = load(find(checkpoint, only=()))[0].get("streams", {})
    prefix = f"mixture/{len(config.replay.samplers)}/"
    saved = {name.removeprefix(prefix): np.asarray(value) for name, value in streams.items() if name.startswith(prefix)}
    if not streams:
        return
    try:
        sampler.load_state(saved)
    except (KeyError, ValueError, TypeError) as error:
        told = f"{error} is missing in it" if isinstance(error, KeyError) else str(error)
        raise UserError(
            f"{checkpoint} does not fit demonstrations.path={config.demonstrations.path!r}: {told}"
        ) from error
