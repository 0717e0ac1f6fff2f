"""Where a game's cartridge, its saved states and the addresses of its numbers are found, and whether they are its own.

A folder as it was published works as it is: the cartridge, ``rom.sha``, ``data.json`` and ``*.state``. Its
``scenario.json`` and ``script.lua`` are not read: ``rules.py`` says the same.
"""

from __future__ import annotations

import fnmatch
import gzip
import hashlib
import json
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from offbeat.envs.base import EnvConfig, EnvUnavailable
from offbeat.envs.gameboy.emulators import SUFFIXES
from offbeat.envs.gameboy.games import ENCOUNTER, GAMES, SHA1, WANTED, Game
from offbeat.envs.gameboy.values import KINDS, Value

ROMS = Path(__file__).with_name("roms")
"""Our cartridges and their sources."""
ENDINGS = (".gb", ".gbc")
MARK = b"offbeat: a state of PyBoy for the cartridge "
"""How a file of PyBoy's states begins that was made here; the cartridge's SHA-256 and a new line follow."""


@dataclass(frozen=True)
class Start:
    """Where episodes begin."""

    name: str
    file: Path | None = None
    """A saved state; None: the cartridge as it is switched on."""
    pokes: tuple[tuple[int, int], ...] = ()
    """(address, byte) of what is put into memory then."""


@dataclass(frozen=True)
class Cartridge:
    """All that a game is played with."""

    game: Game
    rom: Path
    sha256: str
    starts: tuple[Start, ...]
    """In the order of the story."""
    values: dict[str, Value]
    """Name -> where its numbers are."""


def find_cartridge(config: EnvConfig, name: str, backend: str, with_states: bool = True) -> Cartridge:
    """The cartridge of game ``name`` and its starts, after a look at checksums.

    ``with_states``: at least one start is needed. ``EnvUnavailable`` in one line, which says what is missing or wrong,
    what was expected, and where it belongs.
    """
    game = GAMES[name]
    if game.own:
        if config.rom:
            raise EnvUnavailable(f"{config.id} has a cartridge of its own; leave env.rom={config.rom!r} out")
        rom = ROMS / f"{game.own}.gb"
        return Cartridge(game, rom, _sha256(rom), _own_starts(config, game), game.values)
    folders = _folders(config, name)
    rom, found = _rom(config, game, folders)
    starts = _starts(config, game, folders, backend) if with_states else ()
    return Cartridge(game, rom, found, starts, _values(game, [rom.parent, *folders]))


def read_state(start: Start, backend: str, sha256: str) -> bytes:
    """The state in a start's file, for the emulator. ``EnvUnavailable`` where it is of another kind or cartridge."""
    assert start.file is not None
    data = start.file.read_bytes()
    if backend == "retro":
        try:
            return gzip.decompress(data)
        except (OSError, EOFError, zlib.error) as error:
            raise EnvUnavailable(
                f"{start.file} is no state of stable-retro, which is packed by gzip: {error}"
            ) from error
    if data[:2] == b"\x1f\x8b":
        raise EnvUnavailable(f"{start.file} is a state of stable-retro; PyBoy cannot read it: env.backend = 'retro'")
    if data.startswith(MARK):
        found, _, data = data[len(MARK) :].partition(b"\n")
        if found.decode() != sha256:
            raise EnvUnavailable(
                f"{start.file} was made with the cartridge of SHA-256 {found.decode()}, expected {sha256}; make it "
                "again with offbeat gameboy state"
            )
    return data


def write_state(file: Path, state: bytes, backend: str, sha256: str) -> None:
    """Write a state such that ``read_state`` and, of stable-retro's, others can read it."""
    made = gzip.compress(state, mtime=0) if backend == "retro" else MARK + sha256.encode() + b"\n" + state
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(made)


def _folders(config: EnvConfig, name: str) -> list[Path]:
    """The folder given, and those of the game within it, as far as they are there."""
    given = Path(config.folder).expanduser()
    within = [given, given / GAMES[name].folder, given / name]
    return [folder for folder in within if folder.is_dir()]


