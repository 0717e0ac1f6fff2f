"""Each row of docs/faults.md is made to happen by a fault, or is named with the tests that make it happen."""

from __future__ import annotations

import re

import pytest

from offbeat.errors import UserError
from offbeat.run.chaos.ground import NEEDS
from offbeat.run.chaos.table import ELSEWHERE, FAULTS, faults_named, listed
from tests.house_rules.source import ROOT


def rows() -> dict[str, list[str]]:
    """First column of each row of the table -> the tests in its third."""
    text = (ROOT / "docs" / "faults.md").read_text()
    found = {}
    for line in text.splitlines():
        if line.startswith("| ") and not line.startswith("| what happens |"):
            what, _, tests = (cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1])
            found[what] = re.findall(r"`([^`]+\.py)`", tests)
    return found


def test_every_row_is_made_to_happen_or_named_with_its_tests() -> None:
    made = {row for fault in FAULTS for row in fault.rows}
    assert len(rows()) > 50
    assert made | set(ELSEWHERE) == set(rows())
    assert not made & set(ELSEWHERE)


def test_what_is_left_to_tests_is_left_to_those_of_its_row() -> None:
    for row, tests in ELSEWHERE.items():
        assert tests.split(", ") == rows()[row]
        for test in tests.split(", "):
            assert list((ROOT / "tests").rglob(test)) or (ROOT / "tests" / test).exists(), test


def test_names_are_unique_and_needs_are_known() -> None:
    names = [fault.name for fault in FAULTS]
    assert len(set(names)) == len(names)
    assert {need for fault in FAULTS for need in fault.needs} <= set(NEEDS)


def test_faults_are_found_by_name_in_the_order_of_the_table() -> None:
    assert [fault.name for fault in faults_named(["ctrl-c", "actor-killed"])] == ["actor-killed", "ctrl-c"]
    assert faults_named([]) == list(FAULTS)
    with pytest.raises(UserError, match=r"unknown fault 'ctrlc'.*ctrl-c"):
        faults_named(["ctrlc"])


def test_the_list_shows_every_fault_and_row() -> None:
    lines = listed().splitlines()
    for fault in FAULTS:
        assert sum(line.split()[:1] == [fault.name] and fault.promise in line for line in lines) == 1
    assert all(any(row in line for line in lines) for row in ELSEWHERE)
