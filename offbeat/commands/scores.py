"""Commands that look at finished or running runs: ``eval``, ``play RUN``, ``record``, ``plot``, ``compare``,
``trace``, ``export``.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from offbeat.commands.arguments import Parser, add_env, own_of, split_options
from offbeat.errors import UserError
from offbeat.run.folders import find_run, runs_among
from offbeat.run.written import draft_of, written
from offbeat.storage.traces import FOLDER as TRACES
from offbeat.storage.traces import SUFFIX

STOPPED = 130
"""Exit code of what Ctrl-C ended, as shells have it."""
RUN = "run folder, or a folder of runs (the newest is taken)"


def evaluate(arguments: list[str]) -> int:
    """Score a run's newest weights."""
    parser = _played("eval", "Play whole episodes with a run's newest weights and score them by raw reward.", 10)
    parser.add_argument("--render", action="store_true", help="show the games in a window")
    parser.add_argument("--out", type=Path, help="file to write the evaluation to as well, as JSON")
    parser.add_argument(
        "--sets", action="store_true", help="play each set of environments of the run's [final] instead"
    )
    parser.add_argument(
        "--trace-actions",
        action="store_true",
        help="leave every action, reward and score in RUN/traces, for 'offbeat verify score'",
    )
    parser.add_argument(
        "--trace-out", type=Path, metavar="FILE", help="leave them here instead: a file (.trace) or a folder"
    )
    parser.set_defaults(episodes=None)
    parser.epilog = (
        "--eval-env.OPTION VALUE lays an option over those of the run's evaluation environments: --eval-env.life-loss "
        "end_episode scores one life each, where the run's own evaluations play whole games. --delay.OPTION VALUE does "
        "the same for the simulated delay: --delay.inference-frames 0. With --sets, --final.OPTION and "
        "--final-env.OPTION say which sets: --sets --final.values 1000,1200,1400 --final.vary start_level."
    )
    sections = ("eval_env.", "delay.", "final.", "final_env.")
    arguments, over = split_options(arguments, lambda name: name.startswith(sections))
    laid_over = dict(over)
    options = parser.parse_args(arguments)
    run = find_run(options.run)
    if options.episodes is not None:
        _at_least_one("--episodes", options.episodes)
    if options.render:
        if laid_over or options.out or options.sets or options.trace_actions or options.trace_out:
            raise UserError(
                "--render goes with neither --eval-env options nor --out, --sets or --trace-actions; leave it out"
            )
        options.episodes = options.episodes or 10
        return _watch(options)
    if options.sets and options.trace_out and options.trace_out.suffix == SUFFIX:
        raise UserError(f"--trace-out {options.trace_out} is one file, and each set has a trace; name a folder")
    options.trace = options.trace_out or (run / TRACES if options.trace_actions else None)
    if options.trace:
        _check_trace(options.trace)
    if options.out:
        draft_of(options.out).unlink()  # says before anything is played where it cannot be written
    if options.sets:
        from offbeat.commands.sets import evaluate_sets

        return evaluate_sets(options, run, laid_over, _note)
    _only_with_sets(laid_over)
    return _evaluate(options, run, laid_over)


def _check_trace(where: Path) -> None:
    """Say before anything is played where no trace can be written."""
    try:
        draft_of(where if where.suffix == SUFFIX else where / f"some{SUFFIX}").unlink()
    except UserError as error:
        raise UserError(f"no action trace can be written to {where}; name another place with --trace-out") from error


def _only_with_sets(laid_over: dict[str, Any]) -> None:
    given = [name for name in laid_over if name.startswith(("final.", "final_env."))]
    if given:
        raise UserError(f"--{given[0]} goes with --sets only: it says on which sets of environments to score")


def _evaluate(options: argparse.Namespace, run: Path, laid_over: dict[str, Any]) -> int:
    """Score it in its evaluation environments. ``options.trace``: where the trace goes; None: there is none."""
    options.episodes = options.episodes or 10
    from offbeat.commands.watched import watched
    from offbeat.run.load import run_config
    from offbeat.scoring.evaluate import evaluate_run

    episodes = options.episodes * len(run_config(run).eval_env.games)
    with watched(episodes) as watch:
        played: dict[str, Any] = {"say": _note, "options": laid_over.items(), "stop": watch.stop}
        played |= {"on_progress": watch.see, "checkpoint": options.checkpoint, "trace": options.trace}
        played |= own_of(options)
        result = evaluate_run(run, options.episodes, options.policy, options.seed, **played)
    if not result.complete:
        _note(f"stopped after {len(result.returns)} of {episodes} episodes; those that end first are short ones")
    if options.out:
        with written(options.out) as draft:
            draft.write_text(json.dumps(result.record() | {"eval_env": laid_over}) + "\n")
    if len(result.returns) or result.complete:
        print(result.summary())
    return 0 if result.complete else STOPPED


def watch(arguments: list[str]) -> int:
    """Watch the agent: ``offbeat play RUN``."""
    options = _played("play", "Watch a run's newest weights play, in a window.", 1).parse_args(arguments)
    _at_least_one("--episodes", options.episodes)
    return _watch(options)


