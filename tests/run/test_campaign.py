"""Campaigns: every run once, finished ones left alone, mistakes named before anything starts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from offbeat.errors import UserError
from offbeat.report.campaign import write_report
from offbeat.run.campaign import read_campaign, run_campaign


def _file(folder: Path, text: str) -> Path:
    path = folder / "campaign.toml"
    path.write_text(f'out = "{folder / "out"}"\n{text}')
    return path


def test_runs_every_seed_once_and_reports_them(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = _file(
        tmp_path, '[[runs]]\nname = "tiny"\npreset = "debug"\nseeds = [0, 1]\noptions = { total_frames = 800 }\n'
    )
    assert run_campaign(path, write_report) == 0
    with (tmp_path / "out" / "campaign.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], row["seed"], row["score"]) for row in rows] == [
        ("tiny", "0", "final"),
        ("tiny", "1", "final"),
    ]
    assert all(800 <= int(row["frames"]) < 850 for row in rows)
    assert (tmp_path / "out" / "tiny.png").stat().st_size > 1000
    before = sorted(path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("metrics.jsonl"))
    capfd.readouterr()
    assert run_campaign(path, write_report) == 0
    assert capfd.readouterr().out.count("finished already") == 2
    assert sorted(path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("metrics.jsonl")) == before


def test_published_scores_go_with_every_seed(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[runs]]\npreset = "debug"\nseeds = [0, 1]\npublished = [[5, 10], [37.9, 2_000]]\n')
    _, runs = read_campaign(path)
    assert [run.published for run in runs] == 2 * [((5.0, 10.0), (37.9, 2000.0))]


@pytest.mark.slow
def test_finished_runs_are_scored_in_further_ways_once(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Random play of Breakout: whole games, and one life each. Only what is missing is played."""
    pytest.importorskip("ale_py")
    pytest.importorskip("cv2")
    options = (
        'total_frames = 80, engine = "inline", "env.id" = "Breakout", "env.life_loss" = "end_episode",'
        ' "env.frame_size" = 42, "actor.workers" = 1, "actor.envs_per_worker" = 4, "learner.batch_size" = 4,'
        ' "learner.unroll_length" = 5,'
        ' "evaluation.every_frames" = 0, "evaluation.episodes" = 3, "evaluation.envs" = 3, "log.tensorboard" = false'
    )
    runs = f'[[runs]]\npreset = "random"\noptions = {{ {options} }}\n'
    one_life = '[[scores]]\nname = "One life"\neval_env = { life_loss = "end_episode" }\n'
    path = _file(tmp_path, runs)
    assert run_campaign(path, write_report) == 0
    assert "random: mean" in capfd.readouterr().out
    path = _file(tmp_path, one_life + runs)
    assert run_campaign(path, write_report) == 0
    said = capfd.readouterr().out
    assert "finished already" in said
    assert "random, One life: mean" in said
    with (tmp_path / "out" / "campaign.csv").open() as file:
        final, further = csv.DictReader(file)
    assert [final["score"], further["score"]] == ["final", "One life"]
    assert (final["frames"], final["episodes"], final["policy"]) == (
        further["frames"], further["episodes"], further["policy"],
    )  # fmt: skip
    assert final["run_seconds"] == further["run_seconds"]
    _, (run,) = read_campaign(path)
    whole, single = run.score(), run.score(run.scores[0])
    assert whole is not None
    assert single is not None
    assert whole["length"] > 2.5 * single["length"], "five lives and one"
    assert run_campaign(path, write_report) == 0
    assert "eval " not in capfd.readouterr().out, "nothing is played twice"
    _, (other,) = read_campaign(_file(tmp_path, one_life.replace("end_episode", "terminal") + runs))
    assert other.score(other.scores[0]) is None, "other options are another score"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "campaigns").glob("*.toml")), ids=lambda p: p.stem)
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
        ('scores = [{ name = "a" }]\n[[runs]]\npreset = "debug"\n', "needs a name and eval_env"),
        ('scores = [{ nam = "a" }]\n[[runs]]\npreset = "debug"\n', "unknown key 'nam' in .*did you mean 'name'"),
        ('scores = [{ name = "Final", eval_env = {} }]\n[[runs]]\npreset = "debug"\n', "two scores are called 'Final'"),
        (
            'scores = [{ name = "a", eval_env = { life_los = "ignore" } }]\n[[runs]]\npreset = "debug"\n',
            "life_loss",
        ),
    ],
)
def test_names_what_is_wrong(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_campaign(_file(tmp_path, text))
