"""Every game of every family is found by the id that it is written with."""

from __future__ import annotations

import pytest

from offbeat.envs.families import FAMILIES


@pytest.mark.parametrize("prefix", list(FAMILIES))
def test_ids_are_found_as_they_are_written(prefix: str) -> None:
    family = FAMILIES[prefix]
    games = list(family.games)
    ids = [family.written.format(game) for game in games]
    assert games and all(one.lower().startswith(prefix) for one in ids) and prefix == prefix.lower()
    assert all(family.find(one) for one in ids)
    if prefix not in ("dmlab/", "envpool:"):  # theirs may have two names, and need not be known here
        assert len({family.find(one) for one in ids}) == len(games)
        assert family.find(f"{prefix}nothing-that-there-is-v0") is None
