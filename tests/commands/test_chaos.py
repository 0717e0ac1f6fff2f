"""The command line of ``offbeat chaos``: names behind ``--only``, folders, options; nothing is started."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.commands.chaos import _only


@pytest.mark.parametrize(
    ("arguments", "names", "others"),
    [
        ("debug --only a b --seed 1", ["a", "b"], "debug --seed 1"),
        ("debug --only a,b c --seed 1", ["a", "b", "c"], "debug --seed 1"),
        ("debug --only=a,b --seed 1", ["a", "b"], "debug --seed 1"),
        ("--seed 1 debug", [], "--seed 1 debug"),
    ],
)
def test_names_of_faults(arguments: str, names: list[str], others: str) -> None:
    assert _only(arguments.split()) == (names, others.split())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("", "takes one preset, got none"),
        ("debug --only", "--only needs the name of a fault"),
        ("debug --only actor-kiled", "unknown fault 'actor-kiled'"),
        ("debug --learner.batch-sice 4", "unknown option"),
        ("debug --total-frames 1000", "--total-frames is no option here"),
        ("no-such-preset", "no-such-preset"),
        ("debug --out {full}", "not an empty folder"),
    ],
)
def test_mistakes_are_one_line(arguments: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    assert main(["chaos", *arguments.format(full=tmp_path).split()]) == 2
    shown = capsys.readouterr().err.strip()
    assert said in shown
    assert "\n" not in shown


def test_help_and_list_start_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["chaos", "--help"]) == 0
    assert main(["chaos", "--list"]) == 0
    assert "actor-killed" in capsys.readouterr().out
