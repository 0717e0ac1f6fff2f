"""Run folders with everything that the page of ``offbeat report`` shows, and the page read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np

from offbeat.report.record import record_frames
from offbeat.run.provenance import write_environment
from tests.report.test_plot import Options, make_run

LEDGER = {
    "produced": 1000, "stored": 300, "expired": 690, "lost": 6, "in_hand": 4, "fifo0/trained": 900, "fifo0/pending": 80,
    "fifo0/skipped": 14, "fifo0/lost": 6,
}  # fmt: skip
"""Books that close."""


def full_run(run: Path, seed: int = 0, *, episodes: int = 100, options: Options = (), film: str = "") -> Path:
    """A run with evaluations, validations, final sets, times, a restart, a ledger, a log and, if asked for, a film."""
    make_run(run, seed, episodes=episodes, options=options)
    at = {"time": float(episodes), "frames": 4000 * episodes, "agent_steps": 1000 * episodes}
    lines: list[dict[str, Any]] = [
        {"role": "validator", "kind": "validation", "mean": -7.25, "low": -8, "high": -6, "episodes": 5},
        {"role": "validator", "kind": "validation", "mean": -9.5, "low": -10, "high": -9, "episodes": 5},
        {"role": "evaluator", "kind": "final", "mean": 3.5, "low": 3, "high": 4, "episodes": 7, "set": "seed=2"},
        {"role": "supervisor", "kind": "final_summary", "test_mean": 3.5, "test_std": 0, "test_sets": 1},
        {"role": "supervisor", "kind": "restart", "actor": 1, "restarts": 1},
        {"role": "actor-0", "kind": "actor", "forward_s": 2.0, "env_s": 5.0, "wait_s": 1.0},
        {"role": "actor-1", "kind": "actor", "forward_s": 1.0, "env_s": 2.0, "wait_s": 1.0},
        {"role": "learner", "kind": "learner", "train_s": 6.0, "wait_s": 2.0, "updates": 10 * episodes,
         "skipped": 3, "dropped_unrolls": 2},
        {"role": "supervisor", "kind": "ledger", **LEDGER},
    ]  # fmt: skip
    with open(run / "metrics.jsonl", "a") as file:
        file.writelines(json.dumps(at | line) + "\n" for line in lines)
    write_environment(run, seed=seed, command=["offbeat", "train", "impala-atari"])
    (run / "run.log").write_text(
        "2026-01-01 main started\n2026-01-01 main actor-1 died; replaced (1 of at most 5 times)\n"
    )
    if film:
        frames = [np.full((48, 64, 3), shade, np.uint8) for shade in range(0, 250, 10)]
        record_frames(frames, run / "videos" / f"one.{film}", 10)
    return run


@dataclass
class Node:
    """An element of a page."""

    name: str
    attributes: dict[str, str | None]
    children: list[Node | str] = field(default_factory=list)

    @property
    def text(self) -> str:
        """All text in it."""
        return "".join(child if isinstance(child, str) else child.text for child in self.children)

    def all(self, name: str = "", **attributes: str) -> Iterator[Node]:
        """The elements in it of a name and with attributes (``class_="x"``: x is one of its classes)."""
        for child in self.children:
            if isinstance(child, Node):
                wanted = {key.rstrip("_"): value for key, value in attributes.items()}
                if name in ("", child.name) and all(
                    value in (child.attributes.get(key) or "").split() for key, value in wanted.items()
                ):
                    yield child
                yield from child.all(name, **attributes)

    def one(self, name: str = "", **attributes: str) -> Node:
        """The only one."""
        (found,) = self.all(name, **attributes)
        return found

    @property
    def values(self) -> list[float]:
        """The exact numbers in it."""
        return [float(node.attributes["value"] or "nan") for node in self.all("data")]

    def row(self, label: str) -> list[Node]:
        """The cells beside a heading."""
        (found,) = [row for row in self.all("tr") if next(row.all("th"), Node("", {})).text == label]
        return list(found.all("td"))


class _Reader(HTMLParser):
    """Reads a page; an end tag that fits to none, or an element that is left open, is an error."""

    def __init__(self) -> None:
        super().__init__()
        self.open = [Node("page", {})]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """An element begins."""
        node = Node(tag, dict(attrs))
        self.open[-1].children.append(node)
        if tag not in ("meta", "img", "br", "wbr"):
            self.open.append(node)

    def handle_endtag(self, tag: str) -> None:
        """An element ends."""
        assert self.open.pop().name == tag, tag

    def handle_data(self, data: str) -> None:
        """Text."""
        self.open[-1].children.append(data)


def read_page(text: str) -> Node:
    """A page as a tree."""
    reader = _Reader()
    reader.feed(text)
    reader.close()
    (page,) = reader.open
    return page
