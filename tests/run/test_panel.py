"""The dashboard's rows fit into every terminal, and numbers stay whole."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from offbeat.run.live import STYLE
from offbeat.run.panel import panel, score
from offbeat.run.status import Status

RUN = Path("results/Läufe ü/CartPole-v1_1790000000")
STATUS = Status(
    seconds=61, frames=2500, updates=7, episodes=123456, actor_frames_per_s=15210.4, learner_frames_per_s=5100,
    return_mean=0.0312, return_max=0.874, eval_mean=-0.35, eval_std=0.2, policy_lag=1.5, queue=2, learner_wait=0.25,
    actor_wait=1, restarts=3,
)  # fmt: skip
NUMBERS = ["15,210", "5,100", "100%", "25%", "0.0312", "0.874", "-0.350", "123,456", "7", "1.5", "2.0", "3"]
WORDS = ["2,500 /", "10,000,000 frames", "0.0%", "left 67:45:39"]


def shown(status: Status, columns: int, rows: int = 30, run: Path = RUN) -> list[str]:
    return [STYLE.sub("", row) for row in panel(status, run, 10_000_000, columns, rows)]


@pytest.mark.parametrize("columns", [200, 99, 79, 74, 59, 49, 39, 29, 19])
def test_every_number_is_whole_at_every_width(columns: int) -> None:
    rows = shown(STATUS, columns)
    assert max(len(row) for row in rows) <= min(columns, 100)
    text = "\n".join(rows)
    for number in NUMBERS:
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.,])", text), number
    for words in WORDS:
        assert words in text
    if columns >= 29:
        assert "0:01:01 " in rows[0] and "Ctrl-C saves and stops" in rows[-1]
        assert len({len(row) for row in rows}) == 1
    if columns >= 60:
        assert "offbeat · results/Läufe ü/CartPole-v1_1790000000 · 0:01:01" in rows[0]
    if columns == 29:
        assert "1790000000" in rows[0]
    assert ("-0.350 ± 0.200" in text) == (columns != 49)  # two columns there, without the spread


@pytest.mark.parametrize("columns", [200, 99, 79, 74, 59, 49, 39, 29, 19])
def test_a_validation_has_cells_of_its_own_and_no_number_is_cut_by_it(columns: int) -> None:
    status = replace(STATUS, valid_mean=-12.5, valid_best=1234.0)
    rows = shown(status, columns)
    assert max(len(row) for row in rows) <= min(columns, 100)
    if columns >= 29:
        assert len({len(row) for row in rows}) == 1
    text = "\n".join(rows)
    for number in (*NUMBERS, "-12.5", "1,234"):
        assert re.search(rf"(?<![\d.,]){re.escape(number)}(?![\d.,])", text), number
    assert "validation" not in "\n".join(shown(STATUS, columns))
    if columns >= 29:
        assert re.search(r"validation +-12\.5", text) and re.search(r"best of those +1,234", text)


def test_what_is_not_known_is_a_dash() -> None:
    text = "\n".join(shown(Status(), 79))
    assert "waiting for first batch" in text and text.count(" - ") >= 8


@pytest.mark.parametrize("rows", [12, 7, 5, 3, 2, 1])
def test_low_terminals_show_the_first_rows(rows: int) -> None:
    found = shown(STATUS, 49, rows)
    assert 1 <= len(found) <= rows
    assert any("2,500 / 10,000,000 frames" in row for row in found)


@pytest.mark.parametrize("columns", [1, 2, 5, 9])
def test_no_terminal_is_too_narrow_to_draw_on(columns: int) -> None:
    assert max(len(row) for row in shown(STATUS, columns)) <= columns


def test_wide_characters_take_two_columns() -> None:
    from rich.cells import cell_len

    rows = shown(STATUS, 79, run=Path("結果/実験"))
    assert {cell_len(row) for row in rows} == {79}


def test_returns_have_as_many_decimals_as_they_need() -> None:
    for value, text in {
        0.0312: "0.0312", 0.874: "0.874", 0.00012: "0.0001", 1.0: "1.00", -1.5: "-1.50", 12.34: "12.3", 475.25: "475.2",
        1234.5: "1,234", -20_000_000.0: "-20,000,000", 0.0: "0", None: "-", float("nan"): "-",
    }.items():  # fmt: skip
        assert score(value) == text
    assert score(475.25, 2) == "475.25" and score(0.0312, 2) == "0.0312"
