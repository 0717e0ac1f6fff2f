"""The lines of a run's metrics.jsonl, read back; and what their numbers are called where they become curves."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from offbeat.acting.scores import game_key

PERIODIC = ("learner", "actor", "inference")
"""Kinds that come so often that one line per role and period is written instead of each record."""


def curves_of(role: str, kind: str, values: Mapping[str, Any]) -> str:
    """What the names of a record's numbers begin with where each is a curve: the role of what comes periodically, else
    the kind; each set of environments that a run ends with has curves of its own (``final/train``), and so have the
    episodes of each game of a list.
    """
    if kind == "final":
        return f"final/{str(values['set']).replace('=', '-')}"  # MLflow takes no equals sign
    if kind == "episode" and "game" in values:
        return f"episode/{game_key(str(values['game']))}"
    return role if kind in PERIODIC else kind


def read_records(path: Path, text: str = "") -> Iterator[dict[str, Any]]:
    """The lines of a metrics.jsonl that hold ``text``; those that a crash tore are left out."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8", errors="replace") as file:
        for line in file:
            if text not in line:
                continue
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(record, dict):
                yield record


def evaluations(run: Path) -> list[dict[str, Any]]:
    """The evaluation records of a run's metrics.jsonl, in order; a line cut off by a crash is left out."""
    return [one for one in read_records(run / "metrics.jsonl", '"evaluation"') if one.get("kind") == "evaluation"]
