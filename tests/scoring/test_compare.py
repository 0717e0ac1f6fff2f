"""Tables of runs: one line per run, and what runs of one setting add up to, from files as runs write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import tomli_w

from offbeat.cli import main
from offbeat.scoring.compare import COLUMNS, read_results, report, table


def write_run(folder: Path, name: str, env_id: str, scores: list[float | None], seed: int = 0, **options: Any) -> Path:
    """A run folder with evaluations at 1,000, 2,000, ... frames."""
    run = folder / name
    run.mkdir(parents=True)
    env = {"id": env_id, "sticky": 0.0}
    config = {
        "preset": "tuned", "seed": seed, "out": str(run), "agent": {"name": "impala", "core": "none"}, "env": env,
        "eval_env": env, "learner": {"device": "cpu", "threads": seed, "batch_size": 8},
        "replay": {"samplers": [{"kind": "fifo", "share": 1.0}]},
    } | options  # fmt: skip
    (run / "config.toml").write_text(tomli_w.dumps(config))
    made = {"kind": "evaluation", "policy": "greedy"}
    records = [made | {"mean": score, "frames": 1000 * place} for place, score in enumerate(scores, 1)]
    lines = [json.dumps(record) for record in [{"kind": "learner", "loss": 1.0}, *records]]
    (run / "metrics.jsonl").write_text("\n".join(lines) + '\n{"kind": "evaluation", "mean": 9')
    (run / "progress.csv").write_text(f"seconds,frames\n1800,500\n3600,{1000 * len(scores)}\n")
    return run


def tables(text: str) -> list[list[list[str]]]:
    """Blocks of a report as rows of cells."""
    return [[line.replace("  ", "\0").split("\0") for line in block.splitlines()] for block in text.split("\n\n")]


def cells(block: list[list[str]]) -> list[list[str]]:
    """The rows below a table's head, without the padding."""
    return [[cell.strip() for cell in row if cell.strip()] for row in block[2:]]


def test_one_line_per_run(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "toy/catch", [0.25, 0.75, 0.5], seed=3)
    (tmp_path / "a" / "progress.csv").unlink()
    write_run(tmp_path, "b", "toy/catch", [None])
    head, *rows = [line.split() for line in table([str(tmp_path)]).splitlines() if not line.startswith("--")]
    assert head == " ".join(COLUMNS).split()
    assert sorted(rows) == [
        ["a", "impala", "toy/catch", "3", "-", "-", "0.50", "0.75", "2,000", "3", "greedy"],
        ["b", "impala", "toy/catch", "0", "1,000", "1.00", "-", "-", "-", "0", "-"],
    ]
    assert report([str(tmp_path)]) == table([str(tmp_path)])  # one score adds up to nothing


def test_a_row_that_a_crash_tore_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", "toy/catch", [0.25])
    for torn in ("7200,20", "7200\n", "\0\0\n"):
        (run / "progress.csv").write_text(f"seconds,frames\n3600,1000\n{torn}")
        assert "1,000" in table([str(tmp_path)])
        assert "1.00" in table([str(tmp_path)])


def test_runs_of_one_setting_are_grouped_by_environment(tmp_path: Path) -> None:
    for seed, score in enumerate([1.0, 2.0, 6.0, 100.0, -50.0]):
        write_run(tmp_path, f"catch-{seed}", "toy/catch", [0.0, score], seed)
    write_run(tmp_path, "tmaze", "toy/tmaze", [0.5])
    write_run(tmp_path, "unscored", "toy/tmaze", [])
    _, title, block = tables(report([str(tmp_path)]))
    assert title == [["Scores of final evaluations"]]
    (rank, *catch), (_, *tmaze) = cells(block)
    assert rank == "1" and catch[:6] == [
        "tuned",
        "toy/catch",
        "5",
        "2,000",
        "11.80",
        "3.00",
    ]  # IQM: the mean of 1, 2 and 6
    low, high = (float(bound) for bound in catch[6].strip("[]").split(", "))
    assert -50 <= low < 3 < high <= 100
    assert catch[7] == "-"
    assert tmaze == ["tuned", "toy/tmaze", "1", "1,000", "0.50", "0.50", "-", "-"]


def test_atari_games_are_normalised_and_aggregated(tmp_path: Path) -> None:
    # Breakout: random 1.7, human 30.5; Pong -20.7 and 14.6; Freeway 0 and 29.6
    write_run(tmp_path, "b0", "Breakout", [1.7 + 28.8], 0)  # 100 %
    write_run(tmp_path, "b1", "BreakoutNoFrameskip-v4", [1.7 + 3 * 28.8], 1)  # 300 %
    write_run(tmp_path, "p0", "ALE/Pong-v5", [14.6], 0)  # 100 %
    write_run(tmp_path, "p1", "pong", [-20.7], 1)  # 0 %
    write_run(tmp_path, "f0", "Freeway", [29.6], 0)  # 100 %
    write_run(tmp_path, "f1", "Freeway", [5.92], 1)  # 20 %
    write_run(tmp_path, "catch", "toy/catch", [0.5])
    _, _, by_environment, title, over_games = tables(report([str(tmp_path)]))
    human = {row[2]: (row[3], row[5], row[8]) for row in cells(by_environment)}
    assert human == {
        "Breakout": ("2", "59.30", "200.0"),
        "Freeway": ("2", "17.76", "60.0"),
        "Pong": ("2", "-3.05", "50.0"),
        "toy/catch": ("1", "0.50", "-"),
    }
    assert title == [["Human-normalised scores over Atari games"]]
    ((label, games, runs, median, mean, iqm),) = cells(over_games)
    assert (label, games, runs) == ("tuned", "3", "6")
    assert [cell.split()[0] for cell in (median, mean, iqm)] == ["60.0", "103.3", "80.0"]  # IQM of 0 20 100 100 100 300
    # Lowest: (100 + 0 + 20) / 3 = 40 once in 64 draws, then 53.3 twice; highest: 166.7 once, then 153.3 twice.
    assert mean == "103.3 [53.3, 153.3]"


