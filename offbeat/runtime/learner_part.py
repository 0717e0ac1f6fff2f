"""The learner's part of a checkpoint: weights, statistics, what its agent keeps, generators, what others have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from offbeat.agents.base import LearnerState
from offbeat.runtime.generators import generator_state, load_generator_state
from offbeat.runtime.learner_report import Counted
from offbeat.runtime.optimiser import FlatOptimiser
from offbeat.runtime.ports import Point
from offbeat.runtime.services import Loaded, Services
from offbeat.types import under

OPTIMISER = "optimiser/"
"""Entries that are the optimiser's statistics have names that start so."""
Published = tuple[torch.Tensor, Point]
"""Weights [P] that others have, and where they are from."""


def part_of(
    optimiser: FlatOptimiser,
    states: Mapping[str, LearnerState],
    published: Published,
    updates: int,
    device: torch.device,
    staleness: Sequence[int] = (),
) -> dict[str, Any]:
    """The part of a learner on ``device`` that has made ``updates``: name -> tensor or array.

    ``staleness``: counts of the master, where learners share one.
    """
    arrays = kept_of(optimiser, states, device)
    flat, point = published
    arrays["published/point"] = np.array(point)
    if point.updates < updates:
        arrays["published/flat"] = flat
    if len(staleness):
        arrays["master/staleness"] = np.array(staleness)
    return arrays


def kept_of(optimiser: FlatOptimiser, states: Mapping[str, LearnerState], device: torch.device) -> dict[str, Any]:
    """What of it a learner on ``device`` has to itself: all but what others have. Some are no copies."""
    arrays: dict[str, Any] = {f"weights/{name}": value.cpu() for name, value in optimiser.weights().items()}
    arrays |= {f"{OPTIMISER}{name}": value.cpu() for name, value in optimiser.state().items()}
    for kept, state in states.items():
        arrays |= {f"{kept}/{name}": value for name, value in state.state().items()}
    return arrays | generator_state(device)


def begun(
    services: Services, optimiser: FlatOptimiser, states: Mapping[str, LearnerState], counted: Counted
) -> tuple[Loaded | None, Published | None]:
    """Bring a new learner to where it begins: what it goes on from, else what a new run starts from, else its seed.

    What was loaded, and what others had then.
    """
    if (loaded := services.loaded()) is None:
        if (initial := services.initial_part()) is not None:
            begin_with(initial, optimiser)
        return None, None
    with services.heart.beating():
        load_part(loaded.part, optimiser, states, optimiser.flat.device)
        counted.load_counters(counted_in(loaded.counters, services.spec.frame_skip))
    return loaded, published_in(loaded.part, optimiser.flat, counted.updates)


def load_part(
    part: dict[str, Any], optimiser: FlatOptimiser, states: Mapping[str, LearnerState], device: torch.device
) -> None:
    """Back to a saved part; statistics and states that it does not hold stay as they are."""

    optimiser.load_weights(under(part, "weights/"))
    if saved := under(part, OPTIMISER):
        optimiser.load_state(saved)
    for kept, state in states.items():
        if saved := under(part, f"{kept}/"):
            state.load_state(saved)
    load_generator_state(part, device)


def begin_with(part: dict[str, Any], optimiser: FlatOptimiser) -> None:
    """Start a new run with what ``part`` holds of another one: weights, by ``weights/<name>``, and perhaps the
    optimiser's statistics. What it does not hold stays as the run's seed made it.
    """
    optimiser.load_weights(optimiser.weights() | under(part, "weights/"))
    if saved := under(part, OPTIMISER):
        optimiser.load_state(saved)


def published_in(part: dict[str, Any], own: torch.Tensor, updates: int) -> Published | None:
    """What others had when ``part`` was saved; None where it does not say (those of before) or does not fit.

    ``own``: the learner's weights [P] after ``updates``.
    """
    numbers = np.asarray(part.get("published/point", ()))
    if numbers.shape != (len(Point._fields),):
        return None
    point = Point(*numbers.tolist())
    flat = torch.as_tensor(part.get("published/flat", own))
    fits = flat.shape == own.shape and 0 <= point.updates <= updates
    return (flat, point) if fits else None


def counted_in(counters: dict[str, int], frame_skip: int) -> dict[str, int]:
    """The counters of a checkpoint; those of before have no frames, which the skip gives."""
    if not counters:
        return {}
    pairs = (("frames", "agent_steps"), ("sample_frames", "samples"))
    return {frames: counters.get(steps, 0) * frame_skip for frames, steps in pairs} | counters
