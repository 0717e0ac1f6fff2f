"""What the runs of one setting add up to, the best setting first, with what tells it from the others."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from offbeat.config.options import short_names
from offbeat.envs import atari_scores, dmlab_scores
from offbeat.scoring.statistics import (
    Estimate,
    Statistic,
    mean_over_games,
    median_over_games,
    over_runs_and_games,
    stratified_bootstrap,
)

BY_ENVIRONMENT = ("rank", "setting", "environment", "runs", "frames", "mean", "IQM", "95 % interval", "human %")
OVER_GAMES = ("setting", "games", "runs", "median %", "mean %", "IQM %")
OVER_LEVELS = ("setting", "levels", "runs", "mean %")
CAP = 100.0
"""What a level counts at most. Unit: percent. Source: Espeholt et al. 2018."""
MOST_COLUMNS = 6
"""Options in which settings differ have a column each; if there are more, they stand in lines below."""

Options = dict[str, str]
"""Dotted name -> value as JSON."""


@dataclass(frozen=True)
class Scored:
    """The score of one run."""

    name: str
    """Of its setting: the preset, or what somebody calls it; settings of one name are numbered."""
    setting: Options
    """What tells it from others of that name."""
    environment: str
    score: float
    frames: int
    """That its weights were trained on."""


def tables(scored: Sequence[Scored], title: str) -> list[str]:
    """The tables of what runs add up to: by environment, the highest IQM first; over Atari games and over levels of
    DMLab-30, if there are any.
    """
    labels, known = _labels(scored)
    names, columns = _differing(known)
    shown = names if len(names) <= MOST_COLUMNS else []
    heads = (*BY_ENVIRONMENT, *(columns[name] for name in shown))
    parts = [title, lines_up([heads, *_by_environment(scored, labels, known, shown)])]
    over_games = _over_games(scored, labels)
    if over_games:
        parts += ["Human-normalised scores over Atari games", lines_up([OVER_GAMES, *over_games])]
    over_levels = _over_levels(scored, labels)
    if over_levels:
        title = f"Human-normalised scores over levels of DMLab-30, at most {CAP:.0f} % each"
        parts += [title, lines_up([OVER_LEVELS, *over_levels])]
    lines = _lines(known) if len(names) > MOST_COLUMNS else []
    return [*parts, *(["\n".join(lines)] if lines else [])]


def lines_up(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as columns of text, the first row as their heads."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in rows]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def over_games(scored: Sequence[Scored]) -> bool:
    """Whether there is a score that could be human-normalised."""
    return any(_human(one.environment, one.score) is not None for one in scored)


def _human(environment: str, score: float) -> float | None:
    """A human-normalised score in percent; None where no human score is known."""
    found = atari_scores.human_normalised(environment, score)
    return dmlab_scores.human_normalised(environment, score) if found is None else found


def _labels(scored: Sequence[Scored]) -> tuple[list[str], dict[str, Scored]]:
    """What the setting of each is called, and one run of each setting by that."""
    settings: dict[str, list[Options]] = {}
    for one in scored:
        if one.setting not in settings.setdefault(one.name, []):
            settings[one.name].append(one.setting)
    labels = []
    for one in scored:
        number = f" #{settings[one.name].index(one.setting) + 1}" if len(settings[one.name]) > 1 else ""
        labels.append(one.name + number)
    return labels, dict(zip(labels, scored, strict=True))


def _groups(known: dict[str, Scored]) -> list[dict[str, Options]]:
    """The settings of each name: label -> options."""
    groups: dict[str, dict[str, Options]] = {}
    for label, one in known.items():
        groups.setdefault(one.name, {})[label] = one.setting
    return list(groups.values())


def _differing(known: dict[str, Scored]) -> tuple[list[str], dict[str, str]]:
    """Options in which settings of one name differ, and what their columns are called."""
    names = sorted({name for group in _groups(known) for name in _unlike(list(group.values()))})
    return names, short_names(names)


def _unlike(settings: list[Options]) -> list[str]:
    """Options that are not the same in all settings; not those of ``eval_env`` that only follow ``env``."""
    names = sorted({name for setting in settings for name in setting})
    unlike = [name for name in names if len({setting.get(name) for setting in settings}) > 1]
    follows = {
        name for name in unlike if name.startswith("eval_env.")
        and all(setting.get(name) == setting.get(name.removeprefix("eval_")) for setting in settings)
    }  # fmt: skip
    return [name for name in unlike if name not in follows]


def _lines(known: dict[str, Scored]) -> list[str]:
    """Lines that say how settings of one name differ."""
    lines = []
    for group in _groups(known):
        unlike = _unlike(list(group.values()))
        for label, options in group.items() if unlike else ():
            lines.append(f"{label}: " + ", ".join(f"{name} = {options.get(name, '-')}" for name in unlike))
    return lines


def _by_environment(
    scored: Sequence[Scored], labels: Sequence[str], known: dict[str, Scored], shown: Sequence[str]
) -> list[tuple[str, ...]]:
    """Cells of each setting on each environment, from raw scores over its runs."""
    groups: dict[str, dict[str, list[Scored]]] = {}
    for one, label in zip(scored, labels, strict=True):
        groups.setdefault(one.environment, {}).setdefault(label, []).append(one)
    lines: list[tuple[str, ...]] = []
    for environment, found in sorted(groups.items()):
        estimates = {
            label: stratified_bootstrap([np.array([one.score for one in runs])], over_runs_and_games)
            for label, runs in found.items()
        }
        for label in sorted(found, key=lambda label: (-estimates[label].value, label)):
            rank = 1 + sum(other.value > estimates[label].value for other in estimates.values())
            cells = _cells(label, environment, found[label], estimates[label])
            lines.append((str(rank), *cells, *(plain(known[label].setting.get(name)) for name in shown)))
    return lines


def _cells(label: str, environment: str, runs: Sequence[Scored], iqm: Estimate) -> tuple[str, ...]:
    ends, mean = [one.frames for one in runs], float(np.mean([one.score for one in runs]))
    human = _human(environment, mean)
    return (
        label,
        environment,
        str(len(runs)),
        f"{min(ends):,}" if min(ends) == max(ends) else f"{min(ends):,} to {max(ends):,}",
        f"{mean:.2f}",
        f"{iqm.value:.2f}",
        _interval(iqm, 2),
        "-" if human is None else f"{human:.1f}",
    )


def _normalised(
    scored: Sequence[Scored], labels: Sequence[str], normalised: Callable[[str, float], float | None]
) -> list[tuple[str, list[np.ndarray]]]:
    """Each setting and its runs' normalised scores, an array for each game or level of which there are some."""
    groups: dict[str, dict[str, list[float]]] = {}
    for one, label in zip(scored, labels, strict=True):
        score = normalised(one.environment, one.score)
        if score is not None:
            groups.setdefault(label, {}).setdefault(one.environment, []).append(score)
    return [(label, [np.array(games[game]) for game in sorted(games)]) for label, games in sorted(groups.items())]


