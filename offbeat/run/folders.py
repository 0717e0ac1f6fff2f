"""Finding run folders."""

from __future__ import annotations

from pathlib import Path
from time import time

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


def default_folder(env_id: str) -> Path:
    """``results/<environment>_<unix time>``, with a number behind it if that is taken."""
    name = "".join(letter if letter.isalnum() or letter in "-." else "_" for letter in env_id)[:100]
    return _free(Path("results") / f"{name}_{int(time())}")


def claim(folder: Path) -> Path:
    """Make a run's folder, which nobody else may have; where another run was quicker, one with a number behind it.

    A folder that is there and empty is taken as it is. UserError where none can be made.
    """
    while True:
        try:
            if folder.is_dir() and not any(folder.iterdir()):
                return folder
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            folder = _free(folder)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"run folder {str(folder)!r} cannot be made: {reason}") from error


def _free(folder: Path) -> Path:
    number, free = 2, folder
    while free.exists():
        free = folder.with_name(f"{folder.name}_{number}")
        number += 1
    return free
