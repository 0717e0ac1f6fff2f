"""``offbeat train``, ``offbeat resume`` and ``offbeat campaign``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from offbeat.commands.arguments import Parser, add_env, env_factory, one_preset, own_of, run_options, scan
from offbeat.run.folders import find_run, find_weights

TRAIN = """usage: offbeat train PRESET [--env ID] [--total-frames N] [--out DIR] [--from RUN] [--option value ...]

Train the agent that a preset describes ('offbeat presets' lists them; a .toml file works too).
Options lay themselves over the preset; --option value and --option=value are the same, and so are - and _.

  --env ID
      Short for --env.id; 'offbeat envs' lists what there is. --env module:function trains on an environment of your
      own, which that class or function makes; --env module:Id-v0 on one that the module registers with Gymnasium.
  --agent NAME
      Short for --agent.name: {agents}.
  --from RUN
      Start from the newest weights of another run, in a folder of its own; or from those of one of its checkpoints,
      such as RUN/checkpoints/best.
  --with-optimiser
      With --from RUN: go on with the statistics of its optimiser too. Counters, schedules and replay begin anew.
  --stem RUN
      Short for --learner.stem: take the torso's weights from another run, one of its checkpoints, or a .safetensors
      file; docs/stem.md.
"""


def train(arguments: list[str]) -> int:
    """Train a preset with options laid over it."""
    if "--help" in arguments or "-h" in arguments:
        return _help()
    scanned = scan(arguments, own=("from",), switches=("with_optimiser",))
    preset = one_preset(scanned, "train")
    source = find_weights(scanned.own["from"]) if "from" in scanned.own else None
    statistics = scanned.switch("with_optimiser")
    named, label = scanned.value("env"), scanned.value("env.id")
    factory = env_factory(named)
    if factory is not None:
        if label is not None:
            from offbeat.run.own import check_label

            check_label(label, f"--env.id {label}", f"--env {named}")
        scanned.options.append(("env", label or str(getattr(factory, "__name__", "own"))))
    from offbeat.report.plot import plot_run
    from offbeat.run.train import train as start

    config, given = scanned.config(preset), [name for name, _ in scanned.options]
    begin: dict[str, Any] = {"init_from": source, "init_optimiser": statistics}
    start(config, given=given, env_factory=factory, draw=plot_run, env_named=named, **begin)
    return 0


def _help() -> int:
    """Print every option. What installed packages fail to bring in costs a line each."""
    from offbeat.config.known import agent_names, help_text, installed

    print(TRAIN.format(agents=", ".join(agent_names())) + help_text())
    for line in installed().broken:
        print(f"offbeat: warning: {line}", file=sys.stderr)
    return 0


def resume(arguments: list[str]) -> int:
    """Go on with a run."""
    parser = Parser("resume", "Go on with a run from its newest checkpoint, or extend a finished one.")
    parser.add_argument("run", help="run folder, or a folder of runs (the newest is taken)")
    parser.add_argument("--total-frames", type=int, help="new length of the run, in environment frames")
    parser.add_argument("--device", help="where its networks compute from now on: cpu, cuda, cuda:1, auto")
    parser.epilog = (
        "--SECTION.KEY VALUE sets what may be another when a run goes on: evaluation.*, log.*, checkpoint.*, trace.*, "
        "threads, learner.learning_rate, learner.precision and the like; others are refused with the reason."
    )
    add_env(parser)
    others, changes = run_options(arguments, own=("total_frames", "device"))
    options = parser.parse_args(others)
    run, own = find_run(options.run), own_of(options) | {"env_named": options.env}
    from offbeat.report.plot import plot_run
    from offbeat.run.train import resume as go_on

    go_on(run, options.total_frames, device=options.device, changes=changes, draw=plot_run, **own)
    return 0


def campaign(arguments: list[str]) -> int:
    """Work off a table of runs."""
    parser = Parser("campaign", "Work off a table of runs; finished ones are left alone, begun ones resumed.")
    parser.add_argument("file", help="TOML file with [[runs]] or [[grid]]; docs/campaigns.md describes it")
    parser.add_argument("--at-once", type=int, metavar="N", help="runs at a time; default: as many as the cores allow")
    parser.add_argument("--env", metavar="ENV", help="environment of all runs: an id, or module:function of your own")
    parser.add_argument("--dry-run", action="store_true", help="list the runs and how far they are; run nothing")
    parser.add_argument("--report", action="store_true", help="rank and draw what is finished; run nothing")
    options = parser.parse_args(arguments)
    from offbeat.run.campaign_file import Env, check_at_once, read_campaign

    check_at_once("--at-once", options.at_once)
    path, env = Path(options.file), None
    if options.env is not None:
        env = Env(options.env, env_factory(options.env))
    from offbeat.run.campaign import list_runs, run_campaign

    if options.dry_run:
        print(list_runs(read_campaign(path, env), options.at_once))
        return 0
    from offbeat.report.campaign import write_report

    if options.report:
        write_report(read_campaign(path, env))
        return 0
    return 1 if run_campaign(path, write_report, at_once=options.at_once, env=env) else 0
