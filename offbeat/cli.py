"""The command line ``offbeat``. What a user can mend is one line on stderr and exit code 2; all else is a traceback."""

from __future__ import annotations

import importlib
import sys
import traceback
from contextlib import nullcontext, suppress

from offbeat.errors import HelpShown, UserError, unknown
from offbeat.runtime.terminal import drop_output, guarded, open_closed_descriptors, output_broken

COMMANDS = {
    "train": ("training:train", "PRESET [--option value ...]", "train an agent"),
    "resume": ("training:resume", "RUN [--total-frames N]", "go on with a run, or extend a finished one"),
    "eval": ("scores:evaluate", "RUN", "play whole episodes with a run's newest weights and score them"),
    "play": ("playing:play", "RUN | ENV", "watch the agent in a window; play by hand, and record demonstrations"),
    "record": ("scores:record", "RUN", "film the agent: mp4 or gif"),
    "plot": ("scores:plot", "RUN...", "draw curves of runs as PNG"),
    "compare": ("scores:compare", "RUN...", "a table of runs and their scores"),
    "report": ("page:report", "RUN...", "one HTML file that shows runs: curves, film, options, speed, faults"),
    "trace": ("scores:trace", "RUN", "the recorded time line of a run's roles, for Perfetto and as PNG"),
    "realtime": (
        "realtime:realtime",
        "probe PRESET | scaling | report RUN",
        "what a run that waits for nobody needs of this machine, and what came of it",
    ),
    "gameboy": (
        "gameboy:gameboy",
        "state GAME NAME | play GAME | rom FILE",
        "starts of Game Boy tasks made by playing; free cartridges",
    ),
    "export": ("scores:export", "RUN", "write the network to a file that needs no offbeat"),
    "serve": ("serve:serve", "RUN", "the policy for other processes: observations in, actions out"),
    "presets": ("lists:presets", "", "list the presets"),
    "agents": ("lists:agents", "", "list the agents, those of installed packages too"),
    "envs": ("lists:envs", "[TEXT] | check NAME", "list the environments, or try one out"),
    "graph": ("lists:graph", "PRESET", "print the roles of a run and what connects them"),
    "doctor": ("lists:doctor", "", "say what this machine has and what 'auto' chooses on it"),
    "bench": (
        "checks:bench",
        "WHAT",
        "measure this machine: throughput, actor, streams, replay, soak, peers, realtime, rtrl, gpu",
    ),
    "campaign": ("training:campaign", "FILE", "work off a table or grid of runs; resumable"),
    "diagnose": (
        "diagnose:diagnose",
        "RUN | copy | rtrl [PRESET]",
        "why does a run not learn; does a recurrent core, by exact gradients",
    ),
    "reproduce": ("reproduce:reproduce", "[NAME]", "play a published row again on fresh seeds: does it agree?"),
    "chaos": ("chaos:chaos", "PRESET", "break a real run in every way: is what docs/faults.md promises kept?"),
    "verify": (
        "verify:verify",
        "resume PRESET | score RUN|TRACE...",
        "kill, resume and compare bit for bit; play the games of scores again",
    ),
}
"""Command -> (module:function in ``offbeat.commands``, arguments, summary)."""

GUARDED = ("train", "resume", "campaign", "reproduce")
"""Commands that go on without a terminal. The others have nothing but what they print."""


def main(arguments: list[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for errors that the user can mend, 1 for all others."""
    arguments = sys.argv[1:] if arguments is None else arguments
    open_closed_descriptors()
    try:
        trains = arguments[:1] and arguments[0] in GUARDED and not {"-h", "--help"} & set(arguments)
        with guarded() if trains else nullcontext():
            return attempt(arguments)
    except KeyboardInterrupt:
        return 130


def attempt(arguments: list[str]) -> int:
    """Run one command; its exit code, with the error printed if there was one."""
    code = 0
    try:
        with suppress(HelpShown):
            code = run(arguments)
        if sys.stdout is not None:
            sys.stdout.flush()  # here, where it can be told, and not while Python ends
        return code
    except KeyboardInterrupt:
        return 130
    except Exception as error:
        if isinstance(error, OSError) and output_broken():
            drop_output()
            if isinstance(error, BrokenPipeError):  # the reader of our output, e.g. ``head``, has seen enough
                return 0
            print(f"offbeat: error: standard output cannot be written: {error.strerror}", file=sys.stderr)
            return 2
        if not is_user_error(error):
            traceback.print_exc()
            return 1
        print("offbeat: error: " + " ".join(str(error).split()), file=sys.stderr)
        return 2
    except BaseException:  # SystemExit too: an environment's or an agent's, as our own commands return their code
        traceback.print_exc()
        return 1


def run(arguments: list[str]) -> int:
    """Find the command and call it."""
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(usage())
        return 0
    if arguments[0] == "--version":
        from importlib.metadata import version

        print(f"offbeat {version('offbeat')}")
        return 0
    name, *rest = arguments
    if name not in COMMANDS:
        raise unknown("command", name, COMMANDS)
    module, _, function = COMMANDS[name][0].partition(":")
    return int(getattr(importlib.import_module(f"offbeat.commands.{module}"), function)(rest))


def usage() -> str:
    """What ``offbeat --help`` prints."""
    lines = ["usage: offbeat COMMAND ...", ""]
    lines += [f"  {f'{name} {args}':<36} {summary}" for name, (_, args, summary) in COMMANDS.items()]
    lines += ["", "'offbeat COMMAND --help' shows more; 'offbeat train --help' lists every option of a run."]
    lines += ["RUN is a run folder, or a folder of runs, of which the newest is taken."]
    return "\n".join(lines)


def is_user_error(error: Exception) -> bool:
    """Whether it is for the user to mend. Modules that were never imported cannot have raised theirs."""
    kinds: list[type] = [UserError]
    for module, name in (
        ("offbeat.envs.base", "EnvUnavailable"),
        ("offbeat.envs.base", "Misbehaved"),
        ("offbeat.envs.base", "StateUnsupported"),
        ("offbeat.storage.checkpoint", "CheckpointError"),
    ):
        if module in sys.modules:
            kinds.append(getattr(sys.modules[module], name))
    return isinstance(error, tuple(kinds))


if __name__ == "__main__":
    sys.exit(main())
