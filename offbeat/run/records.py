"""The lines of a run's metrics.jsonl, read back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any


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