def test_a_single_run_of_a_game_has_a_value_and_no_interval(tmp_path: Path) -> None:
    write_run(tmp_path, "pong", "Pong", [14.6])
    _, _, by_environment, _, over_games = tables(report([str(tmp_path)]))
    assert cells(by_environment) == [["1", "tuned", "Pong", "1", "1,000", "14.60", "14.60", "-", "100.0"]]
    assert cells(over_games) == [["tuned", "1", "1", "100.0", "100.0", "100.0"]]


def test_the_best_evaluation_can_count_instead(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "toy/catch", [0.75, 0.5], 0)
    write_run(tmp_path, "b", "toy/catch", [0.25, 0.75, 1.0], 1)
    _, title, block = tables(report([str(tmp_path)], "best"))
    assert title == [["Scores of best evaluations"]]
    assert cells(block)[0][4:6] == ["1,000 to 3,000", "0.88"]
    assert cells(tables(report([str(tmp_path)]))[2])[0][4:6] == ["2,000 to 3,000", "0.75"]


def test_runs_that_differ_in_an_option_are_no_seeds_of_each_other(tmp_path: Path) -> None:
    write_run(tmp_path, "a", "toy/catch", [0.1], 0)
    write_run(tmp_path, "b", "toy/catch", [0.2], 1)
    write_run(tmp_path, "c", "toy/tmaze", [0.3], 2, agent={"name": "impala", "core": "lstm"})
    other = {"samplers": [{"kind": "fifo", "share": 0.5}, {"kind": "uniform", "share": 0.5}]}
    write_run(tmp_path, "d", "toy/catch", [0.4], 3, replay=other)
    write_run(tmp_path, "e", "toy/catch", [0.5], 4, preset="plain")
    paths = [str(tmp_path / name) for name in "abcde"]
    _, _, (head, *block) = tables(report(paths))
    assert [cell.strip() for cell in head if cell.strip()][-4:] == ["core", "0.share", "kind", "1.share"]
    assert cells([head, *block]) == [
        ["1", "plain", "toy/catch", "1", "1,000", "0.50", "0.50", "-", "-", "none", "1.0", "-", "-"],
        ["2", "tuned #3", "toy/catch", "1", "1,000", "0.40", "0.40", "-", "-", "none", "0.5", "uniform", "0.5"],
        ["3", "tuned #1", "toy/catch", "2", "1,000", "0.15", "0.15", "[0.10, 0.20]", "-", "none", "1.0", "-", "-"],
        ["1", "tuned #2", "toy/tmaze", "1", "1,000", "0.30", "0.30", "-", "-", "lstm", "1.0", "-", "-"],
    ]


def test_a_run_named_twice_counts_once(tmp_path: Path) -> None:
    run = write_run(tmp_path, "a", "toy/catch", [0.5])
    assert [result.name for result in read_results([str(run), str(tmp_path), str(run)])] == ["a"]


def test_the_command_prints_it_all(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_run(tmp_path, "a", "Pong", [14.6, 0.0])
    assert main(["compare", str(tmp_path), "--score", "best"]) == 0
    assert capsys.readouterr().out == report([str(tmp_path)], "best") + "\n"
    assert main(["compare", str(tmp_path), "--score", "worst"]) == 2
    assert "worst" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["compare", "plot"])
def test_files_and_folders_between_the_runs_are_passed_over(
    command: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_run(tmp_path, "a", "toy/catch", [0.5])
    write_run(tmp_path, "grid/b", "toy/catch", [0.25], 1)
    (tmp_path / "a" / "metrics.jsonl").unlink()  # it has not got far
    (tmp_path / "grid" / "b" / "metrics.jsonl").write_text("")
    (tmp_path / "campaign.csv").touch()
    (tmp_path / "empty").mkdir()
    assert main([command, *map(str, sorted(tmp_path.iterdir()))]) == 0
    said = capsys.readouterr()
    (line,) = said.err.splitlines()
    assert line == f"offbeat: passed over, as they are no runs: {tmp_path}/campaign.csv, {tmp_path}/empty"
    assert ("a/report/curves.png" if command == "plot" else "\nb  ") in said.out
    assert main([command, str(tmp_path / "empty"), str(tmp_path / "campaign.csv")]) == 2
    assert "none of these is a run folder" in capsys.readouterr().err
