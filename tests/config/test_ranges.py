"""The numbers that options may have."""

from __future__ import annotations

from offbeat.config.options import all_options
from offbeat.config.ranges import RANGES


def test_every_range_is_of_an_option_that_takes_numbers() -> None:
    kinds = {option.name.replace(".N.", "."): option.values.split()[0] for option in all_options()}
    assert {name: kinds.get(name) for name in RANGES if kinds.get(name) not in ("int", "float")} == {}
    assert all(low < high for low, high in RANGES.values())
