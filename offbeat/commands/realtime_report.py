"""``offbeat realtime report``: a realtime run's latencies and time line; what delay and inaction cost any run."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

from offbeat.commands.arguments import Parser, add_env, own_of
from offbeat.errors import UserError
from offbeat.run.folders import find_run

RUN = "run folder, or a folder of runs (the newest is taken)"
STOPPED = 130
"""Exit code of what Ctrl-C ended, as shells have it."""
PLAYED = {"reference": None, "episodes": 100, "policy": None, "seed": 0, "env": None}
"""Options that mean something with --regret only -> their defaults."""


def report(arguments: list[str]) -> int:
    """Print and write what a realtime run measured, or what its delay cost."""
    options = _parser().parse_args(arguments)
    run = find_run(options.run)
    if options.regret:
        if options.from_s is not None or options.seconds is not None:
            raise UserError("--from and --seconds choose a part of the time line, which --regret does not draw")
        return _regret(run, options)
    for name, default in PLAYED.items():
        if getattr(options, name) != default:
            raise UserError(f"--{name} goes with --regret only, as nothing is played without it")
    from offbeat.report.realtime import report_run

    reported = report_run(run, options.from_s, options.seconds, options.out)
    print(reported.text, end="\n\n")
    for path in (reported.json, *reported.pictures):
        print(path)
    return 0


def _parser() -> Parser:
    summary = (
        "Print and write what a realtime run measured, and draw its time line. With --regret: what learning, delay and "
        "inaction cost, by evaluations, of any run with a delay."
    )
    parser = Parser("realtime report", summary)
    parser.add_argument("run", help=RUN)
    parser.add_argument("--out", type=Path, help="folder to write to; default: RUN/report")
    parser.add_argument("--from", dest="from_s", type=float, help="where the time line begins, in seconds")
    parser.add_argument("--seconds", type=float, help="how long it is; default: 40 frames from the middle of the run")
    parser.add_argument("--regret", action="store_true", help="play episodes, and split what was lost into three parts")
    parser.add_argument("--reference", help="a run whose weights, undelayed, show what could have been learnt")
    parser.add_argument("--episodes", type=int, default=PLAYED["episodes"], help="of each evaluation; default: 100")
    parser.add_argument(
        "--policy", choices=("greedy", "sampled"), help="of both runs; default: as the run's evaluation"
    )
    parser.add_argument(
        "--seed", type=int, default=PLAYED["seed"], help="of environments and drawn actions; default: 0"
    )
    add_env(parser)
    return parser


def _regret(run: Path, options: argparse.Namespace) -> int:
    """Play the evaluations; 130 where Ctrl-C ended them."""
    if options.episodes < 1:
        raise UserError(f"--episodes={options.episodes} is out of range; it must be at least 1")
    from offbeat.commands.watched import watched
    from offbeat.report.regret import text, write_regret
    from offbeat.scoring.regret import regret_of

    reference = None if options.reference is None else find_run(options.reference)
    played: dict[str, Any] = {"episodes": options.episodes, "policy": options.policy, "seed": options.seed}
    played |= {"out": options.out, "say": functools.cache(_note), **own_of(options)}
    with watched(options.episodes * (3 if reference is None else 4)) as watch:
        regret = regret_of(run, reference, stop=watch.stop, on_progress=watch.see, **played)
    if regret is None:
        _note("stopped: a part of the evaluations says nothing about the differences")
        return STOPPED
    path = write_regret(regret, options.out or run / "report")
    print(text(regret), end=f"\n\n{path}\n")
    return 0


def _note(line: str) -> None:
    """Something to know about what was asked for."""
    print(f"offbeat: {line}", file=sys.stderr)
