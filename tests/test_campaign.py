"""Campaigns: every run once, finished ones left alone, mistakes named before anything starts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from offbeat.campaign import read_campaign, run_campaign
from offbeat.errors import UserError


def _file(folder: Path, text: str) -> Path:
    path = folder / "campaign.toml"
    path.write_text(f'out = "{folder / "out"}"\n{text}')
    return path


def test_runs_every_seed_once_and_reports_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _file(
        tmp_path, '[[runs]]\nname = "tiny"\npreset = "debug"\nseeds = [0, 1]\noptions = { total_frames = 800 }\n'
    )
    assert run_campaign(path) == 0
    with (tmp_path / "out" / "campaign.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["seed"], row["frames"]) for row in rows] == [("tiny", "0", "800"), ("tiny", "1", "800")]
    assert (tmp_path / "out" / "tiny.png").stat().st_size > 1000
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("metrics.jsonl"))
    capfd.readouterr()
    assert run_campaign(path) == 0
    assert capfd.readouterr().out.count("finished already") == 2
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("metrics.jsonl")) == before


def test_published_scores_go_with_every_seed(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[runs]]\npreset = "debug"\nseeds = [0, 1]\npublished = [[5, 10], [37.9, 2_000]]\n')
    _, runs = read_campaign(path)
    assert [run.published for run in runs] == 2 * [((5.0, 10.0), (37.9, 2000.0))]


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[1] / "campaigns").glob("*.toml")), ids=lambda p: p.stem)
def test_campaigns_of_the_repository_can_run(path: Path) -> None:
    _, runs = read_campaign(path)
    assert len({run.folder for run in runs}) == len(runs), "two runs would share a folder"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "has no \\[\\[runs\\]\\]"),
        ('[[runs]]\npreset = "debug"\nseed = 1\n', "unknown key 'seed'.*seeds"),
        ('[[runs]]\nname = "x"\n', "no preset"),
        ('[[runs]]\npreset = "debgu"\n', "debgu.*debug"),
        ('[[runs]]\npreset = "debug"\noptions = { "learner.bath_size" = 1 }\n', "batch_size"),
        ('[[runs]]\npreset = "debug"\npublished = [1, 2]\n', "published of 'debug' must be a list of .hours, score."),
        ("[[runs", "is no TOML"),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_campaign(_file(tmp_path, text))
