"""``offbeat bench`` and ``offbeat verify``: commands that measure or prove something on this machine."""

from __future__ import annotations

from offbeat.commands.arguments import one_preset, scan
from offbeat.errors import UserError, nearest

BENCH = """usage: offbeat bench throughput [PRESET] [--seconds N] [--option value ...]
       offbeat bench streams

throughput: frames/s of a preset (impala-atari) end to end, beside its parts alone and the limit that they set.
streams:    rows/s and bytes/s of appending and of assembling batches, beside a plain copy of memory."""

VERIFY = """usage: offbeat verify resume PRESET [--kills N] [--option value ...]

Train in deterministic mode, kill the run at random moments, resume it each time, and compare its end bit for bit with
that of a run never killed."""


def bench(arguments: list[str]) -> int:
    """Measure throughput or the streams."""
    what, rest = _choose("bench", arguments, ("throughput", "streams"), BENCH)
    if what == "throughput":
        from offbeat.bench.throughput import main

        return main(rest) or 0
    if what == "streams":
        from offbeat.bench.streams import bench_streams

        bench_streams()
    return 0


def verify(arguments: list[str]) -> int:
    """Prove that a resumed run equals one never killed."""
    what, rest = _choose("verify", arguments, ("resume",), VERIFY)
    if what is None:
        return 0
    scanned = scan(rest, own=("kills",))
    config = scanned.config(one_preset(scanned, "verify resume"))
    kills = _count(scanned.own.get("kills", "10"))
    from offbeat.verify import verify_resume

    return 0 if verify_resume(config, kills=kills) else 1


def _choose(command: str, arguments: list[str], known: tuple[str, ...], text: str) -> tuple[str | None, list[str]]:
    """The first argument, one of ``known``, and the rest; None where help was asked for."""
    if "--help" in arguments or "-h" in arguments:
        print(text)
        return None, []
    if not arguments or arguments[0] not in known:
        got = repr(arguments[0]) + nearest(arguments[0], known) if arguments else "nothing"
        raise UserError(f"'offbeat {command}' needs one of: {', '.join(known)}; got {got}")
    return arguments[0], arguments[1:]


def _count(text: str) -> int:
    """A whole number above zero."""
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"--kills={text!r} is not a whole number of at least 1")
    return int(text)
