"""Options of agents and samplers from an installed package: in ``--help``, in lists, and for whoever misspells them."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from offbeat.cli import main
from offbeat.commands.arguments import scan
from offbeat.config import known
from offbeat.config.options import markdown
from tests.outside.package import install

BROKEN = ("agent 'broken'", "agent 'empty'", "agent 'gone'", "sampler 'gone'")
PRESET = """
total_frames = 200
[env]
id = "toy/catch"
[agent]
name = "linear_q"
[[replay.samplers]]
kind = "uniform"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that holds the package."""
    return install(tmp_path_factory.mktemp("package"))


@pytest.fixture(autouse=True)
def found(installed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """It is on the path, and nothing of it is remembered afterwards."""
    monkeypatch.syspath_prepend(str(installed))
    for name in [name for name in sys.modules if name.partition(".")[0] == "outside"]:  # the tests' own folder
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.toml").write_text(PRESET)
    known.installed.cache_clear()
    yield
    known.installed.cache_clear()


@pytest.mark.parametrize("arguments", [["train", "--help"], ["train", "mine.toml", "--help"]])
def test_help_has_them_like_those_of_offbeat(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 0
    said = capsys.readouterr()
    assert "\nagent dqn:\n" in said.out and "dqn, empty, gone, impact, impala, linear_q, noop" in said.out
    own = said.out.partition("\nagent linear_q:\n")[2]
    assert "  --agent.epsilon\n      Share of random actions, in [0, 1]. [float; default 0.2]\n" in own
    assert "  --agent.bias\n      Values have a constant part. [true, false; default true]\n" in own
    sampler = said.out.partition("\nsampler vitter:\n")[2]
    assert "  --replay.samplers.N.slots\n" in sampler and "  --replay.samplers.N.share\n" in sampler
    assert "\nFrom installed packages, torsos: gone, squares\n" in said.out
    assert "\nFrom installed packages, environments: corridor\n" in said.out


def test_what_cannot_be_loaded_costs_a_line_each_and_not_the_help(
    installed: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--help"]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == len(BROKEN)
    for line, name in zip(lines, BROKEN, strict=True):
        assert line.startswith(f"offbeat: warning: {name}: ")
    assert lines[0].endswith("(SystemExit: no luck)")
    assert str(sys.modules["outside.linear_q"].__file__).startswith(str(installed))


def test_the_list_of_agents_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["agents"]) == 0
    said = capsys.readouterr()
    rows = [line.split(maxsplit=1) for line in said.out.splitlines()]
    assert ["linear_q", "outside 1.0  An agent from somebody else's package: linear Q-learning on transitions, with"
            " the public names of offbeat alone."] in rows  # fmt: skip
    assert "dqn" in dict(rows) and "gone" not in dict(rows)
    assert [line.split(":")[2].strip() for line in said.err.splitlines()] == list(BROKEN[:3])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--agent.epsilom", "1"], "unknown option 'agent.epsilom'; did you mean 'agent.epsilon'?"),
        (["--bias", "no"], "unknown option '--bias'; did you mean 'agent.bias'?"),
        (["--slots", "3"], "unknown option '--slots'; did you mean 'replay.samplers.N.slots'?"),
        (["--replay.samplers.0.slotz", "3"], "did you mean 'replay.samplers.N.slots'?"),
    ],
)
def test_misspelt_ones_are_told_the_nearest(options: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["train", "mine.toml", *options]) == 2
    said = capsys.readouterr().err
    assert says in said and said.count("\n") == 1


def test_the_command_line_takes_them() -> None:
    given = scan(["mine.toml", "--agent.bias", "--replay.samplers.0.slots", "5"]).options
    assert given == [("agent.bias", "true"), ("replay.samplers.0.slots", "5")]


def test_the_page_of_offbeats_options_does_not_depend_on_what_is_installed() -> None:
    assert "linear_q" not in markdown() and "vitter" not in markdown()
