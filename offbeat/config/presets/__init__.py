"""The presets that come with offbeat: one TOML file each, holding what differs from the defaults and why."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from offbeat.errors import UserError, nearest

FOLDER = Path(__file__).parent


def list_presets() -> dict[str, str]:
    """Name -> one line that says what it is (the file's first comment line)."""
    return {path.stem: describe(path) for path in sorted(FOLDER.glob("*.toml"))}


def describe(path: Path) -> str:
    """The first comment line of a preset file; empty if it starts otherwise."""
    first = path.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ") if first.startswith("#") else ""


def find_preset(name_or_path: str) -> Path:
    """The file of a preset given by name, or by path where it ends in ``.toml``. Raises ``UserError``."""
    if name_or_path.endswith(".toml"):
        path = Path(name_or_path).expanduser()
        if not path.is_file():
            raise UserError(
                f"preset file {name_or_path!r} does not exist; 'offbeat presets' lists those that come along"
            )
        return path
    known = [path.stem for path in sorted(FOLDER.glob("*.toml"))]
    if name_or_path not in known:
        hint = nearest(name_or_path, known)
        raise UserError(
            f"unknown preset {name_or_path!r}{hint or ';'} 'offbeat presets' lists them, or give a .toml file"
        )
    return FOLDER / f"{name_or_path}.toml"


def read_toml(path: Path) -> dict[str, Any]:
    """The data of a TOML file. Raises ``UserError`` where it cannot be read."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"cannot read {path}: {error}") from None
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{path} is not TOML: {error}") from None
