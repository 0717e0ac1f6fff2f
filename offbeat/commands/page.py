"""The command ``report``: one HTML file that shows runs."""

from __future__ import annotations

import sys
from pathlib import Path

from offbeat.commands.arguments import Parser
from offbeat.commands.scores import RUN


def report(arguments: list[str]) -> int:
    """Write the page, or keep it up to date while a run goes on."""
    parser = Parser("report", "Write one HTML file that shows runs; it holds everything and needs no network.")
    parser.add_argument("runs", nargs="+", help=RUN)
    parser.add_argument("--out", type=Path, help="file to write; default: report/report.html in the first run")
    parser.add_argument(
        "--watch", action="store_true", help="renew the file, and the page in a browser, until no run goes on"
    )
    options = parser.parse_args(arguments)
    from offbeat.report.page import runs_to_show, watch_page, write_page

    runs = runs_to_show(options.runs, _note)
    print(watch_page(runs, options.out, say=_note) if options.watch else write_page(runs, options.out))
    return 0


def _note(line: str) -> None:
    """Something to know about what was asked for."""
    print(f"offbeat: {line}", file=sys.stderr)
