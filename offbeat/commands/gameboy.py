"""``offbeat gameboy``: saved states of your cartridges, and the free cartridges of ours."""

from __future__ import annotations

import shutil
from pathlib import Path

from offbeat.commands.arguments import Parser
from offbeat.envs.base import EnvConfig
from offbeat.errors import UserError, nearest, unknown

BACKENDS = ("auto", "pyboy", "retro")
HELP = """usage: offbeat gameboy state GAME NAME --keys 'wait:120 START A+B:30' | --window
       offbeat gameboy play GAME
       offbeat gameboy rom CARTRIDGE FILE

state: play your cartridge, by a list of buttons or by hand, and save where that has got to, as a start of episodes.
play:  play a game by hand in a window of PyBoy's.
rom:   write a free cartridge of ours (blocks, battle) to a file, for any emulator.

'offbeat gameboy COMMAND --help' shows more."""


def gameboy(arguments: list[str]) -> int:
    """``state`` makes a start by playing, ``play`` opens a window, ``rom`` hands a cartridge of ours out."""
    commands = {"state": _state, "play": _play, "rom": _rom}
    if arguments[:1] in (["--help"], ["-h"]):
        print(HELP)
        return 0
    if not arguments or arguments[0] not in commands:
        got = repr(arguments[0]) + nearest(arguments[0], commands) if arguments else "nothing"
        raise UserError(f"'offbeat gameboy' needs one of: {', '.join(commands)}; got {got}")
    return commands[arguments[0]](arguments[1:])


def _state(arguments: list[str]) -> int:
    from offbeat.envs.gameboy.states import WINDOW_KEYS, make_state

    parser = _parser("state", "Play your cartridge and save where that has got to, as a start of episodes.")
    parser.add_argument("name", help="what the state is to be called, such as Bulb_B1")
    parser.add_argument("--keys", default="", help="what is pressed, each for 4 frames: 'wait:120 START A+B:30'")
    parser.add_argument("--from", dest="after", default="", help="a saved state to begin from; default: switched on")
    parser.add_argument("--window", action="store_true", help=f"play on by hand ({WINDOW_KEYS})")
    parser.add_argument("--picture", default="", help="write a PNG of the screen at the end to this file")
    parser.add_argument(
        "--backend", default="auto", choices=BACKENDS, help="pyboy (auto) or retro: states are for one of them"
    )
    options = parser.parse_args(arguments)
    if not options.keys and not options.window:
        raise UserError("say what to play: --keys 'wait:120 START A', or --window to play by hand")
    config, name = _config(options.game, options.rom, options.folder, options.backend)
    print(make_state(config, name, options.name, options.keys, options.after, options.window, options.picture))
    return 0


def _play(arguments: list[str]) -> int:
    from offbeat.envs.gameboy.states import play

    options = _parser("play", "Play a game by hand in a window of PyBoy's.").parse_args(arguments)
    play(*_config(options.game, options.rom, options.folder, "auto"))
    return 0


def _rom(arguments: list[str]) -> int:
    from offbeat.envs.gameboy.cartridges import TITLES
    from offbeat.envs.gameboy.folders import ROMS

    parser = Parser("gameboy rom", "Write a free cartridge of ours to a file, for any emulator.")
    parser.add_argument("cartridge", help=", ".join(TITLES))
    parser.add_argument("file", help="where to, such as blocks.gb")
    options = parser.parse_args(arguments)
    if options.cartridge not in TITLES:
        raise unknown("cartridge", options.cartridge, TITLES)
    try:
        shutil.copyfile(ROMS / f"{options.cartridge}.gb", options.file)
    except OSError as error:
        raise UserError(f"{options.file} cannot be written: {error.strerror}") from error
    print(Path(options.file))
    return 0


def _parser(command: str, summary: str) -> Parser:
    parser = Parser(f"gameboy {command}", summary)
    parser.add_argument("game", help="such as pokemon-red-battles or gameboy/tetris; 'offbeat envs gameboy' lists them")
    parser.add_argument("--rom", default="", help="file of your cartridge; default: the one in the folder")
    parser.add_argument("--folder", default=EnvConfig.folder, help=f"where it is, default {EnvConfig.folder}")
    return parser


def _config(game: str, rom: str, folder: str, backend: str) -> tuple[EnvConfig, str]:
    """(configuration, name of the game). UserError for an unknown one."""
    from offbeat.envs.gameboy.games import GAMES, find_game

    env_id = game if "/" in game else f"gameboy/{game}"
    name = find_game(env_id) if env_id.lower().startswith("gameboy/") else None
    if name is None:
        raise UserError(f"no Game Boy task is called {game!r}{nearest(game, GAMES)}; allowed are {', '.join(GAMES)}")
    return EnvConfig(id=f"gameboy/{name}", rom=rom, folder=folder, backend=backend), name  # type: ignore[arg-type]
