"""Every engine and placement hands the learner what the environments gave: the counting agent checks each row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from offbeat.config.run_config import apply_overrides, load_preset
from offbeat.run.train import train
from tests.conformance.counting_agent import Allowed
from tests.conformance.runs import ENGINES, SERIAL, check_books, counting_run, engine_of, ledger, replaying_run

EXACT = Allowed(updates_per_round=2)
AHEAD: dict[str, dict[str, Any]] = {
    "free-partial": {"learner__prefetch": "auto", "learner__assemblers": 3},
    "serial-free-partial": {"learner__prefetch": "auto", "learner__assemblers": 3},
}
"""In these, batches are assembled by several threads, as many ahead as they find good."""
HALF_REPLAYED = [{"kind": "fifo", "share": 0.5}, {"kind": "uniform", "share": 0.5, "min_rows": 100}]


def placements(common: tuple[str, ...]) -> list[Any]:
    """All of them; those that are not ``common`` among the slow tests."""
    return [pytest.param(n, marks=() if n in common else pytest.mark.slow) for n in (*ENGINES, *SERIAL)]


@pytest.mark.parametrize(
    "name", placements(("inline", "lockstep", "free", "free-server", "free-partial", "serial-free-server"))
)
def test_every_row_arrives_once_in_order_as_it_was_acted_on(name: str, tmp_path: Path) -> None:
    allowed = EXACT if name.endswith(("inline", "lockstep")) else Allowed()
    with engine_of(name):
        counting_run(tmp_path / "run", allowed, **(ENGINES | SERIAL)[name] | AHEAD.get(name, {}))


@pytest.mark.parametrize("name", placements(("inline", "serial-free")))
@pytest.mark.parametrize("kind", ["transition", "sequence"])
def test_items_are_what_was_acted_on_and_drawn_by_what_was_fed_back(kind: str, name: str, tmp_path: Path) -> None:
    with engine_of(name):
        replaying_run(tmp_path / "run", kind, **(ENGINES | SERIAL)[name])


@pytest.mark.parametrize("rows", [2, 15])
@pytest.mark.parametrize("name", ["inline", pytest.param("free", marks=pytest.mark.slow)])
def test_actors_append_as_many_rows_at_once_as_they_are_told(name: str, rows: int, tmp_path: Path) -> None:
    """Fewer than an unroll has, or several unrolls; not always whole ones."""
    options = {"actor__append_rows": rows, "replay__samplers__0__max_pending": 4}
    counting_run(tmp_path / "run", Allowed(), **ENGINES[name] | options)
    run = replaying_run(tmp_path / "items", "sequence", **ENGINES[name], actor__append_rows=rows).run
    assert f"append_rows = {rows}" in (run / "config.toml").read_text()


def test_replayed_rows_are_those_that_were_acted_on(tmp_path: Path) -> None:
    options = {"engine": "inline", "replay__samplers": HALF_REPLAYED, "replay__capacity": 800}
    result = counting_run(tmp_path / "run", Allowed(skips=True), **options)
    rows = ledger(result.run)
    assert rows["expired"] > 0
    assert 0 < rows["fifo0/skipped"] <= 120, "only while the replay filled up"


def test_unrolls_that_are_too_old_are_skipped_whole_and_counted(tmp_path: Path) -> None:
    """Three batches are ready in each round; the third would be two updates behind."""
    options = {"engine": "inline", "actor__workers": 3, "learner__max_policy_lag": 1}
    result = counting_run(tmp_path / "run", Allowed(skips=True, updates_per_round=2), **options)
    rows = ledger(result.run)
    assert rows["fifo0/skipped"] >= rows["fifo0/trained"] // 2 - 20 > 0


@pytest.mark.slow
@pytest.mark.parametrize("batch", [3, 8])
def test_the_ledger_of_partly_stepped_atari_closes(batch: int, tmp_path: Path) -> None:
    options = {
        "out": str(tmp_path / "run"), "device": "cpu", "total_frames": 40_000, "actor.envs_per_worker": 8,
        "actor.batch": batch, "learner.batch_size": 8, "evaluation.at_end": False, "log.tensorboard": False,
    }  # fmt: skip
    config = apply_overrides(load_preset("impala-atari"), options.items())
    check_books(train(config), config)