def _rom(config: EnvConfig, game: Game, folders: list[Path]) -> tuple[Path, str]:
    """(file, SHA-256) of the cartridge."""
    expected = " or ".join(game.sha256)
    if config.rom:
        file = Path(config.rom).expanduser()
        if not file.is_file():
            raise EnvUnavailable(
                f"{config.id}: env.rom={config.rom!r} is no file; give the cartridge with SHA-256 {expected}"
            )
        found = _sha256(file)
        if found not in game.sha256:
            raise EnvUnavailable(
                f"{config.id}: {file} has the SHA-256 {found}, expected {expected}; give another env.rom"
            )
        return file, found
    for folder in folders:
        _check_sha(config, game, folder / "rom.sha")
    files = [file for folder in folders for file in sorted(folder.iterdir()) if file.suffix.lower() in ENDINGS]
    hashes = {file: _sha256(file) for file in files}
    for file, found in hashes.items():
        if found in game.sha256:
            return file, found
    put = f"put your cartridge, a .gb or .gbc file with SHA-256 {expected}, into {config.folder}"
    put = f"{put} or give its file as env.rom"
    if not folders:
        raise EnvUnavailable(f"{config.id}: there is no folder {config.folder}; make it and {put}, or set env.folder")
    if files:
        said = ", ".join(f"{file} has the SHA-256 {found}" for file, found in hashes.items())
        raise EnvUnavailable(f"{config.id}: {said}, expected {expected}; {put}")
    raise EnvUnavailable(f"{config.id}: there is no cartridge in {_named(folders)}; {put}")


def _check_sha(config: EnvConfig, game: Game, file: Path) -> None:
    """Refuse a folder whose ``rom.sha`` names the cartridge of another game."""
    if not file.is_file():
        return
    listed = [word.lower() for word in file.read_text(encoding="utf-8", errors="replace").split()]
    hashes = [word for word in listed if re.fullmatch(r"[0-9a-f]{40}|[0-9a-f]{64}", word)]
    if not any(SHA1.get(one, one) in game.sha256 for one in hashes):
        raise EnvUnavailable(
            f"{config.id}: {file} lists {', '.join(hashes) or 'no checksum'}, expected {' or '.join(game.sha256)}; it "
            "is the folder of another game: give this game's as env.folder"
        )


def _starts(config: EnvConfig, game: Game, folders: list[Path], backend: str) -> tuple[Start, ...]:
    """The saved states of one emulator, by the numbers in their names."""
    wanted = config.states or (game.states,)
    files: dict[str, Path] = {}
    for folder in folders:
        for file in folder.iterdir():
            if file.suffix in SUFFIXES.values():
                files.setdefault(file.name, file)
    ours = {file.stem: file for file in files.values() if file.suffix == SUFFIXES[backend]}
    chosen = _chosen(wanted, ours)
    if chosen:
        return tuple(Start(name, ours[name]) for name in chosen)
    others = [file.stem for file in files.values() if file.suffix != SUFFIXES[backend]]
    hint = f"make some with: offbeat gameboy state {config.id} NAME"
    if _chosen(wanted, others):
        other = next(name for name in SUFFIXES if name != backend)
        hint = f"those of the other emulator are there: env.backend = {other!r}; or {hint}"
    raise EnvUnavailable(
        f"{config.id}: there is no saved state {' or '.join(wanted)} ({SUFFIXES[backend]}) in "
        f"{_named(folders) or config.folder}; {hint}"
    )


def _own_starts(config: EnvConfig, game: Game) -> tuple[Start, ...]:
    """The encounters of a cartridge of ours, named by their numbers from 1."""
    mode = {"battles": 2, "catching": 1}.get(game.rule, 0)
    starts = {
        str(number + 1): Start(str(number + 1), None, ((WANTED, mode), (ENCOUNTER, number)))
        for number in range(game.encounters)
    }
    names = _chosen(config.states or ("*",), starts)
    if not names:
        raise EnvUnavailable(
            f"{config.id}: no start is called {' or '.join(config.states)}; allowed are {', '.join(starts)}"
        )
    return tuple(starts[name] for name in names)


def _chosen(wanted: Iterable[str], names: Iterable[str]) -> list[str]:
    """Names that fit to any of the patterns, in the order of the numbers in them."""
    fitting = {name for name in names if any(fnmatch.fnmatchcase(name, pattern) for pattern in wanted)}
    return sorted(
        fitting, key=lambda name: [(int(part) if part.isdigit() else 0, part) for part in re.split(r"(\d+)", name)]
    )


def _values(game: Game, folders: list[Path]) -> dict[str, Value]:
    """Where the numbers are: as ``data.json`` says, where there is one; but a score keeps all of its digits."""
    file = next((folder / "data.json" for folder in folders if (folder / "data.json").is_file()), None)
    if file is None:
        return game.values
    found = {}
    try:
        info = json.loads(file.read_text(encoding="utf-8"))["info"]
        for name, known in game.values.items():
            value = Value(int(info[name]["address"]), str(info[name]["type"])) if name in info else known
            if not KINDS.fullmatch(value.type) or not 0 <= value.address <= 0xFFFF:
                raise ValueError(f"{name} has the address {value.address} and the type {value.type!r}")
            found[name] = value._replace(type=known.type) if name == "score" else value
    except (ValueError, KeyError, TypeError) as error:
        raise EnvUnavailable(f"{file} is no data.json of stable-retro: {error!r}") from error
    return found


def _sha256(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _named(folders: list[Path]) -> str:
    return " and ".join(map(str, folders))