def _over_games(scored: Sequence[Scored], labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Cells of each setting, from human-normalised scores over all Atari games that it was run on."""
    aggregates: list[Statistic] = [median_over_games, mean_over_games, over_runs_and_games]
    return [
        _aggregated(label, strata, aggregates)
        for label, strata in _normalised(scored, labels, atari_scores.human_normalised)
    ]


def _over_levels(scored: Sequence[Scored], labels: Sequence[str]) -> list[tuple[str, ...]]:
    """Cells of each setting, from human-normalised scores over all levels of DMLab-30, capped in each run."""

    def capped(environment: str, score: float) -> float | None:
        found = dmlab_scores.human_normalised(environment, score)
        return None if found is None else min(CAP, found)

    found = _normalised(scored, labels, capped)
    return [_aggregated(label, strata, [mean_over_games]) for label, strata in found]


def _aggregated(label: str, strata: list[np.ndarray], aggregates: Sequence[Statistic]) -> tuple[str, ...]:
    """Cells of one setting."""
    estimates = [stratified_bootstrap(strata, aggregate) for aggregate in aggregates]
    cells = [f"{estimate.value:.1f} {_interval(estimate, 1)}".removesuffix(" -") for estimate in estimates]
    return label, str(len(strata)), str(sum(map(len, strata))), *cells


def _interval(estimate: Estimate, digits: int) -> str:
    return "-" if np.isnan(estimate.low) else f"[{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"


def plain(value: str | None) -> str:
    """An option's value for a cell: text without its quotation marks, ``-`` for one that there is not."""
    if value is None:
        return "-"
    read = json.loads(value)
    return read if isinstance(read, str) else value
