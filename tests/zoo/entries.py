"""The whole zoo."""

from __future__ import annotations

from tests.zoo import actions, endings, manners, masks, moving, observations, rewards, vectors
from tests.zoo.entry import Entry

ZOO: list[Entry] = [
    entry
    for module in (observations, actions, endings, rewards, masks, moving, manners, vectors)
    for entry in module.ENTRIES
]
