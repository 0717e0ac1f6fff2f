"""Finding run folders."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from time import time

from offbeat.config.presets import read_toml
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


def find_weights(path: str | Path) -> Path:
    """What weights are read from: the folder of a checkpoint at ``path``, or a run as of ``find_run``."""
    folder = Path(path).expanduser()
    return folder if (folder / "manifest.json").is_file() else find_run(folder)


def list_runs(folder: Path) -> list[Path]:
    """The run folders in ``folder``, oldest first."""
    found = [config for config in folder.glob(f"*/{CONFIG}") if config.is_file()] if folder.is_dir() else []
    return [config.parent for config in sorted(found, key=lambda config: config.stat().st_mtime)]


def runs_among(paths: Iterable[str | Path], *, newest: bool, say: Callable[[str], object]) -> list[Path]:
    """The runs at ``paths``, each once: run folders, and those in folders of runs, all or only the newest of each.

    What is no run, such as the other files that ``results/*`` names, is passed over, and ``say`` is told so in one
    line. Raises ``UserError`` for a path that does not exist, and where there is no run at all.
    """
    given = [Path(path).expanduser() for path in paths]
    found: dict[Path, Path] = {}
    passed_over = []
    for path in given:
        if not os.path.lexists(path):
            find_run(path)
        inside = [path] if (path / CONFIG).is_file() else list_runs(path)
        broken = {run: why for run in inside if (why := _wrong(run))}
        passed_over += [f"{run} ({why})" for run, why in broken.items()]
        runs = [run for run in inside if run not in broken]
        if not inside:
            passed_over.append(str(path))
        elif newest and len(runs) > 1:
            say(f"{path} holds {len(runs)} runs, of which the newest is taken, {runs[-1].name}; {path}/* names all")
            runs = runs[-1:]
        found |= {run.resolve(): run for run in runs}
    if not found:
        if len(given) == 1:
            find_run(given[0])
        raise UserError(
            f"none of these is a run folder or a folder of runs: {', '.join(passed_over)}; name one, such as 'results'"
        )
    if passed_over:
        say(f"passed over, as they are no runs: {', '.join(passed_over)}")
    return list(found.values())


def _wrong(run: Path) -> str:
    """Why a folder with a config.toml is no run; empty if it is one."""
    try:
        config = read_toml(run / CONFIG)
    except UserError as error:
        return str(error)
    parts = {"[agent] name": ("agent", "name"), "[env] id": ("env", "id")}
    missing = [text for text, (section, key) in parts.items() if not _holds(config.get(section), key)]
    missing += ["seed"] if "seed" not in config else []
    return f"its {CONFIG} has no {missing[0]}" if missing else ""


def _holds(table: object, key: str) -> bool:
    return isinstance(table, dict) and key in table


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
