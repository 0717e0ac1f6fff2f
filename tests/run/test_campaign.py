"""Campaigns: every run once, finished ones left alone, mistakes named before anything starts."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.errors import UserError
from offbeat.report.campaign import write_report
from offbeat.run.campaign import run_campaign
from offbeat.run.campaign_file import read_campaign
from offbeat.run.published import Published
from tests.house_rules.test_documents import blocks


def _file(folder: Path, text: str) -> Path:
    path = folder / "campaign.toml"
    path.write_text(f'out = "{folder / "out"}"\n{text}')
    return path


def test_published_scores_go_with_every_seed(tmp_path: Path) -> None:
    path = _file(tmp_path, '[[runs]]\npreset = "debug"\nseeds = [0, 1]\npublished = [[5, 10], [37.9, 2_000]]\n')
    runs = read_campaign(path).runs
    assert [run.published for run in runs] == 2 * [(Published(((5.0, 10.0), (37.9, 2000.0))),)]


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
    assert "1     random   Breakout " in capfd.readouterr().out
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
    (run,) = read_campaign(path).runs
    whole, single = run.score(), run.score(run.scores[0])
    assert whole is not None
    assert single is not None
    assert whole["length"] > 2.5 * single["length"], "five lives and one"
    assert run_campaign(path, write_report) == 0
    assert "eval " not in capfd.readouterr().out, "nothing is played twice"
    (other,) = read_campaign(_file(tmp_path, one_life.replace("end_episode", "terminal") + runs)).runs
    assert other.score(other.scores[0]) is None, "other options are another score"


@pytest.mark.parametrize("path", sorted((Path(__file__).parents[2] / "campaigns").glob("*.toml")), ids=lambda p: p.stem)
def test_campaigns_of_the_repository_can_run(path: Path) -> None:
    runs = read_campaign(path).runs
    assert len({run.folder for run in runs}) == len(runs), "two runs would share a folder"


GRID = '[[grid]]\npreset = "debug"\nover = { "learner.batch_size" = [4, 8] }\n'
RATES = '[[runs]]\npreset = "debug"\nname = "rate"\noptions = { learner.learning_rate = '


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no \[\[runs\]\] and no \[\[grid\]\]"),
        ('at_onc = 3\n[[runs]]\npreset = "debug"\n', "unknown key 'at_onc' in .*did you mean 'at_once'"),
        ('at_once = 0\n[[runs]]\npreset = "debug"\n', "at_once=0 must be a whole number of runs, at least 1"),
        ("runs = 3\n", r"\[\[runs\]\] must be tables, got runs = 3"),
        ('[[runs]]\npreset = "debug"\nseed = 1\n', "unknown key 'seed'.*seeds"),
        ('[[runs]]\npreset = "debug"\nover = {}\n', r"unknown key 'over' in \[\[runs\]\]"),
        ('[[runs]]\nname = "x"\n', "no preset"),
        ('[[runs]]\npreset = "debgu"\n', "debgu.*debug"),
        ('[[runs]]\npreset = "debug"\nname = "a/b"\n', "name='a/b' must be a name for folders: no '/'"),
        ('[[runs]]\npreset = "debug"\nseeds = []\n', r"seeds=\[\] must be a list of whole numbers"),
        ('[[runs]]\npreset = "debug"\nseeds = [0, -1]\n', r"seeds=\[0, -1\] must be a list of whole numbers"),
        ('[[runs]]\npreset = "debug"\nseeds = [0, 1, 0]\n', "two entries have the folder .*debug-seed0: 'debug' and"),
        (RATES + "1 }\n" + RATES + "2 }\n", "two entries have the folder .*rate-seed0: 'rate' and 'rate'"),
        (RATES + "-1 }\n", "'rate': learner.learning_rate=-1.0 is out of range; it must be at least 0"),
        ('[[runs]]\npreset = "debug"\noptions = [1]\n', "options must be a table"),
        (
            '[[runs]]\npreset = "debug"\noptions = { seed = 1 }\n',
            r"seed is no option of an entry; write seeds = \[0, 1",
        ),
        ('[[runs]]\npreset = "debug"\noptions = { "learner.bath_size" = 1 }\n', "batch_size"),
        ('[[runs]]\npreset = "debug"\npublished = [1, 2]\n', "published of 'debug' must be a list of .hours, score."),
        ("[[runs", "is no TOML"),
        ('[[grid]]\npreset = "debug"\n', r"\[\[grid\]\] 'debug' varies nothing: give over"),
        (GRID.replace("[4, 8]", "[]"), r"over: learner.batch_size=\[\] must be a list of values"),
        (GRID.replace("[4, 8]", "8"), "over: learner.batch_size=8 must be a list of values"),
        (GRID.replace("[4, 8]", "[4, 4]"), "learner.batch_size has the value 4 twice"),
        (GRID.replace("[4, 8]", '[4, "a"]'), "'debug-batch_size=a': learner.batch_size='a' is not a whole number"),
        (GRID.replace("[4, 8]", "[4, 0]"), "'debug-batch_size=0': learner.batch_size=0 is out of range; it must be at"),
        (GRID.replace("batch_size", "bath_size"), "bath_size.*did you mean 'learner.batch_size'"),
        (GRID.replace("over", "ovr"), r"unknown key 'ovr' in \[\[grid\]\]; did you mean 'over'"),
        (GRID + "options = { learner.batch_size = 4 }\n", "learner.batch_size is in options and in over"),
        (GRID + '[[runs]]\npreset = "debug"\nname = "debug-batch_size=4"\n', "two entries have the folder"),
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


def test_the_folder_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "campaign.toml"
    path.write_text('out = 3\n[[runs]]\npreset = "debug"\n')
    with pytest.raises(UserError, match=r"out of .* must be a folder's name, got 3"):
        read_campaign(path)
    with pytest.raises(UserError, match=r"no campaign file .*; it is a TOML file with \[\[runs\]\] or"):
        read_campaign(tmp_path)


def test_a_grid_is_every_setting_with_every_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grid = GRID.replace("[[grid]]", '[[grid]]\nname = "g"\nseeds = [0, 1]') + "options = { total_frames = 800 }\n"
    path = _file(tmp_path, grid)
    runs = read_campaign(path).runs
    assert [run.folder.name for run in runs] == [
        "g-batch_size=4-seed0", "g-batch_size=4-seed1", "g-batch_size=8-seed0", "g-batch_size=8-seed1",
    ]  # fmt: skip
    assert [(run.seed, run.config().learner.batch_size, run.config().total_frames) for run in runs] == [
        (0, 4, 800), (1, 4, 800), (0, 8, 800), (1, 8, 800),
    ]  # fmt: skip
    assert main(["campaign", str(path), "--dry-run", "--at-once", "3"]) == 0
    first, *lines = capsys.readouterr().out.splitlines()
    assert first.endswith(f"4 runs of 2 settings in {tmp_path / 'out'}: 4 to begin; up to 3 at a time")
    assert [line.split(": ")[1] for line in lines] == [" ".join(run.command()) for run in runs]
    assert not (tmp_path / "out").exists()
    assert main(["campaign", str(path), "--at-once", "0"]) == 2
    assert "--at-once=0 must be a whole number of runs" in capsys.readouterr().err


PAGE = Path(__file__).parents[2] / "docs" / "campaigns.md"


def test_the_documented_campaign_runs_every_setting_once_and_ranks_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As it is printed, in a fresh folder; and the documented files can be read."""
    monkeypatch.chdir(tmp_path)
    first, *others = blocks(PAGE, "toml")
    Path("sweep.toml").write_text(first)
    assert main(["campaign", "sweep.toml"]) == 0
    said = capfd.readouterr().out
    assert said.startswith("sweep.toml: 4 runs of 2 settings in results/sweep: 4 to begin; ")
    rates = [line.split()[-1] for line in said.splitlines() if " catch #" in line]
    assert sorted(rates) == ["0.001", "0.003"]
    table = said.partition("Final scores of finished runs")[2]
    before = sorted(path.stat().st_mtime_ns for path in Path("results").rglob("metrics.jsonl"))
    Path("results/sweep/catch.png").unlink()
    assert main(["campaign", "sweep.toml"]) == 0
    again = capfd.readouterr().out
    assert "4 finished\n" in again and again.count("finished already") == 4
    assert sorted(path.stat().st_mtime_ns for path in Path("results").rglob("metrics.jsonl")) == before
    assert Path("results/sweep/catch.png").stat().st_size > 1000
    assert main(["campaign", "sweep.toml", "--report"]) == 0
    assert capfd.readouterr().out.partition("Final scores of finished runs")[2] == table
    with Path("results/sweep/campaign.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["seed"], row["learner.learning_rate"], row["score"]) for row in rows] == [
        ("0", "0.001", "final"), ("1", "0.001", "final"), ("0", "0.003", "final"), ("1", "0.003", "final"),
    ]  # fmt: skip
    assert all(400 <= int(row["frames"]) < 450 for row in rows)
    assert main(["compare", "results/sweep"]) == 0
    by_compare = [line.split() for line in capfd.readouterr().out.splitlines() if " debug #" in line]
    assert [line[-1] for line in by_compare] == rates
    for number, text in enumerate(others):
        path = tmp_path / f"{number}.toml"
        path.write_text(text)
        assert len(read_campaign(path).runs) == 3 + 3 * 3 * 2 * 2
