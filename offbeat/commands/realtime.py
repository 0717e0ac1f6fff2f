"""``offbeat realtime``: what a run whose environment does not wait needs of this machine, and what came of it."""

from __future__ import annotations

import importlib

from offbeat.errors import UserError, nearest

COMMANDS = {
    "probe": "realtime_probe:probe",
    "scaling": "realtime_scaling:scaling",
    "report": "realtime_report:report",
}
"""Subcommand -> module:function in ``offbeat.commands``."""
HELP = """usage: offbeat realtime probe PRESET [--fps F] [--option value ...]
       offbeat realtime scaling --recording FILE [--option value ...]
       offbeat realtime report RUN [--regret] [--option value ...]

probe:   how many inference and learning processes a preset needs on this machine at a frame rate, what cannot be met,
         the delay that results, and the commands that train with it.
scaling: how many inference processes suffice for how long an inference takes, found by search on a virtual clock.
report:  latencies, spacing and staleness of a realtime run, and its time line; with --regret what delay and inaction
         cost it, by evaluations, of runs with a simulated delay too.

'offbeat realtime COMMAND --help' shows more."""


def realtime(arguments: list[str]) -> int:
    """Find the subcommand and call it."""
    if arguments[:1] in (["--help"], ["-h"]):
        print(HELP)
        return 0
    if not arguments or arguments[0] not in COMMANDS:
        got = repr(arguments[0]) + nearest(arguments[0], COMMANDS) if arguments else "nothing"
        raise UserError(f"'offbeat realtime' needs one of: {', '.join(COMMANDS)}; got {got}")
    module, _, function = COMMANDS[arguments[0]].partition(":")
    return int(getattr(importlib.import_module(f"offbeat.commands.{module}"), function)(arguments[1:]))
