"""The documents that are made from the source: ``python -m offbeat.config.documents docs`` writes them anew."""

from __future__ import annotations

import sys
from pathlib import Path

from offbeat.config import options
from offbeat.config.presets import list_presets
from offbeat.config.run_config import load_preset


def presets() -> str:
    """The text of docs/preset_list.md: what each preset's own file says of it."""
    lines = [
        "# All presets", "",
        "Made from the preset files by `make docs`; edit the first line of the preset instead of this file. "
        "[presets.md](presets.md) says", "more of most of them.", "",
        "| preset | agent | environment | length | what it is |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for name, text in list_presets().items():
        config = load_preset(name)
        cells = (f"`{name}`", config.agent_name, f"`{config.env.id}`", f"{config.total_frames:,} frames", text)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


DOCUMENTS = {"options.md": options.markdown, "preset_list.md": presets}
"""File -> what makes its text."""


def write(folder: Path) -> None:
    """Write every document into ``folder``, each whole or not at all."""
    for name, text in {name: make() for name, make in DOCUMENTS.items()}.items():
        draft = folder / f".{name}"
        draft.write_text(text, encoding="utf-8")
        draft.replace(folder / name)


if __name__ == "__main__":
    write(Path(sys.argv[1] if len(sys.argv) > 1 else "docs"))
