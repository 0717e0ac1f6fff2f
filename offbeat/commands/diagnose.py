"""``offbeat diagnose``: why a run does not learn; does a recurrent core learn what it should, by exact gradients."""

from __future__ import annotations

import json
import re
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

from offbeat.commands.arguments import Parser, add_env, env_factory, number, one_preset, own_of, result_file, scan
from offbeat.errors import UserError, nearest

USAGE = """usage: offbeat diagnose RUN [--batches N] [--device D] [--env MODULE:NAME] [--json FILE]
       offbeat diagnose copy [--core NAME] [--length L] [--size N] [--layers N] [--unroll M]
                             [--update sequence|token] [--learning-rate R] [--batch B] [--minutes N]
                             [--accuracy P] [--seed S] [--json FILE]
       offbeat diagnose rtrl [PRESET] [--option value ...]

RUN: why a run does not learn: a line for each thing that is not as in runs that learn, with the number seen, what is
      usual, and the options to try. Goes by what the run has recorded, and by N batches (4) of 256 rows that it plays
      with its newest weights; the run folder stays as it is. Exit code 1 where something was found, 0 where nothing
      was. A run that is called copy or rtrl is ./copy or ./rtrl.
copy: train a core to copy up to L bits, and print how many fresh sequences it copies without a mistake. Cores:
      elstm-rtrl, elstm-tbptt, rtu, rtu-tbptt, lstm; those that truncate do so after every M tokens (1).
      Exit code 1 where it does not come to the accuracy (0.99) within the minutes (2).
rtrl: the largest difference between RTRL and full backpropagation for the core of a preset (r2ac-memory-chain) with its
      options, in float64, and beside it that of truncated backpropagation. Exit code 1 where it is not exact."""
KINDS = ("copy", "rtrl")
DEVICE = re.compile(r"cpu|auto|cuda(:\d+)?")


def diagnose(arguments: list[str]) -> int:
    """Run one of them; 1 where it does not pass, or something was found."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    if not arguments:
        raise UserError(f"'offbeat diagnose' needs a run folder, or one of: {', '.join(KINDS)}; got nothing")
    if arguments[0] not in KINDS:
        return _run(arguments)
    return _copy(arguments[1:]) if arguments[0] == "copy" else _rtrl(arguments[1:])


def _run(arguments: list[str]) -> int:
    from offbeat.run.folders import find_run
    from offbeat.run.written import draft_of, written

    parser = Parser("diagnose", "Say why a run does not learn.")
    parser.add_argument("run")
    parser.add_argument("--batches", type=int, default=4)
    parser.add_argument("--device")
    parser.add_argument("--json", type=Path)
    add_env(parser)
    options = parser.parse_args(arguments)
    if options.batches < 1:
        raise UserError(f"--batches={options.batches} is out of range; it must be at least 1")
    device: str | None = options.device
    if device is not None and not DEVICE.fullmatch(device):
        raise UserError(f"--device={device!r} is not allowed; choose one of: cpu, cuda, cuda:N, auto")
    try:
        run = find_run(options.run)
    except UserError as error:
        raise UserError(f"{error}{nearest(options.run, KINDS)}") from None
    if options.json:
        draft_of(options.json).unlink()  # says before anything is played where it cannot be written
    from offbeat.config.auto import choose_device
    from offbeat.scoring.diagnose.table import diagnose_run

    where = None if device is None else choose_device(device)
    found = diagnose_run(run, options.batches, device=where, say=_note, **own_of(options))
    if options.json:
        with written(options.json) as draft:
            draft.write_text(json.dumps(found.plain(), indent=2, allow_nan=False) + "\n")
    print("\n".join(found.lines()))
    return 1 if found.findings else 0


def _note(text: str) -> None:
    print(text, file=sys.stderr)


def _copy(arguments: list[str]) -> int:
    from offbeat.bench.copy_task import CopyConfig, diagnose_copy

    kinds: dict[str, Any] = {field.name: type(field.default) for field in fields(CopyConfig)}
    scanned = scan(arguments, own=(*kinds, "json"))
    for other in (*scanned.positional, *(f"--{name}" for name, _ in scanned.options)):
        raise UserError(f"'offbeat diagnose copy' takes only its own options, got {other!r}; --help shows them")
    given: dict[str, Any] = {}
    for name, text in scanned.own.items():
        if name == "json":
            continue
        kind = kinds[name]
        if name == "seed" and text.isdecimal():
            given[name] = int(text)
        else:
            given[name] = text if kind is str else kind(number(scanned, name, 0.0))
    config = CopyConfig(**given)
    look = diagnose_copy(config, result_file(scanned))
    return 0 if look.copied >= config.accuracy else 1


def _rtrl(arguments: list[str]) -> int:
    from offbeat.bench.rtrl_check import diagnose_rtrl

    scanned = scan(arguments)
    own = env_factory(scanned.value("env"))
    if own is not None:
        scanned.options = [(name, text) for name, text in scanned.options if name != "env"]
    preset = one_preset(scanned, "diagnose rtrl") if scanned.positional else "r2ac-memory-chain"
    return 0 if diagnose_rtrl(scanned.config(preset), own) else 1
