"""Published rows, played again on seeds that they have not seen: do the two agree?

Each row of ``rows.toml`` stands in docs/results.md. Its runs are planned as a campaign, so they can be stopped and gone
on with. What is compared is the interquartile mean of the runs' final scores, published against new ones, by a
bootstrap of both (Agarwal et al. 2021).
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.errors import UserError, unknown
from offbeat.run.campaign_file import read_campaign
from offbeat.scoring.statistics import Estimate, over_runs_and_games, resample, stratified_bootstrap

ROWS = Path(__file__).with_name("rows.toml")
FRESH = 1000
"""Seeds that nobody has chosen begin here."""
RESAMPLES = 10_000
FEWEST = 2
"""Runs without which there is no interval."""


@dataclass(frozen=True)
class Row:
    """A published row."""

    name: str
    task: str
    """For readers."""
    preset: str
    tuned: tuple[int, ...]
    """Seeds that its settings were found with."""
    seeds: tuple[int, ...]
    """Seeds that its scores are of."""
    scores: tuple[float, ...]
    """The final evaluation of each."""
    close: float
    """A difference up to this is taken for none. Unit: scores."""
    minutes: float
    """Of one run, when it was published."""
    options: tuple[tuple[str, Any], ...] = ()

    @property
    def seen(self) -> set[int]:
        """Seeds that it must not be judged by."""
        return {*self.tuned, *self.seeds}


def all_rows() -> dict[str, Row]:
    """Every row, by its name."""
    found = tomllib.loads(ROWS.read_text(encoding="utf-8"))
    return {name: _row(name, entry) for name, entry in found.items()}


def _row(name: str, entry: dict[str, Any]) -> Row:
    options = tuple(entry.pop("options", {}).items())
    for key in ("tuned", "seeds", "scores"):
        entry[key] = tuple(entry[key])
    return Row(name, **entry, options=options)


def row_named(name: str) -> Row:
    """The row of that name; ``UserError`` with the nearest one if there is none."""
    rows = all_rows()
    if name not in rows:
        raise unknown("row", name, rows)
    return rows[name]


def fresh_seeds(row: Row, count: int | None = None, wanted: Sequence[int] | None = None) -> list[int]:
    """The seeds to run: ``wanted``, or the first ``count`` from ``FRESH`` on; None: as many as are published.

    ``UserError`` for seeds that the row has seen, doubled ones, and too few for an interval.
    """
    if wanted is not None:
        if seen := sorted(row.seen & {*wanted}):
            raise UserError(
                f"seeds {seen} of {row.name} were tuned on or are published ({sorted(row.seen)}): what they give says "
                "nothing new; use others"
            )
        if len({*wanted}) < len(wanted) or min(wanted) < 0:
            raise UserError(f"--seeds {list(wanted)}: they must be different and at least 0")
    chosen = list(wanted) if wanted is not None else []
    seed, count = FRESH, len(row.seeds) if count is None else count
    while wanted is None and len(chosen) < count:
        if seed not in row.seen:
            chosen.append(seed)
        seed += 1
    if len(chosen) < FEWEST:
        raise UserError(f"{len(chosen)} run has no interval; ask for {FEWEST} at least")
    return chosen


def campaign_text(row: Row, seeds: Sequence[int], out: Path) -> str:
    """A campaign file that plays ``row`` on ``seeds`` in the folder ``out``."""
    options = ", ".join(f"{json.dumps(name)} = {json.dumps(value)}" for name, value in row.options)
    return (
        f"# {row.task}: docs/results.md, row {row.name!r}, on seeds that it has not seen\n"
        f"out = {json.dumps(str(out))}\n\n[[runs]]\nname = {json.dumps(row.name)}\npreset = {json.dumps(row.preset)}\n"
        f"seeds = {list(seeds)}\noptions = {{ {options} }}\n"
    )


@dataclass(frozen=True)
class Verdict:
    """What came of it."""

    row: str
    published: Estimate
    here: Estimate
    difference: Estimate
    """Here minus published."""
    seeds: tuple[int, ...]
    scores: tuple[float, ...]
    agrees: bool

    def write(self, path: Path, environment: dict[str, Any]) -> None:
        """As JSON, with the versions and the machine."""
        path.write_text(json.dumps(asdict(self) | {"environment": environment}, indent=2) + "\n", encoding="utf-8")


def judge(row: Row, scores: dict[int, float]) -> Verdict:
    """Whether ``scores``, seed -> final evaluation, agree with those of ``row``.

    They do unless 0 is outside the interval of the difference by more than ``row.close``.
    """
    published, here = ([np.asarray(values, np.float64)] for values in (row.scores, list(scores.values())))
    drawn = over_runs_and_games(resample(here, RESAMPLES, 1)) - over_runs_and_games(resample(published, RESAMPLES, 2))
    low, high = (float(bound) for bound in np.quantile(drawn, [0.025, 0.975]))
    before, now = (stratified_bootstrap(one, over_runs_and_games, resamples=RESAMPLES) for one in (published, here))
    difference = Estimate(now.value - before.value, low, high)
    agrees = low - row.close <= 0 <= high + row.close
    return Verdict(row.name, before, now, difference, tuple(scores), tuple(scores.values()), agrees)


def scores_in(campaign: Path) -> dict[int, float]:
    """Seed -> final evaluation of the runs of a campaign that have one."""
    runs = [(run.seed, run.score()) for run in read_campaign(campaign).runs]
    return {seed: float(score["mean"]) for seed, score in runs if score is not None}


def verdict_text(row: Row, verdict: Verdict, environment: dict[str, Any]) -> str:
    """The verdict for people."""
    both = ", of which " + ("all" if {*row.seeds} <= {*row.tuned} else "some") + " were tuned on"
    tuned = both if {*row.seeds} & {*row.tuned} else f"; tuned on {_listed(row.tuned)}"
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    machine = environment["machine"]
    return "\n".join([
        f"{row.name}: {row.task}, preset {row.preset}; interquartile mean over runs (95 % bootstrap interval)",
        f"  published   {_shown(verdict.published)}, seeds {_listed(row.seeds)}{tuned}",
        f"  here        {_shown(verdict.here)}, seeds {_listed(verdict.seeds)}: "
        f"{', '.join(f'{score:.4g}' for score in verdict.scores)}",
        f"  difference  {_shown(verdict.difference)}; up to {row.close:g} is taken for none",
        f"  with        {versions}",
        f"  on          {machine['processor']}, {machine['cores']} cores",
        f"  verdict     {'agrees' if verdict.agrees else 'DIFFERS'}; with so few runs an interval holds the truth less "
        "often than it says",
    ])  # fmt: skip


def _shown(estimate: Estimate) -> str:
    return f"{estimate.value:.4g} ({estimate.low:.4g} to {estimate.high:.4g})"


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))
