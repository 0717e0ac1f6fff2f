"""``offbeat realtime report``: a realtime run's latencies and time line; what delay and inaction cost any run."""

from __future__ import annotations

import sys

from offbeat.commands.arguments import Parser
from offbeat.run.folders import find_run


def report(arguments: list[str]) -> int:
    """Print and write what a realtime run measured."""
    parser = Parser("realtime report", "Print and write what a realtime run measured, and draw its time line.")
    parser.add_argument("run", help="run folder, or a folder of runs (the newest is taken)")
    parser.add_argument("--from", dest="from_s", type=float, help="where the time line begins, in seconds")
    parser.add_argument("--seconds", type=float, help="how long it is; default: 40 frames from the middle of the run")
    options = parser.parse_args(arguments)
    from offbeat.report.realtime import report_run

    reported = report_run(find_run(options.run), options.from_s, options.seconds)
    print(reported.text)
    print()
    for path in (reported.json, *reported.pictures):
        print(path)
    return 0


def _note(line: str) -> None:
    """Something to know about what was asked for."""
    print(f"offbeat: {line}", file=sys.stderr)
