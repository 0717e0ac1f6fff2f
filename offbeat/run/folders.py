"""Finding run folders."""

from __future__ import annotations

from pathlib import Path

from offbeat.errors import UserError

CONFIG = "config.toml"
"""The file that makes a folder a run."""


def find_run(path: str | Path) -> Path:
    """The run folder at ``path``, or the newest one in the folder of runs at ``path``. Raises ``UserError``."""
    folder = Path(path).expanduser()
    if (folder / CONFIG).is_file():
        return folder
    runs = list_runs(folder)
    if not runs:
        found = "it holds no config.toml" if folder.exists() else "it does not exist"
        raise UserError(f"{str(path)!r} is no run folder: {found}; name one, or a folder of runs such as 'results'")
    return runs[-1]


def list_runs(folder: Path) -> list[Path]:
    """The run folders in ``folder``, oldest first."""
    found = [config for config in folder.glob(f"*/{CONFIG}") if config.is_file()] if folder.is_dir() else []
    return [config.parent for config in sorted(found, key=lambda config: config.stat().st_mtime)]
