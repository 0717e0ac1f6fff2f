"""The delays that a regret report plays under: a run's own, the same with an action in every frame, and none.

A run with a simulated delay says its own in ``[delay]``. That of a realtime run is what it measured: each decision is
as old as one of those that acted there, and decisions start as often, evenly.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from offbeat.envs.delay_config import DelayConfig, recorded_frames
from offbeat.envs.delay_schedule import make_schedule
from offbeat.run.realtime_files import Recording
from offbeat.run.written import written

MOST_DRAWS = 10_000
"""Delays in a file that stands for a histogram."""
COUNTED_EPISODES, COUNTED_DELAYS = 32, 16
"""Staleness under delays that are drawn for each decision is counted in so many episodes of 1,024 frames and so many
times the longest delay."""


def undelayed(delay: DelayConfig) -> DelayConfig:
    """Every action at once; what rows show, which a network may need, stays."""
    kept = ("default", "noop_action", "history", "history_until", "stack", "privileged")
    return DelayConfig(**{name: getattr(delay, name) for name in kept})


def in_short(delay: DelayConfig) -> DelayConfig:
    """The same delay in its plainest form, so that equal ones are equal: modes in which one decision follows the other
    and that leave no frame out are ``async``, and what delays nothing is ``undelayed``.
    """
    if delay.semantics == "published":
        none = not delay.longest and not delay.noops
    else:
        learns_first = delay.mode == "learn_first" and delay.learn_frames > 0
        turns = delay.inference_frames + delay.learn_frames
        if delay.mode != "async" and delay.distribution == "constant" and turns <= 1 and not learns_first:
            delay = replace(delay, mode="async", learn_frames=0)
        none = delay.mode == "async" and not delay.longest and delay.period == 1
    return undelayed(delay) if none else delay


def in_every_frame(delay: DelayConfig, file: Path) -> DelayConfig:
    """``delay`` with as old observations and an action in every frame, once the first is there.

    Where every frame has a decision of its own, decisions cannot overtake each other unless some frames are left out
    again; so delays that are drawn for each decision are drawn for each episode instead, with the same distribution.
    In ``async``, where of several the newest acts, that is the distribution of those that act: it is counted by the
    schedule, and written to ``file``.
    """
    if delay.semantics == "published":
        return in_short(replace(delay, noops=0, inference_frames=delay.longest + 1))
    drawn = delay.distribution != "constant" and delay.draw == "step"
    if drawn and delay.mode == "async":
        return as_counted(delay, staleness_under(delay), 1.0, file)
    draw = "episode" if drawn else delay.draw
    return in_short(replace(delay, mode="async", learn_frames=0, period=1.0, draw=draw))


def staleness_under(delay: DelayConfig, seed: int = 0) -> np.ndarray:
    """How many decisions act at each age under ``delay``: int64 [longest + 1]. No environment is played."""
    schedule, counts = make_schedule(delay), np.zeros(delay.longest + 1, np.int64)
    generator = np.random.default_rng(seed)
    for _ in range(COUNTED_EPISODES):
        schedule.reset(generator)
        for frame in range(1024 + COUNTED_DELAYS * delay.longest):
            source = schedule.source(frame)
            if source is not None and source >= 0:
                counts[frame - source] += 1
    return counts


def as_counted(delay: DelayConfig, counts: np.ndarray, period: float, file: Path) -> DelayConfig:
    """Decisions that start every ``period`` frames and take as long as a histogram [n] says, by frames; one delay for
    each episode. Where there are several, ``file`` (``.npy``) gets at most 10,000 that stand for them. ValueError where
    the histogram is empty.
    """
    ages, total = np.flatnonzero(counts), int(counts.sum())
    if not total:
        raise ValueError("no decision acted: there is no delay to speak of")
    same = undelayed(delay)
    if len(ages) == 1:
        return in_short(replace(same, inference_frames=int(ages[0]), period=period))
    draws = min(total, MOST_DRAWS)
    places = (np.arange(draws) + 0.5) / draws * total
    with written(file) as draft:
        np.save(draft, np.searchsorted(np.cumsum(counts), places), allow_pickle=False)
    recorded_frames.cache_clear()  # it may have known another file of that name
    return replace(same, distribution="recorded", recorded=str(file), draw="episode", period=period)


def measured_spacing(recording: Recording) -> tuple[float, float]:
    """How far apart the decisions of an episode acted, in frames, at least 1; and which share of an episode's frames,
    from its first decision on, was left to the default behaviour.

    An episode in which none acted counts for nothing. Where none had two, they are taken to be as far apart as any that
    acted was from its episode's end.
    """
    acted = recording.acted
    frame, source, step, episode = (recording.column(name)[acted] for name in ("frame", "source", "step", "episode"))
    begins, later = source - step, np.diff(episode)
    gaps, to_end = np.diff(frame)[later == 0], (begins[1:] - frame[:-1])[later == 1]
    spans = np.concatenate([gaps, to_end])
    if not len(spans):
        return 1.0, 0.0
    period = gaps.mean() if len(gaps) else to_end.max()
    return max(1.0, float(period)), max(0.0, 1 - 1 / float(spans.mean()))
