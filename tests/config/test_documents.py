"""The documents that are made from the source are up to date, and written whole."""

from __future__ import annotations

from pathlib import Path

import pytest

from offbeat.config import documents
from offbeat.config.presets import list_presets

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("name", documents.DOCUMENTS)
def test_the_page_is_up_to_date(name: str) -> None:
    assert (DOCS / name).read_text(encoding="utf-8") == documents.DOCUMENTS[name](), "run 'make docs'"


def test_every_preset_is_in_the_list() -> None:
    listed = documents.presets()
    assert [name for name in list_presets() if f"| `{name}` |" not in listed] == []


def test_a_page_that_cannot_be_made_leaves_all_as_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    documents.write(tmp_path)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert sorted(before) == sorted(documents.DOCUMENTS)

    def broken() -> str:
        raise ValueError("no")

    monkeypatch.setitem(documents.DOCUMENTS, "preset_list.md", broken)
    monkeypatch.setitem(documents.DOCUMENTS, "options.md", lambda: "new")
    with pytest.raises(ValueError, match="no"):
        documents.write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before
