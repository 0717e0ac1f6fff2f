"""Every engine and placement hands the learner what the environments gave: the counting agent checks each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conformance.counting_agent import Allowed
from tests.conformance.runs import counting_run

ENGINES: dict[str, dict[str, Any]] = {
    "inline": {"engine": "inline"},
    "lockstep": {"deterministic": True},
    "free": {},
    "free-one-worker": {"actor__workers": 1},
    "free-server": {"actor__inference": "server"},
    "free-partial": {"actor__workers": 1, "actor__batch": 3},
}
EXACT = Allowed(updates_per_round=2)


@pytest.mark.parametrize("name", list(ENGINES))
def test_every_row_arrives_once_in_order_as_it_was_acted_on(name: str, tmp_path: Path) -> None:
    allowed = EXACT if name in ("inline", "lockstep") else Allowed()
    counting_run(tmp_path / "run", allowed, **ENGINES[name])
