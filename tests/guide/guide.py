"""docs/own_environment.md as steps: files to write, commands to type, what is shown, cells of a notebook."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

from tests.house_rules.source import ROOT

GUIDE = ROOT / "docs" / "own_environment.md"
SHORT = (
    (r"--total-frames [\d_]+", "--total-frames 2000"),
    (r"total_frames ?= ?[\d_]+", "total_frames=2000"),
    (r'"every_frames": [\d_]+', '"every_frames": 700'),
    (r'\["mean"\] > 6', '["mean"] > -1'),
    (r"--episodes 100", "--episodes 2"),
)
"""What makes the guide a matter of seconds: shorter runs, and a hook that is soon content."""


@dataclass(frozen=True)
class Step:
    """One block of the guide."""

    kind: Literal["file", "commands", "shown", "cell"]
    text: str
    name: str = ""
    """Of a file."""


def steps(short: bool) -> list[Step]:
    """All of them, in order; ``short``: with runs of a few frames."""
    text = GUIDE.read_text(encoding="utf-8")
    found = [_step(language, block) for language, block in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.M | re.S)]
    return [_shortened(step) if short else step for step in found if step is not None]


def _step(language: str, block: str) -> Step | None:
    if language == "sh":  # installs, which whoever runs this has done
        return None
    if language == "bash":
        return Step("commands", block)
    if language == "text":
        return Step("shown", block)
    head, _, rest = block.partition("\n")
    if head == "# in a notebook":
        return Step("cell", rest)
    name = re.fullmatch(r"# ([\w.]+)", head)
    assert language in ("python", "toml") and name, f"a block that nobody runs: {head}"
    return Step("file", block, name[1])


def _shortened(step: Step) -> Step:
    text = step.text
    for long, brief in SHORT:
        text = re.sub(long, brief, text)
    return Step(step.kind, text, step.name)


def missing(shown: str, output: str) -> list[str]:
    """The lines of ``shown`` that ``output`` lacks, whatever the numbers and the spaces in them."""

    def plain(line: str) -> str:
        return re.sub(r"\s+", " ", re.sub(r"\d[\d.,:]*", "#", line)).strip()

    printed = plain(output)
    return [line for line in shown.splitlines() if plain(line) not in printed]
