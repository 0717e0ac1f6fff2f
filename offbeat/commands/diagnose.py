"""``offbeat diagnose``: does what a recurrent core is said to learn, and are its gradients what they should be."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from offbeat.commands.arguments import env_factory, number, one_preset, result_file, scan
from offbeat.errors import UserError, nearest

USAGE = """usage: offbeat diagnose copy [--core NAME] [--length L] [--size N] [--layers N] [--unroll M]
                             [--update sequence|token] [--learning-rate R] [--batch B] [--minutes N]
                             [--accuracy P] [--seed S] [--json FILE]
       offbeat diagnose rtrl [PRESET] [--option value ...]

copy: train a core to copy up to L bits, and print how many fresh sequences it copies without a mistake. Cores:
      elstm-rtrl, elstm-tbptt, rtu, rtu-tbptt, lstm; those that truncate do so after every M tokens (1).
      Exit code 1 where it does not come to the accuracy (0.99) within the minutes (2).
rtrl: the largest difference between RTRL and full backpropagation for the core of a preset (r2ac-memory-chain) with its
      options, in float64, and beside it that of truncated backpropagation. Exit code 1 where it is not exact."""
KINDS = ("copy", "rtrl")


def diagnose(arguments: list[str]) -> int:
    """Run one of them; 1 where it does not pass."""
    if "--help" in arguments or "-h" in arguments:
        print(USAGE)
        return 0
    if not arguments or arguments[0] not in KINDS:
        got = repr(arguments[0]) + nearest(arguments[0], KINDS) if arguments else "nothing"
        raise UserError(f"'offbeat diagnose' needs one of: {', '.join(KINDS)}; got {got}")
    return _copy(arguments[1:]) if arguments[0] == "copy" else _rtrl(arguments[1:])


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