def record(arguments: list[str]) -> int:
    """Film the agent."""
    parser = _played("record", "Film episodes played with a run's newest weights.", 1)
    parser.add_argument("--format", choices=("mp4", "gif"), default="mp4", help="default: mp4")
    parser.add_argument("--out", type=Path, help="file to write; default: one in RUN/videos")
    parser.add_argument("--max-seconds", type=float, default=120.0, help="longest film, in seconds; default: 120")
    options = parser.parse_args(arguments)
    _at_least_one("--episodes", options.episodes)
    if not options.max_seconds > 0:
        raise UserError(f"--max-seconds={options.max_seconds:g} is out of range; it must be greater than 0")
    from offbeat.report.record import record_run

    run, kind = find_run(options.run), options.format
    told = {"say": _note, "max_seconds": options.max_seconds, "checkpoint": options.checkpoint, **own_of(options)}
    print(record_run(run, options.out, kind, options.episodes, options.policy, options.seed, **told))
    return 0


def plot(arguments: list[str]) -> int:
    """Draw curves."""
    parser = Parser("plot", "Draw the curves of runs as one PNG.")
    parser.add_argument("runs", nargs="+", help=RUN)
    parser.add_argument("--out", type=Path, help="file to write; default: report/curves.png in the first run")
    parser.add_argument("--x", default="frames", help="what runs to the right: frames, agent_steps, seconds or updates")
    parser.add_argument("--smooth", type=int, default=0, help="episodes in the running mean; default: a fiftieth")
    options = parser.parse_args(arguments)
    from offbeat.report.plot import plot_runs

    runs = runs_among(options.runs, newest=True, say=_note)

    print(plot_runs(runs, options.out, options.x, options.smooth))
    return 0


def compare(arguments: list[str]) -> int:
    """Print runs and their scores."""
    parser = Parser("compare", "Print runs, their scores, and what the runs of one setting add up to.")
    parser.add_argument("runs", nargs="+", help="run folders, or folders of runs, which stand for all runs in them")
    parser.add_argument(
        "--score", choices=("final", "best"), default="final", help="which evaluation counts; default: final"
    )
    options = parser.parse_args(arguments)
    from offbeat.scoring.compare import report

    print(report(options.runs, options.score, _note))
    return 0


def trace(arguments: list[str]) -> int:
    """Show what every role did when."""
    parser = Parser("trace", "Write and draw the time line of a run that recorded one (--trace.seconds).")
    parser.add_argument("run", help=RUN)
    told = "JSON file for trace viewers, and beside it the picture; default: RUN/trace/trace.json, RUN/report/trace.png"
    parser.add_argument("--out", type=Path, help=told)
    options = parser.parse_args(arguments)
    from rich.console import Console

    from offbeat.report.trace import table, trace_run

    traced = trace_run(find_run(options.run), options.out)
    Console(highlight=False).print(table(traced.lanes))
    print(f"\n{traced.json}  (open it in https://ui.perfetto.dev or chrome://tracing)\n{traced.picture}")
    return 0


def export(arguments: list[str]) -> int:
    """Write the network to a file."""
    parser = Parser("export", "Write a run's newest network to a file that runs without offbeat, and check it.")
    parser.add_argument("run", help=RUN)
    parser.add_argument("--out", type=Path, help="file to write; default: RUN/policy.pt2 or RUN/policy.onnx")
    parser.add_argument(
        "--format",
        choices=("pt2", "onnx"),
        help="torch.export or ONNX; default: onnx where --out ends in .onnx, else pt2",
    )
    parser.add_argument(
        "--check",
        type=int,
        default=100,
        metavar="N",
        help="observations of its environment on which it must do what the agent does; 0: none; default: 100",
    )
    _add_checkpoint(parser)
    add_env(parser)
    options = parser.parse_args(arguments)
    from offbeat.run.export import export_run

    written = export_run(
        find_run(options.run),
        options.out,
        format=options.format,
        check=options.check,
        checkpoint=options.checkpoint,
        say=lambda text: print(f"offbeat: {text}", file=sys.stderr),
        **own_of(options),
    )
    print(written)
    return 0


def _played(command: str, summary: str, episodes: int) -> Parser:
    """The options of commands that play episodes."""
    parser = Parser(command, summary)
    parser.add_argument("run", help=RUN)
    parser.add_argument("--episodes", type=int, default=episodes, help=f"whole episodes; default: {episodes}")
    parser.add_argument(
        "--policy",
        choices=("greedy", "sampled"),
        help="best action, or drawn ones where the agent has any to draw; default: as the run's evaluation",
    )
    parser.add_argument("--seed", type=int, default=0, help="of environments and drawn actions; default: 0")
    _add_checkpoint(parser)
    add_env(parser)
    return parser


def _add_checkpoint(parser: Parser) -> None:
    told = "other weights than the newest: best (of all validations), extra, or a checkpoint's agent steps"
    parser.add_argument("--checkpoint", metavar="WHICH", help=told)


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UserError(f"{name}={value} is out of range; it must be at least 1")


def _watch(options: argparse.Namespace) -> int:
    """Play in a window."""
    from offbeat.report.watch import play_run

    told = {"say": _note, "env_named": options.env, "checkpoint": options.checkpoint, **own_of(options)}
    print(play_run(find_run(options.run), options.episodes, options.policy, options.seed, **told).summary())
    return 0


def _note(line: str) -> None:
    """Something to know about what was asked for."""
    print(f"offbeat: {line}", file=sys.stderr)
