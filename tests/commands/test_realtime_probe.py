"""The commands that a probe advises: they run."""

from __future__ import annotations

import shlex

import pytest

from offbeat.cli import main
from offbeat.commands.arguments import scan
from offbeat.config.validation import validate


def advice(printed: str, of: str) -> list[str]:
    """The words of the command in the line that begins so."""
    line = next(line for line in printed.splitlines() if line.startswith(of))
    return shlex.split(line.removeprefix(of))


@pytest.mark.parametrize("preset", ["impala-cartpole", "apex-catch"])
def test_what_is_advised_is_not_refused(preset: str, capsys: pytest.CaptureFixture[str]) -> None:
    options = ["--fps", "50", "--seconds", "0.01", "--learner.batch-size", "8", "--replay.capacity", "2000"]
    assert main(["realtime", "probe", preset, *options]) == 0
    printed = capsys.readouterr().out
    for of in ("on the wall clock:", "with a simulated delay:"):
        offbeat, train, name, *given = advice(printed, of)
        assert (offbeat, train, name) == ("offbeat", "train", preset)
        config = scan(given).config(name)
        validate(config)
        assert bool(config.realtime.fps) == (of == "on the wall clock:")
