"""Hooks that an installed package brings in: by their names alone, on the command line and when a run goes on."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.cli import main
from tests.outside.package import install

OPTIONS = ["debug", "--total-frames", "400", "--evaluation.every-frames", "150", "--checkpoint.every-updates", "10"]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the package."""
    return install(tmp_path_factory.mktemp("package"))


@pytest.fixture(autouse=True)
def found(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is on the path, and runs go to the folder of the test."""
    monkeypatch.syspath_prepend(str(installed))
    monkeypatch.chdir(tmp_path)


def train(*options: str) -> int:
    """Train in ./run."""
    return main(["train", *OPTIONS, "--out", "run", *options])


def test_a_hook_by_its_name_goes_on_with_the_run(tmp_path: Path) -> None:
    assert train("--log.hooks", "notes") == 0
    file = tmp_path / "run" / "notes.txt"
    first = file.read_text().splitlines()
    assert [line.split()[0] for line in first].count("evaluation") >= 2
    assert any(line.startswith("checkpoint 0") for line in first) and first[-1] == "closed"
    assert 'hooks = [\n    "notes",\n]' in (tmp_path / "run" / "config.toml").read_text()
    assert main(["resume", "run", "--total-frames", "600"]) == 0
    more = file.read_text().splitlines()
    assert len(more) > len(first) + 2 and more.count("closed") == 2
    assert main(["resume", "run", "--total-frames", "800", "--log.hooks", ""]) == 0
    assert file.read_text().splitlines() == more


def test_a_hook_in_a_preset_stops_the_run_and_the_log_says_which(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.toml").write_text('[preset]\nextends = "debug"\n[log]\nhooks = ["notes", "enough"]\n')
    assert main(["train", "mine.toml", "--out", "run", "--evaluation.every-frames", "150"]) == 0
    said = capsys.readouterr().out
    assert "hook 'enough', on_evaluation returned offbeat.STOP: the run ends" in said
    assert "stopped (hook 'enough', on_evaluation) and saved at " in said
    assert (tmp_path / "run" / "notes.txt").read_text().splitlines()[-1] == "closed"


def test_a_hook_that_raises_is_shown_and_the_command_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--log.hooks", "notes,clumsy") == 1
    said = capsys.readouterr()
    line = "hook 'clumsy', on_metrics raised ZeroDivisionError: no luck (notes.py, line "
    assert line in said.out and "go on with: offbeat resume" in said.out
    assert line in said.err and "in on_metrics" in said.err


@pytest.mark.parametrize(
    ("names", "says"),
    [
        ("note", "unknown hook 'note'; did you mean 'notes'?"),
        ("outside.notes:Notes", "unknown hook 'outside.notes:Notes'"),
        ("gone", "hook 'gone': outside.gone, the entry point of an installed package, cannot be loaded"),
        ("unmakeable", "hook 'unmakeable': outside.notes:unmakeable cannot be made: OSError: no such server (notes.py"),
        (
            "nothing",
            "hook 'nothing': expected an object with any of on_evaluation, on_checkpoint, on_metrics, on_end, got",
        ),
    ],
)
def test_what_is_no_hook_is_one_line(names: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--log.hooks", names) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1
    assert not (tmp_path / "run").exists()
