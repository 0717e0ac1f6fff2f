"""Published rows and their verdicts: rows are what the repository's tables hold, verdicts what the numbers say."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from offbeat.cli import main
from offbeat.errors import UserError
from offbeat.run.campaign_file import read_campaign
from offbeat.scoring import reproduce
from offbeat.scoring.reproduce import Row, all_rows, campaign_text, fresh_seeds, judge, row_named
from tests.house_rules.source import ROOT

ROWS = all_rows()
ROW = Row("catch", "Catch", "impala-catch", (0,), (0, 1, 2), (1.0, 1.0, 0.98), 0.02, 2.0)


def published() -> dict[tuple[str, int], tuple[float, int]]:
    """(row, seed) -> score and frames, of the tables of the repository."""
    found = {}
    for name in ("spine", "value"):
        with (ROOT / "docs" / "results" / f"{name}.csv").open() as file:
            found |= {
                (line["name"], int(line["seed"])): (float(line["mean"]), int(line["frames"]))
                for line in csv.DictReader(file)
            }
    with (ROOT / "docs" / "results" / "memory.csv").open() as file:
        for line in csv.DictReader(file):
            if line["unrolls"] == "m5":
                name = f"{line['task'].replace('_', '-')}-50-{line['core'].removeprefix('elstm-')}"
                found[name, int(line["seed"])] = float(line["right"]), int(line["frames"])
    return found


@pytest.mark.parametrize("name", ROWS)
def test_a_row_is_what_the_tables_hold_and_its_campaign_can_run(name: str, tmp_path: Path) -> None:
    row, table = ROWS[name], published()
    assert list(row.scores) == [table[name, seed][0] for seed in row.seeds]
    assert row.task and row.minutes > 0 and row.close > 0
    file = tmp_path / "campaign.toml"
    seeds = fresh_seeds(row)
    file.write_text(campaign_text(row, seeds, tmp_path / "runs"))
    runs = read_campaign(file).runs  # checked, each
    assert [(run.seed, run.preset, dict(run.options)) for run in runs] == [
        (seed, row.preset, dict(row.options)) for seed in seeds
    ]
    lengths = [(run.config().total_frames, table[name, seed][1]) for run, seed in zip(runs, row.seeds, strict=True)]
    assert all(asked <= frames < 1.01 * asked for asked, frames in lengths), lengths
    assert not {*seeds} & row.seen and len(seeds) == len(row.seeds)


def test_every_row_is_named_in_the_results() -> None:
    text = (ROOT / "docs" / "results.md").read_text()
    assert [name for name in ROWS if f"`{name}`" not in text] == []


def test_seeds_that_were_seen_are_refused_and_skipped(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fresh_seeds(ROW, 4) == [1000, 1001, 1002, 1003]
    assert fresh_seeds(replace(ROW, tuned=(1001,)), 2) == [1000, 1002]
    assert fresh_seeds(ROW, None, [7, 9]) == [7, 9]
    for seeds, text in (
        ([0, 5], r"seeds \[0\] of catch were tuned on or are published"),
        ([5, 5], "must be different"),
        ([-1, 5], "at least 0"),
        ([5], "1 run has no interval; ask for 2"),
    ):
        with pytest.raises(UserError, match=text):
            fresh_seeds(ROW, None, seeds)
    with pytest.raises(UserError, match="unknown row 'cach'; did you mean 'catch'"):
        row_named("cach")


def test_verdicts() -> None:
    def agrees(here: list[float], **changes: Any) -> bool:
        return judge(replace(ROW, **changes), dict(enumerate(here, 1000))).agrees

    assert agrees([1.0, 1.0, 1.0]) and agrees([0.98, 0.97, 0.99])
    assert not agrees([0.5, 0.6, 0.7]) and not agrees([1.5, 1.6, 1.7])
    assert agrees([0.5, 0.6, 1.0], scores=(0.4, 0.9, 0.7)), "they overlap"
    exact = {"scores": (21.0, 21.0, 21.0)}
    assert not agrees([20.0, 20.0, 20.0], **exact, close=0.5) and agrees([20.0, 20.0, 20.0], **exact, close=1.0)


def test_the_difference_has_about_the_interval_of_normal_numbers() -> None:
    """Of many runs of unit variance: 1.96 standard errors of two interquartile means, each some 1.09 / sqrt(n)."""
    random = np.random.default_rng(1)
    one, two = random.normal(0, 1, 400), random.normal(0.5, 1, 400)
    row = replace(ROW, scores=tuple(one), close=0.01)
    verdict = judge(row, dict(enumerate(two.tolist(), 1000)))
    width = (verdict.difference.high - verdict.difference.low) / 2
    assert width == pytest.approx(1.96 * 1.09 * (2 / 400) ** 0.5, rel=0.1)
    assert verdict.difference.value == pytest.approx(verdict.here.value - verdict.published.value)
    assert not verdict.agrees


def test_the_command_runs_goes_on_and_gives_its_verdict(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = (("env.length", 6), ("total_frames", 400), ("evaluation.episodes", 4), ("log.tensorboard", False))
    row = replace(ROW, preset="debug", options=options, scores=(-1.0, 0.0, 1.0), close=2.0)
    monkeypatch.setattr(reproduce, "all_rows", lambda: {"catch": row})
    command = ["reproduce", "catch", "--runs", "2", "--out", str(tmp_path)]
    assert main([*command, "--dry-run"]) == 0
    assert "2 to begin" in capsys.readouterr().out
    assert main(command) == 0
    printed = capsys.readouterr().out
    assert "verdict     agrees" in printed and "seeds 1000, 1001" in printed
    verdict = json.loads((tmp_path / "verdict.json").read_text())
    assert verdict["agrees"] and verdict["seeds"] == [1000, 1001] and verdict["environment"]["versions"]["torch"]
    monkeypatch.setattr(reproduce, "all_rows", lambda: {"catch": replace(row, scores=(50.0, 50.0, 50.0))})
    assert main(command) == 1, "nothing is played again"
    assert "verdict     DIFFERS" in capsys.readouterr().out
    assert main([*command[:2], "--runs", "2", "--seeds", "5", "6"]) == 2
